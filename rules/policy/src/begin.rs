//! The gates of recorded rollouts: the conditions for the begin of an attempt.
//!
//! The planner evaluates them when it records a rollout, at the times at which they may open or
//! close, and when a person changes something. A new gate is a word of [`Gate`], a function in a
//! file of `begin/`, and a row of [`TABLE`]; its facts are fields of [`Facts`], which
//! `services/trigger/src/store/gates.rs` reads.

mod holds;

use std::collections::BTreeMap;

use tagtrail_proto::{ClosedGate, Gate, RolloutImage, RolloutState};
use time::OffsetDateTime;

pub use holds::{Hold, HoldKind};

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
}

/// An order of a person that passes a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
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
    /// Returns the reason if the gate is closed.
    closed: fn(&Facts<'_>) -> Option<Closed>,
}

/// The gates of recorded rollouts, in the order in which people see them.
pub const TABLE: &[Row] = &[
    Row {
        gate: Gate::Freeze,
        orders: &[Pass::Known],
        retries: true,
        closed: holds::freeze,
    },
    Row {
        gate: Gate::Pin,
        // An order for other images replaces the pin.
        orders: &[],
        retries: true,
        closed: holds::pin,
    },
    Row {
        gate: Gate::Fault,
        orders: &[Pass::Known],
        retries: true,
        closed: holds::fault,
    },
];

/// The reason why a gate is closed.
#[derive(Debug)]
struct Closed {
    why: String,
    /// The time at which the gate opens by itself, if known.
    opens_at: Option<OffsetDateTime>,
    /// True if no order passes.
    firm: bool,
}

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The state of a rollout without an attempt: `held`, `awaiting_approval` if only that gate is
    /// closed, or `pending`.
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
}

impl Verdict {
    /// The verdict that all gates are open.
    pub const OPEN: Verdict = Verdict {
        state: RolloutState::Pending,
        gates: Vec::new(),
        opens_at: None,
        closes_at: None,
        again: None,
    };
}

/// Evaluates all gates. `before` are the closed gates of the evaluation before: a gate that is
/// still closed keeps its time.
#[must_use]
pub fn evaluate(facts: &Facts<'_>, before: &[ClosedGate]) -> Verdict {
    let mut gates = Vec::new();
    for row in TABLE.iter().filter(|row| row.retries || !facts.begun) {
        let Some(closed) = (row.closed)(facts) else {
            continue;
        };
        if !closed.firm && row.orders.iter().any(|pass| pass.applies(row.gate, facts)) {
            continue;
        }
        let before = before.iter().find(|before| before.gate == row.gate);
        gates.push(ClosedGate {
            gate: row.gate,
            why: closed.why,
            since: before.map_or(facts.now, |before| before.since),
            opens_at: closed.opens_at,
        });
    }
    let times = || gates.iter().map(|closed| closed.opens_at);
    let opens_at: Option<Vec<OffsetDateTime>> = times().collect();
    Verdict {
        state: match gates.is_empty() {
            true => RolloutState::Pending,
            false => RolloutState::Held,
        },
        opens_at: opens_at.and_then(|times| times.into_iter().max()),
        closes_at: None,
        again: times().flatten().min(),
        gates,
    }
}

impl Pass {
    fn applies(self, gate: Gate, facts: &Facts<'_>) -> bool {
        facts.ordered
            && match self {
                Pass::Known => facts.known,
                Pass::Skip => facts.skip.iter().any(|word| word == gate.as_str()),
            }
    }
}

#[cfg(test)]
mod tests;
