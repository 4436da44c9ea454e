//! `tagtrail supervise`, which the trigger service starts for each program.

use std::process::ExitCode;

/// Arguments of `tagtrail supervise`: they name the command in lists of processes.
#[derive(Debug, clap::Args)]
pub(crate) struct Supervise {
    /// Trigger, rollout, attempt and folder.
    of: Vec<String>,
}

impl Supervise {
    pub(crate) fn run(self) -> ExitCode {
        tagtrail_trigger::supervise()
    }
}
