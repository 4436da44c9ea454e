//! The decision about a person's order to roll out.

use std::collections::BTreeMap;

use tagtrail_proto::{Cause, CauseReason, Gate, RolloutImage};

use super::{Decision, Situation, closed_gates, look_again, wanted};

/// A person's order to roll out.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// The set of images; `None`: the present heads.
    pub images: Option<&'a BTreeMap<String, RolloutImage>>,
    /// The gates that the order passes though they are closed.
    pub skip: &'a [String],
    /// The cause that the rollout records.
    pub reason: CauseReason,
}

/// Decides about an order. The set is rolled out also if the last rollout has it. An order for the
/// present heads passes `settle`, and waits at the other gates that it does not skip.
#[must_use]
pub fn decide_order(situation: &Situation<'_>, order: &Order<'_>) -> Decision {
    let images = match order.images {
        Some(images) => images.clone(),
        None => match wanted(situation) {
            Ok(images) => images,
            Err(nothing) => return nothing,
        },
    };
    let pinned_before = |name: &String| Some(&situation.last?.get(name)?.pinned);
    let changed: Vec<String> = images
        .iter()
        .filter(|(name, image)| pinned_before(name) != Some(&image.pinned))
        .map(|(name, _)| name.clone())
        .collect();
    if order.images.is_none() {
        let mut waiting = closed_gates(situation, &changed);
        let skipped = |gate: Gate| {
            gate == Gate::Settle || order.skip.iter().any(|word| word == gate.as_str())
        };
        waiting.retain(|closed| !skipped(closed.gate));
        let pauses = waiting.iter().map(|gate| look_again(gate, situation.now));
        if let Some(again) = pauses.max() {
            return Decision::Wait { again, waiting };
        }
    }
    let reason = order.reason;
    Decision::Start {
        images,
        cause: Cause {
            reason,
            changed,
            not_adopted: None,
        },
    }
}
