//! The children as real processes.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tagtrail_embedded::{Embedded, Folder, Nats, Postgres, Settings, signal};

/// Returns a folder that the user of the children can reach, in case the tests run as root.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .permissions(PermissionsExt::from_mode(0o711))
        .tempdir()
        .unwrap()
}

fn settings(folder: &Path) -> Settings {
    Settings {
        durable: false,
        shared_buffers: "16MB".to_owned(),
        ..Settings::new(folder.join("data"))
    }
}

async fn nats(url: &str) -> Result<async_nats::Client, async_nats::ConnectError> {
    let address: async_nats::ServerAddr = url.parse().unwrap();
    let (user, password) = (address.username().unwrap(), address.password().unwrap());
    async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        .connect(address)
        .await
}

async fn eventually<T>(goal: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    panic!("waited for {goal}, in vain");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_postgres_is_compressed_by_lz4() {
    let folder = folder();
    let servers = Embedded::start(&settings(folder.path())).await.unwrap();
    let mut db = PgConnection::connect(servers.postgres_url()).await.unwrap();
    let compression: String = sqlx::query_scalar("select current_setting('wal_compression')")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!(compression, "lz4");
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_data_and_addresses() {
    let folder = folder();
    let settings = settings(folder.path());
    let first = Embedded::start(&settings).await.unwrap();
    let urls = (first.postgres_url().to_owned(), first.nats_url());
    let mut db = PgConnection::connect(&urls.0).await.unwrap();
    sqlx::raw_sql("create table kept (n int); insert into kept values (17)")
        .execute(&mut db)
        .await
        .unwrap();
    let stream = async_nats::jetstream::stream::Config {
        name: "KEPT".to_owned(),
        ..Default::default()
    };
    let client = nats(&urls.1).await.unwrap();
    async_nats::jetstream::new(client)
        .create_stream(stream)
        .await
        .unwrap();
    first.stop().await;

    let second = Embedded::start(&settings).await.unwrap();
    assert_eq!(
        (second.postgres_url(), second.nats_url()),
        (urls.0.as_str(), urls.1.clone())
    );
    let mut db = PgConnection::connect(&urls.0).await.unwrap();
    let kept: i32 = sqlx::query_scalar("select n from kept")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!(kept, 17);
    let client = nats(&urls.1).await.unwrap();
    async_nats::jetstream::new(client)
        .get_stream("KEPT")
        .await
        .unwrap();
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_child_is_restarted_at_the_same_address() {
    let folder = folder();
    let settings = settings(folder.path());
    let held = Folder::open(&settings.data).unwrap();
    let postgres = Postgres::start(&held, &settings).await.unwrap();
    let nats_server = Nats::start(&held, &settings).await.unwrap();
    let before = (postgres.pid().unwrap(), nats_server.pid().unwrap());
    signal(before.0, "KILL");
    signal(before.1, "KILL");
    eventually("Postgres to restart", async || {
        (postgres.pid()? != before.0).then_some(())?;
        PgConnection::connect(postgres.url()).await.ok()
    })
    .await;
    eventually("nats-server to restart", async || {
        (nats_server.pid()? != before.1).then_some(())?;
        nats(&nats_server.url()).await.ok()
    })
    .await;
    tokio::join!(postgres.stop(), nats_server.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_require_their_passwords_and_other_users_cannot_read_them() {
    let folder = folder();
    let settings = settings(folder.path());
    let servers = Embedded::start(&settings).await.unwrap();
    let (user_and_password, rest) = servers.postgres_url().split_once('@').unwrap();
    let (user, password) = user_and_password.rsplit_once(':').unwrap();
    assert_eq!(password.len(), 64, "256 bits");
    let refused = PgConnection::connect(&format!("{user}:wrong@{rest}"))
        .await
        .unwrap_err();
    let code = refused
        .as_database_error()
        .and_then(|error| error.code().map(|code| code.into_owned()));
    assert_eq!(code.as_deref(), Some("28P01"));
    let url = servers.nats_url();
    let address = url.rsplit_once('@').unwrap().1;
    assert!(
        async_nats::connect(format!("nats://{address}"))
            .await
            .is_err()
    );

    // Only the user of this process may read the folder. If that is root, the children own no more
    // than their parts of the folder.
    let open = std::fs::metadata(&settings.data)
        .unwrap()
        .permissions()
        .mode()
        & 0o077;
    assert!(open == 0 || open == 0o011, "{open:o}");
    for entry in std::fs::read_dir(&settings.data).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert!(
            mode & 0o077 == 0 || name == "postgres.initialised",
            "{name}: {mode:o}"
        );
    }
    servers.stop().await;
}

#[tokio::test]
async fn a_folder_belongs_to_one_process_at_a_time() {
    let folder = folder();
    let data = folder.path().join("data");
    let held = Folder::open(&data).unwrap();
    let refused = Folder::open(&data).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("is in use by process {}", std::process::id()))
            && refused.contains("--data"),
        "{refused}"
    );
    drop(held);
    // A child that another test starts at this moment holds our open files until its `exec`.
    eventually("the folder to be free", async || Folder::open(&data).ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_get_no_variable_of_this_process_but_those_that_they_need() {
    let folder = folder();
    let servers = Embedded::start(&settings(folder.path())).await.unwrap();
    // Cargo sets variables such as CARGO_PKG_NAME for this test.
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
    for pid in servers.pids() {
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let names: Vec<&str> = environment
            .split_terminator('\0')
            .filter_map(|variable| variable.split('=').next())
            // The servers add these themselves.
            .filter(|name| !name.starts_with("PG") && !["LC_COLLATE", "LC_CTYPE"].contains(name))
            .collect();
        let needed = names.iter().all(|name| ["PATH", "LANG"].contains(name));
        assert!(needed, "{names:?}");
    }
    servers.stop().await;
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

async fn refusal(db: &mut PgConnection, statement: &str) -> String {
    match sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
        .execute(db)
        .await
    {
        Ok(_) => panic!("{statement} is permitted"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_log_in_as_a_superuser_and_people_can_take_nothing_from_the_services() {
    let folder = folder();
    let servers = Embedded::start(&settings(folder.path())).await.unwrap();
    let mut owner = connect(servers.postgres_url()).await;
    let superusers: Vec<String> = sqlx::query_scalar(
        "select rolname::text as name from pg_roles where rolsuper and rolcanlogin",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert_eq!(superusers, ["postgres"]);
    // That one has no password, and no connection is trusted.
    let (_, address) = servers.postgres_url().rsplit_once('@').unwrap();
    for password in ["", ":postgres"] {
        let url = format!("postgres://postgres{password}@{address}");
        assert!(PgConnection::connect(&url).await.is_err());
    }
    let refused = refusal(&mut owner, "copy (select 1) to program 'id'").await;
    assert!(
        ["must be superuser", "permission denied"]
            .iter()
            .any(|text| refused.contains(text)),
        "{refused}"
    );

    let mut people = connect(&servers.postgres_url_of("report").unwrap()).await;
    for statement in [
        "select pg_advisory_lock(1952540465, 3)",
        "select pg_try_advisory_xact_lock_shared(7)",
        "create temporary table t (n int)",
        "select lo_create(0)",
        "select lo_from_bytea(0, '\\x00')",
    ] {
        let refused = refusal(&mut people, statement).await;
        assert!(
            refused.contains("permission denied"),
            "{statement}: {refused}"
        );
    }
    let mut others = Vec::new();
    for _ in 0..9 {
        others.push(connect(&servers.postgres_url_of("report").unwrap()).await);
    }
    let eleventh = PgConnection::connect(&servers.postgres_url_of("report").unwrap()).await;
    assert!(
        eleventh
            .unwrap_err()
            .to_string()
            .contains("too many connections for role")
    );
    let timeout: String = sqlx::query_scalar("show statement_timeout")
        .fetch_one(&mut people)
        .await
        .unwrap();
    assert_eq!(timeout, "5min");
    for account in ["indexer", "resolver", "trigger"] {
        let mut service = connect(&servers.postgres_url_of(account).unwrap()).await;
        sqlx::query("select pg_advisory_lock(1, 1)")
            .execute(&mut service)
            .await
            .unwrap();
    }
    // The api takes locks for its orders alone, until the transaction ends.
    let mut api = connect(&servers.postgres_url_of("api").unwrap()).await;
    sqlx::query("select pg_advisory_xact_lock(1, 1)")
        .execute(&mut api)
        .await
        .unwrap();
    let refused = refusal(&mut api, "select pg_advisory_lock(1, 1)").await;
    assert!(refused.contains("permission denied"), "{refused}");
    servers.stop().await;
}

/// In folders of older releases the services and the owner were one superuser, who owned all.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_a_superuser_gets_an_owner_without_rights_over_the_server() {
    let folder = folder();
    let new = settings(folder.path());
    let old = Settings {
        accounts: false,
        ..new.clone()
    };
    let held = Folder::open(&old.data).unwrap();
    let postgres = Postgres::start(&held, &old).await.unwrap();
    let url = postgres.url().to_owned();
    let mut db = connect(&url).await;
    let made = "create schema report;
        create type kind as enum ('a', 'b');
        create table kept (id int generated always as identity, s serial, k kind default 'a');
        create sequence alone;
        create function one() returns int language sql as 'select 1';
        create view report.kept as select * from kept;
        insert into kept default values";
    sqlx::raw_sql(made).execute(&mut db).await.unwrap();
    drop(db);
    postgres.stop().await;
    drop(held);

    for _ in 0..2 {
        let servers = Embedded::start(&new).await.unwrap();
        assert_eq!(servers.postgres_url(), url);
        let mut db = connect(&url).await;
        let superuser: String = sqlx::query_scalar("show is_superuser")
            .fetch_one(&mut db)
            .await
            .unwrap();
        assert_eq!(superuser, "off");
        // Only an owner may change these.
        let changes = "begin; alter table kept add column more int; drop view report.kept; drop sequence alone;
            alter type kind add value 'c'; drop function one(); drop table kept; drop schema report; rollback";
        sqlx::raw_sql(changes).execute(&mut db).await.unwrap();
        servers.stop().await;
    }
}
