//! The parts that all processes of Tagtrail share.
//!
//! In scope: logs, signals, the admin page (`/healthz`, `/readyz`, `/metrics`), exit codes
//! ([`main`]), traces ([`Span`]), tasks whose end ends the process ([`Tasks`]), an HTTP server with
//! limits ([`http::serve`]), HTTP clients ([`client()`], [`Route`]), problem details ([`problem`]),
//! retries with back-off ([`Retry`]), and reports about long work ([`Progress`]).
//!
//! Out of scope: the work of a single service.

mod admin;
mod client;
mod health;
pub mod http;
pub mod metrics;
mod orphans;
pub mod problem;
mod process;
mod progress;
mod refusals;
mod retry;
mod tasks;
mod throttle;
pub mod trace;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use admin::AdminArgs;
pub use client::{Route, client};
pub use health::Health;
pub use metrics::Metrics;
pub use process::{LogArgs, main};
pub use progress::Progress;
pub use refusals::Refusals;
pub use retry::{Retry, backoff, until};
pub use tasks::Tasks;
pub use throttle::Throttle;
pub use trace::{Span, SpanKind, TraceArgs};

/// The time that a process has to stop after the request to stop.
pub const STOP: Duration = Duration::from_secs(10);

/// The time that a process has to stop: [`STOP`], or longer if its services ask for more.
#[derive(Debug, Clone, Default)]
pub struct StopTime(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl StopTime {
    /// Allows at least this time.
    pub fn at_least(&self, time: Duration) {
        let seconds = time.as_secs().saturating_add(1);
        self.0
            .fetch_max(seconds, std::sync::atomic::Ordering::Relaxed);
    }

    /// Returns the time.
    #[must_use]
    pub fn get(&self) -> Duration {
        let seconds = self.0.load(std::sync::atomic::Ordering::Relaxed);
        STOP.max(Duration::from_secs(seconds))
    }
}

/// The handles that a service receives from its process.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Fires when the service must stop.
    pub shutdown: CancellationToken,
    /// The time to stop after that.
    pub stop_time: StopTime,
    /// The readiness, which the service reports.
    pub health: Health,
    /// The metrics, which the service records.
    pub metrics: Metrics,
    /// The address of the admin page, if the process serves one.
    pub admin: Option<std::net::SocketAddr>,
}

/// Returns the text of an error and of all its causes, for messages that name both.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
