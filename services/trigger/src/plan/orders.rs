//! The part of a decision that orders and pins of people have.

use std::collections::BTreeMap;
use std::time::Duration;

use tagtrail_policy::decide::{self, Decision, Situation, decide_order, decide_within};
use tagtrail_proto::{Cause, CauseReason, Pinned, RolloutImage, Waiting};

use crate::store::orders::{Kind, Order, Set, Standing};

/// The bounds of the gate `settle`.
#[derive(Debug)]
pub(crate) struct Settling<'a> {
    /// The longest time for which it is closed.
    pub(crate) longest: Duration,
    /// The closed gates of the decision before.
    pub(crate) before: &'a [Waiting],
}

impl Settling<'_> {
    fn decide(&self, situation: &Situation<'_>) -> Decision {
        decide_within(situation, self.longest, self.before)
    }
}

/// A decision, and its effect on the order that it is about.
#[derive(Debug)]
pub(crate) struct Ordered {
    pub(crate) decision: Decision,
    /// The order that a new rollout carries out.
    pub(crate) order: Option<i64>,
    /// The answer to an order that leads to no rollout.
    pub(crate) answer: Option<(i64, String)>,
    /// True if the set of a new rollout is not that of the present heads.
    pub(crate) fixed: bool,
}

impl Ordered {
    fn without_order(decision: Decision) -> Ordered {
        Ordered {
            decision,
            order: None,
            answer: None,
            fixed: false,
        }
    }
}

/// Decides for a trigger. While it is paused, orders wait; while it is pinned, only an order leads
/// to a rollout.
pub(crate) fn decide(
    situation: &Situation<'_>,
    standing: &Standing,
    settling: &Settling<'_>,
) -> Ordered {
    let nothing = || Decision::Nothing {
        waiting: Vec::new(),
    };
    match &standing.order {
        Some(order) if !situation.paused => match order.kind {
            Kind::Rollout => roll_out(situation, order, standing.stands),
            Kind::Release if standing.pinned.is_some() => Ordered {
                decision: nothing(),
                order: None,
                answer: Some((
                    order.id,
                    "nothing to do: the trigger is pinned again".to_owned(),
                )),
                fixed: false,
            },
            Kind::Release => release(situation, order, settling),
        },
        _ if standing.pinned.is_some() => pinned(situation, standing.pinned.as_ref()),
        _ => Ordered::without_order(settling.decide(situation)),
    }
}

/// Decides for a pinned trigger: a target that lacks the images after a change of the configuration
/// gets the pinned ones.
fn pinned(situation: &Situation<'_>, pinned: Option<&Set>) -> Ordered {
    let images = pinned.filter(|_| situation.must_send_again());
    let decision = match images {
        Some(images) if !situation.paused => Decision::Start {
            images: images.clone(),
            cause: Cause {
                reason: CauseReason::Configuration,
                changed: Vec::new(),
                not_adopted: None,
            },
        },
        _ => Decision::Nothing {
            waiting: Vec::new(),
        },
    };
    Ordered {
        fixed: true,
        ..Ordered::without_order(decision)
    }
}

fn roll_out(situation: &Situation<'_>, order: &Order, stands: bool) -> Ordered {
    let pins = |set: &BTreeMap<String, RolloutImage>| -> Vec<(String, Pinned)> {
        let pin = |(name, image): (&String, &RolloutImage)| (name.clone(), image.pinned.clone());
        set.iter().map(pin).collect()
    };
    let there = stands && order.images.as_ref().map(pins) == situation.last.map(pins);
    if order.images.is_some() && there && !order.again {
        let text = "nothing to do: the last rollout has these images";
        return Ordered {
            decision: Decision::Nothing {
                waiting: Vec::new(),
            },
            order: None,
            answer: Some((order.id, text.to_owned())),
            fixed: false,
        };
    }
    let decision = decide_order(
        situation,
        &decide::Order {
            images: order.images.as_ref(),
            skip: &order.skip,
            reason: order.cause,
        },
    );
    let answer = matches!(decision, Decision::Nothing { .. }).then(|| {
        let text = "nothing is rolled out: an image of the trigger has no digest that can run; `tagtrail triggers` shows the images";
        (order.id, text.to_owned())
    });
    Ordered {
        order: matches!(decision, Decision::Start { .. }).then_some(order.id),
        decision,
        answer,
        fixed: order.images.is_some(),
    }
}

fn release(situation: &Situation<'_>, order: &Order, settling: &Settling<'_>) -> Ordered {
    let mut decision = settling.decide(situation);
    let answer = match &mut decision {
        Decision::Start { cause, .. } => {
            if matches!(cause.reason, CauseReason::Revision | CauseReason::Upstream) {
                cause.reason = CauseReason::Release;
            }
            None
        }
        // The gates are shown, and the rollout follows without the order.
        Decision::Wait { .. } => Some("released; the present images wait at a closed gate"),
        Decision::Nothing { .. } => Some(
            "released; no rollout follows: the last one has the present images, and goes on if held",
        ),
    };
    Ordered {
        order: answer.is_none().then_some(order.id),
        answer: answer.map(|text| (order.id, text.to_owned())),
        fixed: false,
        decision,
    }
}
