//! `tagtrail upgrade-data`: moves the data folder of `tagtrail up` to a newer Postgres.

use std::path::PathBuf;
use std::process::ExitCode;

use tagtrail_daemon::Progress;
use tagtrail_embedded::{Settings, upgrade_data};

use crate::client::print;

/// Settings.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpgradeData {
    /// Data folder of `tagtrail up`, which must not run.
    #[arg(long, env = "TAGTRAIL_DATA", default_value = ".tagtrail")]
    data: PathBuf,
}

impl UpgradeData {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut progress = Progress::of_command("copying the database", "MB");
        let report = |done, total| progress.set(done, total);
        let done = upgrade_data(&Settings::new(self.data), report).await?;
        drop(progress);
        // A closed standard output is no failure of the upgrade.
        let _ = print::line(&done);
        Ok(ExitCode::SUCCESS)
    }
}
