//! The gates of recorded rollouts: the conditions for the begin of an attempt.
//!
//! The planner evaluates them when it records a rollout, at the times at which they may open or
//! close, and when a person changes something. A new gate is a word of [`Gate`], a function in a
//! file of `begin/`, and a row of [`TABLE`]; its facts are fields of [`Facts`], which
//! `services/trigger/src/store/gates.rs` reads.

mod approval;
mod holds;
mod pace;
mod settings;

use std::collections::BTreeMap;
use std::time::Duration;

use tagtrail_proto::{ClosedGate, Gate, RolloutImage, RolloutState};
use time::OffsetDateTime;

pub use approval::Approval;
pub use holds::{Hold, HoldKind};
pub use settings::{Approvals, Settings, Written};

/// The bounds of the pause before the next look at a gate whose opening nothing announces.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// The facts that the gates of a rollout depend on.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The time of the evaluation.
    pub now: OffsetDateTime,
    /// The images of the rollout.
    pub images: &'a BTreeMap<String, RolloutImage>,
    /// True once an attempt has begun: only the gates that hold further attempts count.
    pub begun: bool,
    /// True if a person ordered the rollout.
    pub ordered: bool,
    /// The gates that the order passes though they are closed.
    pub skip: &'a [String],
    /// True if a rollout of these images has succeeded before. Matters for orders only.
    pub known: bool,
    /// The holds in force about the trigger.
    pub holds: &'a [Hold],
    /// The settings of the trigger.
    pub settings: &'a Settings,
    /// The time at which the last rollout of the trigger began.
    pub last_begun: Option<OffsetDateTime>,
    /// Another trigger of the group whose rollout is about to begin, or has begun and not ended.
    pub busy: Option<&'a str>,
    /// The approvals of these images. Read if the trigger needs approvals.
    pub approvals: &'a [Approval],
    /// The text of a rejection of this rollout.
    pub rejected: Option<&'a str>,
}

/// An order of a person that passes a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Any order.
    Any,
    /// An order for images that have succeeded before.
    Known,
    /// An order that names the gate in `--skip`.
    Skip,
}

/// A gate of recorded rollouts.
#[derive(Debug)]
pub struct Row {
    /// The gate.
    pub gate: Gate,
    /// The orders that pass the gate.
    pub orders: &'static [Pass],
    /// True if the gate also holds further attempts of a rollout that has begun.
    pub retries: bool,
    /// Looks whether the gate is open.
    look: fn(&Facts<'_>) -> Look,
}

/// The gates of recorded rollouts, in the order in which people see them.
pub const TABLE: &[Row] = &[
    Row {
        gate: Gate::Freeze,
        orders: &[Pass::Known],
        retries: true,
        look: holds::freeze,
    },
    Row {
        gate: Gate::Pin,
        // An order for other images replaces the pin.
        orders: &[],
        retries: true,
        look: holds::pin,
    },
    Row {
        gate: Gate::Fault,
        orders: &[Pass::Known],
        retries: true,
        look: holds::fault,
    },
    Row {
        gate: Gate::Window,
        orders: &[Pass::Known, Pass::Skip],
        retries: true,
        look: pace::window,
    },
    Row {
        gate: Gate::Gap,
        orders: &[Pass::Any],
        retries: false,
        look: pace::gap,
    },
    Row {
        gate: Gate::Group,
        orders: &[],
        retries: false,
        look: pace::group,
    },
    Row {
        gate: Gate::Approval,
        orders: &[Pass::Known],
        retries: false,
        look: approval::look,
    },
];

/// The answer of a gate.
#[derive(Debug)]
enum Look {
    /// The gate is open, up to a time if it is known to close.
    Open(Option<OffsetDateTime>),
    Closed(Closed),
}

/// The reason why a gate is closed.
#[derive(Debug)]
struct Closed {
    why: String,
    /// The time at which the gate opens by itself, if known.
    opens_at: Option<OffsetDateTime>,
    /// True if no order passes.
    firm: bool,
}

impl Closed {
    /// A gate that opens at a time, and that some orders pass.
    fn until(opens_at: Option<OffsetDateTime>, why: String) -> Closed {
        Closed {
            why,
            opens_at,
            firm: false,
        }
    }
}

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The state of a rollout without an attempt: `held`, `awaiting_approval` if only that gate is
    /// closed, `rejected`, or `pending`.
    pub state: RolloutState,
    /// The closed gates.
    pub gates: Vec<ClosedGate>,
    /// The time at which all closed gates will be open; `None` if one has no known time, or none is
    /// closed.
    pub opens_at: Option<OffsetDateTime>,
    /// The time from which on no attempt may begin.
    pub closes_at: Option<OffsetDateTime>,
    /// The time at which the verdict may change by itself.
    pub again: Option<OffsetDateTime>,
    /// The text of the rejection, if the state is `rejected`.
    pub rejected: Option<String>,
}

