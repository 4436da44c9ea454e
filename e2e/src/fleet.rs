//! One process per service, as in production.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use tagtrail_testkit::{Process, SOON, Sink, TestNats, TestPostgres, eventually};

use crate::{Cli, HOOK_SECRET, SECRETS, answers, config, free_address};

/// The services that a fleet runs.
pub const SERVICES: [&str; 5] = ["gateway", "resolver", "indexer", "trigger", "api"];

/// Separate processes, with servers of their own.
#[derive(Debug)]
pub struct Fleet {
    /// The database.
    pub postgres: TestPostgres,
    /// The bus.
    pub nats: TestNats,
    /// The target of the trigger `shop`.
    pub sink: Sink,
    /// The processes, by service.
    pub processes: BTreeMap<&'static str, Process>,
    client: reqwest::Client,
    environment: Vec<(&'static str, String)>,
    gateway: String,
    api: String,
    _folder: tempfile::TempDir,
}

impl Fleet {
    /// Starts everything. The images of the trigger are those of `registry`.
    pub async fn start(registry: &str) -> Fleet {
        crate::use_ring();
        let (postgres, nats, sink) = (
            TestPostgres::start().await,
            TestNats::start().await,
            Sink::start().await,
        );
        let folder = tempfile::tempdir().unwrap();
        let path = config(folder.path(), registry, sink.url());
        let (gateway, api) = (free_address(), free_address());
        let mut environment = vec![
            ("DATABASE_URL", postgres.db().url().to_owned()),
            ("NATS_URL", nats.url().to_owned()),
            ("TAGTRAIL_CONFIG", path.to_str().unwrap().to_owned()),
            ("TAGTRAIL_GATEWAY_LISTEN", gateway.clone()),
            ("TAGTRAIL_API_LISTEN", api.clone()),
            ("TAGTRAIL_ADMIN", "127.0.0.1:0".to_owned()),
            ("TAGTRAIL_SESSION_SECONDS", "2".to_owned()),
        ];
        environment.extend(SECRETS.map(|(name, value)| (name, value.to_owned())));
        let mut fleet = Fleet {
            postgres,
            nats,
            sink,
            processes: BTreeMap::new(),
            client: reqwest::Client::builder()
                .timeout(std::time::Duration::from_secs(5))
                .build()
                .unwrap(),
            environment,
            gateway,
            api,
            _folder: folder,
        };
        let migrated = Command::new(tagtrail_testkit::binary())
            .arg("migrate")
            .envs(fleet.environment.iter().map(|(name, value)| (name, value)))
            .status()
            .unwrap();
        assert!(migrated.success(), "tagtrail migrate failed");
        for service in SERVICES {
            fleet.restart(service);
        }
        let probe = format!("http://{}/v1/triggers/shop", fleet.api);
        eventually("the fleet", SOON, async || {
            answers(&probe).await.then_some(())
        })
        .await;
        fleet
    }

    /// Starts a service; ends the one that runs, if any, as `kill -9` does.
    pub fn restart(&mut self, service: &'static str) {
        drop(self.processes.remove(service));
        let environment: Vec<_> = self
            .environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.processes
            .insert(service, Process::tagtrail(&[service], &environment));
    }

    /// Where registries send their notifications.
    #[must_use]
    pub fn hook(&self) -> String {
        format!("http://{}/hooks/main", self.gateway)
    }

    /// The client.
    #[must_use]
    pub fn cli(&self) -> Cli {
        Cli {
            api: format!("http://{}", self.api),
        }
    }

    /// Asks the API; its status and its answer.
    pub async fn get(&self, path: &str) -> Option<(u16, Value)> {
        let answer = self
            .client
            .get(format!("http://{}{path}", self.api))
            .send()
            .await
            .ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    /// Sends a push as a script would; its status, if there was an answer.
    pub async fn push(&self, repository: &str, digest: &str, time: &str) -> Option<u16> {
        let body =
            json!({ "repository": repository, "tag": "latest", "digest": digest, "time": time });
        let request = self
            .client
            .post(format!("http://{}/hooks/ci", self.gateway))
            .bearer_auth(HOOK_SECRET)
            .json(&body);
        Some(request.send().await.ok()?.status().as_u16())
    }
}
