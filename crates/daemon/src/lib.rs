//! What every process of Tagtrail does the same way.
//!
//! In scope: logs, signals, the admin page (`/healthz`, `/readyz`, `/metrics`), exit codes ([`main`]), traces ([`Span`]), tasks that may not die unnoticed
//! ([`Tasks`]), serving HTTP with limits ([`http::serve`]) and the pause between attempts ([`backoff`]).
//!
//! Out of scope: anything that a single service does.

mod admin;
mod health;
pub mod http;
pub mod metrics;
mod process;
mod tasks;
pub mod trace;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use admin::AdminArgs;
pub use health::Health;
pub use metrics::Metrics;
pub use process::{LogArgs, main};
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

/// How long to wait before attempt number `attempt` (1, 2, 3 …): 100 ms doubling up to 5 s, give or take a quarter, so that
/// many that failed together do not come back together.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    let doubled = Duration::from_millis(100) * 2_u32.pow(attempt.saturating_sub(1).min(10));
    doubled
        .min(Duration::from_secs(5))
        .mul_f64(rand::random_range(0.75..1.25))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_spaced_ever_wider_up_to_a_bound() {
        for (attempt, (least, most)) in [
            (0, (75, 125)),
            (1, (75, 125)),
            (3, (300, 500)),
            (60, (3750, 6250)),
            (u32::MAX, (3750, 6250)),
        ] {
            let pause = backoff(attempt).as_millis();
            assert!(
                (least..=most).contains(&pause),
                "attempt {attempt}: {pause} ms"
            );
        }
    }
}
