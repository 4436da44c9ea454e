//! The decisions of one round, from one snapshot of the heads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tagtrail_config::{Door, OnTargetChange, Watched};
use tagtrail_daemon::{Span, SpanKind};
use tagtrail_failpoint::FailPoint;
use tagtrail_proto::{CauseReason, Image, TraceContext, Waiting};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::error::Error;
use crate::plan::adoption::{Report, report};
use crate::plan::chain::Chains;
use crate::plan::choice::{Choices, Selections, choose};
use crate::plan::gating::{Evaluated, Round, gate};
use crate::plan::orders::{self, Ordered, Settling};
use crate::plan::view;
use crate::store::faults::TagFault;
use crate::store::planning as store;
use crate::store::planning::{NewRollout, Plan};
use crate::store::states as state_store;
use crate::store::states::{TriggerState, View};
use tagtrail_policy::begin::Verdict;
use tagtrail_policy::decide::{Decision, FirstSight, Reported, Situation};

use super::Planner;

impl<'a> Planner<'a> {
    /// Decides for the due triggers from one snapshot of the heads.
    pub(super) async fn decide(
        &mut self,
        due: &BTreeSet<&'a str>,
        traces: &BTreeMap<Image, Option<TraceContext>>,
    ) -> Result<Decisions<'a>, Error> {
        let mut decisions = Decisions::default();
        if due.is_empty() {
            return Ok(decisions);
        }
        let names: Vec<&str> = due.iter().copied().collect();
        let mut states = state_store::trigger_states(&mut self.db, &names).await?;
        states.retain(|(state, _)| self.has_settings_of(state));
        let mut choices = choose(&mut self.candidates, &mut self.db, &states).await?;
        view::find_unknown(&mut self.db, &mut choices).await?;
        let mut images: BTreeSet<&Image> = due
            .iter()
            .filter_map(|name| self.triggers.get(name))
            .flat_map(|trigger| trigger.images.values().filter_map(Watched::tag))
            .collect();
        images.extend(choices.changed(&states));
        let images: Vec<&Image> = images.into_iter().collect();
        let heads = match images.is_empty() {
            true => BTreeMap::new(),
            false => store::heads(&mut self.db, &images).await?,
        };
        let specs = states
            .iter()
            .filter_map(|(state, _)| self.triggers.get(state.name.as_str()));
        let chains = Chains::read(&mut self.db, specs.copied()).await?;
        let mut rounds = Vec::with_capacity(states.len());
        for (mut state, now) in states {
            let Some((name, trigger)) = self.triggers.get_key_value(state.name.as_str()) else {
                continue;
            };
            let mut standing = std::mem::take(&mut state.standing);
            standing.order = standing
                .order
                .filter(|_| !FailPoint::TriggerOrder.skipped());
            let chain = chains.of(trigger, &state, &standing, now);
            let selected = match &chain {
                Some(chain) => chain.selected.clone(),
                None => choices.selected(trigger, &heads),
            };
            let identity = self.targets.get(*name).map(|target| target.identity());
            let target_changed = trigger.on_target_change == OnTargetChange::Rollout
                && state.identity.is_some()
                && identity.is_some()
                && state.identity != identity;
            let mut situation = Situation {
                images: chain
                    .as_ref()
                    .map_or(&trigger.images, |chain| &chain.images),
                followed: chain.is_some(),
                selected: &selected,
                last: state.last.as_ref(),
                unsent: state.unsent,
                target_changed,
                cut_off: state.cut_off,
                first: FirstSight {
                    start: trigger.start,
                    reported: Reported::NotAsked,
                    configured_at: state.first_configured_at,
                },
                paused: state.paused,
                resumed: state.resuming,
                settle: trigger.settle,
                asked: self.asked,
                partial: trigger.partial,
                now,
            };
            let ordered = standing.order.is_some() || standing.pinned.is_some();
            let report = match situation.asks_target() && !ordered {
                true => {
                    let target = self.targets.get(*name);
                    let slots = &self.shared.slots;
                    let running = self.adoptions.running(name, target, slots);
                    let of = (&self.candidates, &choices);
                    Some(report(&mut self.db, running, &state, &situation, of).await?)
                }
                false => {
                    self.adoptions.forget(name);
                    None
                }
            };
            if let Some(report) = &report {
                situation.first.reported = report.reported();
            }
            let settling = Settling {
                longest: trigger.settle_max,
                before: &state.waiting,
            };
            let mut ordered = orders::decide(&situation, &standing, &settling);
            if let Some(chain) = &chain {
                if !state.paused && standing.pinned.is_none() {
                    ordered.decision = chain.add_gate(ordered.decision);
                }
                if let Some((_, text)) = &mut ordered.answer
                    && situation.images.is_empty()
                {
                    *text = chain.nothing(name);
                }
                let newest = standing.live.last();
                let unbegun = newest.is_some_and(|one| one.attempts == 0 && !one.ordered);
                let why = chain.revoked().filter(|_| unbegun);
                if let Some(why) = why {
                    decisions.revoked.push((state.id, why));
                }
            }
            let waiting = ordered.decision.waiting();
            self.shared.metrics.waiting(name, waiting);
            let mut view = view::view(trigger, &state, &situation, &choices, &ordered.decision);
            if let (Some(chain), Some(view)) = (&chain, &mut view) {
                chain.complete(view, &state, now);
            }
            if let (Some(Report::Unknown(reason)), Some(view)) = (&report, &mut view) {
                view.reasons.push(view::since(reason.clone(), &state, now));
            }
            decisions.views.extend(
                view.filter(|view| *view != state.view)
                    .map(|view| (state.id, view)),
            );
            decisions.add(name, (&state, now), ordered, traces);
            let new = decisions.plan.new_rollouts.last_mut();
            if let Some(new) = new.filter(|new| new.trigger == state.id) {
                new.identity = identity;
                // The difference between the adopted images and the present ones is planned next.
                if new.cause.reason == CauseReason::Adopted && report.is_some() {
                    decisions.settling.insert(name, Instant::now());
                    if let Some(Report::Set(adopted)) = report {
                        decisions.selections.adopt(adopted.selections);
                    }
                }
            }
            decisions.follow(name, (&state, now), &choices);
            decisions.look_again(name, now, chain.and_then(|chain| chain.opens_at()));
            rounds.push(Round {
                name,
                id: state.id,
                paused: state.paused,
                now,
                standing,
                settings: &trigger.gates,
            });
        }
        for evaluated in gate(&mut self.db, &mut decisions.plan, &self.triggers, &rounds).await? {
            let Evaluated {
                name, now, again, ..
            } = evaluated;
            self.shared.metrics.closed_gates(name, &evaluated.gates);
            decisions.look_again(name, now, again);
        }
        Ok(decisions)
    }
}

