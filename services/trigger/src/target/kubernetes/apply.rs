//! Brings the objects to the images of a rollout.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tagtrail_failpoint::FailPoint;
use tagtrail_kubernetes::{
    CHANGE_CAUSE, Change, ObjectName, Place, Problem, ROLLOUT, adoption, patch, pod_spec,
    remaining, tests_version,
};
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::{CauseReason, Rollout, clean_text};

use super::super::contract::{OnForeignChange, Order};
use super::observe::{OURS, foreign, others};
use super::settings::Wait;
use super::{KubernetesTarget, Used};

/// Most tries of a patch that others overtook.
const RACES: u32 = 5;
/// The pause after the first lost race; each further one doubles the pause.
const PAUSE: Duration = Duration::from_millis(50);
/// Most bytes of the text that `kubectl rollout history` shows.
const CAUSE: usize = 200;

/// An object to change.
#[derive(Clone)]
struct Planned<'a> {
    object: &'a ObjectName,
    /// The object as it was read.
    value: Arc<Value>,
    changes: Vec<Change>,
    /// The places of images that no rollout had before, as JSON pointers.
    joining: BTreeSet<String>,
}

impl Planned<'_> {
    /// Returns the patch that makes the changes.
    fn patch(&self, rollout: &Rollout) -> Value {
        patch(&self.value, &self.changes, &annotations(rollout))
    }

    /// Returns whether all tests of the patch hold for the object as it is now. A refusal is then
    /// no lost race.
    fn holds(&self, now: &Value) -> bool {
        let changes = &self.changes;
        remaining(now, changes).as_ref() == Some(changes) && !differs(&self.value, now, changes)
    }
}

impl KubernetesTarget {
    /// Brings all objects to the images, or none: a refusal in the middle takes the changes back.
    pub(super) async fn bring(&self, order: &Order) -> Outcome {
        let mut planned = match self.plan(order).await {
            Ok(planned) => planned,
            Err(outcome) => return outcome,
        };
        if self.settings.wait == Wait::Each {
            // The next object changes when a look finds this one healthy.
            planned.truncate(1);
        }
        // The patch of one object is all or nothing by itself.
        if planned.len() > 1
            && let Some(outcome) = self.refusal(&planned, &order.rollout).await
        {
            return outcome;
        }
        for at in 0..planned.len() {
            let one = &planned[at];
            if let Err(outcome) = self.change(one, order).await {
                return self.take_back(&planned[..at], outcome).await;
            }
            for change in &one.changes {
                let text = format!("{}: {}\n", one.object, line(change));
                order.said.push(text.as_bytes());
            }
            FailPoint::TriggerPatched.pass();
        }
        if planned.is_empty() {
            order.said.push(b"every object had the images already\n");
        }
        Outcome::Applied
    }

    /// Changes the first object that does not run the images of the rollout. Returns the object;
    /// `None` if all of them do.
    pub(super) async fn advance(&self, order: &Order) -> Result<Option<ObjectName>, Outcome> {
        let planned = self.plan(order).await?;
        let Some(first) = planned.first() else {
            return Ok(None);
        };
        self.change(first, order).await?;
        Ok(Some(first.object.clone()))
    }

