//! The parts that all processes of Tagtrail share.
//!
//! In scope: logs, signals, the admin page (`/healthz`, `/readyz`, `/metrics`), exit codes ([`main`]), traces ([`Span`]), tasks
//! whose end ends the process ([`Tasks`]), serving HTTP with limits ([`http::serve`]), HTTP clients ([`client`]), problem
//! details ([`problem`]) and retries with back-off ([`Retry`]).
//!
//! Out of scope: anything that a single service does.

mod admin;
mod client;
mod health;
pub mod http;
pub mod metrics;
pub mod problem;
mod process;
mod retry;
mod tasks;
pub mod trace;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use admin::AdminArgs;
pub use client::client;
pub use health::Health;
pub use metrics::Metrics;
pub use process::{LogArgs, main};
pub use retry::{Retry, backoff, until};
pub use tasks::Tasks;
pub use trace::{Span, SpanKind, TraceArgs};

/// How long a process may take to stop once it was asked to.
pub const STOP: Duration = Duration::from_secs(10);

/// What a service is given to run.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Fires when the service is asked to stop.
    pub shutdown: CancellationToken,
    /// Where it says whether it is ready.
    pub health: Health,
    /// Where it counts what it does.
    pub metrics: Metrics,
    /// Where the process serves its admin page, if it does.
    pub admin: Option<std::net::SocketAddr>,
}

/// An error with its causes, for messages that name both.
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
