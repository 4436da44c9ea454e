//! The settings of the gates of a trigger.

use jiff::tz::TimeZone;
use tagtrail_policy::begin::{Settings, Written};

use crate::chain::follow_mistake;
use crate::file::Mistake;
use crate::{File, Role, Token, Trigger};

/// Longest name of a zone, in bytes.
const LONGEST: usize = 60;

impl Trigger {
    /// Returns the settings of the gates as they are written.
    #[must_use]
    pub fn gates_as_written(&self) -> Written {
        let window = self.window.as_ref();
        let approvals = self.approvals.as_ref();
        Written {
            window: window.map(|window| window.get_ref().clone()),
            gap: self.gap,
            group: self.group.as_ref().map(ToString::to_string),
            approvals: approvals.map(|approvals| approvals.get_ref().clone()),
            follow: self.follow.as_ref().map(|follow| follow.get_ref().clone()),
        }
    }

    /// Checks the settings of the gates.
    pub(crate) fn read_gates(&self) -> Result<Settings, Mistake> {
        let mut gates = Settings {
            gap: self.gap,
            group: self.group.as_ref().map(ToString::to_string),
            ..Settings::default()
        };
        if let Some(window) = &self.window {
            let mistake = |field: &str, message: String| {
                let key = format!("trigger.window.{field}");
                Mistake::new(window.span().start, key, message)
            };
            let window = window.get_ref();
            let zone = zone(window.zone.as_deref()).map_err(|message| mistake("zone", message))?;
            let compiled = window.compile(zone);
            let compiled = compiled.map_err(|refused| mistake(refused.field, refused.cause))?;
            gates.window = Some(compiled);
        }
        if let Some(approvals) = &self.approvals {
            approvals.get_ref().check().map_err(|(field, message)| {
                let key = format!("trigger.approvals.{field}");
                Mistake::new(approvals.span().start, key, message)
            })?;
            gates.approvals = Some(approvals.get_ref().clone());
        }
        if let Some(follow) = &self.follow {
            let compiled = follow.get_ref().compile();
            let compiled =
                compiled.map_err(|(field, message)| follow_mistake(follow, field, message))?;
            gates.follow = Some(compiled);
        }
        Ok(gates)
    }
}

impl File {
    /// Returns a warning about each trigger whose approvals too few tokens may give.
    pub(crate) fn approval_warnings(&self) -> Vec<String> {
        let few = |trigger: &Trigger| {
            let approvals = trigger.gates.approvals.as_ref()?;
            let name = trigger.name.get_ref();
            let may_give = |token: &&Token| {
                let in_scope = token
                    .triggers
                    .as_ref()
                    .is_none_or(|globs| globs.iter().any(|glob| glob.matches(name.as_ref())));
                token.role == Role::Approve
                    && in_scope
                    && approvals.may_give(token.name.get_ref().as_ref())
            };
            let may_give = match self.token.is_empty() {
                // Without tokens every caller is the same person.
                true => usize::from(approvals.may_give("local")),
                false => self.token.iter().filter(may_give).count(),
            };
            let needs = approvals.needs;
            (may_give < usize::from(needs)).then(|| {
                let message = format!(
                    "{needs} approvals are needed, and {may_give} tokens may give one: add a [[token]] with role = \"approve\" whose name matches `by`"
                );
                let at = trigger.approvals.as_ref().map_or(0, |written| written.span().start);
                trigger.error_at(at, "trigger.approvals", message).to_string()
            })
        };
        self.trigger.iter().filter_map(few).collect()
    }
}

