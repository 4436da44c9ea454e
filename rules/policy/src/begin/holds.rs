//! The gates that holds close: freezes, pins and faults.

use std::collections::BTreeMap;

use serde::Deserialize;
use tagtrail_proto::{Digest, RolloutImage};
use time::OffsetDateTime;

use super::{Closed, Facts, Look};

/// A hold in force about a trigger.
#[derive(Debug, Clone, Deserialize)]
pub struct Hold {
    /// The kind.
    pub kind: HoldKind,
    /// True if a freeze also holds images that have succeeded before.
    pub hard: bool,
    /// The person behind the hold; of a fault, the service.
    pub actor: String,
    /// The reason, if one was given.
    pub reason: Option<String>,
    /// Of a pin: the pinned images.
    pub images: Option<BTreeMap<String, RolloutImage>>,
    /// The time at which the hold ends by itself.
    #[serde(with = "tagtrail_proto::instant::option")]
    pub until: Option<OffsetDateTime>,
}

/// The kind of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// No new images.
    Freeze,
    /// No images but the pinned ones.
    Pin,
    /// Something unexpected happened.
    Fault,
}

/// A hard freeze counts before a soft one.
pub(super) fn freeze(facts: &Facts<'_>) -> Look {
    let freezes = || {
        facts
            .holds
            .iter()
            .filter(|hold| hold.kind == HoldKind::Freeze)
    };
    let shown = freezes().find(|hold| hold.hard).or(freezes().next());
    closed(shown, freezes(), "frozen")
}

pub(super) fn pin(facts: &Facts<'_>) -> Look {
    let others = || {
        facts.holds.iter().filter(|hold| {
            let pinned = hold.images.as_ref().filter(|_| hold.kind == HoldKind::Pin);
            pinned.is_some_and(|pinned| set(pinned) != set(facts.images))
        })
    };
    closed(others().next(), others(), "pinned to other images")
}

pub(super) fn fault(facts: &Facts<'_>) -> Look {
    let faults = || {
        facts
            .holds
            .iter()
            .filter(|hold| hold.kind == HoldKind::Fault)
    };
    closed(faults().next(), faults(), "held after a fault")
}

/// Returns the identity of a set of images.
fn set(images: &BTreeMap<String, RolloutImage>) -> Vec<(&String, &Digest)> {
    let set = images.iter();
    set.map(|(name, image)| (name, &image.digest)).collect()
}

/// Returns the closed gate of these holds; it opens with the end of the last one.
fn closed<'a>(shown: Option<&Hold>, all: impl Iterator<Item = &'a Hold>, word: &str) -> Look {
    let Some(shown) = shown else {
        return Look::Open(None);
    };
    let ends: Option<Vec<OffsetDateTime>> = all.map(|hold| hold.until).collect();
    let because = shown.reason.as_ref();
    let because = because.map(|reason| format!(": {reason}"));
    Look::Closed(Closed {
        why: format!("{word} by {}{}", shown.actor, because.unwrap_or_default()),
        opens_at: ends.and_then(|ends| ends.into_iter().max()),
        firm: shown.hard,
    })
}
