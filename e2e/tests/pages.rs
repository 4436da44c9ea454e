//! The web pages in Debian's Chromium, against a running `tagtrail up` with a history of a month.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

#[path = "pages/seed.rs"]
mod seed;

use std::path::{Path, PathBuf};
use std::process::Command;

use seed::Seeded;

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a check of `scripts/browser`, and fails if the check does.
fn run(seeded: &Seeded, check: &str, arguments: &[&str]) {
    let status = Command::new(root().join("scripts/browser/run"))
        .arg(check)
        .arg(&seeded.settings)
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success(), "{check} failed: see its lines above");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_in_a_real_browser() {
    let seeded = Seeded::start().await;
    for check in ["behave", "axe", "contrast", "paint"] {
        tokio::task::block_in_place(|| run(&seeded, check, &[]));
    }
}

/// `make screenshots`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes pictures for people: make screenshots"]
async fn screenshots() {
    let seeded = Seeded::start().await;
    let folder = root().join("target/screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    let folder = folder.canonicalize().unwrap();
    tokio::task::block_in_place(|| run(&seeded, "shoot", &[folder.to_str().unwrap()]));
}
