//! What the doctor found, and how it is told.

use std::fmt;
use std::net::IpAddr;

use serde_json::{Value, json};
use tagtrail_gateway::Setup;

use crate::client::print::table;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// All is well.
    Ok,
    /// Worth a look.
    Warning,
    /// It does not work so.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        })
    }
}

/// What one check found.
#[derive(Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) found: String,
    /// What to do about it.
    pub(super) cure: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl fmt::Display) -> Finding {
        Finding {
            check,
            level: Level::Ok,
            found: found.to_string(),
            cure: None,
        }
    }

    pub(super) fn warning(
        check: &'static str,
        found: impl fmt::Display,
        cure: impl fmt::Display,
    ) -> Finding {
        Finding {
            level: Level::Warning,
            cure: Some(cure.to_string()),
            ..Finding::ok(check, found)
        }
    }

    pub(super) fn error(
        check: &'static str,
        found: impl fmt::Display,
        cure: impl fmt::Display,
    ) -> Finding {
        Finding {
            level: Level::Error,
            ..Finding::warning(check, found, cure)
        }
    }
}

/// Something that was checked.
#[derive(Debug)]
pub(super) struct Part {
    /// `file`, `source`, `registry` or `api`.
    what: &'static str,
    name: String,
    findings: Vec<Finding>,
}

impl Part {
    pub(super) fn new(what: &'static str, name: String, findings: Vec<Finding>) -> Part {
        Part {
            what,
            name,
            findings,
        }
    }

    fn title(&self) -> String {
        format!("{} {}", self.what, self.name).trim_end().to_owned()
    }
}

/// What to set in the registry of a source.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) source: String,
    pub(super) setup: Setup,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Report {
    /// Whether only this machine reaches the gateway at the address that was given.
    local: bool,
    /// Whether the settings of all sources are there.
    complete: bool,
    pub(super) parts: Vec<Part>,
    pub(super) settings: Vec<Settings>,
}

impl Report {
    pub(super) fn new(gateway: Option<&str>, complete: bool) -> Report {
        let host = gateway.unwrap_or_default().trim_matches(['[', ']']);
        let address: Option<IpAddr> = host.parse().ok();
        Report {
            local: host == "localhost" || address.is_some_and(|address| address.is_loopback()),
            complete,
            parts: Vec::new(),
            settings: Vec::new(),
        }
    }

    fn findings(&self) -> impl Iterator<Item = (&Part, &Finding)> {
        self.parts
            .iter()
            .flat_map(|part| part.findings.iter().map(move |finding| (part, finding)))
    }

    /// How many checks were made.
    pub(super) fn checks(&self) -> usize {
        self.findings().count()
    }

