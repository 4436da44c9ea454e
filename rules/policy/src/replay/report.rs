//! The result of a replay.

use std::collections::BTreeMap;
use std::time::Duration;

use tagtrail_proto::{Cause, CauseReason, ClosedGate};
use time::OffsetDateTime;

use crate::choice::Set;

/// The most rollouts that a report lists.
pub const MOST: usize = 1000;

/// The rollouts that there would have been, and the reasons for which there were no others.
#[derive(Debug, Default)]
pub struct Report {
    /// The images before the replay, if all had one.
    pub before: Option<Set>,
    /// The images at the end, if all have one.
    pub last: Option<Set>,
    /// The names of images that had no tag all the time.
    pub missing: Vec<String>,
    /// The first [`MOST`] rollouts.
    pub rollouts: Vec<Planned>,
    /// The number of all rollouts.
    pub count: u64,
    /// The number of rollouts of each kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// The time for which something held a rollout up: a gate, or `min_age`.
    pub held: BTreeMap<&'static str, Duration>,
    /// The longest `min_age`, if one is set.
    pub min_age: Option<Duration>,
    /// Images that would have been selected, and were replaced before they had lasted for
    /// `min_age`.
    pub too_short: u64,
    /// Recorded rollouts that a newer one superseded before their gates opened.
    pub gave_way: u64,
    /// Rollouts that waited for approvals, which came at once.
    pub approvals: u64,
    /// The last rollout, if its gates are still closed at the end.
    pub waits: Option<Held>,
    /// True if the trigger began paused, so that nothing was recorded.
    pub paused: bool,
    /// True if the first rollout depends on the images that the target ran, which are not known.
    pub unreported: bool,
    /// Selections of a lower tag.
    pub downgrades: u64,
    /// Removals of a selected tag that left only lower ones, none of which was selected.
    pub downgrades_prevented: u64,
    /// The times of `held` since the last rollout.
    pub(super) since: BTreeMap<&'static str, Duration>,
}

/// A recorded rollout whose gates are closed.
#[derive(Debug)]
pub struct Held {
    /// The images.
    pub images: Set,
    /// The closed gates.
    pub gates: Vec<ClosedGate>,
}

/// The kind of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The first one.
    Start,
    /// The first one: the images were there before, and count as rolled out.
    Adopted,
    /// A policy selected another tag. The word is the order of the policy, such as `semver`.
    Move(&'static str),
    /// The same tags have other digests.
    RePush,
}

/// A rollout that there would have been.
#[derive(Debug)]
pub struct Planned {
    /// The time at which it would have begun.
    pub at: OffsetDateTime,
    /// The images.
    pub images: Set,
    /// The reason.
    pub cause: Cause,
    /// The kind.
    pub kind: Kind,
    /// The time at which it waited for approvals alone.
    pub approval_at: Option<OffsetDateTime>,
    /// The time for which each gate or `min_age` had held it up.
    pub held: BTreeMap<&'static str, Duration>,
}

impl Report {
    pub(super) fn hold(&mut self, name: &'static str, time: Duration) {
        *self.held.entry(name).or_default() += time;
        *self.since.entry(name).or_default() += time;
    }

    /// Adds a rollout that begins. `words` returns the order of the policy of an image.
    pub(super) fn add(
        &mut self,
        (at, approval_at): (OffsetDateTime, Option<OffsetDateTime>),
        (before, images): (Option<&Set>, Set),
        cause: Cause,
        words: impl Fn(&str) -> Option<&'static str>,
    ) {
        let moved = |name: &String| {
            let tag = |set: &Set| Some(set.get(name)?.image.clone());
            let moved = before.and_then(tag) != tag(&images);
            moved.then(|| words(name)).flatten()
        };
        let kind = match cause.reason {
            CauseReason::Adopted => Kind::Adopted,
            CauseReason::Start => Kind::Start,
            _ => match images.keys().find_map(moved) {
                Some(word) => Kind::Move(word),
                None => Kind::RePush,
            },
        };
        self.count += 1;
        self.unreported |= cause.not_adopted.is_some();
        self.approvals += u64::from(approval_at.is_some());
        *self.kinds.entry(kind.clone()).or_default() += 1;
        let held = std::mem::take(&mut self.since);
        if self.rollouts.len() < MOST {
            self.rollouts.push(Planned {
                at,
                images,
                cause,
                kind,
                approval_at,
                held,
            });
        }
    }
}
