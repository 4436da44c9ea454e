//! The gates of the recorded rollout of a replay: window, gap, group and approval.

use std::collections::{BTreeMap, VecDeque};

use tagtrail_proto::{Cause, CauseReason, ClosedGate, Digest, RolloutState};
use time::OffsetDateTime;

use super::Replay;
use super::report::Held;
use crate::begin::{Approval, Approvals, Facts, Settings, Verdict, evaluate};
use crate::choice::Set;

/// A time in which another trigger of the group was rolled out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// The name of the other trigger.
    pub trigger: String,
    /// The begin of the rollout.
    pub from: OffsetDateTime,
    /// The end of the rollout.
    pub until: OffsetDateTime,
}

/// The rollout that is recorded and has not begun, and the facts of its gates.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    recorded: Option<Recorded>,
    /// The images of the last rollout that has begun.
    begun: Option<Set>,
    last_begun: Option<OffsetDateTime>,
    /// The approvals of the sets, which are given by their digests in the order of the names.
    approved: BTreeMap<Vec<Digest>, Vec<Approval>>,
    group: Group,
}

/// The rollouts of other triggers of the group.
#[derive(Debug, Default)]
struct Group {
    /// Those that have not begun, the next one first.
    later: VecDeque<Busy>,
    /// Those that have begun and not ended.
    busy: Vec<Busy>,
}

/// A rollout that is recorded and has not begun.
#[derive(Debug)]
struct Recorded {
    images: Set,
    cause: Cause,
    /// The closed gates of the last evaluation.
    gates: Vec<ClosedGate>,
    /// The time at which the rollout waited for nothing but approvals.
    asked_at: Option<OffsetDateTime>,
}

impl Beginning {
    /// Takes these images as rolled out long ago.
    pub(super) fn forget(&mut self, begun: Option<Set>) {
        let group = std::mem::take(&mut self.group);
        *self = Beginning {
            begun,
            group,
            ..Beginning::default()
        };
    }

    /// Records a rollout. Returns true if it supersedes one that has not begun.
    pub(super) fn record(&mut self, images: Set, cause: Cause) -> bool {
        let recorded = Recorded {
            images,
            cause,
            gates: Vec::new(),
            asked_at: None,
        };
        self.recorded.replace(recorded).is_some()
    }

    /// Returns the rollout that has not begun at the end.
    pub(super) fn end(&mut self) -> Option<Held> {
        let recorded = self.recorded.take()?;
        Some(Held {
            images: recorded.images,
            gates: recorded.gates,
        })
    }

    fn evaluate(
        &mut self,
        recorded: &Recorded,
        settings: &Settings,
        now: OffsetDateTime,
    ) -> Verdict {
        let facts = Facts {
            now,
            images: &recorded.images,
            begun: false,
            ordered: false,
            skip: &[],
            known: false,
            holds: &[],
            settings,
            last_begun: self.last_begun,
            busy: self.group.busy(now),
            approvals: (self.approved.get(&digests(&recorded.images)))
                .map_or(&[][..], Vec::as_slice),
            rejected: None,
        };
        evaluate(&facts, &recorded.gates)
    }

    /// All people who may approve a set do so now.
    fn approve(&mut self, images: &Set, approvals: &Approvals, now: OffsetDateTime) {
        let given = everybody(approvals).map(|actor| Approval {
            actor,
            given_at: now,
        });
        self.approved.insert(digests(images), given.collect());
    }

    /// Sets the rollouts of other triggers of the group.
    pub(super) fn set_busy(&mut self, mut busy: Vec<Busy>) {
        busy.sort_by_key(|one| one.from);
        self.group.later = busy.into();
    }
}

impl Group {
    /// Returns another trigger that is rolled out now. The time never goes back.
    fn busy(&mut self, now: OffsetDateTime) -> Option<&str> {
        while let Some(next) = self.later.pop_front_if(|next| next.from <= now) {
            self.busy.push(next);
        }
        self.busy.retain(|one| now < one.until);
        self.busy.first().map(|one| one.trigger.as_str())
    }
}

impl Replay {
    /// Begins the recorded rollout if its gates are open. Otherwise returns the time at which they
    /// are evaluated again.
    pub(super) fn begin(&mut self) -> Option<OffsetDateTime> {
        let now = self.now;
        let mut recorded = self.beginning.recorded.take()?;
        if recorded.cause.reason == CauseReason::Adopted {
            // The images are there already.
            self.begun(recorded);
            return None;
        }
        let gates = &self.spec.gates;
        let mut verdict = self.beginning.evaluate(&recorded, gates, now);
        if let (RolloutState::AwaitingApproval, Some(approvals)) = (verdict.state, &gates.approvals)
        {
            recorded.asked_at.get_or_insert(now);
            self.beginning.approve(&recorded.images, approvals, now);
            verdict = self.beginning.evaluate(&recorded, gates, now);
        }
        if verdict.state == RolloutState::Pending {
            self.beginning.last_begun = Some(now);
            self.begun(recorded);
            return None;
        }
        let closed = verdict.gates.iter().map(|one| one.gate.as_str());
        self.held.extend(closed);
        recorded.gates = verdict.gates;
        self.beginning.recorded = Some(recorded);
        verdict.again
    }

    fn begun(&mut self, recorded: Recorded) {
        let before = self.beginning.begun.replace(recorded.images.clone());
        let word = |name: &str| {
            let policy = self.spec.images.get(name)?.policy()?;
            policy.settings.order_word()
        };
        let times = (self.now, recorded.asked_at);
        let sets = (before.as_ref(), recorded.images);
        self.report.add(times, sets, recorded.cause, word);
    }
}

fn digests(set: &Set) -> Vec<Digest> {
    set.values().map(|image| image.digest.clone()).collect()
}

/// Returns names of tokens that may approve: as many as are needed, if the patterns leave so many.
fn everybody(approvals: &Approvals) -> impl Iterator<Item = String> {
    let patterns = match approvals.by.as_slice() {
        [] => &["*".to_owned()][..],
        by => by,
    };
    let name = |pattern: &String, number: u16| pattern.replace('*', &number.to_string());
    let numbers = 1..=approvals.needs;
    let names: Vec<String> = numbers
        .flat_map(|number| patterns.iter().map(move |pattern| name(pattern, number)))
        .collect();
    names.into_iter()
}
