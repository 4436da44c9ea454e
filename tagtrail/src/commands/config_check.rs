//! `tagtrail config check`.

use std::path::PathBuf;
use std::process::ExitCode;

use tagtrail_config::File;

use super::write;
use crate::client::{screen::terminal, table::fold};

/// Arguments of `tagtrail config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigCommand {
    /// Read the file and all secrets as the services do, and print the entries and warnings, or the
    /// errors. The check is stricter than a service, which warns and goes on.
    Check {
        /// Path of the file.
        #[arg(env = "TAGTRAIL_CONFIG", default_value = "tagtrail.toml")]
        file: PathBuf,
    },
}

impl Config {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let ConfigCommand::Check { file: path } = self.command;
        let file = File::load(&path)?;
        let mut lines = check(&file)?;
        if lines.is_empty() {
            lines.push("it is empty: no events are accepted, and nothing is rolled out".to_owned());
        }
        let mut text = format!("{}: good\n  {}\n", path.display(), lines.join("\n  "));
        let warnings = tagtrail_gateway::warnings(&file)?;
        for warning in file.warnings().into_iter().chain(warnings) {
            text += &format!("warning: {warning}\n");
        }
        Ok(write(fold(&text, terminal(), 2).as_bytes()))
    }
}

/// Returns a line for each entry of the file. The error has the first mistake that each service
/// finds, and the warnings.
pub(super) fn check(file: &File) -> anyhow::Result<Vec<String>> {
    let (mut lines, mut mistakes) = (Vec::new(), Vec::new());
    for check in [
        tagtrail_gateway::check,
        tagtrail_resolver::check,
        tagtrail_trigger::check,
        tagtrail_api::check,
    ] {
        match check(file) {
            Ok(good) => lines.extend(good),
            Err(mistake) => mistakes.push(mistake.to_string()),
        }
    }
    if mistakes.is_empty() {
        return Ok(lines);
    }
    lines.retain(|line| line.starts_with("warning: "));
    mistakes.extend(lines);
    anyhow::bail!(mistakes.join("\n"))
}
