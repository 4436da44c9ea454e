//! A watch of one object: its state is at hand before it is needed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::DynamicObject;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::{Cluster, bounded, json};
use crate::kept::{Interest, kept, matters};
use crate::object::ObjectName;
use crate::problem::Problem;

/// The pause between reads of the object, which find changes that a watch has missed.
const READ: Duration = Duration::from_secs(60);
/// A state that nothing has confirmed for this long is not used.
const STALE: Duration = Duration::from_secs(90);
/// The time after which the API server ends a watch, in seconds.
const LIFE: u32 = 290;
/// A watch that ends sooner than this has failed.
const SHORT: Duration = Duration::from_secs(5);
/// The pause after the first failure, which doubles up to the longest one.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// The pause after a refusal that only a person can end.
const REFUSED: Duration = Duration::from_secs(300);

/// A watch of one object. It ends when this value is dropped.
pub struct Watch {
    shared: Arc<Shared>,
    /// The task that watches ends when the set is dropped.
    _task: JoinSet<()>,
    _slot: OwnedSemaphorePermit,
}

/// Told when a rollout of the object should be looked at: somebody else has changed an image, or
/// the controller has finished.
pub type Notice = Arc<dyn Fn() + Send + Sync>;

struct Shared {
    cluster: Arc<Cluster>,
    namespace: String,
    object: ObjectName,
    interest: Interest,
    notice: Notice,
    sight: Mutex<Sight>,
}

/// The last known state of the object.
#[derive(Default)]
struct Sight {
    value: Option<Arc<Value>>,
    /// Whether a watch runs.
    live: bool,
    /// The time of the last answer about the object.
    confirmed: Option<Instant>,
}

impl Watch {
    /// Begins to watch an object. `None`: the cluster has as many watches as it may have, so the
    /// object has to be read.
    #[must_use]
    pub fn start(
        cluster: &Arc<Cluster>,
        namespace: &str,
        object: &ObjectName,
        further: Vec<String>,
        notice: Notice,
    ) -> Option<Watch> {
        let slot = cluster.slot_of_watch()?;
        let shared = Arc::new(Shared {
            cluster: Arc::clone(cluster),
            namespace: namespace.to_owned(),
            object: object.clone(),
            interest: Interest {
                kind: object.kind.clone(),
                further,
            },
            notice,
            sight: Mutex::default(),
        });
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&shared).run());
        Some(Watch {
            shared,
            _task: task,
            _slot: slot,
        })
    }

    /// Returns the part of the object that is kept, as it was a moment ago. `None`: it has to be
    /// read.
    #[must_use]
    pub fn now(&self) -> Option<Arc<Value>> {
        let sight = self.shared.locked();
        let fresh = sight.confirmed.is_some_and(|at| at.elapsed() < STALE);
        sight.value.clone().filter(|_| sight.live && fresh)
    }

    /// Takes the object as the API server answered it, unless a newer state is known.
    pub fn learn(&self, object: Value) {
        self.shared.take(object);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.shared.object)
    }
}