    /// How many of them found something wrong.
    pub(super) fn wrong(&self) -> usize {
        let wrong = |(_, finding): &(&Part, &Finding)| finding.level == Level::Error;
        self.findings().filter(wrong).count()
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let rows = self.findings().map(|(part, finding)| {
            [
                part.title(),
                finding.check.to_owned(),
                finding.level.to_string(),
                finding.found.clone(),
            ]
        });
        let mut text = table(["OF", "CHECK", "RESULT", "FOUND"], rows);
        // One line for all that have the same cure.
        let mut cures: Vec<(String, &str)> = Vec::new();
        for (part, finding) in self.findings() {
            let Some(cure) = finding.cure.as_deref() else {
                continue;
            };
            let title = format!("{}, {}", part.title(), finding.check);
            match cures.iter_mut().find(|(_, known)| *known == cure) {
                Some((titles, _)) => *titles += &format!("; {title}"),
                None => cures.push((title, cure)),
            }
        }
        if !cures.is_empty() {
            text += "\n\nTo do:";
        }
        for (titles, cure) in cures {
            text += &format!("\n  {titles}: {cure}");
        }
        for Settings { source, setup } in &self.settings {
            text += &format!(
                "\n\nWhat to set in the registry of source {source} (kind {}):\n",
                setup.kind
            );
            for line in setup.text.lines() {
                text += "\n";
                if !line.is_empty() {
                    text += &format!("    {line}");
                }
            }
        }
        if !self.settings.is_empty() {
            text += "\n\nWhere a secret is kept stands in its place ($NAME: an environment variable): put the secret itself there.";
            if self.local {
                text += "\nOnly this machine reaches the gateway at that address: for registries elsewhere give theirs with --gateway.";
            }
        } else if !self.complete {
            text += "\n\n--setup prints what to set in each registry.";
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let checks = self.findings().map(|(part, finding)| {
            json!({
                "of": part.what,
                "name": part.name,
                "check": finding.check,
                "result": finding.level.to_string(),
                "found": finding.found,
                "cure": finding.cure,
            })
        });
        let settings = self.settings.iter().map(|Settings { source, setup }| {
            json!({
                "source": source,
                "kind": setup.kind,
                "url": setup.url,
                "text": setup.text,
            })
        });
        json!({
            "well": self.wrong() == 0,
            "checks": checks.collect::<Vec<_>>(),
            "settings": settings.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(gateway: &str) -> Report {
        let mut report = Report::new(Some(gateway), false);
        let findings = vec![
            Finding::ok("gateway", "it takes $S"),
            Finding::warning("events", "none came", "push"),
        ];
        report
            .parts
            .push(Part::new("source", "main".to_owned(), findings));
        let findings = vec![
            Finding::error("answer", "nobody", "start it"),
            Finding::warning("clock", "late", "push"),
        ];
        report
            .parts
            .push(Part::new("registry", "r:5000".to_owned(), findings));
        report.parts.push(Part::new(
            "api",
            String::new(),
            vec![Finding::ok("events", "it tells")],
        ));
        report
    }

    #[test]
    fn people_read_a_line_a_check_and_then_what_to_do() {
        assert_eq!(
            report("t.example.com").text(),
            "\
OF               CHECK    RESULT   FOUND
source main      gateway  ok       it takes $S
source main      events   warning  none came
registry r:5000  answer   error    nobody
registry r:5000  clock    warning  late
api              events   ok       it tells

To do:
  source main, events; registry r:5000, clock: push
  registry r:5000, answer: start it

--setup prints what to set in each registry."
        );
    }

    #[test]
    fn settings_follow_with_what_to_put_in_the_place_of_secrets() {
        let with_settings = |gateway| {
            let mut report = report(gateway);
            report.settings.push(Settings {
                source: "main".to_owned(),
                setup: Setup {
                    kind: "distribution",
                    url: "http://t/hooks/main".to_owned(),
                    registry: None,
                    has_digest: true,
                    text: "first:\n\n  second".to_owned(),
                },
            });
            report
        };
        let text = with_settings("t.example.com").text();
        let settings = "What to set in the registry of source main (kind distribution):\n\n    first:\n\n      second\n\n";
        assert!(text.contains(settings), "{text}");
        assert!(text.ends_with("put the secret itself there."), "{text}");
        for local in ["127.0.0.1", "localhost", "[::1]"] {
            assert!(with_settings(local).text().ends_with("with --gateway."));
        }
        let json = with_settings("t").json();
        assert_eq!(json["settings"][0]["url"], "http://t/hooks/main");
    }

    #[test]
    fn programs_read_the_same() {
        let report = report("t");
        assert_eq!((report.checks(), report.wrong()), (5, 1));
        let json = report.json();
        assert_eq!(json["well"], false);
        assert_eq!(
            json["checks"][2],
            json!({ "of": "registry", "name": "r:5000", "check": "answer", "result": "error", "found": "nobody", "cure": "start it" })
        );
        assert_eq!(json["checks"][0]["cure"], Value::Null);
        assert_eq!(json["checks"][1]["result"], "warning");
    }
}
