//! A process for each service, as in production.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use tagtrail_testkit::{Process, SOON, Sink, TestNats, TestPostgres, eventually};

use crate::{Cli, HOOK_SECRET, SECRETS, answers, config, free_address};

/// The services of a fleet.
pub const SERVICES: [&str; 5] = ["gateway", "resolver", "indexer", "trigger", "api"];

/// A process for each service, with a private Postgres and NATS.
#[derive(Debug)]
pub struct Fleet {
    /// The Postgres server.
    pub postgres: TestPostgres,
    /// The NATS server.
    pub nats: TestNats,
    /// The webhook target of the trigger `shop`.
    pub sink: Sink,
    /// The processes, by service.
    pub processes: BTreeMap<&'static str, Process>,
    client: reqwest::Client,
    environment: Vec<(&'static str, String)>,
    /// Returns variables of a service, which override the common variables.
    own: fn(&Fleet, &str) -> Vec<(&'static str, String)>,
    gateway: String,
    api: String,
    /// Addresses of the admin pages.
    admin: BTreeMap<&'static str, String>,
    _folder: tempfile::TempDir,
}

impl Fleet {
    /// Starts the servers and all services. The trigger's images are in `registry`.
    pub async fn start(registry: &str) -> Fleet {
        let nats = TestNats::start().await;
        Fleet::start_with(registry, TestPostgres::start().await, nats, |_, _| {
            Vec::new()
        })
        .await
    }

    /// Starts all services on the caller's servers. `own` returns variables of single services.
    pub async fn start_with(
        registry: &str,
        postgres: TestPostgres,
        nats: TestNats,
        own: fn(&Fleet, &str) -> Vec<(&'static str, String)>,
    ) -> Fleet {
        crate::use_ring();
        let sink = Sink::start().await;
        let folder = tempfile::tempdir().unwrap();
        let path = config(folder.path(), registry, sink.url());
        let (gateway, api) = (free_address(), free_address());
        let mut environment = vec![
            ("DATABASE_URL", postgres.db().url().to_owned()),
            ("NATS_URL", nats.url().to_owned()),
            ("TAGTRAIL_CONFIG", path.to_str().unwrap().to_owned()),
            ("TAGTRAIL_GATEWAY_LISTEN", gateway.clone()),
            ("TAGTRAIL_API_LISTEN", api.clone()),
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
            own,
            gateway,
            api,
            admin: SERVICES
                .map(|service| (service, free_address()))
                .into_iter()
                .collect(),
            _folder: folder,
        };
        let migrated = Command::new(tagtrail_testkit::binary())
            .arg("migrate")
            .envs(fleet.environment_of("migrate"))
            .status()
            .unwrap();
        assert!(migrated.success(), "tagtrail migrate failed");
        for service in SERVICES {
            fleet.restart(service);
        }
        // Each service reports whether it is ready.
        for service in SERVICES {
            let probe = format!("http://{}/readyz", fleet.admin[service]);
            eventually(&format!("the {service}"), SOON, async || {
                answers(&probe).await.then_some(())
            })
            .await;
        }
        let probe = format!("http://{}/v1/triggers/shop", fleet.api);
        eventually("the fleet", SOON, async || {
            answers(&probe).await.then_some(())
        })
        .await;
        fleet
    }

    /// Starts a service, after `kill -9` of the running process.
    pub fn restart(&mut self, service: &'static str) {
        self.restart_with(service, None);
    }

    /// Restarts a service with another variable in the environment of this process.
    pub fn restart_with(
        &mut self,
        service: &'static str,
        variable: Option<(&'static str, String)>,
    ) {
        drop(self.processes.remove(service));
        let mut environment = self.environment_of(service);
        environment.extend(variable);
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let arguments = [service, "--admin", self.admin[service].as_str()];
        let process = Process::tagtrail(&arguments, &environment);
        self.processes.insert(service, process);
    }

    /// Sets a variable in the environment of services started from now on.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.environment.retain(|(has, _)| *has != name);
        self.environment.push((name, value.to_owned()));
    }

    fn environment_of(&self, service: &str) -> BTreeMap<&'static str, String> {
        let own = (self.own)(self, service);
        self.environment.iter().cloned().chain(own).collect()
    }

    /// Gets an admin page of a service: `healthz`, `readyz` or `metrics`.
    pub async fn admin(&self, service: &str, page: &str) -> Option<String> {
        let url = format!("http://{}/{page}", self.admin[service]);
        let answer = self.client.get(url).send().await.ok()?;
        answer.text().await.ok()
    }

    /// The URL to which registries send their notifications.
    #[must_use]
    pub fn hook(&self) -> String {
        format!("http://{}/hooks/main", self.gateway)
    }

    /// A client of the fleet's API.
    #[must_use]
    pub fn cli(&self) -> Cli {
        Cli {
            api: format!("http://{}", self.api),
        }
    }

    /// Sends a GET request to the API. Returns status and JSON of the response.
    pub async fn get(&self, path: &str) -> Option<(u16, Value)> {
        let answer = self
            .client
            .get(format!("http://{}{path}", self.api))
            .send()
            .await
            .ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    /// Sends a push as a script would. Returns the status of the response, if any.
    pub async fn push(&self, repository: &str, digest: &str, time: &str) -> Option<u16> {
        let request = self.request(repository, digest, time);
        Some(request.send().await.ok()?.status().as_u16())
    }

    /// Builds the request that reports a push as a script would.
    pub fn request(&self, repository: &str, digest: &str, time: &str) -> reqwest::RequestBuilder {
        let body =
            json!({ "repository": repository, "tag": "latest", "digest": digest, "time": time });
        self.client
            .post(format!("http://{}/hooks/ci", self.gateway))
            .bearer_auth(HOOK_SECRET)
            .json(&body)
    }
}
