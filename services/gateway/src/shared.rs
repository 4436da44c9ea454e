//! The state that all tasks of the gateway share.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::config::Sources;
use crate::metrics::Metrics;
use crate::publish::Outlet;
use crate::receive::attempts::Attempts;
use crate::receive::body::Budget;
use crate::receive::pulls::Pulls;
use crate::receive::unknown::Throttle;

/// The shared state.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The sources, as they are now.
    pub(crate) sources: RwLock<Arc<Sources>>,
    /// The way to the streams, set on the first connection to NATS. Until then nothing can be
    /// stored, and senders receive 503.
    pub(crate) outlet: OnceLock<Outlet>,
    /// Memory for the bodies that are being received.
    pub(crate) budget: Budget,
    /// The bodies that were not accepted, for their retries.
    pub(crate) attempts: Attempts,
    /// The digests that events and pulls reported last.
    pub(crate) pulls: Pulls,
    pub(crate) metrics: Metrics,
    /// The limit on log lines about unknown paths.
    pub(crate) unknown_paths: Throttle,
}

impl Shared {
    /// Returns the sources, as they are now.
    pub(crate) fn sources(&self) -> Arc<Sources> {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&sources)
    }
}
