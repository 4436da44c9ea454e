//! Reads whether the objects run the images of a rollout.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::Value;
use tagtrail_kubernetes::{
    Change, Health, ObjectName, Owner, Problem, failing, health, owner, stuck,
};
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::clean_text;

use super::super::contract::{Order, Seen};
use super::KubernetesTarget;
use super::apply::mark;
use super::settings::{Wait, WaitFor};

/// The annotation of the last rollout.
pub(super) const OURS: &str = "/metadata/annotations/tagtrail.dev~1rollout";

impl KubernetesTarget {
    /// Returns the state of all objects: the first one that is not done counts.
    pub(super) async fn look(&self, order: &Order) -> Seen {
        let mut waits = false;
        let all = self.settings.all().into_iter();
        let seen = all.map(|object| async move { (object, self.seen(object, order).await) });
        for (object, value) in join_all(seen).await {
            let value = match value {
                Ok(value) => value,
                Err(problem) if problem.is_final() => {
                    return Seen::Failed(format!("{}: {problem}", self.full(object)));
                }
                Err(problem) => {
                    return Seen::Progressing(format!("{}: {problem}", self.full(object)));
                }
            };
            let used = match self.used(object, &value) {
                Ok(used) => used,
                Err(why) => return Seen::Failed(why),
            };
            let changes = self.running_changes(object, used, &order.rollout.images);
            if let Some(change) = changes.first() {
                if self.reads {
                    let Change { place, to } = change;
                    let (name, image) = (&place.name, clean_text(&place.image, 200));
                    return Seen::Progressing(format!(
                        "{object}: {name} has {image}, and not yet {to}"
                    ));
                }
                if self.settings.wait == Wait::Each && !is_foreign(&value, change) {
                    waits = true;
                    break;
                }
                return Seen::Foreign(foreign(object, &value, change));
            }
            match self.health(object, &value) {
                Health::Done | Health::Applied(_) => {}
                Health::Progressing(text) => {
                    let why =
                        self.reasons(object, &value).await + &self.stuck(object, &value).await;
                    return Seen::Progressing(format!("{object}: {text}{why}"));
                }
                Health::Failed(text) => {
                    let why = self.reasons(object, &value).await;
                    return Seen::Failed(format!("{object}: {text}{why}"));
                }
            }
        }
        if !waits {
            return Seen::Healthy;
        }
        match self.advance(order).await {
            Ok(None) => Seen::Healthy,
            Ok(Some(object)) => Seen::Progressing(format!("{object} is next, and has the images")),
            Err(Outcome::Foreign { error, .. }) => Seen::Foreign(error),
            Err(Outcome::Refused(error) | Outcome::Lacking(error) | Outcome::Gone(error)) => {
                Seen::Failed(error)
            }
            Err(Outcome::Failed { error, .. }) => Seen::Progressing(error),
            Err(Outcome::Done | Outcome::Applied) => Seen::Healthy,
        }
    }

    /// Returns an object as its watch has seen it after the change of this rollout, if it then was
    /// well or on its way; otherwise reads it.
    async fn seen(&self, object: &ObjectName, order: &Order) -> Result<Arc<Value>, Problem> {
        if !self.reads
            && let Some(value) = self.kept(object)
        {
            let ours = value.pointer(OURS).and_then(Value::as_str) == Some(&mark(&order.rollout));
            let used = self.used(object, &value);
            let images = &order.rollout.images;
            let changed =
                used.is_ok_and(|used| self.running_changes(object, used, images).is_empty());
            let health = self.health(object, &value);
            if ours && changed && !matches!(health, Health::Failed(_)) {
                return Ok(value);
            }
        }
        let value = self.cluster.get(&self.settings.namespace, object).await?;
        Ok(Arc::new(value))
    }

    fn health(&self, object: &ObjectName, value: &Value) -> Health {
        let gone = self.settings.wait_for == WaitFor::OldPodsGone;
        health(&object.kind, value, gone)
    }

