//! `tagtrail up` as a process of the bench.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tagtrail_testkit::{Process, free_address};

use crate::http;

/// A `tagtrail up` that is ready.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) process: Process,
    /// Address for webhooks.
    pub(crate) gateway: String,
}

impl Up {
    /// Starts `tagtrail up` on a data folder, and waits until it is ready.
    pub(crate) async fn start(data: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Up> {
        let [gateway, api, admin] = [(); 3].map(|()| free_address());
        let arguments = [
            "up",
            "--data",
            data.to_str().context("no path")?,
            "--gateway",
            &gateway,
            "--api",
            &api,
            "--admin",
            &admin,
        ];
        let begun = Instant::now();
        let mut process = Process::tagtrail(&arguments, environment);
        while http::get(&admin, "/readyz").await.ok() != Some(200) {
            anyhow::ensure!(
                begun.elapsed() < Duration::from_secs(60) && process.running(),
                "`tagtrail up` does not become ready:\n{}",
                process.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Up { process, gateway })
    }
}
