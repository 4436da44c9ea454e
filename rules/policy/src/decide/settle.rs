//! The time without a change before a rollout starts, and the longest time for which it holds one.

use std::time::Duration;

use tagtrail_proto::{Gate, Waiting};

use super::{Decision, Situation, decide, look_again};
use crate::gates::Head;

/// The time without a change before a rollout starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settle {
    /// After a change of a tag.
    pub quiet: Duration,
    /// After the first revision of a tag: no image is there that it could replace.
    pub first: Duration,
}

impl Settle {
    /// The same time after every revision.
    #[must_use]
    pub fn always(quiet: Duration) -> Settle {
        Settle {
            quiet,
            first: quiet,
        }
    }

    pub(super) fn after(self, head: &Head) -> Duration {
        match head.revision {
            1 => self.first,
            _ => self.quiet,
        }
    }
}

/// Decides for one trigger, as [`decide`]. The gate `settle` opens at the latest `longest` after
/// the first of the changes that it waits for, so that images which change all the time are rolled
/// out too. `before` are the closed gates of the decision before: the gate names there the time of
/// the first change.
#[must_use]
pub fn decide_within(situation: &Situation<'_>, longest: Duration, before: &[Waiting]) -> Decision {
    let decision = decide(situation);
    let Decision::Wait { mut waiting, .. } = decision else {
        return decision;
    };
    let settles = |gate: &&Waiting| gate.gate == Gate::Settle;
    let first = before.iter().find(settles).map(|gate| gate.since);
    if let Some(settle) = waiting.iter_mut().find(|gate| gate.gate == Gate::Settle) {
        settle.since = first.map_or(settle.since, |first| first.min(settle.since));
        let latest = settle.since + longest;
        if latest <= situation.now {
            return decide(&Situation {
                settle: Some(Settle::always(Duration::ZERO)),
                ..situation.clone()
            });
        }
        settle.opens_at = settle.opens_at.map(|quiet| quiet.min(latest));
    }
    let pauses = waiting.iter().map(|gate| look_again(gate, situation.now));
    let again = pauses.max().unwrap_or(situation.now);
    Decision::Wait { again, waiting }
}