/// Loads a zone from the files of the system, or else from those of this program.
fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    let Some(name) = name else {
        return Ok(TimeZone::UTC);
    };
    let known = Some(name).filter(|name| name.len() <= LONGEST);
    known.and_then(|name| TimeZone::get(name).ok()).ok_or_else(|| {
        format!(
            "{:?} is no time zone; write a name of the IANA database, such as \"Europe/Berlin\"",
            tagtrail_proto::clean_text(name, LONGEST)
        )
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::File;

    fn parse(settings: &str) -> Result<File, String> {
        let text = format!(
            "[[trigger]]\nname = \"shop\"\nimages.web = \"registry.example.com/shop/web:latest\"\ntarget.command = {{ run = [\"true\"] }}\n{settings}\n"
        );
        let file = File::parse(&text, Path::new("tagtrail.toml"));
        let file = file.map_err(|error| error.to_string())?;
        match file.broken.first() {
            Some(broken) => Err(broken.problem.to_string()),
            None => Ok(file),
        }
    }

    #[test]
    fn gates_are_read() {
        let file = parse(
            "window = { open = [\"mon-fri 09:00-16:00\"], closed = [\"2026-12-20/2027-01-04\", { cron = \"0 22 * * 5\", for = \"58h\" }], zone = \"Europe/Berlin\" }
             gap = \"15m\"
             group = \"prod-db\"
             approvals = { needs = 2, by = [\"release-*\"], within = \"24h\" }",
        )
        .unwrap();
        let trigger = &file.trigger[0];
        assert!(trigger.gates.window.is_some());
        assert_eq!(trigger.gates.group.as_deref(), Some("prod-db"));
        let approvals = trigger.gates.approvals.as_ref().unwrap();
        assert!(approvals.may_give("release-ann") && !approvals.may_give("ann"));
        assert_eq!(trigger.gates_as_written().gap, trigger.gates.gap);
    }

    #[test]
    fn approvals_that_too_few_tokens_may_give_are_warned_about() {
        let token = |name: &str, more: &str| {
            format!(
                "[[token]]\nname = \"{name}\"\nrole = \"approve\"\nsecret = {{ env = \"T\" }}\n{more}\n"
            )
        };
        let approvals = "approvals = { needs = 2, by = [\"release-*\"] }";
        let warnings = |tokens: &[String]| {
            let file = parse(&format!("{approvals}\n{}", tokens.concat())).unwrap();
            file.warnings()
        };
        let (ann, bob) = (token("release-ann", ""), token("release-bob", ""));
        assert_eq!(warnings(&[ann.clone(), bob]), Vec::<String>::new());
        let elsewhere = token("release-bob", "triggers = [\"blog\"]");
        for (tokens, may_give) in [
            (vec![], 0),
            (vec![ann.clone(), token("cat", "")], 1),
            (vec![ann, elsewhere], 1),
        ] {
            let warned = warnings(&tokens);
            let expected = format!(
                "tagtrail.toml:5: trigger.approvals: 2 approvals are needed, and {may_give} tokens may give one: add"
            );
            assert!(warned[0].starts_with(&expected), "{warned:?}");
        }
    }

    #[test]
    fn wrong_gates_are_refused_with_line_key_and_cure() {
        for (settings, message) in [
            (
                "window = { open = [\"mon-fri 9-16\"] }",
                "tagtrail.toml:5: trigger.window.open: \"mon-fri 9-16\" is no range; write days",
            ),
            (
                "window = { open = [\"sat\"], zone = \"Europe/Berln\" }",
                "tagtrail.toml:5: trigger.window.zone: \"Europe/Berln\" is no time zone; write a name",
            ),
            (
                "window = { open = [7] }",
                "tagtrail.toml:5: trigger[0].window.open[0]: a range is a text such as \"mon-fri 09:00-16:00\"",
            ),
            (
                "gap = 15",
                "tagtrail.toml:5: trigger[0].gap: 15 has no unit; write it with",
            ),
            (
                "approvals = { needs = 0 }",
                "tagtrail.toml:5: trigger.approvals.needs: 0 is not from 1 to 20",
            ),
            (
                "approvals = { by = [\"Release\"] }",
                "tagtrail.toml:5: trigger.approvals.by: \"Release\" is not a pattern over names of tokens; write",
            ),
        ] {
            let error = parse(settings).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