    /// Returns who has changed the images of the last rollout, if somebody has. An object that
    /// can't be read tells nothing.
    pub(super) async fn changed_by_others(&self, order: &Order) -> Option<String> {
        let looks = self.settings.all().into_iter().map(|object| async move {
            // The state of a watch may be an earlier one, so a change is read again.
            if let Some(value) = self.kept(object)
                && self.change_by_others(object, &value, order)?.is_none()
            {
                return Some(None);
            }
            let value = self.cluster.get(&self.settings.namespace, object).await;
            self.change_by_others(object, &value.ok()?, order)
        });
        for found in join_all(looks).await {
            if let Some(text) = found? {
                return Some(text);
            }
        }
        None
    }

    /// Returns the text about an image of this object that somebody else has changed. The outer
    /// `None`: the object lacks a place.
    fn change_by_others(
        &self,
        object: &ObjectName,
        value: &Value,
        order: &Order,
    ) -> Option<Option<String>> {
        let used = self.used(object, value).ok()?;
        let changes = self.running_changes(object, used, &order.rollout.images);
        // The undo of a person takes the annotation of the last rollout away, too.
        let by_others = |change: &&Change| others(value, change).is_some();
        let change = changes.iter().find(by_others);
        Some(change.map(|change| foreign(object, value, change)))
    }

    /// Returns the pods of an object. `None`: they can't be listed.
    async fn pods(&self, value: &Value) -> Option<Vec<Value>> {
        let labels = value.pointer("/spec/selector/matchLabels")?.as_object()?;
        let pairs = labels
            .iter()
            .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
        let selector: Vec<String> = pairs.collect();
        let namespace = &self.settings.namespace;
        self.cluster.pods(namespace, &selector.join(",")).await.ok()
    }

    /// Returns the text about pods that keep a `StatefulSet` from its new images, as the end of a
    /// sentence. With `repair_pods` they are deleted, and the `StatefulSet` makes new ones.
    async fn stuck(&self, object: &ObjectName, value: &Value) -> String {
        if object.kind != "statefulset" {
            return String::new();
        }
        let used = self.used(object, value).unwrap_or_default();
        let images: Vec<(&str, &str)> = used
            .iter()
            .map(|used| (used.place.name.as_str(), used.place.image.as_str()))
            .collect();
        let pods = self.pods(value).await.unwrap_or_default();
        let mut text = String::new();
        let namespace = &self.settings.namespace;
        for pod in stuck(value, &pods, &images) {
            let name = &pod.name;
            let deleted = match self.settings.repair_pods {
                true => self.cluster.delete_pod(namespace, &pod).await,
                false => Err(Problem::Forbidden("repair_pods is not set".to_owned())),
            };
            text += &match deleted {
                Ok(()) => format!("; deleted pod {name} of earlier images, which was not ready"),
                Err(problem) => format!(
                    "; pod {name} of earlier images is not ready and stays ({problem}): kubectl --namespace {namespace} delete pod {name}"
                ),
            };
        }
        text
    }

    /// Returns why the pods of the new images do not run, as the end of a sentence. Without the
    /// right to list pods, the status of the object must do.
    async fn reasons(&self, object: &ObjectName, value: &Value) -> String {
        let Some(pods) = self.pods(value).await else {
            return String::new();
        };
        let used = self.used(object, value).unwrap_or_default();
        let images: Vec<&str> = used.iter().map(|used| used.place.image.as_str()).collect();
        match failing(&pods, &images).as_slice() {
            [] => String::new(),
            reasons => format!("; {}", reasons.join("; ")),
        }
    }
}

/// Returns whether somebody else has changed a place whose image Tagtrail had set before: an object
/// that Tagtrail has never changed is not taken from anybody.
pub(super) fn is_foreign(value: &Value, change: &Change) -> bool {
    value.pointer(OURS).is_some() && others(value, change).is_some()
}

/// Returns the owner of a place, unless that is Tagtrail.
pub(super) fn others(value: &Value, change: &Change) -> Option<Owner> {
    owner(value, &change.place).filter(|owner| !owner.is_us())
}

/// Returns the text about an image that somebody else has changed.
pub(super) fn foreign(object: &ObjectName, value: &Value, change: &Change) -> String {
    let (name, image) = (&change.place.name, &change.place.image);
    match others(value, change) {
        Some(Owner { manager, .. }) => format!("{object}: {manager} has changed {name} to {image}"),
        None => format!("{object}: {name} runs {image}, not the image of this rollout"),
    }
}