impl Verdict {
    /// The verdict that all gates are open.
    pub const OPEN: Verdict = Verdict {
        state: RolloutState::Pending,
        gates: Vec::new(),
        opens_at: None,
        closes_at: None,
        again: None,
        rejected: None,
    };
}

/// Evaluates all gates. `before` are the closed gates of the evaluation before: a gate that is
/// still closed keeps its time.
#[must_use]
pub fn evaluate(facts: &Facts<'_>, before: &[ClosedGate]) -> Verdict {
    if let Some(text) = facts.rejected.filter(|_| !facts.begun) {
        return Verdict {
            state: RolloutState::Rejected,
            rejected: Some(text.to_owned()),
            ..Verdict::OPEN
        };
    }
    let (mut gates, mut closes_at, mut again) = (Vec::new(), None, Vec::new());
    for row in TABLE.iter().filter(|row| row.retries || !facts.begun) {
        let passed = row.orders.iter().any(|pass| pass.applies(row.gate, facts));
        let closed = match (row.look)(facts) {
            Look::Open(until) => {
                let until = until.filter(|_| !passed);
                again.extend(until);
                // Other gates that close again do not hold further attempts.
                closes_at = closes_at.or(until.filter(|_| row.retries));
                continue;
            }
            Look::Closed(closed) if passed && !closed.firm => continue,
            Look::Closed(closed) => closed,
        };
        let before = before.iter().find(|before| before.gate == row.gate);
        let since = before.map_or(facts.now, |before| before.since);
        if row.gate == Gate::Window {
            closes_at = Some(since);
        }
        again.push(match closed.opens_at {
            Some(opens_at) => opens_at,
            None => {
                let waited = Duration::try_from(facts.now - since).unwrap_or_default();
                facts.now + (waited / 4).clamp(PAUSES.0, PAUSES.1)
            }
        });
        gates.push(ClosedGate {
            gate: row.gate,
            why: closed.why,
            since,
            opens_at: closed.opens_at,
        });
    }
    let opens_at: Option<Vec<OffsetDateTime>> =
        gates.iter().map(|closed| closed.opens_at).collect();
    Verdict {
        state: match gates.as_slice() {
            [] => RolloutState::Pending,
            [one] if one.gate == Gate::Approval => RolloutState::AwaitingApproval,
            _ => RolloutState::Held,
        },
        opens_at: opens_at.and_then(|times| times.into_iter().max()),
        closes_at,
        again: again.into_iter().min(),
        rejected: None,
        gates,
    }
}

impl Pass {
    fn applies(self, gate: Gate, facts: &Facts<'_>) -> bool {
        facts.ordered
            && match self {
                Pass::Any => true,
                Pass::Known => facts.known,
                Pass::Skip => facts.skip.iter().any(|word| word == gate.as_str()),
            }
    }
}

#[cfg(test)]
mod tests;
