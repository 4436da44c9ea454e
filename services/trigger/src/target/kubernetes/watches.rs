//! The watches of the objects: their state is at hand before a rollout needs it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tagtrail_kubernetes::{Notice, ObjectName, Watch};

use super::super::news::TargetNews;
use super::KubernetesTarget;

/// The watches of a target, which end with it.
pub(super) type Watches = OnceLock<BTreeMap<ObjectName, Watch>>;

impl KubernetesTarget {
    /// Begins to watch the objects, once.
    pub(super) fn begin_watches(&self, trigger: &str, news: &Arc<TargetNews>) {
        self.watches.get_or_init(|| {
            let mut watches = BTreeMap::new();
            for object in self.settings.all() {
                let (trigger, news) = (trigger.to_owned(), Arc::clone(news));
                let notice: Notice = Arc::new(move || news.of(&trigger));
                let namespace = &self.settings.namespace;
                let further = self.settings.further(object);
                match Watch::start(&self.cluster, namespace, object, further, notice) {
                    Some(watch) => drop(watches.insert(object.clone(), watch)),
                    None => tracing::warn!(
                        "{} is read at each use, since the cluster has too many watched objects",
                        self.full(object)
                    ),
                }
            }
            watches
        });
    }

    /// Returns an object as its watch has seen it: an earlier state, so only a patch with its
    /// tests may rely on it. `None`: the object has to be read.
    pub(super) fn kept(&self, object: &ObjectName) -> Option<Arc<Value>> {
        self.watches.get()?.get(object)?.now()
    }

    /// Remembers the answer to a patch.
    pub(super) fn learn(&self, object: &ObjectName, value: Value) {
        if let Some(watch) = self.watches.get().and_then(|all| all.get(object)) {
            watch.learn(value);
        }
    }
}
