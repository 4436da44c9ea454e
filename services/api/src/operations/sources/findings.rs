//! Findings about a source: facts that a person should know, each with its cure. They follow from
//! the recorded events and the files; `tagtrail doctor` also tries addresses and credentials.

use schemars::JsonSchema;
use serde::Serialize;
use tagtrail_config::File;
use tagtrail_history::coverage::NotCompared;

use super::{Source, Standing};

/// A finding about a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// The fact, for people.
    pub(crate) found: String,
    /// The cure, if a person can do something.
    pub(crate) cure: Option<String>,
}

/// The weight of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// Good to know.
    Note,
    /// Changes may be missed, or recorded late.
    Warning,
}

/// Returns the findings about a source, the gravest first.
pub(super) fn of(source: &Source, file: &File, not_compared: &[NotCompared]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |level, found: String, cure: &str| {
        findings.push(Finding {
            level,
            found,
            cure: (!cure.is_empty()).then(|| cure.to_owned()),
        });
    };
    match source.state {
        Standing::Silent => add(
            Level::Warning,
            "It sends nothing, though it did at the same hours before.".to_owned(),
            "Look at the webhook in the registry: several registries turn it off after failed deliveries. Then push, or send a test event; `tagtrail doctor` tries address and secret.",
        ),
        Standing::NoEvent => add(
            Level::Warning,
            "No event of it is recorded yet.".to_owned(),
            "`tagtrail doctor` prints the settings to make in the registry, and tries address and secret. Bodies that could not be interpreted are in quarantine.",
        ),
        Standing::Sending | Standing::Idle | Standing::Quiet => {}
    }
    let mine = not_compared
        .iter()
        .filter(|one| source.registries.contains(&one.registry));
    if let Some(first) = mine.clone().next() {
        let (count, reason) = (mine.count(), &first.reason);
        add(
            Level::Warning,
            format!("{count} of its repositories could not be reconciled: {reason}"),
            "Lost events of these repositories stay unknown: give the [[registry]] entry the right to list tags and to read them.",
        );
    }
    if source.lost_of_week > 0 {
        let of = source.lost_of_week + source.reported_of_week;
        add(
            Level::Note,
            format!(
                "{} of {of} changes in 7 days were found only by reconciling or by a pull.",
                source.lost_of_week
            ),
            "Check that the webhook covers all repositories and all kinds of events.",
        );
    }
    let asked = |registry: &String| {
        file.registry
            .iter()
            .any(|access| access.name.get_ref().as_ref() == registry)
    };
    let unasked = source.registries.iter().find(|registry| !asked(registry));
    if let Some(registry) = unasked.filter(|_| source.kind.is_some()) {
        add(
            Level::Note,
            format!("{registry} has no [[registry]] entry, so it is not reconciled."),
            "With an entry in tagtrail.toml, lost events are found and manifests are read.",
        );
    }
    findings
}
