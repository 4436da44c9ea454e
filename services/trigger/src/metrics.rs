//! The metrics of the trigger service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tagtrail_daemon::metrics::seconds;
use tagtrail_proto::{ClosedGate, Condition, Gate, Rollout, RolloutState, Waiting};

use crate::act::Slots;

use crate::notify;
use crate::plan::Change;
use tagtrail_policy::begin;
use tagtrail_policy::retry::Outcome;
use tagtrail_policy::watch::AfterLook;

use crate::settings::Settings;

/// The metrics that planner, attempts and ledger update.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    rollouts: Family<RolloutLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    closed_gates: Family<GateLabels, Gauge>,
    conditions: Family<ConditionLabels, Gauge>,
    in_flight: Family<KindLabels, Gauge>,
    slots: Family<KindLabels, Gauge>,
    due: Gauge,
    due_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    broken: Family<TriggerLabels, Gauge>,
    objects: Family<ObjectLabels, Gauge>,
    policy_repaired: Counter,
    looks: Family<ResultLabels, Counter>,
    looks_in_flight: Gauge,
    /// Of messages about rollouts.
    pub(crate) messages: notify::Metrics,
    all: tagtrail_daemon::Metrics,
    /// Seconds that a target takes to answer.
    pub(crate) attempt: Histogram,
    /// Seconds from the recording of a rollout to the end.
    pub(crate) rollout: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RolloutLabels {
    trigger: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    trigger: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TriggerLabels {
    trigger: String,
}

/// The labels of annotated objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(crate) struct ObjectLabels {
    pub(crate) cluster: String,
    pub(crate) kind: String,
    pub(crate) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabels {
    trigger: String,
    gate: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    trigger: String,
    condition: &'static str,
}

impl Metrics {
    pub(crate) fn new(metrics: &tagtrail_daemon::Metrics) -> Metrics {
        Metrics {
            all: metrics.clone(),
            rollouts: metrics.add(
                "trigger_rollouts",
                "Rollouts that reached a state, by trigger and state",
                Family::default(),
            ),
            attempts: metrics.add(
                "trigger_attempts",
                "Attempts at targets, by trigger and outcome",
                Family::default(),
            ),
            closed_gates: metrics.add(
                "trigger_closed_gates",
                "Closed gates of a trigger now, one for each image before a rollout is recorded, by trigger and gate; of the instance that plans",
                Family::default(),
            ),
            conditions: metrics.add(
                "trigger_condition",
                "1 for the present condition of a trigger, 0 for all others, by trigger and condition; of the instance that plans",
                Family::default(),
            ),
            in_flight: metrics.add(
                "trigger_attempts_in_flight",
                "Attempts of this instance that run now, by kind of target",
                Family::default(),
            ),
            slots: metrics.add(
                "trigger_slots",
                "Most attempts of this instance at the same time, by kind of target",
                Family::default(),
            ),
            due: metrics.add(
                "trigger_due",
                "Due rollouts that no attempt carries out, at most 256; of places with free slots",
                Gauge::default(),
            ),
            due_seconds: metrics.add(
                "trigger_due_seconds",
                "Age of the oldest due rollout that no attempt carries out",
                Gauge::default(),
            ),
            broken: metrics.add(
                "trigger_broken",
                "1 for a trigger whose settings or secret can't be used, by trigger",
                Family::default(),
            ),
            objects: metrics.add(
                "trigger_discovered_objects",
                "Annotated objects and ImageTriggers now, by cluster, kind and result: `trigger`, `refused` (the present settings are not in force), `left_out` (more than the cluster may have); of the instance that discovers",
                Family::default(),
            ),
            policy_repaired: metrics.add(
                "trigger_policy_repaired",
                "Tags that a policy had missed: found when the whole repository was read",
                Counter::default(),
            ),
            looks: metrics.add(
                "trigger_looks",
                "Looks at rollouts that their target took, by result",
                Family::default(),
            ),
            looks_in_flight: metrics.add(
                "trigger_looks_in_flight",
                "Looks of this instance that run now",
                Gauge::default(),
            ),
            messages: notify::Metrics::new(metrics),
            attempt: metrics.add_seconds(
                "trigger_attempt",
                "Time that a target takes to answer",
                seconds(),
            ),
            rollout: metrics.add_seconds(
                "trigger_rollout",
                "Time from the recording of a rollout to its success or failure",
                seconds(),
            ),
        }
    }

    /// Creates the series of the triggers, and shows the broken ones.
    pub(crate) fn triggers(&self, settings: &Settings) {
        self.all.config_errors("trigger", settings.mistakes.clone());
        self.broken.clear();
        let names = settings.triggers.keys().chain(settings.problems.keys());
        for trigger in names {
            self.expect_trigger(trigger);
            let problem = settings.problems.get(trigger);
            let broken = problem.is_some_and(|problem| problem.broken);
            let trigger = trigger.clone();
            let labels = TriggerLabels { trigger };
            self.broken.get_or_create(&labels).set(broken.into());
        }
    }

    /// Creates the series of a trigger with the value zero, so that alerts see the first increase.
    fn expect_trigger(&self, trigger: &str) {
        for state in RolloutState::ALL {
            drop(self.rollouts.get_or_create(&RolloutLabels {
                trigger: trigger.to_owned(),
                state: state.as_str(),
            }));
        }
        for outcome in ["done", "applied", "failed", "refused", "gone"] {
            let trigger = trigger.to_owned();
            let attempts = AttemptLabels { trigger, outcome };
            drop(self.attempts.get_or_create(&attempts));
        }
    }

    /// Records the closed gates before the recording of a rollout of a trigger.
    pub(crate) fn waiting(&self, trigger: &str, waiting: &[Waiting]) {
        let closed = |gate| waiting.iter().filter(|one| one.gate == gate).count();
        let of_rollouts = |gate| begin::TABLE.iter().any(|row| row.gate == gate);
        let gates = Gate::ALL.iter().copied();
        self.set_closed(trigger, gates.filter(|gate| !of_rollouts(*gate)), closed);
    }

    /// Records the closed gates of the last recorded rollout of a trigger.
    pub(crate) fn closed_gates(&self, trigger: &str, closed: &[ClosedGate]) {
        let count = |gate| closed.iter().filter(|one| one.gate == gate).count();
        self.set_closed(trigger, begin::TABLE.iter().map(|row| row.gate), count);
    }

    fn set_closed(
        &self,
        trigger: &str,
        gates: impl Iterator<Item = Gate>,
        count: impl Fn(Gate) -> usize,
    ) {
        for gate in gates {
            let closed = count(gate);
            let labels = GateLabels {
                trigger: trigger.to_owned(),
                gate: gate.as_str(),
            };
            let closed = i64::try_from(closed).unwrap_or(i64::MAX);
            self.closed_gates.get_or_create(&labels).set(closed);
        }
    }

    /// Shows the condition of a trigger.
    pub(crate) fn condition(&self, change: &Change) {
        for condition in Condition::ALL {
            let labels = ConditionLabels {
                trigger: change.trigger.clone(),
                condition: condition.as_str(),
            };
            let is_present = *condition == change.now;
            self.conditions
                .get_or_create(&labels)
                .set(is_present.into());
        }
    }

    /// Shows the numbers of annotated objects.
    pub(crate) fn discovered(&self, counts: &BTreeMap<ObjectLabels, usize>) {
        for (labels, count) in counts {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.objects.get_or_create(labels).set(count);
        }
    }

    /// Removes the numbers of annotated objects: this instance discovers no longer, or others.
    pub(crate) fn ended_discovering(&self) {
        self.objects.clear();
    }

    /// Counts tags of which a policy had missed the news.
    pub(crate) fn policy_repaired(&self, tags: i64) {
        self.policy_repaired
            .inc_by(u64::try_from(tags).unwrap_or_default());
    }

    /// Removes the closed gates and the conditions of all triggers: this instance plans no longer.
    pub(crate) fn ended_planning(&self) {
        self.closed_gates.clear();
        self.conditions.clear();
    }

    /// Counts a rollout that reached its present state. Only the instance that publishes the entry
    /// counts it.
    pub(crate) fn state_changed(&self, rollout: &Rollout) {
        let state = RolloutLabels {
            trigger: rollout.trigger.clone(),
            state: rollout.state.as_str(),
        };
        self.rollouts.get_or_create(&state).inc();
    }

    /// Records the attempts of each configured kind of target that run, and the due rollouts that
    /// wait for one, with the age of the oldest.
    pub(crate) fn due(
        &self,
        (due, oldest): (usize, Duration),
        slots: &Slots,
        kinds: &BTreeSet<&'static str>,
    ) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.due.set(number(due));
        self.due_seconds.set(oldest.as_secs_f64());
        let in_use = slots.in_use();
        for kind in kinds {
            let labels = KindLabels { kind };
            let running = in_use.get(kind).copied().unwrap_or_default();
            self.in_flight.get_or_create(&labels).set(number(running));
            let limit = number(slots.limit(kind));
            self.slots.get_or_create(&labels).set(limit);
        }
    }

    /// Records the number of looks that run.
    pub(crate) fn looks_in_flight(&self, looks: usize) {
        let looks = i64::try_from(looks).unwrap_or(i64::MAX);
        self.looks_in_flight.set(looks);
    }

    /// Counts a look that ended.
    pub(crate) fn looked(&self, after: &AfterLook) {
        let result = match after {
            AfterLook::Succeeded => "succeeded",
            AfterLook::Again { .. } => "again",
            AfterLook::Failed { .. } => "failed",
        };
        self.looks.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts an attempt that ended.
    pub(crate) fn attempted(&self, trigger: &str, outcome: &Outcome, seconds: f64) {
        let outcome = outcome.as_str();
        let trigger = trigger.to_owned();
        self.attempts
            .get_or_create(&AttemptLabels { trigger, outcome })
            .inc();
        self.attempt.observe(seconds);
    }
}
