//! Readiness of the partitions: an instance that acquires a partition again and again, and fails
//! each time, must not look healthy.

use std::collections::BTreeMap;
use std::sync::Arc;

use tagtrail_bus::consume::ReadError;
use tokio::sync::watch;

use crate::error::Error;

/// The last failure of each partition, until this or another instance works on the partition again.
#[derive(Debug, Clone)]
pub(crate) struct Readiness(Arc<watch::Sender<BTreeMap<u16, String>>>);

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness(Arc::new(watch::Sender::default()))
    }
}

impl Readiness {
    /// Records a failure of the database, or of the stream PUSHES, in the work on a partition.
    pub(crate) fn failed(&self, partition: u16, error: &Error) {
        // A lost connection to NATS appears in the part `nats`; the other errors end when the
        // partition is acquired again.
        if let Error::Database(_) | Error::Read(ReadError::Failed(..)) = error {
            let text = tagtrail_daemon::chain(error);
            self.0.send_modify(|all| {
                all.insert(partition, text);
            });
        }
    }

    /// Records that some instance works on the partition.
    pub(crate) fn recovered(&self, partition: u16) {
        self.0
            .send_if_modified(|all| all.remove(&partition).is_some());
    }

    /// Returns the state for readiness: an error if any partition fails.
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
