//! The processes of `docker-compose.yml`, run here with the accounts of `deploy/`, and the actions
//! that the servers refuse to each account.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::StreamExt as _;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tagtrail_e2e::{answers, free_address, use_ring};
use tagtrail_testkit::{Process, Registry, SOON, TestImage, TestPostgres, eventually};

use super::rights;
use super::{compose, dot_env, environment_of, ours, read, root};

/// The resolver's interval of requests for the state of its consumers is 10 s, the longest one.
const LONGEST_INTERVAL: Duration = Duration::from_secs(13);

/// Runs the command that is the health check of a container.
fn health(admin: &str) -> Result<(), String> {
    let health = Command::new(tagtrail_testkit::binary())
        .args(["health", "--admin", admin])
        .output()
        .unwrap();
    match health.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&health.stderr).into_owned()),
    }
}

/// All processes that `docker compose up` starts, on this machine.
pub(super) struct Up {
    pub(super) env: BTreeMap<String, String>,
    pub(super) nats: String,
    gateway: String,
    database: String,
    api: String,
    registry: Registry,
    _folder: tempfile::TempDir,
    _postgres: TestPostgres,
    /// nats-server first.
    processes: Vec<Process>,
    /// The admin address of each service, by its name.
    admins: BTreeMap<String, String>,
}

impl Up {
    async fn start() -> Up {
        use_ring();
        let folder = tempfile::tempdir().unwrap();
        let env = dot_env(folder.path());
        let compose = compose(&env);
        let [nats, monitor, gateway, api] = [(); 4].map(|()| free_address());

        // Postgres with the accounts of the image's first start; `migrate` makes the schema.
        let postgres = TestPostgres::start().await;
        let mut admin = PgConnection::connect(postgres.db().url()).await.unwrap();
        sqlx::raw_sql("create database compose")
            .execute(&mut admin)
            .await
            .unwrap();
        let url = postgres.db().url().replace("/tagtrail", "/compose");
        let url = url.replacen("/compose:", "/tagtrail:", 1);
        let make_accounts = |env: &BTreeMap<String, String>| {
            let mut psql = Command::new("psql");
            psql.args([&url, "--quiet", "--file"]);
            psql.arg(root().join("deploy/postgres/accounts.sql"));
            psql.envs(env).output().unwrap()
        };
        let mut incomplete = env.clone();
        incomplete.remove("REPORT_PASSWORD");
        let refused = make_accounts(&incomplete);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains("REPORT_PASSWORD"),
            "{said}"
        );
        let accounts = make_accounts(&env);
        assert!(
            accounts.status.success(),
            "{}",
            String::from_utf8_lossy(&accounts.stderr)
        );
        let host = url.rsplit_once('@').unwrap().1.to_owned();

        // nats-server with the shipped configuration, except for addresses and folder.
        let conf = read("deploy/nats/nats.conf")
            .replace("port: 4222", &format!("listen: \"{nats}\""))
            .replace("http: 8222", &format!("http: \"{monitor}\""))
            .replace(
                "store_dir: /data",
                &format!("store_dir: {:?}", folder.path().join("nats")),
            );
        let conf_path = folder.path().join("nats.conf");
        std::fs::write(&conf_path, conf).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(root().join(".tools/nats-server"))
            .arg("--config")
            .arg(&conf_path)
            .envs(&env);
        let mut processes = vec![Process::spawn("nats-server", command)];
        eventually("nats-server", SOON, async || {
            answers(&format!("http://{monitor}/healthz"))
                .await
                .then_some(())
        })
        .await;

        let content = compose["configs"]["registry"]["content"].as_str().unwrap();
        assert!(
            content.contains("http://gateway:8400/hooks/main"),
            "{content}"
        );
        let registry = Registry::configured(&content.replace("gateway:8400", &gateway)).await;

