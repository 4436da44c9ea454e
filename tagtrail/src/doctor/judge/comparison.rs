//! Judges whether a registry can be compared with history.

use serde_json::Value;
use tagtrail_config::RegistryAccess;
use tagtrail_proto::{Repository, instant};
use tagtrail_resolver::CheckError;
use time::OffsetDateTime;

use super::rough;
use crate::doctor::report::Finding;

/// Judges the answer to a request for the tags of a repository.
pub(super) fn tags(repository: &Repository, answer: &Result<(), CheckError>) -> Finding {
    match answer {
        Ok(()) => Finding::ok("tags", format!("it lists the tags of {repository}")),
        Err(why) => Finding::error(
            "tags",
            format!("the tags of {repository} can't be listed: {why}"),
            "let username list the tags of the repository: without the list no comparison finds a lost push or delete",
        ),
    }
}

/// Judges the last comparison of a registry, by the coverage report. `None`: the registry is never
/// compared, by its setting.
pub(in crate::doctor) fn comparison(
    access: &RegistryAccess,
    report: &Value,
    now: OffsetDateTime,
) -> Option<Finding> {
    const CHECK: &str = "comparison";
    const CURE: &str = "correct the cause; tagtrail coverage lists the repositories";
    if access.reconcile.is_zero() {
        return None;
    }
    let name = access.name.get_ref().as_ref();
    let of_registry = |list: &str| -> Vec<&Value> {
        let items = report.get(list).and_then(Value::as_array);
        let items = items.into_iter().flatten();
        items
            .filter(|item| item.get("registry").and_then(Value::as_str) == Some(name))
            .collect()
    };
    let time = |item: &Value, key: &str| instant::parse(item.get(key)?.as_str()?);
    let items = of_registry("items");
    let last = items
        .iter()
        .filter_map(|item| time(item, "last_reconciled_at"))
        .max();
    let failed = of_registry("not_compared");
    let Some(newest) = failed.first() else {
        return Some(match last {
            Some(last) => Finding::ok(CHECK, format!("last done {} ago", rough(now - last))),
            None => Finding::ok(CHECK, "no repository was compared yet"),
        });
    };
    let text = |key: &str| newest.get(key).and_then(Value::as_str).unwrap_or("?");
    let found = format!(
        "{} not compared with history, so lost pushes and deletes stay unknown there: {}: {}",
        match failed.len() {
            1 => "1 repository is".to_owned(),
            count => format!("{count} repositories are"),
        },
        text("repository"),
        text("reason")
    );
    // If a comparison succeeded since the first of the failures, only some repositories fail.
    let first = failed
        .iter()
        .filter_map(|item| time(item, "failed_at"))
        .min();
    Some(match last > first {
        true => Finding::warning(CHECK, found, CURE),
        false => Finding::error(CHECK, found, CURE),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;
    use tagtrail_config::File;

    use super::super::super::report::Level;
    use super::*;

    fn judge(settings: &str, report: &Value) -> Option<(Level, String)> {
        let text = format!("[[registry]]\nname = 'r.example.com'\nurl = 'https://r'\n{settings}");
        let file = File::parse(&text, Path::new("tagtrail.toml")).unwrap();
        let now = instant::parse("2026-11-03T00:10:00Z").unwrap();
        let finding = comparison(&file.registry[0], report, now)?;
        Some((finding.level, finding.found))
    }

    #[test]
    fn a_registry_whose_every_comparison_fails_is_an_error_and_one_repository_a_warning() {
        let item = |registry: &str, last: Option<&str>| json!({ "registry": registry, "last_reconciled_at": last });
        let failed = |repository: &str, at: &str| json!({ "registry": "r.example.com", "repository": repository, "failed_at": at, "reason": "406 Not Acceptable" });
        let (before, after) = ("2026-11-03T00:00:00Z", "2026-11-03T00:05:00Z");
        let other = item("other.example.com", Some(after));
        let report = |last, failed: &[Value]| {
            let items = [other.clone(), item("r.example.com", last)];
            judge("", &json!({ "items": items, "not_compared": failed })).unwrap()
        };
        let done = report(Some(before), &[]);
        assert_eq!(done, (Level::Ok, "last done 10 min ago".to_owned()));
        assert_eq!(report(None, &[]).0, Level::Ok);
        let all = [failed("b", after), failed("a", "2026-11-03T00:04:00Z")];
        let (level, found) = report(Some(before), &all);
        assert_eq!(level, Level::Error);
        assert_eq!(
            found,
            "2 repositories are not compared with history, so lost pushes and deletes stay unknown there: b: 406 Not Acceptable"
        );
        assert_eq!(report(None, &all[..1]).0, Level::Error);
        let one = [failed("a", "2026-11-03T00:04:00Z")];
        assert_eq!(report(Some(after), &one).0, Level::Warning);
        assert_eq!(judge("reconcile = '0s'", &json!({})), None);
        assert_eq!(judge("", &json!({})).unwrap().0, Level::Ok, "an older API");
    }
}
