//! Servers that users bring: poolers, full and read-only servers, accounts with limits. `/readyz`
//! of each process names the cause.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use tagtrail_e2e::{Fleet, HOOK_SECRET, SECRETS, config, free_address, use_ring};
use tagtrail_testkit::{
    CustomNats, PgBouncer, Process, SOON, TestNats, TestPostgres, binary, eventually,
};

async fn execute(db: &mut PgConnection, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(db).await.unwrap();
}

/// A process of one service.
struct Service {
    process: Process,
    admin: String,
}

impl Service {
    fn start(folder: &Path, name: &str, database: &str, nats: &str) -> Service {
        use_ring();
        let file = config(folder, "registry.example.com", "http://127.0.0.1:9");
        let admin = free_address();
        let (gateway, api) = (free_address(), free_address());
        let mut environment = vec![
            ("DATABASE_URL", database),
            ("NATS_URL", nats),
            ("TAGTRAIL_CONFIG", file.to_str().unwrap()),
            ("TAGTRAIL_GATEWAY_LISTEN", &gateway),
            ("TAGTRAIL_API_LISTEN", &api),
            ("TAGTRAIL_SESSION_SECONDS", "2"),
        ];
        environment.extend(SECRETS);
        Service {
            process: Process::tagtrail(&[name, "--admin", &admin], &environment),
            admin,
        }
    }

    /// Waits until the process is not ready for this reason.
    async fn is_not_ready(&self, reason: &str) {
        let url = format!("http://{}/readyz", self.admin);
        eventually(reason, SOON, async || {
            let answer = reqwest::get(&url).await.ok()?;
            let status = answer.status().as_u16();
            let text = answer.text().await.ok()?;
            (status == 503 && text.contains(reason)).then_some(())
        })
        .await;
    }
}

