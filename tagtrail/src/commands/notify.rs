//! `tagtrail notify`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use tagtrail_config::File;

use super::write;

/// Arguments of `tagtrail notify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Notify {
    #[command(subcommand)]
    command: NotifyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum NotifyCommand {
    /// Send a sample message to the receiver of a `[[notify]]` entry, once.
    Test {
        /// Name of the entry.
        name: String,
        /// File with the entry.
        #[arg(long, env = "TAGTRAIL_CONFIG", default_value = "tagtrail.toml")]
        config: PathBuf,
    },
}

impl Notify {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let NotifyCommand::Test { name, config } = self.command;
        let file = File::load(&config)?;
        match tagtrail_trigger::test_notify(&file, &name).await {
            Ok(_) => Ok(write(
                format!("notify {name}: the receiver accepted a sample\n").as_bytes(),
            )),
            Err(why) => bail!("{why}"),
        }
    }
}
