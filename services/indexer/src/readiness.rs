//! Partitions that can't be worked on, for readiness: taking one again and again may look like life.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::Error;

/// What went wrong with each partition the last time, until it is worked on again, here or elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Readiness(Arc<watch::Sender<BTreeMap<u16, String>>>);

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness(Arc::new(watch::Sender::default()))
    }
}

impl Readiness {
    /// The database refused, or did not do, what a partition needs.
    pub(crate) fn failed(&self, partition: u16, error: &Error) {
        // The others are told by the part `nats`, or are over once the partition is taken again.
        if let Error::Database(_) = error {
            let text = tagtrail_daemon::chain(error);
            self.0.send_modify(|all| {
                all.insert(partition, text);
            });
        }
    }

    /// The partition is worked on.
    pub(crate) fn recovered(&self, partition: u16) {
        self.0
            .send_if_modified(|all| all.remove(&partition).is_some());
    }

    /// As a part of readiness.
    pub(crate) fn state(&self) -> Result<(), String> {
        let all = self.0.borrow();
        match all.first_key_value() {
            None => Ok(()),
            Some((partition, text)) => Err(format!(
                "{} of the partitions can't be recorded, such as {partition}: {text}",
                all.len()
            )),
        }
    }
}
