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

mod cluster;
mod disk;
mod image;
mod nats;
mod postgres;
mod process;
mod proxy;
mod registry;
mod scratch;
mod sink;
mod token;

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub use cluster::{NODES, TestCluster};
pub use disk::Disk;
pub use image::TestImage;
pub use nats::{TestNats, messages};
pub use postgres::{TestDb, TestPostgres, postgres};
pub use process::{Process, binary};
pub use proxy::{Link, Proxy};
pub use registry::Registry;
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

/// An address of 127.0.0.1 where nobody listens. Below the ports that the system gives to connections, one of which might else
/// take it before whoever it is meant for.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_address() -> String {
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Another process begins elsewhere, also one that was started next.
    let start = std::process::id().wrapping_mul(251) % u32::from(PORTS.end - PORTS.start);
    let start = u16::try_from(start).unwrap();
    for _ in PORTS {
        let offset = start.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + offset % (PORTS.end - PORTS.start);
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap().to_string();
        }
    }
    panic!("all ports are taken")
}
