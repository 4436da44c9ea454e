//! The contract of a target: the order that it receives, the trait that it implements, and the
//! row that describes its kind.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tagtrail_failpoint::FailPoint;
use tagtrail_policy::retry::Outcome;
use tagtrail_proto::{Event, Rollout, TraceContext};

/// A rollout as it is told to a target: the same bytes at every attempt.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) rollout: Rollout,
    /// The `CloudEvent` of the rollout as it was recorded: pending, no attempts yet.
    pub(crate) body: Vec<u8>,
    /// What caused the attempt, to be passed on.
    pub(crate) trace: TraceContext,
}

impl Order {
    pub(crate) fn new(rollout: &Rollout, trace: TraceContext) -> serde_json::Result<Order> {
        let mut rollout = rollout.clone();
        if FailPoint::TriggerRolloutId.skipped() {
            rollout.id = uuid::Uuid::now_v7().to_string();
        }
        let recorded = Rollout {
            state: tagtrail_proto::RolloutState::Pending,
            attempts: 0,
            finished_at: None,
            error: None,
            ..rollout.clone()
        };
        let event: Event<Rollout> = recorded.event(rollout.created_at);
        Ok(Order {
            rollout,
            body: serde_json::to_vec(&event)?,
            trace,
        })
    }
}

pub(crate) type OutcomeFuture<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// Something that can be brought to a set of pinned images. Doing it twice must be harmless.
pub(crate) trait Target: Send + Sync {
    /// One attempt, bounded in time. Dropping it takes the attempt back as far as that is possible.
    fn apply<'a>(&'a self, order: &'a Order) -> OutcomeFuture<'a>;
}

/// A target made from its settings, or what is wrong with them.
pub(super) type ConfigureResult = Result<Box<dyn Target>, String>;

/// A kind of target.
pub(crate) struct Kind {
    /// `target.<name>` in `tagtrail.toml`.
    pub(super) name: &'static str,
    /// Reads its settings; commands run in `folder`. The error says what to change.
    pub(super) configure: fn(settings: &toml::Value, folder: &Path) -> ConfigureResult,
}

/// The targets of all triggers, by the triggers' names.
pub(crate) type Targets = BTreeMap<String, Arc<dyn Target>>;

/// Reads a kind's settings, strictly.
pub(super) fn settings<T: serde::de::DeserializeOwned>(value: &toml::Value) -> Result<T, String> {
    value
        .clone()
        .try_into()
        .map_err(|error: toml::de::Error| error.message().trim().to_owned())
}
