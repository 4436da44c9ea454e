//! Indexes that are built before their migration, on a real Postgres.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tagtrail_migrations::{MIGRATOR, indexes};
use tagtrail_testkit::{TestDb, TestPostgres};
use tokio::sync::oneshot;

/// The migration with indexes of its own, and the one before.
const SLIM: i64 = 19;
const BEFORE: i64 = 18;

async fn run(db: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.unwrap();
}

/// Creates a database of this version of the schema. Returns its URL.
async fn database(db: &TestDb, name: &str, version: i64) -> String {
    run(&mut db.connect().await, &format!("create database {name}")).await;
    let url = format!("{}/{name}", db.url().rsplit_once('/').unwrap().0);
    let mut made = PgConnection::connect(&url).await.unwrap();
    MIGRATOR.run_to(version, &mut made).await.unwrap();
    url
}

/// Writes pushes, each with a revision, with ids from `first`. Each tenth counts from its receipt.
async fn write(db: &mut PgConnection, first: i64, pushes: i64) {
    let sql = format!(
        "with n as (
             select n, 1 + n % 100 as tag, sha256(n::text::bytea) as digest, timestamptz '2026-03-03' + n * interval '1 s' as at
             from generate_series({first}, {first} + {pushes} - 1) n)
         , p as (
             insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin,
                               source, event_id, stream_seq)
             select tag, 'push', digest, case n % 10 when 0 then at + interval '1 h' else at end, at, 'event', at, at, 'event', 'main', n::text, n
             from n returning id, stream_seq)
         insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal)
         select tag, n, 'moved', digest, at, at, n, n, p.id, 0, n from n join p on p.stream_seq = n.n"
    );
    run(db, &sql).await;
}

/// Returns the definitions of all indexes of `push` and `revision`, and whether each is valid.
async fn definitions(db: &mut PgConnection) -> Vec<(String, bool)> {
    sqlx::query_as(
        "select pg_get_indexdef(indexrelid), indisvalid from pg_index
         where indrelid in ('push'::regclass, 'revision'::regclass) order by 1",
    )
    .fetch_all(db)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_built_while_services_write_and_equal_those_of_an_empty_store() {
    let postgres = TestPostgres::start().await;
    let url = database(&postgres.db(), "old", BEFORE).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    write(&mut db, 1, 200_000).await;
    let (stop, mut stopped) = oneshot::channel::<()>();
    let mut writer = PgConnection::connect(&url).await.unwrap();
    let writing = async {
        let (mut next, mut slowest) = (1_000_001, Duration::ZERO);
        while stopped.try_recv().is_err() {
            let begun = Instant::now();
            write(&mut writer, next, 10).await;
            slowest = slowest.max(begun.elapsed());
            next += 10;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (next - 1_000_001, slowest)
    };
    let building = async {
        let begun = Instant::now();
        indexes::build(&mut db, SLIM).await.unwrap();
        let took = begun.elapsed();
        let built = definitions(&mut db).await;
        MIGRATOR.run(&mut db).await.unwrap();
        stop.send(()).unwrap();
        (took, built)
    };
    let ((written, slowest), (took, built)) = tokio::join!(writing, building);
    assert!(
        written > 0 && slowest < took / 2,
        "{written} pushes, the slowest write took {slowest:?} of {took:?}"
    );

    let names = |definitions: &[(String, bool)]| -> Vec<String> {
        definitions
            .iter()
            .map(|(sql, _)| {
                sql.split(' ')
                    .skip_while(|word| *word != "INDEX")
                    .nth(1)
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    let migrated = definitions(&mut db).await;
    assert_eq!(
        names(&built),
        names(&migrated),
        "the migration has nothing left to build"
    );
    assert_eq!(
        migrated,
        definitions(&mut postgres.db().connect().await).await
    );
    assert!(migrated.iter().all(|(_, valid)| *valid), "{migrated:?}");
    let clamped: i64 = sqlx::query_scalar(
        "select count(*) from push where tag_id is not null and effective_at <> occurred_at",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    assert_eq!(clamped, (200_000 + written) / 10);
    // Once the migration is applied, nothing is looked at again.
    run(&mut db, "drop index push_from_receipt").await;
    indexes::build(&mut db, SLIM).await.unwrap();
    assert_eq!(definitions(&mut db).await.len(), migrated.len() - 1);
}

#[tokio::test]
async fn an_index_whose_build_was_cut_off_is_built_again() {
    let postgres = TestPostgres::start().await;
    let url = database(&postgres.db(), "cut", BEFORE).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    write(&mut db, 1, 1000).await;
    let cut = "create unique index concurrently push_from_receipt on push (source)";
    sqlx::raw_sql(cut).execute(&mut db).await.unwrap_err();
    let invalid = definitions(&mut db).await;
    assert_eq!(invalid.iter().filter(|(_, valid)| !valid).count(), 1);
    indexes::build(&mut db, SLIM).await.unwrap();
    MIGRATOR.run(&mut db).await.unwrap();
    assert_eq!(
        definitions(&mut db).await,
        definitions(&mut postgres.db().connect().await).await
    );
}

#[tokio::test]
async fn one_session_at_a_time_migrates() {
    let db = tagtrail_testkit::postgres().await;
    let (mut first, mut second) = (db.connect().await, db.connect().await);
    assert!(indexes::lock(&mut first).await.unwrap());
    assert!(!indexes::lock(&mut second).await.unwrap());
    first.close().await.unwrap();
    while !indexes::lock(&mut second).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
