//! Equipment for tests only: real servers, a real registry, a webhook target that records requests,
//! and processes that a test can kill and pause.
//!
//! Every server listens on 127.0.0.1, ends with the test process even after `kill -9`, and leaves
//! no files behind. A missing server fails the test with the package to install; no test is
//! skipped.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in tests a panic is the report"
)]

mod certificate;
mod cluster;
mod custom;
mod disk;
mod history;
mod image;
mod kubernetes;
mod nats;
mod pooler;
mod postgres;
mod process;
mod proxy;
mod registry;
mod scratch;
mod sink;
mod standing;
mod token;

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub use certificate::certificates;
pub use cluster::{NODES, TestCluster};
pub use custom::CustomNats;
pub use disk::Disk;
pub use history::busy_tag;
pub use image::TestImage;
pub use kubernetes::{TestKubernetes, TestProxy};
pub use nats::{TestNats, messages};
pub use pooler::PgBouncer;
pub use postgres::{TestDb, TestPostgres, postgres, rows_read};
pub use process::{Process, binary, resident};
pub use proxy::{Link, Proxy};
pub use registry::{Registry, RegistryProgram, tool};
pub use sink::{Answer, Delivery, Judge, Sink};
pub use standing::{SO_IT_IS, stand};
pub use tagtrail_embedded::signal;

/// Calls `ask` every 20 ms until it returns a value.
///
/// # Panics
/// If `ask` returns no value within `time_limit`.
pub async fn eventually<T>(
    goal: &str,
    time_limit: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = tokio::time::Instant::now() + time_limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited {time_limit:?} for {goal}, in vain"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A time limit for events that should happen soon, even on a slow machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Returns an address of 127.0.0.1 without a listener. The port is below the range that the system
/// gives to outgoing connections, so no connection takes it before its server does.
///
/// # Panics
/// If all ports are taken.
#[must_use]
pub fn free_address() -> String {
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Other test processes begin at other ports, including the process started next.
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
