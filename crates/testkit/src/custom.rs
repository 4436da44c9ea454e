//! A nats-server with settings of the test's own, such as the limits of an account.

use std::process::Command;

use serde_json::Value;

use crate::scratch::Scratch;
use crate::{Process, SOON, eventually, free_address};

/// A running nats-server.
#[derive(Debug)]
pub struct CustomNats {
    address: String,
    _process: Process,
    _scratch: Scratch,
}

impl CustomNats {
    /// Starts a server with these settings; its address and its store are added.
    ///
    /// # Panics
    /// If nats-server is missing.
    pub async fn start(mut settings: Value) -> CustomNats {
        let scratch = Scratch::new("nats");
        let address = free_address();
        settings["listen"] = address.as_str().into();
        settings["jetstream"] = serde_json::json!({ "store_dir": scratch.path().join("store") });
        let config = scratch.path().join("nats.conf");
        std::fs::write(&config, settings.to_string()).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(tagtrail_embedded::Nats::program().unwrap_or_else(|error| panic!("{error:#}")))
            .arg("--config")
            .arg(&config);
        let process = Process::spawn("nats-server", command);
        eventually("nats-server", SOON, async || {
            tokio::net::TcpStream::connect(&address).await.ok()
        })
        .await;
        CustomNats {
            address,
            _process: process,
            _scratch: scratch,
        }
    }

    /// Returns the URL for a user with a password.
    #[must_use]
    pub fn url(&self, user: &str, password: &str) -> String {
        format!("nats://{user}:{password}@{}", self.address)
    }
}
