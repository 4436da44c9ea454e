//! The whole program, run as its users run it: what the tests in `tests/` have in common.

// In tests a panic is the report.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]
#![expect(clippy::print_stdout, reason = "a test has no log of its own")]

mod cli;
mod fleet;
mod up;

pub use cli::{Cli, Said};
pub use fleet::{Fleet, SERVICES};
pub use tagtrail_testkit::free_address;
pub use up::Up;

/// What the source `main` proves itself with.
pub const HOOK_SECRET: &str = "hook-secret-of-the-tests";
/// Made for these tests.
pub const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The sources `main` (a registry) and `ci` (a script), and a trigger `shop` of two images of `registry`, told to `target`.
#[must_use]
pub fn config(folder: &std::path::Path, registry: &str, target: &str) -> std::path::PathBuf {
    let path = folder.join("tagtrail.toml");
    let text = format!(
        r#"
[[source]]
name = "main"
kind = "distribution"
secret = {{ env = "MAIN_HOOK_SECRET" }}

[[source]]
name = "ci"
kind = "generic"
registry = "{registry}"
secret = {{ env = "MAIN_HOOK_SECRET" }}

[[trigger]]
name = "shop"
images.web = "{registry}/shop/web:latest"
images.worker = "{registry}/shop/worker"
target.webhook = {{ url = "{target}", secret = {{ env = "SHOP_WEBHOOK_SECRET" }} }}
"#
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// The secrets that [`config`] names, as environment variables.
pub const SECRETS: [(&str, &str); 2] = [
    ("MAIN_HOOK_SECRET", HOOK_SECRET),
    ("SHOP_WEBHOOK_SECRET", SIGNING_SECRET),
];

/// Whether an HTTP GET is answered with 200.
pub async fn answers(url: &str) -> bool {
    reqwest::get(url)
        .await
        .is_ok_and(|answer| answer.status() == 200)
}

/// A disk of the test's own, or a plain word why there is none here.
#[must_use]
pub fn disk() -> Option<tagtrail_testkit::Disk> {
    match tagtrail_testkit::Disk::new() {
        Ok(disk) => Some(disk),
        Err(reason) => {
            println!(
                "NOT TESTED: it needs a file system of its own, and this machine or user does not permit one ({reason}); run it as root"
            );
            None
        }
    }
}

/// Chooses the TLS implementation that the HTTP client asks for; harmless if it is chosen already.
pub fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
