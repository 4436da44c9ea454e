//! A store of schema version 7, with rows in every table, migrated to the newest version: no row is
//! lost, programs of the version before still write, and every service of this version reads it.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tagtrail_e2e::Fleet;
use tagtrail_migrations::MIGRATOR;
use tagtrail_testkit::{Process, Registry, SOON, TestImage, TestNats, TestPostgres, eventually};

/// Version of the schema that the store is made with.
const OLD: i64 = 7;
const ROWS: &str = include_str!("migrated/rows.sql");
const IMAGE: &str = "registry.example.com/shop/web";

/// The URL of an empty database `name` on a server.
async fn database(postgres: &TestPostgres, name: &str) -> String {
    let mut admin = postgres.db().connect().await;
    let sql = format!("create database {name}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .unwrap();
    url_of(postgres, name)
}

fn url_of(postgres: &TestPostgres, database: &str) -> String {
    let url = postgres.db().url().to_owned();
    format!("{}/{database}", url.rsplit_once('/').unwrap().0)
}

/// Makes a store of the old version in an empty database.
async fn make_old_store(db: &mut PgConnection) {
    MIGRATOR.run_to(OLD, &mut *db).await.unwrap();
    sqlx::raw_sql(ROWS).execute(&mut *db).await.unwrap();
    for (table, rows) in tables(db).await {
        assert!(!rows.is_empty(), "migrated/rows.sql has no row for {table}");
    }
}

/// The rows of every table of ours, as JSON, by the name of the table.
async fn tables(db: &mut PgConnection) -> BTreeMap<String, Vec<Value>> {
    let names: Vec<String> = sqlx::query_scalar(
        "select tablename::text from pg_tables where schemaname = 'public' and tablename <> '_sqlx_migrations'",
    )
    .fetch_all(&mut *db)
    .await
    .unwrap();
    let mut tables = BTreeMap::new();
    for name in names {
        let sql = format!("select to_jsonb(t) from {name} t order by to_jsonb(t)::text");
        let rows = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *db)
            .await
            .unwrap();
        tables.insert(name, rows);
    }
    tables
}

