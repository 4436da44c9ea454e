//! News of targets that are watched: the triggers to look at before the next look is due.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// The triggers whose targets have changed by themselves or by somebody else. There are at most as
/// many as there are triggers.
#[derive(Debug, Default)]
pub(crate) struct TargetNews {
    triggers: Mutex<BTreeSet<String>>,
    some: Notify,
}

impl TargetNews {
    pub(super) fn of(&self, trigger: &str) {
        let mut triggers = self.triggers.lock().unwrap_or_else(PoisonError::into_inner);
        triggers.insert(trigger.to_owned());
        self.some.notify_one();
    }

    /// Waits for news, and returns the triggers.
    pub(crate) async fn wait(&self) -> BTreeSet<String> {
        loop {
            self.some.notified().await;
            let mut triggers = self.triggers.lock().unwrap_or_else(PoisonError::into_inner);
            if !triggers.is_empty() {
                return std::mem::take(&mut triggers);
            }
        }
    }
}
