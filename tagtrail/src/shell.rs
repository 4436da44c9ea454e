//! Comfort on the command line: completions, manual pages, checking `tagtrail.toml`, asking a process for its health.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::Value;
use tagtrail_config::File;

use crate::Cli;

/// Which shell.
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> ExitCode {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tagtrail", &mut script);
        write(&script)
    }
}

/// Where the pages go.
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Write a page for every command into this folder, such as /usr/local/share/man/man1 [default: print the first page].
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

/// Which process.
#[derive(Debug, clap::Args)]
pub(crate) struct Health {
    /// Address of its admin page. Where it listens on all addresses, this machine's own is asked.
    #[arg(long, env = "TAGTRAIL_ADMIN", default_value = "127.0.0.1:8402")]
    admin: SocketAddr,
}

impl Health {
    /// Exit code 0: it can do its work now; 1: it can't, or does not answer.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut address = self.admin;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(3))
            .build()?;
        let answer = client
            .get(format!("http://{address}/readyz"))
            .send()
            .await
            .map_err(|error| anyhow::anyhow!("nobody answers at {address}: {}; --admin or TAGTRAIL_ADMIN says where the admin page is", tagtrail_daemon::chain(&error.without_url())))?;
        let ready = answer.status().is_success();
        let state: Value = answer
            .json()
            .await
            .context("the answer is not that of an admin page")?;
        let mut text = format!("{}\n", if ready { "ready" } else { "not ready" });
        for (part, state) in state["parts"].as_object().into_iter().flatten() {
            text += &format!("  {part}: {}\n", state.as_str().unwrap_or("?"));
        }
        let written = write(text.as_bytes());
        Ok(if ready { written } else { ExitCode::FAILURE })
    }
}

/// To standard output. A reader that has gone (`| head`) is no failure.
fn write(text: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
