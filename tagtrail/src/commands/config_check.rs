//! `tagtrail config check`.

use std::path::PathBuf;
use std::process::ExitCode;

use tagtrail_config::File;

use super::write;

/// What to do with the file.
#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    what: ConfigWhat,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigWhat {
    /// Read the file as the services do, secrets included, and say what is in it or what is wrong with it.
    Check {
        /// The file.
        #[arg(env = "TAGTRAIL_CONFIG", default_value = "tagtrail.toml")]
        file: PathBuf,
    },
}

impl Config {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let ConfigWhat::Check { file: path } = self.what;
        let file = File::load(&path)?;
        let mut lines = Vec::new();
        for check in [
            tagtrail_gateway::check,
            tagtrail_resolver::check,
            tagtrail_trigger::check,
            tagtrail_api::check,
        ] {
            lines.extend(check(&file)?);
        }
        if lines.is_empty() {
            lines.push("it is empty: nobody may send events, and nothing is rolled out".to_owned());
        }
        let text = format!("{}: good\n  {}\n", path.display(), lines.join("\n  "));
        Ok(write(text.as_bytes()))
    }
}
