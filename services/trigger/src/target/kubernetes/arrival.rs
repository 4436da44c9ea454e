//! Objects that another system, such as Argo CD or Flux, brings to the images: they tell when the
//! images have arrived, and whether they run well.

use std::sync::Arc;

use tagtrail_config::{File, Trigger};

use super::super::clusters::Clusters;
use super::super::contract::{Order, Seen, TargetProblem};
use super::super::news::TargetNews;
use super::KubernetesTarget;

/// Objects that are read alone.
pub(in super::super) struct Arrival(KubernetesTarget);

impl Arrival {
    /// Reads the settings `cluster`, `namespace`, `objects`, `containers` and `wait_for`. An error
    /// begins with its key.
    pub(in super::super) fn new(
        value: &toml::Value,
        trigger: &Trigger,
        of: (&File, &Clusters),
    ) -> Result<Arrival, String> {
        let target = KubernetesTarget::new(value, trigger, of)?;
        Ok(Arrival(KubernetesTarget {
            reads: true,
            ..target
        }))
    }

    /// Returns the state of all objects: the first one that is not done counts.
    pub(in super::super) async fn look(&self, order: &Order) -> Seen {
        self.0.look(order).await
    }

    /// Begins to watch the objects, and reports news of them under this name of the trigger.
    pub(in super::super) fn follow(&self, trigger: &str, news: &Arc<TargetNews>) {
        self.0.begin_watches(trigger, news);
    }

    /// Tries to read and to watch the objects.
    pub(in super::super) async fn try_out(&self) -> Vec<TargetProblem> {
        self.0.probe().await
    }
}
