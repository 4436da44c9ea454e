//! A running `tagtrail up`.

use std::path::Path;

use serde_json::Value;
use tagtrail_testkit::{Process, SOON, eventually};

use crate::{Cli, SECRETS, free_address};

/// A process that runs `tagtrail up`.
#[derive(Debug)]
pub struct Up {
    /// The process.
    pub process: Process,
    /// The content of `endpoints.json`.
    pub endpoints: Value,
}

impl Up {
    /// Starts `tagtrail up` with this data folder and file, and waits until it is ready.
    pub async fn start(data: &Path, config: &Path) -> Up {
        Up::start_at(data, config, &free_address()).await
    }

    /// Starts `tagtrail up` with the gateway at this address.
    pub async fn start_at(data: &Path, config: &Path, gateway: &str) -> Up {
        Up::start_all(data, config, gateway, &free_address()).await
    }

    /// Starts `tagtrail up` with the API at this address.
    pub async fn start_with_api(data: &Path, config: &Path, api: &str) -> Up {
        Up::start_all(data, config, &free_address(), api).await
    }

    async fn start_all(data: &Path, config: &Path, gateway: &str, api: &str) -> Up {
        let admin = free_address();
        let (data_text, config) = (data.to_str().unwrap(), config.to_str().unwrap());
        let arguments = [
            "up",
            "--data",
            data_text,
            "--config",
            config,
            "--gateway",
            gateway,
            "--api",
            api,
            "--admin",
            &admin,
        ];
        let mut process = Process::tagtrail(&arguments, &SECRETS);
        let path = data.join("endpoints.json");
        // The start of both servers and all services takes most of the time on a loaded machine.
        let endpoints = eventually("tagtrail up to be ready", SOON * 3, async || {
            assert!(process.running(), "tagtrail up ended");
            // `up` removes a file of an earlier run, which has another API address.
            let text = std::fs::read_to_string(&path).ok()?;
            text.contains(api)
                .then(|| serde_json::from_str(&text).unwrap())
        })
        .await;
        Up { process, endpoints }
    }

    /// The address of `gateway`, `api`, `admin`, `nats` or `postgres`.
    #[must_use]
    pub fn address(&self, part: &str) -> &str {
        self.endpoints[part].as_str().unwrap()
    }

    /// A client of this API.
    #[must_use]
    pub fn cli(&self) -> Cli {
        Cli {
            api: self.address("api").to_owned(),
        }
    }
}
