//! The doctor's report, in two formats.

use std::fmt;
use std::net::IpAddr;

use serde_json::{Value, json};
use tagtrail_gateway::Setup;

use crate::client::screen::Screen;
use crate::client::table::{Column, table, wrap};

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Nothing to do.
    Ok,
    /// Works, but needs attention.
    Warning,
    /// Does not work.
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

/// The result of a check.
#[derive(Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) found: String,
    /// The action to take, for people.
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

/// A part of the configuration, with the findings about it.
#[derive(Debug)]
pub(super) struct Part {
    /// `file`, `source`, `registry`, `trigger`, `gateway` or `api`.
    kind: &'static str,
    name: String,
    findings: Vec<Finding>,
}

impl Part {
    pub(super) fn new(kind: &'static str, name: String, findings: Vec<Finding>) -> Part {
        Part {
            kind,
            name,
            findings,
        }
    }

    fn title(&self) -> String {
        format!("{} {}", self.kind, self.name).trim_end().to_owned()
    }
}

/// The settings for the registry of a source.
#[derive(Debug)]
pub(super) struct SourceSetup {
    pub(super) source: String,
    pub(super) setup: Setup,
}

/// All findings, and the settings to print.
#[derive(Debug)]
pub(super) struct Report {
    /// Set if the gateway's address is a loopback address.
    local: bool,
    /// Set if the report has the settings for all sources.
    complete: bool,
    pub(super) parts: Vec<Part>,
    pub(super) setups: Vec<SourceSetup>,
}

impl Report {
    pub(super) fn new(gateway: Option<&str>, complete: bool) -> Report {
        let host = gateway.unwrap_or_default().trim_matches(['[', ']']);
        let address: Option<IpAddr> = host.parse().ok();
        Report {
            local: host == "localhost" || address.is_some_and(|address| address.is_loopback()),
            complete,
            parts: Vec::new(),
            setups: Vec::new(),
        }
    }

    fn findings(&self) -> impl Iterator<Item = (&Part, &Finding)> {
        self.parts
            .iter()
            .flat_map(|part| part.findings.iter().map(move |finding| (part, finding)))
    }

    /// Returns the number of checks.
    pub(super) fn checks(&self) -> usize {
        self.findings().count()
    }

    /// Returns the number of checks that found an error.
    pub(super) fn wrong(&self) -> usize {
        let wrong = |(_, finding): &(&Part, &Finding)| finding.level == Level::Error;
        self.findings().filter(wrong).count()
    }

    /// Formats the report for people.
    pub(super) fn text(&self, screen: &Screen) -> String {
        let rows = self.findings().map(|(part, finding)| {
            [
                part.title(),
                finding.check.to_owned(),
                finding.level.to_string(),
                finding.found.clone(),
            ]
        });
        let columns = [
            Column::name("PART"),
            Column::whole("CHECK"),
            Column::state("RESULT"),
            Column::text("FOUND"),
        ];
        let mut text = table(screen, columns, rows);
        // Findings with the same cure share a line.
        let mut cures: Vec<(String, &str)> = Vec::new();
        for (part, finding) in self.findings() {
            let Some(cure) = finding.cure.as_deref() else {
                continue;
            };
            let title = format!("{}, {}", part.title(), finding.check);
            match cures.iter_mut().find(|(_, listed)| *listed == cure) {
                Some((titles, _)) if titles.split("; ").any(|one| one == title) => {}
                Some((titles, _)) => *titles += &format!("; {title}"),
                None => cures.push((title, cure)),
            }
        }
        if !cures.is_empty() {
            text += "\n\nTo do:";
        }
        for (titles, cure) in cures {
            text += "\n";
            text += &wrap(screen, &format!("{titles}: {cure}"), 2);
        }
        for SourceSetup { source, setup } in &self.setups {
            text += &format!(
                "\n\nSettings for the registry of source {source} (kind {}):\n",
                setup.kind
            );
            for line in setup.text.lines() {
                text += "\n";
                if !line.is_empty() {
                    text += &format!("    {line}");
                }
            }
        }
        if !self.setups.is_empty() {
            let note = "Instead of a secret, the settings name its place ($NAME: an environment variable): enter the secret itself.";
            text += "\n\n";
            text += &wrap(screen, note, 0);
            if self.local {
                let note = "Only this machine can reach the gateway at this address: for registries on other machines, set the public URL with --gateway.";
                text += "\n";
                text += &wrap(screen, note, 0);
            }
        } else if !self.complete {
            text += "\n\n--setup prints the settings for each registry.";
        }
        text
    }

