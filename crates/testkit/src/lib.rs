//! For tests only: real servers, a real registry, a recording webhook target, and processes that can be killed and paused.
//!
//! Everything listens on 127.0.0.1, ends with the test process even if that is killed, and leaves no files behind. A server
//! that is missing fails the test with what to install; nothing is skipped.

// In tests a panic is the report.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in tests a panic is the report"
)]

mod image;
mod process;
mod registry;
mod servers;
mod sink;

use std::time::Duration;

pub use image::TestImage;
pub use process::{Process, binary};
pub use registry::Registry;
pub use servers::{TestDb, TestNats, TestPostgres, postgres};
pub use sink::{Answer, Delivery, Sink};
pub use tagtrail_embedded::signal;

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none in `patience`.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited {patience:?} for {what}, in vain"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Time enough for anything that should happen soon, on a slow machine too.
pub const SOON: Duration = Duration::from_secs(30);
