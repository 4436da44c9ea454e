//! Whether a process can do its work now.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

type Parts = BTreeMap<&'static str, Result<(), String>>;

/// The parts that a process needs (`nats`, `postgres`, …), and whether each can be used. Ready means: there is one, and all can.
/// Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<Parts>>);

impl Default for Health {
    fn default() -> Health {
        Health(Arc::new(watch::Sender::new(Parts::new())))
    }
}

impl Health {
    /// Adds a part, not ready yet.
    pub fn register(&self, part: &'static str) {
        self.0.send_if_modified(|parts| {
            let new = !parts.contains_key(part);
            parts
                .entry(part)
                .or_insert_with(|| Err("starting".to_owned()));
            new
        });
    }

    /// Says whether a part can be used, and if not, why.
    pub fn set(&self, part: &'static str, state: Result<(), String>) {
        self.0.send_if_modified(|parts| {
            let changed = parts.get(part) != Some(&state);
            if changed {
                match &state {
                    Ok(()) => tracing::debug!(part, "ready"),
                    Err(reason) => tracing::warn!(part, "not ready: {reason}"),
                }
                parts.insert(part, state);
            }
            changed
        });
    }

    /// Every part with its state.
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, Result<(), String>)> {
        self.0
            .borrow()
            .iter()
            .map(|(part, state)| (*part, state.clone()))
            .collect()
    }

    /// Whether all parts can be used.
    #[must_use]
    pub fn ready(&self) -> bool {
        ready(&self.0.borrow())
    }

    /// Waits until all parts can be used.
    pub async fn wait_ready(&self) {
        // The sender lives in `self`, so this can't fail.
        let _ = self.0.subscribe().wait_for(ready).await;
    }
}

fn ready(parts: &Parts) -> bool {
    !parts.is_empty() && parts.values().all(Result::is_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_means_that_every_part_is() {
        let health = Health::default();
        assert!(!health.ready(), "nothing is ready before anything is known");
        health.register("nats");
        health.register("postgres");
        health.set("nats", Ok(()));
        assert!(!health.ready());
        health.set("postgres", Ok(()));
        health.wait_ready().await;
        health.register("postgres");
        assert!(health.ready(), "registering again changes nothing");
        health.set("nats", Err("gone".to_owned()));
        assert!(!health.ready());
    }
}
