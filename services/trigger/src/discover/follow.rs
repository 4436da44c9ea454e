//! Follows the objects of one kind, and reads those with annotations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tagtrail_kubernetes::discovery::{self, Annotated, PREFIX, Wish};
use tagtrail_kubernetes::{Cluster, News, Problem, Scope, Sighting};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Known;
use crate::settings::Discovering;
use crate::store::discovered::Key;

/// News that wait for the reads of objects.
const QUEUE: usize = 100;
/// The pause after the first failure, which doubles up to the longest one.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// The pause after a refusal that only a person can end.
const REFUSED: Duration = Duration::from_secs(120);
/// Raised when annotations are read in another way, so that all objects are read again.
const READER: u8 = 1;

/// The state of an object that is, or was, a trigger.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) key: Key,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// The object asks for a trigger.
    Asks(Box<Asking>),
    /// The object is there, and asks for nothing.
    Plain,
    /// The object is deleted.
    Gone,
}

/// An object that asks for a trigger.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) uid: String,
    /// Hash of the state that was read.
    pub(super) seen: String,
    /// The system of annotations.
    pub(super) by: &'static str,
    /// An error names the mistake in the annotations.
    pub(super) wish: Result<Wish, String>,
    /// The annotations of Tagtrail.
    pub(super) annotations: Map<String, Value>,
}

/// The objects of interest in lists of all objects. The recorder knows fewer: reports wait, and an
/// object may be one too many.
#[derive(Debug, Default)]
struct Lists {
    /// Those of the list that is being read or followed.
    now: BTreeSet<Key>,
    /// Those of lists before, until the present one is complete.
    before: BTreeSet<Key>,
}

impl Lists {
    fn has(&self, key: &Key) -> bool {
        self.now.contains(key) || self.before.contains(key)
    }

    /// Returns whether the object was in a list.
    fn remove(&mut self, key: &Key) -> bool {
        let now = self.now.remove(key);
        self.before.remove(key) || now
    }
}

/// Follows the objects of one kind of a cluster.
pub(super) struct Follower {
    pub(super) cluster: Arc<Cluster>,
    pub(super) scope: Scope,
    /// Whether some clusters lack the kind.
    pub(super) further: bool,
    pub(super) entry: Discovering,
    pub(super) known: Arc<Known>,
    pub(super) reports: mpsc::Sender<Report>,
}