        let file = read("deploy/compose/tagtrail.toml").replace(
            "http://registry:5000",
            &format!("http://{}", registry.host()),
        );
        let file_path = folder.path().join("tagtrail.toml");
        std::fs::write(&file_path, file).unwrap();
        let environment = |service: &Value| -> Vec<(String, String)> {
            let here = |(name, value): (String, String)| match name.as_str() {
                "TAGTRAIL_CONFIG" => (name, file_path.to_str().unwrap().to_owned()),
                _ => (
                    name,
                    value
                        .replace("@postgres:5432/tagtrail", &format!("@{host}"))
                        .replace("@nats:4222", &format!("@{nats}"))
                        .replace("//nats:8222", &format!("//{monitor}")),
                ),
            };
            environment_of(service).into_iter().map(here).collect()
        };
        let services = ours(&compose);
        // Here the owner has the password of the test's server.
        let migrated = Command::new(tagtrail_testkit::binary())
            .arg("migrate")
            .envs(environment(services["migrate"]))
            .env("DATABASE_URL", &url)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&migrated.stderr).into_owned();
        assert!(
            migrated.status.success() && said.contains("the streams are as they should be"),
            "{said}"
        );
        let mut admins = BTreeMap::new();
        for (name, service) in services.iter().filter(|(name, _)| **name != "migrate") {
            let admin = free_address();
            let mut environment = environment(service);
            environment.extend([
                ("TAGTRAIL_ADMIN".to_owned(), admin.clone()),
                ("TAGTRAIL_GATEWAY_LISTEN".to_owned(), gateway.clone()),
                ("TAGTRAIL_API_LISTEN".to_owned(), api.clone()),
                ("TAGTRAIL_SWEEP_SECONDS".to_owned(), "1".to_owned()),
            ]);
            let environment: Vec<(&str, &str)> = environment
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            processes.push(Process::tagtrail(&[name], &environment));
            eventually(&format!("the {name} to be healthy"), SOON, async || {
                health(&admin).ok()
            })
            .await;
            admins.insert((*name).to_owned(), admin);
        }
        Up {
            env,
            nats,
            gateway,
            database: host,
            api: format!("http://{api}"),
            registry,
            _folder: folder,
            _postgres: postgres,
            processes,
            admins,
        }
    }

    /// Checks that each service stays healthy for longer than the interval of each request that it
    /// repeats, and that nats-server refused none of its requests.
    async fn stays_healthy(&self) {
        tokio::time::sleep(LONGEST_INTERVAL).await;
        for (name, admin) in &self.admins {
            health(admin).unwrap_or_else(|error| panic!("{name} is not healthy: {error}"));
        }
        let log = self.processes[0].log();
        let refused: Vec<&str> = log
            .lines()
            .filter(|line| line.to_lowercase().contains("violation"))
            .collect();
        assert!(refused.is_empty(), "{refused:#?}");
    }

    fn cli(&self, arguments: &[&str], token: Option<&str>) -> (i32, String, String) {
        let mut command = Command::new(tagtrail_testkit::binary());
        command
            .args(arguments)
            .env("TAGTRAIL_API", &self.api)
            .env_remove("TAGTRAIL_TOKEN");
        if let Some(token) = token {
            command.env("TAGTRAIL_TOKEN", token);
        }
        let done = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            done.status.code().unwrap(),
            text(done.stdout),
            text(done.stderr),
        )
    }

    pub(super) async fn nats(&self, account: &str) -> async_nats::Client {
        self.try_nats(account).await.unwrap()
    }

    pub(super) async fn try_nats(
        &self,
        account: &str,
    ) -> Result<async_nats::Client, async_nats::ConnectError> {
        let password = self.env[&format!("NATS_{}_PASSWORD", account.to_uppercase())].clone();
        let prefix = match account {
            "subscriber" => "_INBOX".to_owned(),
            other => format!("_INBOX_{other}"),
        };
        async_nats::ConnectOptions::with_user_and_password(account.to_owned(), password)
            .custom_inbox_prefix(prefix)
            .request_timeout(Some(Duration::from_millis(500)))
            .connect(&self.nats)
            .await
    }

    async fn postgres(&self, account: &str) -> PgConnection {
        let password = &self.env[&format!("{}_PASSWORD", account.to_uppercase())];
        PgConnection::connect(&format!(
            "postgres://{account}:{password}@{}",
            self.database
        ))
        .await
        .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_processes_do_their_work_with_accounts_that_can_do_nothing_else() {
    let up = Up::start().await;
    let token = up.env["API_TOKEN"].clone();
    let image = "localhost:5000/shop/web";

    // Core subscriptions of a subscriber: nothing but the events as they are published.
    let follower = up.nats("subscriber").await;
    let mut followed = Vec::new();
    for events in ["revision", "manifest", "rollout"] {
        let subject = format!("tagtrail.{events}.>");
        followed.push((events, follower.subscribe(subject).await.unwrap()));
    }
    follower.flush().await.unwrap();

    // A real push becomes history; the API asks every caller for a token.
    let pushed = up.registry.push(&TestImage::new("one"), "shop/web:latest");
    let pinned = format!("{image}@{pushed}\n");
    eventually("the push", SOON, async || {
        let (_, out, _) = up.cli(&["resolve", image, "--quiet"], Some(&token));
        (out == pinned).then_some(())
    })
    .await;
    let (code, _, error) = up.cli(&["resolve", image], None);
    assert!(code == 1 && error.contains("TAGTRAIL_TOKEN"), "{error}");
    // An event without a digest becomes history too: the resolver asks the registry at its
    // configured address.
    let script = reqwest::Client::new()
        .post(format!("http://{}/hooks/ci", up.gateway))
        .bearer_auth(&up.env["CI_HOOK_SECRET"])
        .json(&serde_json::json!({ "repository": "shop/web", "tag": "latest" }))
        .send()
        .await
        .unwrap();
    assert_eq!(script.status(), 202);
    let mut report = up.postgres("report").await;
    eventually("the registry's answer", SOON, async || {
        let resolved = "select digest from report.push where origin = 'resolved'";
        let digest: Option<String> = sqlx::query_scalar(resolved)
            .fetch_optional(&mut report)
            .await
            .unwrap();
        (digest? == pushed.to_string()).then_some(())
    })
    .await;

    // The resolver reads the manifest of the push, once.
    let digest = pushed.to_string();
    eventually("the manifest", SOON, async || {
        let (_, out, _) = up.cli(&["manifest", &digest, "--output", "json"], Some(&token));
        let manifest: Value = serde_json::from_str(&out).ok()?;
        (manifest["platforms"][0]["os"] == "linux").then_some(())
    })
    .await;

    // Subscribers receive and read revisions, and can publish nothing.
    let subscriber = up.nats("subscriber").await;
    let stream = jetstream::new(subscriber)
        .get_stream("REVISIONS")
        .await
        .unwrap();
    let last = stream
        .direct_get_last_for_subject("tagtrail.revision.localhost%3A5000.shop.web.latest")
        .await
        .unwrap();
    let event: Value = serde_json::from_slice(&last.payload).unwrap();
    assert_eq!(event["data"]["digest"], pushed.to_string());
    let manifests = jetstream::new(up.nats("subscriber").await)
        .get_stream("MANIFESTS")
        .await
        .unwrap();
    let subject = format!("tagtrail.manifest.{}", digest.replace(':', "."));
    let manifest = manifests
        .direct_get_last_for_subject(subject)
        .await
        .unwrap();
    let event: Value = serde_json::from_slice(&manifest.payload).unwrap();
    assert_eq!(event["data"]["digest"], digest);

    // No trigger is configured, so its account publishes in place of the service.
    let trigger = up.nats("trigger").await;
    let rollout = trigger.publish("tagtrail.rollout.shop.failed", "{}".into());
    rollout.await.unwrap();
    trigger.flush().await.unwrap();
    for subject in [
        "tagtrail.hold.ffffffffffffffff",
        "tagtrail.trigger.shop.broken",
    ] {
        let stored = trigger.request(subject, "{}".into()).await.unwrap();
        let stored: Value = serde_json::from_slice(&stored.payload).unwrap();
        assert_eq!(stored["stream"], "ROLLOUTS", "{subject}: {stored}");
    }
    for (events, mut messages) in followed {
        let message = tokio::time::timeout(SOON, messages.next()).await;
        let message = message.unwrap_or_else(|_| panic!("no {events} arrived"));
        assert!(message.is_some());
    }

    // Each service writes the tables that it alone writes, with the rights of its role.
    for (account, written) in [
        (
            "indexer",
            "select done_at is not null from sweep where stream = 'PUSHES'",
        ),
        (
            "resolver",
            "select true from reconcile where repository = 'shop/web'",
        ),
        ("trigger", "select applied_seq > 0 from planner_position"),
    ] {
        let mut db = up.postgres(account).await;
        eventually(&format!("a row of the {account}"), SOON, async || {
            let row: Option<bool> = sqlx::query_scalar(written)
                .fetch_optional(&mut db)
                .await
                .unwrap();
            row.filter(|written| *written)
        })
        .await;
    }

    up.stays_healthy().await;
    rights::refuses_requests(&up).await;
    rights::stores_no_answer(&up).await;
    rights::leaves_connections_to_services(&up).await;
    refuses_on_postgres(&up).await;
}

async fn refuses_on_postgres(up: &Up) {
    for (account, statements) in [
        (
            "indexer",
            &[
                "update push set actor = 'me'",
                "delete from push",
                "truncate revision",
                "update revision set number = 7",
                "delete from tag",
                "update manifest set revision = 'x'",
                "delete from manifest",
                "update tag set name = 'x'",
                "update trigger set state = 'paused'",
                "select * from planner_position",
                "update reconcile set found = 0",
                "delete from sweep",
                "insert into rollout_change (rollout_id, state, rollout) values (gen_random_uuid(), 'pending', '{}')",
                "drop table push",
                "alter table push disable trigger all",
                "create table mine (id int)",
            ][..],
        ),
        (
            "trigger",
            &[
                "insert into push default values",
                "update revision set number = 7",
                "delete from rollout",
                "update rollout set images = '{}'",
                "update tag set head = 1",
                "select * from position",
                "update position set applied_seq = 0",
                "select * from sweep",
                "delete from planner_position",
            ],
        ),
        (
            "api",
            &[
                "insert into trigger (name, images, target, policies) values ('x', '{}', 'x', '{}')",
                "update trigger_spec set spec = null",
                "update trigger set images = '{}'",
                "delete from rollout",
                "update tag set head = 1",
                "insert into push default values",
                "insert into manifest default values",
                "update reconcile set found = 0",
                "update walk set found = 0",
                "select * from planner_position",
            ],
        ),
        (
            "resolver",
            &[
                "insert into push default values",
                "update tag set head = 1",
                "update reconcile set first_at = now()",
                "update walk set first_at = now()",
                "delete from reconcile",
                "delete from walk",
                "select * from trigger",
            ],
        ),
        (
            "report",
            &[
                "select * from public.push",
                "select * from public.tag",
                "select * from public.manifest",
                "delete from report.push",
                "select pg_try_advisory_lock(1952540465, 0)",
                "select pg_advisory_xact_lock(1)",
                "create temporary table mine (id int)",
                "select lo_create(0)",
            ],
        ),
    ] {
        let mut db = up.postgres(account).await;
        for statement in statements {
            let error = match sqlx::query(*statement).execute(&mut db).await {
                Ok(done) => panic!("{account} may {statement}: {done:?}"),
                Err(error) => error.to_string(),
            };
            let refused = ["permission denied", "must be owner", "cannot delete"];
            assert!(
                refused.iter().any(|word| error.contains(word)),
                "{account}: {statement}: {error}"
            );
        }
    }
    let mut report = up.postgres("report").await;
    let image: String = sqlx::query_scalar("select image from report.head")
        .fetch_one(&mut report)
        .await
        .unwrap();
    assert_eq!(image, "localhost:5000/shop/web:latest");
}
