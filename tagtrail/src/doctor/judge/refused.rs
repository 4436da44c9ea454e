//! Judges the requests that the gateway refused, by its metrics.

use std::collections::BTreeMap;

use crate::doctor::report::Finding;

const CHECK: &str = "refused";
const METRIC: &str = "tagtrail_gateway_requests_total";

/// The numbers of refused requests since the start of the gateway, or the reason why they are
/// unknown.
pub(in crate::doctor) struct Refused(Result<BTreeMap<(String, u16), u64>, String>);

impl Refused {
    /// Reads the text of an admin page.
    pub(in crate::doctor) fn new(metrics: Result<String, String>) -> Refused {
        Refused(metrics.and_then(|text| {
            let counts: BTreeMap<_, _> = text.lines().filter_map(count).collect();
            match counts.is_empty() {
                true => Err("the admin page is not that of a gateway".to_owned()),
                false => Ok(counts),
            }
        }))
    }

    fn sum(&self, source: &str, statuses: &[u16]) -> u64 {
        let Ok(counts) = &self.0 else { return 0 };
        let of_status = |status: &u16| counts.get(&(source.to_owned(), *status)).copied();
        statuses.iter().filter_map(of_status).sum()
    }

    /// Judges the requests to a source.
    pub(in crate::doctor) fn of_source(&self, source: &str) -> Vec<Finding> {
        let identity = self.sum(source, &[401, 429]);
        let form = self.sum(source, &[400, 408, 413, 415]);
        let mut findings = Vec::new();
        if identity > 0 {
            findings.push(Finding::warning(
                CHECK,
                format!(
                    "{} since the gateway started, because the secret was missing or wrong (401)",
                    requests(identity)
                ),
                format!("set the secret of source {source} in the settings of its registry, as --setup prints them; the gateway's log has the addresses of the senders"),
            ));
        }
        if form > 0 {
            findings.push(Finding::warning(
                CHECK,
                format!(
                    "{} since the gateway started, because of their headers or the size or speed of their body",
                    requests(form)
                ),
                "read the reasons in the gateway's log",
            ));
        }
        findings
    }

    /// Judges the requests to no source.
    pub(in crate::doctor) fn elsewhere(&self) -> Vec<Finding> {
        let nowhere = self.sum("", &[404]);
        vec![match &self.0 {
            Err(why) => Finding::warning(
                CHECK,
                format!("the number of refused requests is unknown: {why}"),
                "name the gateway's admin page with --admin or TAGTRAIL_ADMIN",
            ),
            Ok(_) if nowhere > 0 => Finding::warning(
                CHECK,
                format!(
                    "{} since the gateway started, because no source has the path (404)",
                    requests(nowhere)
                ),
                "correct the URL in the settings of the registry, as --setup prints it; the gateway's log has the paths",
            ),
            Ok(_) => Finding::ok(CHECK, "no request to a path of no source"),
        }]
    }
}

fn requests(count: u64) -> String {
    match count {
        1 => "1 request was refused".to_owned(),
        count => format!("{count} requests were refused"),
    }
}

/// Reads a line such as `tagtrail_gateway_requests_total{source="main",status="401"} 3`. Names of
/// sources have no character that is escaped.
fn count(line: &str) -> Option<((String, u16), u64)> {
    let (labels, value) = line
        .strip_prefix(METRIC)?
        .strip_prefix('{')?
        .split_once('}')?;
    let label = |name: &str| {
        let mut labels = labels.split(',').filter_map(|label| label.split_once('='));
        let (_, value) = labels.find(|(found, _)| *found == name)?;
        Some(value.trim_matches('"'))
    };
    let (source, status) = (label("source")?, label("status")?.parse().ok()?);
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(((source.to_owned(), status), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Level;

    const TEXT: &str = r#"# TYPE tagtrail_gateway_requests counter
tagtrail_gateway_requests_total{source="main",status="202"} 7
tagtrail_gateway_requests_total{source="main",status="401"} 11
tagtrail_gateway_requests_total{status="429",source="main"} 1
tagtrail_gateway_requests_total{source="hub",status="413"} 1
tagtrail_gateway_requests_total{source="quiet",status="401"} 0
tagtrail_gateway_requests_total{source="",status="404"} 2
tagtrail_gateway_events_total{source="quiet",outcome="accepted"} 9
"#;

    /// The texts of findings, which are all warnings.
    fn found(findings: &[Finding]) -> Vec<&str> {
        assert!(
            findings
                .iter()
                .all(|finding| finding.level == Level::Warning)
        );
        findings
            .iter()
            .map(|finding| finding.found.as_str())
            .collect()
    }

    #[test]
    fn refused_requests_are_counted_by_source_and_reason() {
        let refused = Refused::new(Ok(TEXT.to_owned()));
        assert_eq!(
            found(&refused.of_source("main")),
            [
                "12 requests were refused since the gateway started, because the secret was missing or wrong (401)"
            ]
        );
        let hub = refused.of_source("hub");
        assert_eq!(hub.len(), 1);
        assert!(hub[0].found.starts_with("1 request was refused"), "{hub:?}");
        assert_eq!(refused.of_source("quiet"), []);
        assert_eq!(
            found(&refused.elsewhere()),
            [
                "2 requests were refused since the gateway started, because no source has the path (404)"
            ]
        );
    }

    #[test]
    fn an_admin_page_that_is_missing_or_of_another_service_is_a_warning() {
        for (page, why) in [
            (Err("no answer".to_owned()), "unknown: no answer"),
            (Ok("tagtrail_api_x 1\n".to_owned()), "not that of a gateway"),
        ] {
            let refused = Refused::new(page);
            assert_eq!(refused.of_source("main"), []);
            let findings = refused.elsewhere();
            assert_eq!(findings[0].level, Level::Warning);
            assert!(findings[0].found.contains(why), "{findings:?}");
        }
    }
}
