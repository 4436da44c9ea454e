//! The whole program, run as users run it: the code that the tests in `tests/` share.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]
#![expect(clippy::print_stdout, reason = "a test has no log of its own")]

mod cli;
mod fleet;
mod up;

use std::os::unix::fs::PermissionsExt;

pub use cli::{Cli, CommandOutput};
pub use fleet::{Fleet, SERVICES};
pub use tagtrail_testkit::free_address;
pub use up::Up;

/// The secret of the sources `main` and `ci`.
pub const HOOK_SECRET: &str = "hook-secret-of-the-tests";
/// The secret with which webhooks of triggers are signed.
pub const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Makes a temporary folder that the user of Postgres can reach, in case the tests run as root.
#[must_use]
pub fn shared_folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .permissions(PermissionsExt::from_mode(0o711))
        .tempdir()
        .unwrap()
}

/// Writes a file with the sources `main` (a registry) and `ci` (a script), and the trigger `shop`
/// of two images in `registry`, with the webhook URL `target`. Returns the path.
#[must_use]
pub fn config(folder: &std::path::Path, registry: &str, target: &str) -> std::path::PathBuf {
    let path = folder.join("tagtrail.toml");
    let text = format!(
        r#"
[[source]]
name = "main"
kind = "distribution"
registry = "{registry}"
secret = {{ env = "MAIN_HOOK_SECRET" }}

[[source]]
name = "ci"
kind = "generic"
registry = "{registry}"
secret = {{ env = "MAIN_HOOK_SECRET" }}

[[trigger]]
name = "shop"
settle = "0s"
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

/// Sends an HTTP GET request. Returns true if the status is 200.
pub async fn answers(url: &str) -> bool {
    reqwest::get(url)
        .await
        .is_ok_and(|answer| answer.status() == 200)
}

/// Makes a private disk, or prints why this machine can't have one.
#[must_use]
pub fn disk() -> Option<tagtrail_testkit::Disk> {
    match tagtrail_testkit::Disk::new() {
        Ok(disk) => Some(disk),
        Err(reason) => {
            println!(
                "NOT TESTED: this test needs a private file system, which this machine or user does not permit ({reason}); run it as root"
            );
            None
        }
    }
}

/// Installs the TLS provider that reqwest needs. A second call does nothing.
pub fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