/// The columns of a row that another row has too.
fn columns_of(row: &Value, like: &Value) -> Value {
    let like = like.as_object().unwrap();
    let both = row.as_object().unwrap().iter();
    let both = both.filter(|(name, _)| like.contains_key(*name));
    both.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

async fn migrate(url: &str) {
    let mut migrating = Process::tagtrail(&["migrate"], &[("DATABASE_URL", url)]);
    let status = migrating.ended(SOON).await;
    assert!(status.success(), "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_keeps_every_row_and_copies_the_positions() {
    let postgres = TestPostgres::start().await;
    let url = database(&postgres, "old").await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    make_old_store(&mut db).await;
    let before = tables(&mut db).await;
    migrate(&url).await;
    let after = tables(&mut db).await;

    for (table, rows) in &before {
        let new_name = if table == "walk" { "reconcile" } else { table };
        assert_eq!(after[new_name].len(), rows.len(), "{table}");
        // Later versions add columns.
        for (row, old) in after[new_name].iter().zip(rows) {
            assert_eq!(&columns_of(row, old), old, "{table}");
        }
    }
    assert_eq!(
        after["sweep"],
        [
            serde_json::json!({
                "stream": "PUSHES", "stream_created_ns": 1_772_546_400_000_000_000_i64, "applied_seq": 3,
                "applied_time_ns": 1_772_550_001_000_000_000_i64, "done_at": "2026-03-03T15:20:00+00:00", "doubts_until": null,
            }),
            serde_json::json!({
                "stream": "REVISIONS", "stream_created_ns": 1_772_546_400_000_000_001_i64, "applied_seq": 5,
                "applied_time_ns": 1_772_550_002_000_000_000_i64, "done_at": null, "doubts_until": null,
            }),
        ]
    );
    assert_eq!(
        after["planner_position"],
        [serde_json::json!({
            "stream": "REVISIONS", "stream_created_ns": 1_772_546_400_000_000_001_i64, "applied_seq": 6,
            "applied_time_ns": 1_772_550_003_000_000_000_i64,
        })]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_takes_long_is_reported_each_ten_seconds() {
    let postgres = TestPostgres::start().await;
    let url = database(&postgres, "old").await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    make_old_store(&mut db).await;
    run(&mut db, "begin; lock table walk").await;
    let mut migrating = Process::tagtrail(&["migrate"], &[("DATABASE_URL", &url)]);
    eventually("two reports", SOON, async || {
        let log = migrating.log();
        let reports = log.lines().filter(|line| {
            line.starts_with("migrating the schema: ")
                && line.contains(" of ")
                && line.contains(" migrations, ")
        });
        (reports.count() == 2).then_some(())
    })
    .await;
    run(&mut db, "rollback").await;
    let status = migrating.ended(SOON).await;
    assert!(status.success(), "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn resolvers_and_apis_of_the_version_before_still_use_the_name_walk() {
    let postgres = TestPostgres::start().await;
    let url = database(&postgres, "old").await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    make_old_store(&mut db).await;
    migrate(&url).await;

    // The statement of the old resolver, word for word, with the rights of its role.
    let upsert = "insert into walk (registry, repository, tags, asked, found) values ($1, $2, $3, $4, $5)
         on conflict (registry, repository) do update
         set last_at = now(), tags = excluded.tags, asked = excluded.asked, found = walk.found + excluded.found";
    run(&mut db, "set role tagtrail_resolver").await;
    for repository in ["shop/web", "shop/new"] {
        sqlx::query(upsert)
            .bind("registry.example.com")
            .bind(repository)
            .bind(5_i64)
            .bind(4_i64)
            .bind(3_i64)
            .execute(&mut db)
            .await
            .unwrap();
    }
    let known: bool = sqlx::query_scalar(
        "select exists (select from walk where registry = 'registry.example.com' and repository = 'shop/new')",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    assert!(known);
    run(&mut db, "set role tagtrail_api").await;
    let registries: i64 = sqlx::query_scalar(
        "select count(*) from (select registry, max(last_at) from walk group by registry) w",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    assert_eq!(registries, 1);
    run(&mut db, "reset role").await;
    let rows: Vec<(String, i64, i64, i64, bool)> = sqlx::query_as(
        "select repository, tags, asked, found, last_at > now() - interval '1 hour' from reconcile order by repository",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    assert_eq!(
        rows,
        [
            ("shop/new".to_owned(), 5, 4, 3, true),
            ("shop/web".to_owned(), 5, 4, 4, true)
        ]
    );
}

async fn run(db: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(db).await.unwrap();
}

/// The rights of the service roles to tables and columns, as Postgres keeps them.
async fn rights(db: &mut PgConnection) -> Vec<String> {
    let rights = "select distinct format('%s may %s %s %s', grantee, privilege_type, table_name, column_name)
         from information_schema.column_privileges where grantee like 'tagtrail\\_%' and grantor <> grantee order by 1";
    sqlx::query_scalar(rights).fetch_all(db).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_at_once_as_a_mere_owner_ends_with_the_rights_of_the_list() {
    let postgres = TestPostgres::start().await;
    let mut admin = postgres.db().connect().await;
    run(&mut admin, "create role mere_owner login password 'x'").await;
    let url = database(&postgres, "mere").await;
    run(&mut admin, "alter database mere owner to mere_owner").await;
    // A role that the owner may not make, such as one that a restore to a new server lost.
    run(
        &mut admin,
        "drop owned by tagtrail_resolver; drop role tagtrail_resolver",
    )
    .await;
    let host = url.rsplit_once('@').unwrap().1;
    let owned = format!("postgres://mere_owner:x@{host}");

    tokio::join!(migrate(&owned), migrate(&owned), migrate(&owned));
    let mut db = PgConnection::connect(&owned).await.unwrap();
    let without_resolver = rights(&mut db).await;
    run(&mut admin, "create role tagtrail_resolver").await;
    migrate(&owned).await;
    let first = rights(&mut db).await;
    let resolver = "tagtrail_resolver may INSERT reconcile found".to_owned();
    assert!(!without_resolver.contains(&resolver) && first.contains(&resolver));
    assert!(
        first.contains(&"tagtrail_api may UPDATE trigger state".to_owned()),
        "{first:?}"
    );
    // The planner of the version before must not move the position that nobody reads any more.
    let is_of_position =
        |right: &&String| right.contains("tagtrail_trigger") && right.contains(" position ");
    assert_eq!(first.iter().find(is_of_position), None);

    // A right that the list does not name ends with the next run; people keep theirs.
    run(&mut db, "grant delete on push to tagtrail_indexer").await;
    run(&mut db, "grant update (name) on tag to tagtrail_api").await;
    run(&mut db, "grant select on tag to tagtrail_report").await;
    let changed = rights(&mut db).await;
    let mut kept = changed.clone();
    migrate(&owned).await;
    let again = rights(&mut db).await;
    kept.retain(|right| first.contains(right) || right.starts_with("tagtrail_report"));
    assert_ne!(changed, kept);
    assert_eq!(again, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_reads_a_migrated_store_and_goes_on_with_it() {
    let postgres = TestPostgres::start().await;
    let url = database(&postgres, "old").await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    make_old_store(&mut db).await;
    let of_the_old_store =
        |fleet: &Fleet, _: &str| vec![("DATABASE_URL", url_of(&fleet.postgres, "old"))];
    let nats = TestNats::start().await;
    let mut fleet =
        Fleet::start_with("registry.example.com", postgres, nats, of_the_old_store).await;

    reads_history(&fleet).await;

    // The planner starts nothing: the last rollout has the images that the heads ask for.
    let shop = get(&fleet, "/v1/triggers/shop").await;
    assert_eq!(shop["current"]["number"], 1, "{shop}");
    assert!(fleet.sink.deliveries().is_empty());

    // A new push goes on with the numbers of the revisions and of the rollouts.
    let digest = format!("sha256:{}", "55".repeat(32));
    let pushed = fleet
        .push("shop/web", &digest, "2026-03-03T16:00:00Z")
        .await;
    assert_eq!(pushed, Some(202));
    let delivery = fleet.sink.wait(1).await.remove(0).json();
    assert_eq!(delivery["data"]["number"], 2, "{delivery}");
    assert_eq!(delivery["data"]["images"]["web"]["revision"], 3);
    assert_eq!(delivery["data"]["images"]["worker"]["revision"], 1);

    reconciles_what_was_reconciled_before(&mut fleet).await;
}

async fn get(fleet: &Fleet, path: &str) -> Value {
    let (status, body) = fleet.get(path).await.unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// Asks the API about each table of the old store.
async fn reads_history(fleet: &Fleet) {
    let digest = |pair: &str| format!("sha256:{}", pair.repeat(32));
    let head = get(fleet, &format!("/v1/resolve?image={IMAGE}")).await;
    assert_eq!(head["digest"], digest("22"));
    let path = format!("/v1/resolve?image={IMAGE}&at=2026-03-03T14:59:59Z");
    assert_eq!(get(fleet, &path).await["digest"], digest("11"));
    let history = get(fleet, &format!("/v1/history?image={IMAGE}")).await;
    assert_eq!(history["items"].as_array().unwrap().len(), 2);
    let holders = get(fleet, &format!("/v1/digests/{}", digest("11"))).await;
    assert_eq!(holders["items"][0]["until"], "2026-03-03T15:00:00.000000Z");
    let manifest = get(fleet, &format!("/v1/manifests/{}", digest("22"))).await;
    assert_eq!(manifest["version"], "2.0");
    let coverage = get(fleet, "/v1/coverage?since=2026-03-01T00:00:00Z").await;
    assert!(
        coverage.to_string().contains("2026-03-03T15:10:00.000000Z"),
        "{coverage}"
    );
    let rollouts = get(fleet, "/v1/rollouts?trigger=shop").await;
    assert_eq!(rollouts["items"].as_array().unwrap().len(), 1);
    assert_eq!(rollouts["items"][0]["state"], "succeeded");
}

/// Lets the resolver find a tag in a repository that it had reconciled before the migration: a
/// change that no event reported, not an import.
async fn reconciles_what_was_reconciled_before(fleet: &mut Fleet) {
    let registry = Registry::start("http://127.0.0.1:1", "").await;
    let _ = registry.push(&TestImage::new("unreported"), "shop/web:unreported");
    let folder = tempfile::tempdir().unwrap();
    let path = Path::new(folder.path()).join("tagtrail.toml");
    let text = format!(
        r#"
[[registry]]
name = "registry.example.com"
url = "http://{}"
reconcile = "2s"
"#,
        registry.host()
    );
    std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap().to_owned();
    fleet.restart_with("resolver", Some(("TAGTRAIL_CONFIG", file)));
    let path = format!("/v1/history?image={IMAGE}:unreported");
    let history = eventually("the unreported tag", SOON, async || {
        let (status, history) = fleet.get(&path).await?;
        (status == 200).then_some(history)
    })
    .await;
    assert_eq!(history["items"][0]["origin"], "reconciled", "{history}");
}