fn migrate(database: &str, nats: Option<&str>, wait: &str) -> Output {
    let mut command = Command::new(binary());
    command
        .args(["migrate", "--wait", wait])
        .env("DATABASE_URL", database);
    if let Some(nats) = nats {
        command.env("NATS_URL", nats);
    }
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_no_service_is_ready_and_each_names_the_pooler() {
    let (postgres, nats) = (TestPostgres::start().await, TestNats::start().await);
    let folder = tempfile::tempdir().unwrap();
    for mode in ["session", "transaction"] {
        let pooler = PgBouncer::start(&postgres.db(), mode, 6).await;
        for name in ["indexer", "trigger", "api"] {
            let service = Service::start(folder.path(), name, pooler.url(), nats.url());
            let reason = "a pooler between Tagtrail and Postgres drops the settings";
            service.is_not_ready(reason).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_without_free_connections_is_named_as_the_cause() {
    let (postgres, nats) = (TestPostgres::start().await, TestNats::start().await);
    let mut db = postgres.db().connect().await;
    execute(
        &mut db,
        "create role few login password 'few' connection limit 0; \
         grant tagtrail_indexer, tagtrail_trigger, tagtrail_api to few",
    )
    .await;
    let database = postgres.db();
    let (_, place) = database.url().rsplit_once('@').unwrap();
    let url = format!("postgres://few:few@{place}");
    let folder = tempfile::tempdir().unwrap();
    for name in ["indexer", "trigger", "api"] {
        let service = Service::start(folder.path(), name, &url, nats.url());
        service.is_not_ready("too many connections for role").await;
    }
}

/// Returns how many connections each process has, as `pg_stat_activity` names them.
async fn connections(db: &mut PgConnection) -> Vec<(String, i64)> {
    sqlx::query_as("select application_name, count(*) from pg_stat_activity where application_name like 'tagtrail-%' group by 1")
        .fetch_all(db)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_has_at_most_the_documented_connections() {
    let fleet = Fleet::start("registry.example.com").await;
    let mut db = fleet.postgres.db().connect().await;
    eventually("the indexer to hold all partitions", SOON, async || {
        let page = fleet.admin("indexer", "metrics").await?;
        page.contains("tagtrail_indexer_partitions 8").then_some(())
    })
    .await;
    let most = [
        ("tagtrail-indexer", 9),
        ("tagtrail-manifests", 1),
        ("tagtrail-sweeper", 1),
        ("tagtrail-coverage", 1),
        ("tagtrail-trigger", 10),
        ("tagtrail-api", 12),
        ("tagtrail-resolver", 4),
        // One of each service but the gateway.
        ("tagtrail-presence", 4),
    ];
    for (name, count) in connections(&mut db).await {
        let (_, limit) = most.iter().find(|(process, _)| *process == name).unwrap();
        assert!(count <= *limit, "{name} has {count} connections");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_postgres_is_named_and_a_pause_is_refused_for_a_while() {
    let fleet = Fleet::start("registry.example.com").await;
    let mut db = fleet.postgres.db().connect().await;
    execute(
        &mut db,
        "alter system set default_transaction_read_only = on",
    )
    .await;
    execute(&mut db, "select pg_reload_conf()").await;
    let reports = async |service: &str, wanted: &str| {
        eventually(wanted, SOON, async || {
            let page = fleet.admin(service, "readyz").await?;
            page.contains(wanted).then_some(())
        })
        .await;
    };
    reports("trigger", "Postgres is read-only").await;
    let pause = format!("{}/v1/triggers/shop/pause", fleet.cli().api);
    let client = reqwest::Client::new();
    let status = async || client.post(&pause).send().await.unwrap().status().as_u16();
    assert_eq!(status().await, 503);
    assert_eq!(fleet.get("/v1/triggers/shop").await.unwrap().0, 200);

    execute(&mut db, "set default_transaction_read_only = off").await;
    execute(&mut db, "alter system reset default_transaction_read_only").await;
    execute(&mut db, "select pg_reload_conf()").await;
    reports("trigger", "\"ready\":true").await;
    assert_eq!(status().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_ends_at_its_deadline_with_the_cause() {
    let postgres = TestPostgres::start().await;
    let account =
        json!({ "accounts": { "PLAIN": { "users": [{ "user": "u", "password": "pw" }] } } });
    let nats = CustomNats::start(account).await;
    let refused = migrate(postgres.db().url(), Some(&nats.url("u", "pw")), "2");
    assert_eq!(refused.status.code(), Some(1));
    let error = text(&refused);
    assert!(error.contains("10039"), "{error}");

    // A pooler whose only connection is in use takes clients, and answers no statement.
    let pooler = PgBouncer::start(&postgres.db(), "session", 1).await;
    let holder = <PgConnection as sqlx::Connection>::connect(pooler.url()).await;
    let mut holder = holder.unwrap();
    execute(&mut holder, "select 1").await;
    let began = Instant::now();
    let late = migrate(pooler.url(), None, "2");
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late).contains("no answer"), "{}", text(&late));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_too_few_consumers_makes_the_indexer_not_ready() {
    let postgres = TestPostgres::start().await;
    let account = json!({ "accounts": { "SMALL": {
        "jetstream": { "max_consumers": 4 },
        "users": [{ "user": "u", "password": "pw" }],
    } } });
    let nats = CustomNats::start(account).await;
    let url = nats.url("u", "pw");
    // The limit is one of each stream.
    let migrated = Command::new(binary())
        .args(["migrate", "--push-streams", "1"])
        .env("DATABASE_URL", postgres.db().url())
        .env("NATS_URL", &url)
        .output()
        .unwrap();
    assert!(migrated.status.success(), "{}", text(&migrated));
    let folder = tempfile::tempdir().unwrap();
    let indexer = Service::start(folder.path(), "indexer", postgres.db().url(), &url);
    indexer
        .is_not_ready("maximum consumers limit reached")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_takes_only_small_messages_is_reported_at_the_start() {
    let settings = json!({
        "max_payload": 65_536,
        "authorization": { "user": "u", "password": "pw" },
    });
    let nats = CustomNats::start(settings).await;
    let folder = tempfile::tempdir().unwrap();
    let url = nats.url("u", "pw");
    let gateway = Service::start(folder.path(), "gateway", "", &url);
    eventually("the warning", SOON, async || {
        let log = gateway.process.log();
        log.contains("set max_payload to 1MB or more").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_is_named_in_the_log_and_counted() {
    use_ring();
    let fleet = Fleet::start("registry.example.com").await;
    let jetstream = fleet.nats.jetstream().await;
    for number in 0..8 {
        let stream = jetstream
            .get_stream(format!("PUSHES_{number}"))
            .await
            .unwrap();
        let mut limited = stream.cached_info().config.clone();
        limited.max_messages = 1;
        jetstream.update_stream(&limited).await.unwrap();
    }
    let push = async |number: u8| {
        let digest = tagtrail_proto::Digest::sha256_of(&[number]).to_string();
        let body: Value = json!({ "repository": "shop/web", "tag": "latest", "digest": digest });
        let url = fleet.hook().replace("/main", "/ci");
        let request = reqwest::Client::new().post(url).bearer_auth(HOOK_SECRET);
        let answer = request.json(&body).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(push(1).await, 202);
    assert_eq!(push(2).await, 503);
    let log = fleet.processes["gateway"].log();
    let named = (0..8).any(|n| log.contains(&format!("the stream PUSHES_{n} is full")));
    assert!(named, "{log}");
    let metrics = fleet.admin("gateway", "metrics").await.unwrap();
    let counted = "tagtrail_gateway_full_streams_total{stream=\"PUSHES\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_consumer_makes_the_resolver_not_ready() {
    let fleet = Fleet::start("registry.example.com").await;
    let jetstream = fleet.nats.jetstream().await;
    let stream = jetstream.get_stream("UNRESOLVED").await.unwrap();
    let until = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
    stream.pause_consumer("resolver", until).await.unwrap();
    let reports = async |wanted: &str| {
        eventually(wanted, SOON, async || {
            let page = fleet.admin("resolver", "readyz").await?;
            page.contains(wanted).then_some(())
        })
        .await;
    };
    reports("`nats consumer resume UNRESOLVED resolver` ends the pause").await;
    stream.resume_consumer("resolver").await.unwrap();
    reports("\"ready\":true").await;
}