impl Follower {
    /// Follows until the task is aborted.
    pub(super) async fn run(self) {
        let (mut pause, mut warned) = (PAUSE, None);
        let mut lists = Lists::default();
        loop {
            let begun = Instant::now();
            let (sender, news) = mpsc::channel(QUEUE);
            let problem = tokio::select! {
                Err(problem) = self.cluster.follow(&self.scope, &sender) => problem,
                problem = self.take(news, &mut lists) => problem,
            };
            if begun.elapsed() > LONGEST {
                (pause, warned) = (PAUSE, None);
            }
            let refused = matches!(problem, Problem::Forbidden(_) | Problem::NotFound(_));
            self.log(&problem, &mut warned);
            let now = if refused { REFUSED } else { pause };
            // Not all watches of a cluster come back at the same moment.
            tokio::time::sleep(now.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Logs a problem, as a warning unless it is the last one again.
    fn log(&self, problem: &Problem, warned: &mut Option<String>) {
        let text = problem.to_string();
        let (cluster, kind) = (self.cluster.name(), &self.scope.kind);
        let namespace = self.scope.namespace.as_deref().unwrap_or("all namespaces");
        let line = format!(
            "annotated objects of kind {kind} in {namespace} of cluster {cluster} are not followed for the moment: {text}"
        );
        let usual = matches!(problem, Problem::Expired)
            || self.further && matches!(problem, Problem::NotFound(_));
        if usual || warned.as_ref() == Some(&text) {
            tracing::debug!("{line}");
            return;
        }
        match problem {
            Problem::Forbidden(_) => tracing::warn!("{line}; docs/kubernetes.md has the rights"),
            _ => tracing::warn!("{line}"),
        }
        *warned = Some(text);
    }

    /// Takes news until an object can't be read.
    async fn take(&self, mut news: mpsc::Receiver<News>, lists: &mut Lists) -> Problem {
        while let Some(one) = news.recv().await {
            let taken = match one {
                News::Begin => {
                    let listed = std::mem::take(&mut lists.now);
                    lists.before.extend(listed);
                    Ok(())
                }
                News::There(sighting) => {
                    let key = self.key(&sighting.namespace, &sighting.name);
                    let asked = lists.has(&key);
                    if self.asks(&sighting) || self.known.locked().contains_key(&key) {
                        lists.now.insert(key);
                    }
                    self.there(sighting, asked).await
                }
                News::Gone(namespace, name) => {
                    let key = self.key(&namespace, &name);
                    let is_known = self.known.locked().contains_key(&key);
                    let is_known = is_known || lists.remove(&key);
                    match is_known {
                        true => self.report(key, State::Gone).await,
                        false => Ok(()),
                    }
                }
                News::End => {
                    let mut missing = self.missing(&lists.now);
                    let before = std::mem::take(&mut lists.before);
                    missing.extend(before.difference(&lists.now).cloned());
                    for key in missing {
                        if let Err(problem) = self.report(key, State::Gone).await {
                            return problem;
                        }
                    }
                    Ok(())
                }
            };
            if let Err(problem) = taken {
                return problem;
            }
        }
        Problem::Unreachable("a watch ended".to_owned())
    }

    fn key(&self, namespace: &str, name: &str) -> Key {
        Key {
            cluster: self.cluster.name().to_owned(),
            namespace: namespace.to_owned(),
            object: self.scope.object(name),
        }
    }

    fn asks(&self, sighting: &Sighting) -> bool {
        discovery::may_ask(&self.entry.systems, &self.scope.kind, &sighting.metadata)
    }

    /// Returns the known objects that a complete list did not have.
    fn missing(&self, listed: &BTreeSet<Key>) -> BTreeSet<Key> {
        let known = self.known.locked();
        let here = known.keys().filter(|key| {
            let of_kind =
                key.object.kind == self.scope.kind && key.object.group == self.scope.group;
            let namespace = self.scope.namespace.as_ref();
            key.cluster == self.cluster.name()
                && of_kind
                && namespace.is_none_or(|namespace| *namespace == key.namespace)
        });
        here.filter(|key| !listed.contains(*key)).cloned().collect()
    }

    /// Reads an object that asks for a trigger, unless its state is known. `asked`: whether it did
    /// so before.
    async fn there(&self, sighting: Sighting, asked: bool) -> Result<(), Problem> {
        let key = self.key(&sighting.namespace, &sighting.name);
        let known = self.known.locked().get(&key).cloned();
        if !self.asks(&sighting) {
            return match known {
                Some(known) if known.gone_at.is_none() => self.report(key, State::Plain).await,
                None if asked => self.report(key, State::Plain).await,
                _ => Ok(()),
            };
        }
        let seen = self.seen(&sighting);
        if known
            .as_ref()
            .is_some_and(|known| known.seen == seen && known.gone_at.is_none())
        {
            return Ok(());
        }
        let object = match self.cluster.get(&key.namespace, &key.object).await {
            Ok(object) => object,
            // The watch will tell so, too.
            Err(Problem::NotFound(_)) => return Ok(()),
            Err(problem) => return Err(problem),
        };
        let earlier = known.and_then(|known| known.wish?["images"].as_object().cloned());
        let earlier = earlier.or_else(|| self.known.former().get(&key).cloned());
        let earlier = earlier.unwrap_or_default();
        let annotated = Annotated {
            kind: &self.scope.kind,
            namespace: &key.namespace,
            object: &object,
            streams: self.entry.streams.as_deref(),
            earlier: &earlier,
        };
        let Some(reading) = discovery::read(&self.entry.systems, &annotated) else {
            return self.report(key, State::Plain).await;
        };
        let annotations = sighting.metadata.get("annotations");
        let annotations = annotations.and_then(Value::as_object).into_iter().flatten();
        // Postgres refuses NUL.
        let is_kept = |text: &Value| text.as_str().is_some_and(|text| !text.contains('\0'));
        let own = annotations.filter(|(key, text)| key.starts_with(PREFIX) && is_kept(text));
        let asking = Asking {
            uid: sighting.uid,
            seen,
            by: reading.by.as_str(),
            wish: reading.wish,
            annotations: own.map(|(key, text)| (key.clone(), text.clone())).collect(),
        };
        self.report(key, State::Asks(Box::new(asking))).await
    }

    /// Returns the hash of all that a reading depends on.
    fn seen(&self, sighting: &Sighting) -> String {
        let Sighting {
            uid,
            generation,
            metadata,
            ..
        } = sighting;
        let settings = format!("{:?} {:?}", self.entry.systems, self.entry.streams);
        let text = format!("{READER} {uid} {generation} {metadata} {settings}");
        let hash = Sha256::digest(text);
        hash.iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    async fn report(&self, key: Key, state: State) -> Result<(), Problem> {
        let ended = |_| Problem::Unreachable("nobody records the objects any more".to_owned());
        self.reports
            .send(Report { key, state })
            .await
            .map_err(ended)
    }
}
