//! The readiness of a process: the state of each part that its work needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

type Parts = BTreeMap<&'static str, Result<(), String>>;

/// The parts that a process needs (`nats`, `postgres`, …), and the state of each.
///
/// The process is ready when it has at least one part and every part is usable. Cheap to clone; all
/// clones share one state.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<Parts>>);

impl Default for Health {
    fn default() -> Health {
        Health(Arc::new(watch::Sender::new(Parts::new())))
    }
}

impl Health {
    /// Adds a part, not ready yet. A part that exists keeps its state.
    pub fn register(&self, part: &'static str) {
        self.0.send_if_modified(|parts| {
            let new = !parts.contains_key(part);
            parts
                .entry(part)
                .or_insert_with(|| Err("starting".to_owned()));
            new
        });
    }

    /// Sets the state of a part: usable, or the reason why not. Logs a change.
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

    /// Returns every part with its state.
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, Result<(), String>)> {
        self.0
            .borrow()
            .iter()
            .map(|(part, state)| (*part, state.clone()))
            .collect()
    }

    /// Returns whether every part is usable, and the process has one.
    #[must_use]
    pub fn ready(&self) -> bool {
        ready(&self.0.borrow())
    }

    /// Waits until the process is ready.
    pub async fn wait_ready(&self) {
        // Fails only when the sender is dropped, and the sender lives in `self`.
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
    async fn ready_means_that_every_part_is_ready() {
        let health = Health::default();
        assert!(!health.ready(), "a process without parts is not ready");
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