    /// Returns the objects to change, as their watches have seen them where that suffices.
    async fn plan(&self, order: &Order) -> Result<Vec<Planned<'_>>, Outcome> {
        match self.plan_by(order, true).await {
            Ok(planned) => Ok(planned),
            // The state of a watch may be an earlier one.
            Err(_) => self.plan_by(order, false).await,
        }
    }

    /// Returns the objects to change. With `kept`, an object whose watch has seen a need for a
    /// change is not read: the tests of the patch find out if the object has changed since then.
    async fn plan_by(&self, order: &Order, kept: bool) -> Result<Vec<Planned<'_>>, Outcome> {
        let images = &order.rollout.images;
        let plans = self.settings.all().into_iter().map(|object| async move {
            if kept
                && let Some(value) = self.kept(object)
                && let Ok(plan) = self.plan_one(object, value, order)
                && !plan.0.changes.is_empty()
            {
                return Ok(plan);
            }
            let value = self.cluster.get(&self.settings.namespace, object).await;
            let value = value.map_err(|problem| self.outcome(object, problem))?;
            self.plan_one(object, Arc::new(value), order)
        });
        let (mut planned, mut missing) = (Vec::new(), images.clone());
        for plan in join_all(plans).await {
            let (plan, found) = plan?;
            self.adopt(&plan, order).await;
            missing.retain(|image, _| !found.contains(image));
            if !plan.changes.is_empty() {
                planned.push(plan);
            }
        }
        match missing.first_key_value() {
            None => Ok(planned),
            Some((name, image)) => Err(Outcome::Lacking(format!(
                "no container of {} runs {}/{}; name its containers by containers.{name}, or correct objects",
                self.settings
                    .all()
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
                image.pinned.registry,
                image.pinned.repository,
            ))),
        }
    }

    /// Makes Tagtrail an owner of the images of an object that has them already. If another owner
    /// objects, the order says so: the next change makes Tagtrail an owner, too.
    async fn adopt(&self, plan: &Planned<'_>, order: &Order) {
        let (object, namespace) = (plan.object, &self.settings.namespace);
        // An apply to a custom resource could delete its other containers.
        if object.group.is_some() || !plan.changes.is_empty() {
            return;
        }
        let used = self.used(object, &plan.value).unwrap_or_default();
        let at = pod_spec(&object.kind);
        let places = used.iter().map(|used| &used.place);
        let places: Vec<&Place> = places.filter(|place| place.at.starts_with(at)).collect();
        let Some(fields) = adoption(&plan.value, at, &places) else {
            return;
        };
        let text = match self.cluster.apply(namespace, object, &fields).await {
            Ok(now) => {
                self.learn(object, now);
                format!("{object}: has the images already; Tagtrail owns them from now on\n")
            }
            Err(problem) => format!(
                "{object}: has the images already, and Tagtrail does not own them before its first change: {problem}\n"
            ),
        };
        order.said.push(text.as_bytes());
    }

    /// Returns the changes of an object in this state, and the images that it runs.
    fn plan_one<'a>(
        &self,
        object: &'a ObjectName,
        value: Arc<Value>,
        order: &Order,
    ) -> Result<(Planned<'a>, BTreeSet<String>), Outcome> {
        let used = self.used(object, &value).map_err(Outcome::Refused)?;
        let found = used.iter().map(|used| used.image.clone()).collect();
        let set = &order.background.set;
        let joins = |used: &&Used| self.partial && !set.contains(&used.image);
        let joining = used.iter().filter(joins);
        let joining = joining.map(|used| used.place.at.clone()).collect();
        let planned = Planned {
            object,
            value,
            changes: self.changes(used, &order.rollout.images),
            joining,
        };
        match self.objection(&planned, order) {
            Some(objection) => Err(objection),
            None => Ok((planned, found)),
        }
    }

    /// Returns the outcome if somebody else has changed an image that an earlier rollout had set: a
    /// person decides. A person who ordered the rollout, or who released the trigger since
    /// then, has decided.
    fn objection(&self, plan: &Planned<'_>, order: &Order) -> Option<Outcome> {
        let ours = plan.value.pointer(OURS).is_some();
        if ours {
            self.decision(plan, order)
        } else {
            None
        }
    }

    /// Returns the outcome if an image has another owner, and a person has to decide about it.
    fn decision(&self, plan: &Planned<'_>, order: &Order) -> Option<Outcome> {
        let holds = self.settings.on_foreign_change == OnForeignChange::Hold;
        if !holds || order.decided || order.rollout.cause.reason != CauseReason::Revision {
            return None;
        }
        let (object, value) = (plan.object, &plan.value);
        let counts = |change: &Change| {
            let at = &change.place.at;
            !self.settings.is_record(object, at) && !plan.joining.contains(at)
        };
        let theirs = |change: &&Change| counts(change) && others(value, change).is_some();
        let change = plan.changes.iter().find(theirs)?;
        Some(Outcome::Foreign {
            error: foreign(object, value, change),
            since: others(value, change).and_then(|owner| owner.since),
        })
    }

    /// Asks for all changes without making them. Returns the outcome if one would be refused.
    async fn refusal(&self, planned: &[Planned<'_>], rollout: &Rollout) -> Option<Outcome> {
        let tries = planned.iter().map(|one| async move {
            let (namespace, patch) = (&self.settings.namespace, one.patch(rollout));
            let asked = self
                .cluster
                .patch(namespace, one.object, &patch, true)
                .await;
            (one, asked.err())
        });
        for (one, problem) in join_all(tries).await {
            match problem {
                None => {}
                // An overtaken patch is tried again when its turn comes.
                Some(Problem::Invalid(why)) if self.is_overtaken(one).await => {
                    tracing::debug!("{}: the trial was overtaken: {why}", one.object);
                }
                Some(problem) => return Some(self.outcome(one.object, problem)),
            }
        }
        None
    }

    async fn is_overtaken(&self, one: &Planned<'_>) -> bool {
        let now = self.cluster.get(&self.settings.namespace, one.object).await;
        now.is_ok_and(|now| !one.holds(&now))
    }

    /// Changes one object. Who changes it at the same time wins: the patch is made again from what
    /// is there then, unless a person has to decide.
    async fn change(&self, one: &Planned<'_>, order: &Order) -> Result<(), Outcome> {
        if FailPoint::TriggerPatch.skipped() {
            return Ok(());
        }
        let (namespace, object) = (&self.settings.namespace, one.object);
        let (mut one, mut pause) = (one.clone(), PAUSE);
        for race in 0..RACES {
            let patch = one.patch(&order.rollout);
            let refused = match self.cluster.patch(namespace, object, &patch, false).await {
                Ok(now) => {
                    self.learn(object, now);
                    let lines: Vec<String> = one.changes.iter().map(line).collect();
                    self.tell_changed(object, &order.rollout, &lines.join("; "));
                    return Ok(());
                }
                Err(Problem::Invalid(why)) => why,
                Err(problem) => return Err(self.outcome(object, problem)),
            };
            let now = self.cluster.get(namespace, object).await;
            let now = now.map_err(|problem| self.outcome(object, problem))?;
            let (next, _) = self.plan_one(object, Arc::new(now), order)?;
            if next.changes.is_empty() {
                return Ok(());
            }
            if one.holds(&next.value) {
                return Err(self.outcome(object, Problem::Invalid(refused)));
            }
            // An undo may have taken away the annotation by which the object was known as ours.
            let was_ours = one.value.pointer(OURS).is_some();
            if was_ours && let Some(objection) = self.decision(&next, order) {
                return Err(objection);
            }
            one = next;
            if race + 1 < RACES {
                tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
                pause *= 2;
            }
        }
        Err(Outcome::Failed {
            error: format!(
                "others changed {} {RACES} times meanwhile",
                self.full(object)
            ),
            after: None,
        })
    }

    /// Takes the changes of these objects back after a refusal of another one. Where that fails,
    /// the outcome names the object, and the next attempt goes on from there.
    async fn take_back(&self, changed: &[Planned<'_>], outcome: Outcome) -> Outcome {
        let mut left = Vec::new();
        for one in changed {
            let back: Vec<Change> = one.changes.iter().map(reversed).collect();
            let namespace = &self.settings.namespace;
            let Ok(now) = self.cluster.get(namespace, one.object).await else {
                left.push(one.object.to_string());
                continue;
            };
            // An image that somebody else has changed meanwhile stays.
            let Some(back) = remaining(&now, &back).filter(|back| !back.is_empty()) else {
                continue;
            };
            let patch = patch(&now, &back, &[]);
            match self
                .cluster
                .patch(namespace, one.object, &patch, false)
                .await
            {
                Ok(now) => self.learn(one.object, now),
                Err(_) => left.push(one.object.to_string()),
            }
        }
        if left.is_empty() {
            return outcome;
        }
        let Some(error) = outcome.error() else {
            return outcome;
        };
        Outcome::Failed {
            error: format!("{error}; {} kept the new images", left.join(", ")),
            after: None,
        }
    }
}

/// Returns the text about a change.
fn line(change: &Change) -> String {
    let Change { place, to } = change;
    format!("{}: {} → {to}", place.name, place.image)
}

fn reversed(change: &Change) -> Change {
    let mut back = change.clone();
    back.place.image.clone_from(&change.to);
    back.to.clone_from(&change.place.image);
    back
}

/// Returns whether two reads are of different objects, or of one that changed in between where the
/// patch tests it.
fn differs(before: &Value, now: &Value, changes: &[Change]) -> bool {
    let uid = |value: &Value| value.pointer("/metadata/uid").cloned();
    let by_version = tests_version(before, changes, false);
    let version = |value: &Value| value.pointer("/metadata/resourceVersion").cloned();
    uid(before) != uid(now) || by_version && version(before) != version(now)
}

/// Returns the value of the annotation of a rollout.
pub(super) fn mark(rollout: &Rollout) -> String {
    format!("{}#{}", rollout.trigger, rollout.number)
}

/// Returns the annotations of a change.
fn annotations(rollout: &Rollout) -> [(&'static str, String); 2] {
    let images = rollout.images.values().map(|image| image.image.to_string());
    let images: Vec<String> = images.collect();
    let (trigger, number) = (&rollout.trigger, rollout.number);
    let cause = format!(
        "tagtrail rollout {number} of {trigger}: {}",
        images.join(", ")
    );
    [
        (ROLLOUT, mark(rollout)),
        (CHANGE_CAUSE, clean_text(&cause, CAUSE)),
    ]
}

#[cfg(test)]
mod tests;
