//! `tagtrail man`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::write;
use crate::Cli;

/// Arguments of `tagtrail man`.
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Write a page for every command into this folder, such as /usr/local/share/man/man1
    /// [default: print the page of `tagtrail` itself].
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let command = Cli::command();
        match &self.dir {
            Some(dir) => {
                std::fs::create_dir_all(dir)
                    .with_context(|| format!("can't make the folder {}", dir.display()))?;
                clap_mangen::generate_to(command, dir)
                    .with_context(|| format!("can't write into {}", dir.display()))?;
                Ok(ExitCode::SUCCESS)
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page)?;
                Ok(write(&page))
            }
        }
    }
}