    /// Formats the report for programs.
    pub(super) fn json(&self) -> Value {
        let checks = self.findings().map(|(part, finding)| {
            json!({
                "of": part.kind,
                "name": part.name,
                "check": finding.check,
                "result": finding.level.to_string(),
                "found": finding.found,
                "cure": finding.cure,
            })
        });
        let settings = self.setups.iter().map(|SourceSetup { source, setup }| {
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
    use crate::client::screen::tests::screen;

    fn report(gateway: &str) -> Report {
        let mut report = Report::new(Some(gateway), false);
        let findings = vec![
            Finding::ok("gateway", "it accepts $S"),
            Finding::warning("events", "none", "push"),
        ];
        report
            .parts
            .push(Part::new("source", "main".to_owned(), findings));
        let findings = vec![
            Finding::error("answer", "none", "start it"),
            Finding::warning("clock", "late", "push"),
        ];
        report
            .parts
            .push(Part::new("registry", "r:5000".to_owned(), findings));
        report.parts.push(Part::new(
            "api",
            String::new(),
            vec![Finding::ok("events", "reported")],
        ));
        report
    }

    #[test]
    fn the_text_has_a_line_for_each_check_and_then_the_cures() {
        assert_eq!(
            report("t.example.com").text(&screen(80)),
            "\
PART             CHECK    RESULT   FOUND
source main      gateway  ok       it accepts $S
source main      events   warning  none
registry r:5000  answer   error    none
registry r:5000  clock    warning  late
api              events   ok       reported

To do:
  source main, events; registry r:5000, clock: push
  registry r:5000, answer: start it

--setup prints the settings for each registry."
        );
    }

    #[test]
    fn a_check_that_found_a_problem_twice_is_named_once() {
        let mut report = Report::new(Some("t.example.com"), true);
        let finding = || Finding::error("annotations", "no right", "give the right");
        let part = Part::new("cluster", "prod".to_owned(), vec![finding(), finding()]);
        report.parts.push(part);
        let text = report.text(&screen(80));
        assert!(
            text.contains("To do:\n  cluster prod, annotations: give the right"),
            "{text}"
        );
    }

    #[test]
    fn the_report_fits_80_columns() {
        let mut report = report("t.example.com");
        let found = "the registry answers 503 Service Unavailable ".repeat(4);
        let name = "registry.of-a-department.example.com:5000".repeat(2);
        let finding = Finding::error("comparison", &found, &found);
        report
            .parts
            .push(Part::new("registry", name, vec![finding]));
        let text = report.text(&screen(80));
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{text}");
    }

    #[test]
    fn settings_follow_with_a_note_about_secrets() {
        let with_settings = |gateway| {
            let mut report = report(gateway);
            report.setups.push(SourceSetup {
                source: "main".to_owned(),
                setup: Setup {
                    kind: "distribution",
                    names_registry: true,
                    url: "http://t/hooks/main".to_owned(),
                    registry: None,
                    has_digest: true,
                    has_time: true,
                    wants_token: false,
                    nats_subject: None,
                    text: "first:\n\n  second".to_owned(),
                },
            });
            report
        };
        let text = with_settings("t.example.com").text(&screen(80));
        let settings = "Settings for the registry of source main (kind distribution):\n\n    first:\n\n      second\n\n";
        assert!(text.contains(settings), "{text}");
        assert!(text.ends_with("enter the secret itself."), "{text}");
        for local in ["127.0.0.1", "localhost", "[::1]"] {
            assert!(
                with_settings(local)
                    .text(&screen(80))
                    .ends_with("with --gateway.")
            );
        }
        let json = with_settings("t").json();
        assert_eq!(json["settings"][0]["url"], "http://t/hooks/main");
    }

    #[test]
    fn the_json_has_the_same_findings() {
        let report = report("t");
        assert_eq!((report.checks(), report.wrong()), (5, 1));
        let json = report.json();
        assert_eq!(json["well"], false);
        assert_eq!(
            json["checks"][2],
            json!({ "of": "registry", "name": "r:5000", "check": "answer", "result": "error", "found": "none", "cure": "start it" })
        );
        assert_eq!(json["checks"][0]["cure"], Value::Null);
        assert_eq!(json["checks"][1]["result"], "warning");
    }
}