impl Shared {
    /// Watches until the task is aborted.
    async fn run(self: Arc<Shared>) {
        let mut pause = PAUSE;
        loop {
            let begun = Instant::now();
            let Err(problem) = self.follow().await;
            self.locked().live = false;
            if begun.elapsed() > LONGEST {
                pause = PAUSE;
            }
            let (cluster, object) = (self.cluster.name(), &self.object);
            tracing::debug!("the watch of {object} in cluster {cluster} ended: {problem}");
            let now = match problem {
                Problem::Forbidden(_) | Problem::NotFound(_) => REFUSED,
                _ => pause,
            };
            // Not all watches of a cluster come back at the same moment.
            tokio::time::sleep(now.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Reads the object, and follows its changes until something fails.
    async fn follow(&self) -> Result<std::convert::Infallible, Problem> {
        let turn = self.cluster.turn_of_watch().await;
        let (connection, api) = self
            .cluster
            .connection(&self.namespace, &self.object)
            .await?;
        let selector = format!("metadata.name={}", self.object.name);
        let listed = bounded(api.list(&ListParams::default().fields(&selector).limit(1))).await?;
        let nameless = || Problem::Unreachable("the answer to a list has no version".to_owned());
        let mut version = listed.metadata.resource_version.ok_or_else(nameless)?;
        self.begin(listed.items.into_iter().next());
        let parameters = WatchParams::default().fields(&selector).timeout(LIFE);
        let mut events = Box::pin(bounded(api.watch(&parameters, &version)).await?);
        drop(turn);
        self.locked().live = true;
        let (mut begun, mut next) = (Instant::now(), Instant::now() + READ);
        let mut behind = 0;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = tokio::time::sleep_until(next) => {
                    behind = if self.check().await? { 0 } else { behind + 1 };
                    if behind > 1 || !self.cluster.is_current(connection).await? {
                        return Err(Problem::Expired);
                    }
                    next = Instant::now() + READ;
                    continue;
                }
            };
            match event {
                None if begun.elapsed() < SHORT => {
                    return Err(Problem::Unreachable("a watch ended at once".to_owned()));
                }
                None => {
                    begun = Instant::now();
                    events = Box::pin(bounded(api.watch(&parameters, &version)).await?);
                }
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    version = object
                        .metadata
                        .resource_version
                        .clone()
                        .ok_or_else(nameless)?;
                    behind = 0;
                    self.take(json(object)?);
                }
                Some(Ok(WatchEvent::Deleted(object))) => {
                    version = object.metadata.resource_version.ok_or_else(nameless)?;
                    self.locked().value = None;
                }
                Some(Ok(WatchEvent::Bookmark(mark))) => {
                    version = mark.metadata.resource_version;
                    self.locked().confirmed = Some(Instant::now());
                }
                Some(Ok(WatchEvent::Error(status))) => return Err(kube::Error::Api(status).into()),
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Takes the state at the begin of a watch, even if its version is older: a cluster may have
    /// been restored.
    fn begin(&self, object: Option<DynamicObject>) {
        let before = std::mem::take(&mut *self.locked()).value;
        let now = object.and_then(|object| json(object).ok());
        let now = now.and_then(|object| kept(object, &self.interest));
        let now = now.map(Arc::new);
        {
            let mut sight = self.locked();
            sight.value.clone_from(&now);
            sight.confirmed = Some(Instant::now());
        }
        self.tell(before.as_deref(), now.as_deref());
    }

    /// Reads the object. Returns whether the watch has reported the same state.
    async fn check(&self) -> Result<bool, Problem> {
        let known = self.locked().value.as_deref().and_then(version_of);
        let now = match self.cluster.get(&self.namespace, &self.object).await {
            Ok(now) => now,
            Err(Problem::NotFound(_)) if known.is_none() => return Ok(true),
            Err(Problem::NotFound(_)) => return Ok(false),
            Err(problem) => return Err(problem),
        };
        let version = version_of(&now);
        if version < known {
            return Err(Problem::Expired);
        }
        let same = version == known;
        self.take(now);
        Ok(same)
    }

    /// Takes a state of the object, unless a newer one is known.
    fn take(&self, object: Value) {
        let version = version_of(&object);
        let now = version
            .and_then(|_| kept(object, &self.interest))
            .map(Arc::new);
        let before = {
            let mut sight = self.locked();
            if version.is_some() && version < sight.value.as_deref().and_then(version_of) {
                return;
            }
            sight.confirmed = Some(Instant::now());
            std::mem::replace(&mut sight.value, now.clone())
        };
        self.tell(before.as_deref(), now.as_deref());
    }

    fn tell(&self, before: Option<&Value>, now: Option<&Value>) {
        if let (Some(before), Some(now)) = (before, now)
            && matters(before, now, &self.interest)
        {
            (self.notice)();
        }
    }

    fn locked(&self) -> MutexGuard<'_, Sight> {
        self.sight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the version of an object, which grows with each change. `None`: the API server counts in
/// another way, and the object is not kept.
fn version_of(object: &Value) -> Option<u128> {
    let version = object.pointer("/metadata/resourceVersion")?;
    version.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Access, WATCHES};

    #[tokio::test]
    async fn a_cluster_has_a_bound_of_watches_and_one_that_ends_makes_room() {
        let nowhere = Access {
            kubeconfig: None,
            context: None,
            hidden: Vec::new(),
        };
        let cluster = Arc::new(Cluster::new("test", nowhere));
        let object: ObjectName = "deployment/web".parse().unwrap();
        let start = || {
            let notice: Notice = Arc::new(|| ());
            Watch::start(&cluster, "shop", &object, Vec::new(), notice)
        };
        let mut watches: Vec<Watch> = (0..WATCHES).map_while(|_| start()).collect();
        assert_eq!(watches.len(), WATCHES);
        assert!(start().is_none());
        watches.pop();
        assert!(start().is_some());
    }
}
