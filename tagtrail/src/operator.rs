//! Commands for operators, which connect to NATS and Postgres with an operator's credentials.

pub(crate) mod quarantine;
pub(crate) mod republish;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tagtrail_bus::{Bus, BusArgs};

use crate::data::Data;

/// Addresses of the servers, as arguments.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Servers {
    /// URL of NATS, with credentials [default: from the data folder of `tagtrail up`].
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    nats_url: Option<String>,
    #[command(flatten)]
    data: Data,
    /// Number of partitions of the stream PUSHES.
    #[arg(long, env = "TAGTRAIL_PARTITIONS", default_value_t = tagtrail_proto::PARTITIONS, value_parser = clap::value_parser!(u16).range(1..=256))]
    partitions: u16,
}

/// Time-out of connecting to a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Servers {
    /// Connects to NATS.
    pub(crate) async fn bus(&self) -> anyhow::Result<Bus> {
        let args = BusArgs {
            partitions: self.partitions,
            ..BusArgs::new(&self.url(self.nats_url.as_deref(), "nats", "NATS_URL")?)
        };
        Bus::observe_within(&args, "operator", CONNECT_TIMEOUT)
            .await
            .context("can't reach NATS: check NATS_URL, and that nats-server runs")
    }

    /// Returns the URL given, or else the URL in the `endpoints.json` of a running `tagtrail up`.
    pub(crate) fn url(
        &self,
        given: Option<&str>,
        key: &str,
        variable: &str,
    ) -> anyhow::Result<String> {
        if let Some(given) = given {
            return Ok(given.to_owned());
        }
        let found = self.data.endpoints().and_then(|endpoints| {
            let url = endpoints[key].as_str().map(str::to_owned);
            url.with_context(|| format!("it has no {key:?}"))
        });
        found.with_context(|| {
            format!(
                "set {variable}, or name the data folder of a running `tagtrail up` with --data (no address found in {})",
                self.data.file().display()
            )
        })
    }
}

/// Runs a command, and prints the error if any.
pub(crate) fn run(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(command));
    outcome.unwrap_or_else(|error| fail(&error))
}

/// Prints an error. Returns the exit code of a failure.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    crate::client::print::error(&format!("{error:#}"));
    ExitCode::FAILURE
}
