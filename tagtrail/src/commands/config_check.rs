//! `tagtrail config check`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use tagtrail_config::{Checked, ConfigError, File, Table};

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
    /// Read the file and all secrets as the services do, and print the entries and warnings, or all
    /// mistakes. The check is stricter than a service, which warns and goes on.
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
        let Checked {
            mut lines,
            mistakes,
        } = check(&file);
        if !mistakes.is_empty() {
            lines.retain(|line| line.starts_with("warning: "));
            bail!(
                "{}",
                [mistakes_text(&mistakes), lines.join("\n")]
                    .join("\n")
                    .trim_end()
            );
        }
        if lines.is_empty() {
            lines.push("it is empty: no events are accepted, and nothing is rolled out".to_owned());
        }
        let mut text = format!("{}: good\n  {}\n", path.display(), lines.join("\n  "));
        let warnings = tagtrail_gateway::warnings(&file);
        for warning in file.warnings().into_iter().chain(warnings) {
            text += &format!("warning: {warning}\n");
        }
        Ok(write(fold(&text, terminal(), 2).as_bytes()))
    }
}

/// Returns a line for each entry of the file, and all mistakes.
pub(super) fn check(file: &File) -> Checked {
    let mut checked = Checked::default();
    let of_files = file.broken_of(Table::File);
    let mistakes = of_files.map(|broken| broken.problem.clone());
    checked.mistakes.extend(mistakes);
    for check in [
        tagtrail_gateway::check,
        tagtrail_resolver::check,
        tagtrail_trigger::check,
        tagtrail_api::check,
    ] {
        checked.add(check(file));
    }
    checked
}

/// Returns all mistakes, each on a line of its own.
pub(super) fn mistakes_text(mistakes: &[ConfigError]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
