//! `tagtrail health`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::write;

/// Arguments of `tagtrail health`.
#[derive(Debug, clap::Args)]
pub(crate) struct Health {
    /// Address of the service's admin page. For 0.0.0.0 or [::], the loopback address is asked.
    #[arg(long, env = "TAGTRAIL_ADMIN", default_value = "127.0.0.1:8402")]
    admin: SocketAddr,
}

/// Returns the address at which this machine reaches a server that listens on `address`.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

impl Health {
    /// Returns exit code 0 if the service is ready, otherwise 1.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let address = reachable(self.admin);
        let client = tagtrail_daemon::client(Duration::from_secs(3)).build()?;
        let answer = client
            .get(format!("http://{address}/readyz"))
            .send()
            .await
            .map_err(|error| anyhow::anyhow!("no answer from {address}: {}; set the address of the admin page with --admin or TAGTRAIL_ADMIN", tagtrail_daemon::chain(&error.without_url())))?;
        let ready = answer.status().is_success();
        let state: Value = answer
            .json()
            .await
            .with_context(|| format!("{address} is not an admin page of Tagtrail"))?;
        let mut text = format!("{}\n", if ready { "ready" } else { "not ready" });
        for (part, state) in state["parts"].as_object().into_iter().flatten() {
            text += &format!("  {part}: {}\n", state.as_str().unwrap_or("?"));
        }
        let written = write(text.as_bytes());
        Ok(if ready { written } else { ExitCode::FAILURE })
    }
}
