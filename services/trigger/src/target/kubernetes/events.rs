//! Events on the objects of a target. They are sent by a task of their own, so that no rollout
//! waits for them or fails by them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tagtrail_kubernetes::{Cluster, Event, ObjectName, Problem};
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::Rollout;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::contract::{OnForeignChange, Order, Seen};
use super::KubernetesTarget;

/// Most events of one target that wait; further ones are dropped.
const QUEUE: usize = 100;
/// Most events that are remembered as sent.
const REMEMBERED: usize = 1000;
/// The time without further tries after the API server has refused an event.
const REFUSED: Duration = Duration::from_secs(600);

/// An event that waits, with its object, and the object's uid if it is known.
type Queued = (ObjectName, Option<String>, Event);

/// The events of a target.
#[derive(Default)]
pub(super) struct Events(OnceLock<Sender>);

struct Sender {
    queue: mpsc::Sender<Queued>,
    /// The object, reason and cause of the events that were queued.
    sent: Mutex<BTreeSet<(ObjectName, &'static str, String)>>,
    /// The task that sends ends when the set is dropped.
    _task: JoinSet<()>,
}

impl KubernetesTarget {
    /// Records that an object has got the images of a rollout.
    pub(super) fn tell_changed(&self, object: &ObjectName, rollout: &Rollout, text: &str) {
        let (trigger, number) = (&rollout.trigger, rollout.number);
        let note = format!("rollout {number} of trigger {trigger}: {text}");
        self.send(object, &rollout.id, ("TagtrailRollout", false), note);
    }

    /// Records the outcome of an attempt on all objects, if a person should know it.
    pub(super) fn tell_outcome(&self, order: &Order, outcome: &Outcome) {
        match outcome {
            Outcome::Foreign { error, .. } => self.tell_foreign(order, error),
            Outcome::Refused(error) | Outcome::Lacking(error) => self.tell_failed(order, error),
            _ => {}
        }
    }

    /// Records the finding of a look on all objects, if a person should know it.
    pub(super) fn tell_seen(&self, order: &Order, seen: &Seen) {
        match seen {
            Seen::Foreign(text) => self.tell_foreign(order, text),
            Seen::Failed(text) => self.tell_failed(order, text),
            Seen::Healthy | Seen::Progressing(_) => {}
        }
    }

    /// Records on all objects that somebody else has changed an image.
    pub(super) fn tell_foreign(&self, order: &Order, text: &str) {
        let trigger = &order.rollout.trigger;
        match self.settings.on_foreign_change {
            OnForeignChange::Hold => {
                let note = format!(
                    "trigger {trigger} rolls nothing out until `tagtrail release {trigger}`: {text}"
                );
                self.tell_all(order, "TagtrailHeld", &note);
            }
            OnForeignChange::Repair | OnForeignChange::Ignore => {}
        }
    }

    fn tell_failed(&self, order: &Order, text: &str) {
        let (trigger, number) = (&order.rollout.trigger, order.rollout.number);
        let note = format!("rollout {number} of trigger {trigger} failed: {text}");
        self.tell_all(order, "TagtrailFailed", &note);
    }

    fn tell_all(&self, order: &Order, reason: &'static str, note: &str) {
        for object in self.settings.all() {
            self.send(object, &order.rollout.id, (reason, true), note.to_owned());
        }
    }

    /// Queues an event, one for each object, reason and cause, such as the id of a rollout.
    pub(super) fn send(
        &self,
        object: &ObjectName,
        cause: &str,
        (reason, warning): (&'static str, bool),
        note: String,
    ) {
        let sender = self.events.0.get_or_init(|| self.sender());
        let key = (object.clone(), reason, cause.to_owned());
        {
            let mut sent = sender.sent.lock().unwrap_or_else(PoisonError::into_inner);
            if sent.len() >= REMEMBERED {
                // The API server finds repetitions by the names of events.
                sent.clear();
            }
            if !sent.insert(key) {
                return;
            }
        }
        let event = Event {
            reason,
            warning,
            note,
            cause: cause.to_owned(),
        };
        let uid = self.kept(object).and_then(|value| uid(&value));
        if sender.queue.try_send((object.clone(), uid, event)).is_err() {
            tracing::debug!("the event {reason} on {object} is dropped: too many of them wait");
        }
    }

    fn sender(&self) -> Sender {
        let (queue, events) = mpsc::channel(QUEUE);
        let (cluster, namespace) = (Arc::clone(&self.cluster), self.settings.namespace.clone());
        let mut task = JoinSet::new();
        task.spawn(deliver(cluster, namespace, events));
        Sender {
            queue,
            sent: Mutex::default(),
            _task: task,
        }
    }
}

/// Sends events until the target is dropped. An event that can't be sent is lost.
async fn deliver(cluster: Arc<Cluster>, namespace: String, mut events: mpsc::Receiver<Queued>) {
    let (mut refused, mut warned) = (None::<Instant>, false);
    while let Some((object, uid, event)) = events.recv().await {
        if refused.is_some_and(|at| at.elapsed() < REFUSED) {
            continue;
        }
        let sent = deliver_one(&cluster, &namespace, (&object, uid), &event);
        let Err(problem) = sent.await else {
            continue;
        };
        let (name, reason) = (cluster.name(), event.reason);
        let line = format!(
            "the event {reason} on {object} in namespace {namespace} of cluster {name} is not recorded: {problem}"
        );
        match problem {
            Problem::Forbidden(_) => {
                refused = Some(Instant::now());
                if !warned {
                    tracing::warn!("{line}; docs/kubernetes.md has the right");
                }
                warned = true;
            }
            _ => tracing::debug!("{line}"),
        }
    }
}

async fn deliver_one(
    cluster: &Cluster,
    namespace: &str,
    (object, known): (&ObjectName, Option<String>),
    event: &Event,
) -> Result<(), Problem> {
    let known = match known {
        Some(known) => known,
        None => uid(&cluster.get(namespace, object).await?).unwrap_or_default(),
    };
    cluster
        .record(namespace, (object, &known), event, false)
        .await
}

fn uid(value: &Value) -> Option<String> {
    let uid = value.pointer("/metadata/uid")?.as_str()?;
    Some(uid.to_owned())
}
