//! Decides for due triggers, and records the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{CauseReason, Image, Position, RolloutState, TraceContext};
use tokio::time::Instant;

use crate::act::{Slot, start};
use crate::error::Error;
use crate::store::chains as chain_store;
use crate::store::faults;
use crate::store::gates as gate_store;
use crate::store::orders as order_store;
use crate::store::planning::{self as store, NewRollout, Recorded};
use crate::store::selections::store_selections;
use crate::store::working::Attempt;
use crate::target::Target;

use super::Planner;
use super::decisions::Decisions;

/// The attempts at a plan whose snapshot was overtaken.
const ATTEMPTS: u32 = 4;

impl<'a> Planner<'a> {
    /// Plans the due triggers, again if the snapshot of the plan was overtaken.
    pub(super) async fn plan(
        &mut self,
        due: &BTreeSet<&'a str>,
        position: Option<Position>,
        traces: &BTreeMap<Image, Option<TraceContext>>,
    ) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match self.try_plan(due, position, traces).await {
                Err(Error::Database(error)) if store::was_overtaken(&error) => {
                    tracing::debug!("planning again: {error}");
                    store::roll_back(&mut self.db).await?;
                }
                ended => return ended,
            }
        }
        self.try_plan(due, position, traces).await
    }

    /// Decides for the due triggers and records the plan together with the position in REVISIONS.
    /// The planner lock excludes other planners. A pause can still come in between, so the
    /// recording statement checks the state of the trigger again.
    ///
    /// With policies, all is one transaction with one snapshot: candidates, heads, selections,
    /// rollouts and position. Without policies each statement stands alone.
    async fn try_plan(
        &mut self,
        due: &BTreeSet<&'a str>,
        position: Option<Position>,
        traces: &BTreeMap<Image, Option<TraceContext>>,
    ) -> Result<(), Error> {
        let mut news = self.candidates.news(traces.keys());
        let mut due = due.clone();
        due.extend(self.triggers_with(news.affected()));
        if due.is_empty() && position.is_none() {
            return Ok(());
        }
        let policies = self.candidates.concern(&due);
        if policies {
            store::begin(&mut self.db).await?;
            self.candidates.add(&mut self.db, &mut news).await?;
        }
        let Decisions {
            mut plan,
            settling,
            waiting,
            waiting_changed,
            views,
            answers,
            selections,
            faults,
            revoked,
        } = self.decide(&due, traces).await?;
        plan.position = position.filter(|_| !FailPoint::TriggerPosition.skipped());
        FailPoint::TriggerPlanned.pass();
        if !faults.is_empty() {
            let recorded = faults::record(&mut self.db, &faults).await?;
            for fault in faults.iter().filter(|_| recorded > 0) {
                tracing::warn!(
                    "a trigger is held until `tagtrail release`: {}",
                    fault.reason
                );
            }
        }
        let withdrawn = match revoked.is_empty() {
            true => Vec::new(),
            false => chain_store::withdraw(&mut self.db, &revoked).await?,
        };
        if !withdrawn.is_empty() {
            self.shared.entries_recorded.notify_one();
        }
        let (mut slots, mut recorded) = (BTreeMap::new(), Vec::new());
        // A trigger that was resumed becomes active only afterwards.
        if !plan.gates.is_empty() {
            gate_store::record(&mut self.db, &plan.gates).await?;
        }
        if !plan.is_empty() {
            slots = self.take_slots(&mut plan.new_rollouts);
            let owner = &self.shared.instance.owner;
            recorded = store::record(&mut self.db, &plan, owner).await?;
        }
        let mut stored = selections.stored(&recorded);
        if FailPoint::TriggerSelection.skipped() {
            stored.clear();
        }
        if policies {
            if !stored.is_empty() {
                FailPoint::TriggerSelected.pass();
                let new: Vec<_> = stored.iter().map(|(_, selection)| selection).collect();
                store_selections(&mut self.db, &new).await?;
            }
            store::commit(&mut self.db).await?;
        }
        // No attempt starts before its rollout is recorded for good.
        let recorded = self.begin(slots, recorded);
        if policies {
            self.candidates
                .recorded(&mut self.db, &news, stored)
                .await?;
        }
        if !recorded.is_empty() {
            FailPoint::TriggerRecorded.pass();
        }
        if !answers.is_empty() {
            order_store::answer(&mut self.db, &answers).await?;
        }
        if !waiting_changed.is_empty() {
            store::record_waiting(&mut self.db, &waiting_changed).await?;
        }
        if !views.is_empty() {
            store::record_views(&mut self.db, &views).await?;
        }
        if !plan.gates.is_empty() {
            FailPoint::TriggerGated.pass();
        }
        let gates = plan.gates.iter();
        let opened = gates.filter(|change| change.verdict.gates.is_empty());
        self.shared
            .queue(opened.map(|change| (change.trigger, change.name.clone())));
        self.settling.retain(|name, _| !due.contains(name));
        self.settling.extend(settling);
        // The next decision is about the set before.
        for name in withdrawn {
            if let Some((name, _)) = self.triggers.get_key_value(name.as_str()) {
                self.settling.insert(name, Instant::now());
            }
        }
        for Attempt { rollout, .. } in &recorded {
            tracing::info!(trigger = rollout.trigger, rollout.id, rollout.number, cause = %rollout.cause.reason, "recorded rollout {} of {}", rollout.number, rollout.trigger);
        }
        if !recorded.is_empty() || !plan.gates.is_empty() {
            self.shared.entries_recorded.notify_one();
        }
        // Rollouts that were pending during a pause may continue now.
        if !plan.resumed.is_empty() {
            self.shared.work_recorded.notify_one();
        }
        let (bus, timeout) = (self.bus, self.shared.session_timeout);
        self.questions
            .ask(bus, &mut self.db, &waiting, timeout)
            .await
    }

    /// Takes a slot for the first attempt of each new rollout, as far as slots are free and this
    /// process may begin attempts.
    fn take_slots(&self, rollouts: &mut [NewRollout]) -> BTreeMap<i32, (Arc<dyn Target>, Slot)> {
        let mut slots = BTreeMap::new();
        if !self.shared.instance.is_held() || self.shared.shutdown.is_cancelled() {
            return slots;
        }
        let targets = self.shared.targets();
        let sent = |rollout: &&mut NewRollout| {
            let open = rollout.verdict.state == RolloutState::Pending;
            open && rollout.cause.reason != CauseReason::Adopted
        };
        for rollout in rollouts.iter_mut().filter(sent) {
            let target = targets.get(&rollout.name);
            let slot = target.and_then(|target| self.shared.slots.take(target.place()));
            if let Some((target, slot)) = target.zip(slot) {
                rollout.begin = true;
                slots.insert(rollout.trigger, (Arc::clone(target), slot));
            }
        }
        slots
    }

    /// Starts the attempts that began with the recording of their rollouts, and hands the other
    /// rollouts to the dispatcher. Returns all recorded rollouts.
    fn begin(
        &self,
        mut slots: BTreeMap<i32, (Arc<dyn Target>, Slot)>,
        recorded: Vec<Recorded>,
    ) -> Vec<Attempt> {
        let mut rollouts = Vec::with_capacity(recorded.len());
        for Recorded { rollout, begun } in recorded {
            rollouts.push(rollout.clone());
            let slot = slots.remove(&rollout.trigger).filter(|_| begun);
            match slot {
                Some((target, slot)) => start(self.shared, target, rollout, slot),
                None if rollout.rollout.state != RolloutState::Pending => {}
                None => {
                    let name = rollout.rollout.trigger.clone();
                    self.shared.queue(std::iter::once((rollout.trigger, name)));
                }
            }
        }
        rollouts
    }
}
