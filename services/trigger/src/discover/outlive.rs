//! Annotations that an undo has taken away: once a person releases the trigger, those of Tagtrail
//! are written back. Those of others are named to the person.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tagtrail_kubernetes::{Cluster, Problem, patch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::events::Events;
use super::full;
use super::write::{Released, Told, pairs};
use crate::store::discovered::Key;
use crate::target::Clusters;

/// The pause between tries.
const PAUSE: Duration = Duration::from_secs(15);

/// The objects whose annotations are being written back.
#[derive(Default)]
pub(super) struct Outliving {
    tasks: JoinSet<Option<Key>>,
    /// The time of the next try.
    due: BTreeMap<Key, Instant>,
}

impl Outliving {
    /// Begins to write annotations back, unless a try was made a moment ago.
    pub(super) fn write_back(&mut self, clusters: &Clusters, of: Released, events: &mut Events) {
        let Released { key, row } = of;
        let now = Instant::now();
        self.due.retain(|_, due| *due > now);
        if self.due.contains_key(&key) {
            return;
        }
        self.due.insert(key.clone(), now + PAUSE);
        let (trigger, place) = (row.trigger.clone(), full(&key));
        if row.annotations.is_empty() {
            let by = &row.by;
            let text = format!(
                "trigger {trigger} is released, and {place} has lost its annotations of {by}: write them back, or the trigger is removed"
            );
            tracing::warn!(trigger, "{text}");
            let uid = row.uid.clone();
            let told = Told {
                key: key.clone(),
                uid,
                text,
            };
            events.tell(clusters, told);
            self.tasks.spawn(async move { Some(key) });
            return;
        }
        let Ok(cluster) = clusters.named(&key.cluster) else {
            return;
        };
        self.tasks.spawn(async move {
            let annotations = pairs(&row.annotations);
            match write(&cluster, &key, &annotations).await {
                Ok(()) => {
                    tracing::info!(trigger, "the annotations of {place} are written back, since trigger {trigger} was released");
                    Some(key)
                }
                Err(problem) => {
                    tracing::warn!(trigger, "the annotations of {place} can't be written back for the moment: {problem}");
                    None
                }
            }
        });
    }

    /// Waits until annotations were written back. `None`: none are being written.
    pub(super) async fn done(&mut self) -> Option<Key> {
        loop {
            let done = self.tasks.join_next().await?;
            if let Ok(Some(key)) = done {
                return Some(key);
            }
        }
    }
}

async fn write(
    cluster: &Arc<Cluster>,
    key: &Key,
    annotations: &[(&str, String)],
) -> Result<(), Problem> {
    let object = match cluster.get(&key.namespace, &key.object).await {
        Err(Problem::NotFound(_)) => return Ok(()),
        object => object?,
    };
    let has = |name: &str| {
        let all = object.pointer("/metadata/annotations");
        all.is_some_and(|all| all.get(name).is_some())
    };
    let missing: Vec<(&str, String)> = annotations
        .iter()
        .filter(|(name, _)| !has(name))
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let patch = patch(&object, &[], &missing);
    cluster
        .patch(&key.namespace, &key.object, &patch, false)
        .await
        .map(drop)
}