impl Planner<'_> {
    /// Returns whether the settings in force are those that this process has read. The api and the
    /// reader of annotations record settings a moment before the planner reads them: until then a
    /// trigger is left out, and all triggers are planned afterwards. Those of files are recorded by
    /// the planner itself.
    fn has_settings_of(&self, state: &TriggerState) -> bool {
        let Some(spec) = self.triggers.get(state.name.as_str()) else {
            return false;
        };
        let in_force = state.spec_hash.as_deref();
        match spec.spec.door {
            Door::Api | Door::Kubernetes => in_force.is_some_and(|hash| *hash == spec.hash[..]),
            Door::File | Door::Folder => true,
        }
    }
}

/// The decisions of one round.
#[derive(Debug, Default)]
pub(super) struct Decisions<'a> {
    pub(super) plan: Plan,
    /// Triggers with closed gates, and the time at which each is checked again.
    pub(super) settling: BTreeMap<&'a str, Instant>,
    /// All closed gates.
    pub(super) waiting: Vec<Waiting>,
    /// The closed gates that differ from the recorded ones, by the id of the trigger.
    pub(super) waiting_changed: BTreeMap<i32, Vec<Waiting>>,
    /// The views of images that differ from the recorded ones, by the id of the trigger.
    pub(super) views: BTreeMap<i32, View>,
    /// The answers to orders that lead to no rollout.
    pub(super) answers: Vec<(i64, String)>,
    /// The tags that policies selected.
    pub(super) selections: Selections,
    /// The changes of selected tags that hold their triggers.
    pub(super) faults: Vec<TagFault>,
    /// Triggers whose last set a rollback upstream has left, by id, with the reason.
    pub(super) revoked: Vec<(i32, String)>,
}

impl<'a> Decisions<'a> {
    fn add(
        &mut self,
        name: &'a str,
        (state, now): (&TriggerState, OffsetDateTime),
        ordered: Ordered,
        traces: &BTreeMap<Image, Option<TraceContext>>,
    ) {
        let Ordered {
            decision,
            order,
            answer,
            fixed,
        } = ordered;
        self.answers.extend(answer);
        let waiting = match decision {
            Decision::Nothing { waiting } => {
                self.plan.resumed.extend(state.resuming.then_some(state.id));
                waiting
            }
            Decision::Wait { again, waiting } => {
                let pause = (again - now).try_into().unwrap_or(Duration::ZERO);
                self.settling.insert(name, Instant::now() + pause);
                waiting
            }
            Decision::Start { images, cause } => {
                let planned = images.values();
                let trace = planned.filter_map(|one| *traces.get(&one.image)?).next();
                let span = Span::start("plan", SpanKind::Consumer, trace.as_ref());
                self.plan.new_rollouts.push(NewRollout {
                    trigger: state.id,
                    images,
                    cause,
                    trace: *span.context(),
                    name: name.to_owned(),
                    begin: false,
                    order,
                    fixed,
                    identity: None,
                    verdict: Verdict::OPEN,
                });
                Vec::new()
            }
        };
        if waiting != state.waiting {
            for one in waiting.iter().filter(|one| !state.waiting.contains(one)) {
                tracing::info!(trigger = name, image = %one.image, gate = %one.gate, registry = %one.registry, "{name} waits: {}", one.why);
            }
            self.waiting_changed.insert(state.id, waiting.clone());
        }
        self.waiting.extend(waiting);
    }

    /// Notes the selections of a trigger after its decision, and the time of the next one.
    fn follow(
        &mut self,
        name: &'a str,
        (state, now): (&TriggerState, OffsetDateTime),
        choices: &Choices,
    ) {
        let last = self.plan.new_rollouts.last();
        let started = last.filter(|rollout| rollout.trigger == state.id);
        self.selections.add(state, choices, started);
        if !state.paused {
            self.faults.extend(choices.faults(state));
        }
        self.look_again(name, now, choices.again(name));
    }

    /// Notes a time at which a trigger is due again.
    fn look_again(&mut self, name: &'a str, now: OffsetDateTime, again: Option<OffsetDateTime>) {
        if let Some(again) = again {
            let pause = (again - now).try_into().unwrap_or(Duration::ZERO);
            let at = Instant::now() + pause;
            let settling = self.settling.entry(name).or_insert(at);
            *settling = at.min(*settling);
        }
    }
}
