//! Brings the objects to the images of a rollout.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tagtrail_failpoint::FailPoint;
use tagtrail_kubernetes::{CHANGE_CAUSE, Change, ObjectName, Problem, ROLLOUT, patch, remaining};
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::{CauseReason, Rollout, clean_text};

use super::super::contract::{OnForeignChange, Order};
use super::KubernetesTarget;
use super::observe::{foreign, is_foreign, others};
use super::settings::Wait;

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
    value: Value,
    changes: Vec<Change>,
}

impl Planned<'_> {
    /// Returns the patch that makes the changes.
    fn patch(&self, rollout: &Rollout) -> Value {
        patch(&self.value, &self.changes, &annotations(rollout))
    }

    /// Returns whether all tests of the patch hold for the object as it is now. A refusal is then
    /// no lost race.
    fn holds(&self, now: &Value) -> bool {
        remaining(now, &self.changes).as_ref() == Some(&self.changes) && !differs(&self.value, now)
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
            if let Err(outcome) = self.change(one, &order.rollout).await {
                return self.take_back(&planned[..at], outcome).await;
            }
            for change in &one.changes {
                let (object, name) = (one.object, &change.place.name);
                let line = format!("{object}: {name}: {} → {}\n", change.place.image, change.to);
                order.said.push(line.as_bytes());
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
        self.change(first, &order.rollout).await?;
        Ok(Some(first.object.clone()))
    }

    /// Reads all objects, and returns those to change.
    async fn plan(&self, order: &Order) -> Result<Vec<Planned<'_>>, Outcome> {
        let images = &order.rollout.images;
        let (mut planned, mut missing) = (Vec::new(), images.clone());
        for (object, value) in self.read().await {
            let value = value.map_err(|problem| self.outcome(object, problem))?;
            let used = self.used(object, &value).map_err(Outcome::Refused)?;
            for used in &used {
                missing.remove(&used.image);
            }
            let changes = self.changes(used, images);
            if let Some(objection) = self.objection(object, &value, &changes, order) {
                return Err(objection);
            }
            if !changes.is_empty() {
                planned.push(Planned {
                    object,
                    value,
                    changes,
                });
            }
        }
        match missing.first_key_value() {
            None => Ok(planned),
            Some((name, image)) => Err(Outcome::Refused(format!(
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

    /// Returns the outcome if somebody else has changed an image that an earlier rollout had set: a
    /// person decides. A person who ordered the rollout, or who released the trigger since
    /// then, has decided.
    fn objection(
        &self,
        object: &ObjectName,
        value: &Value,
        changes: &[Change],
        order: &Order,
    ) -> Option<Outcome> {
        let holds = self.settings.on_foreign_change == OnForeignChange::Hold;
        if !holds || order.decided || order.rollout.cause.reason != CauseReason::Revision {
            return None;
        }
        let change = changes.iter().find(|change| is_foreign(value, change))?;
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

    /// Changes one object. Who changes it at the same time wins, and the patch is made again.
    async fn change(&self, one: &Planned<'_>, rollout: &Rollout) -> Result<(), Outcome> {
        let (namespace, object) = (&self.settings.namespace, one.object);
        let (mut one, mut pause) = (one.clone(), PAUSE);
        for race in 0..RACES {
            let patch = one.patch(rollout);
            let refused = match self.cluster.patch(namespace, object, &patch, false).await {
                Ok(_) => return Ok(()),
                Err(Problem::Invalid(why)) => why,
                Err(problem) => return Err(self.outcome(object, problem)),
            };
            let now = self.cluster.get(namespace, object).await;
            let now = now.map_err(|problem| self.outcome(object, problem))?;
            let used = self.used(object, &now).map_err(Outcome::Refused)?;
            let changes = self.changes(used, &rollout.images);
            if changes.is_empty() {
                return Ok(());
            }
            if one.holds(&now) {
                return Err(self.outcome(object, Problem::Invalid(refused)));
            }
            (one.value, one.changes) = (now, changes);
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
            if self
                .cluster
                .patch(namespace, one.object, &patch, false)
                .await
                .is_err()
            {
                left.push(one.object.to_string());
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

fn reversed(change: &Change) -> Change {
    let mut back = change.clone();
    back.place.image.clone_from(&change.to);
    back.to.clone_from(&change.place.image);
    back
}

/// Returns whether two reads are of different objects, or of one that changed in between where the
/// patch tests it.
fn differs(before: &Value, now: &Value) -> bool {
    let uid = |value: &Value| value.pointer("/metadata/uid").cloned();
    // Without annotations the patch tests the version of the object.
    let bare = before.pointer("/metadata/annotations").is_none();
    let version = |value: &Value| value.pointer("/metadata/resourceVersion").cloned();
    uid(before) != uid(now) || bare && version(before) != version(now)
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
        (ROLLOUT, format!("{trigger}#{number}")),
        (CHANGE_CAUSE, clean_text(&cause, CAUSE)),
    ]
}
