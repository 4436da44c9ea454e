//! The numbers of the coverage report: equal to a count of all of history, at any time.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use sqlx::{PgConnection, Row as _};
use tagtrail_proto::{Origin, Push};
use tagtrail_testkit::{SOON, TestDb, TestNats, eventually};

use crate::bench::*;

/// Counts all revisions at once, as the report did before it had numbers of its own.
const DIRECT: &str = "with change as (
         select v.tag_id, v.digest, v.effective_at, v.recorded_at, p.source,
                case when p.origin = 'resolved' and starts_with(p.event_id, 'observed:') then 'observed' else p.origin::text end as origin,
                coalesce(lag(v.effective_at) over same, v.effective_at) as replaced_at,
                lag(v.number) over same is not null and lag(v.digest) over same is not distinct from v.digest as again,
                lead(v.effective_at) over same as until
         from revision v join push p on p.id = v.push_id
         window same as (partition by v.tag_id order by v.effective_at, v.number)
     ), known as (
         select c.*,
                case
                    when c.origin in ('observed', 'reconciled', 'imported') and exists (
                        select from push e
                        where e.tag_id = c.tag_id and e.origin = 'event' and e.effective_at >= c.effective_at
                          and (c.until is null or e.effective_at < c.until)
                          and case e.action when 'push' then e.digest end is not distinct from c.digest)
                    then 'event'
                    when c.origin in ('observed', 'reconciled') and exists (
                        select from push e
                        where e.tag_id = c.tag_id and e.origin = 'event' and e.effective_at < c.effective_at
                          and e.effective_at between c.replaced_at - interval '2 min' and c.replaced_at + interval '2 min'
                          and case e.action when 'push' then e.digest end is not distinct from c.digest)
                    then 'reordered'
                    else c.origin
                end as way
         from change c where not c.again
     )
     select r.registry, k.source, date_trunc(period, k.recorded_at, 'UTC') as starts_at, period,
            case when t.name like '%.sig' then 'signatures' else k.way end as way, count(*) as changes
     from known k join tag t on t.id = k.tag_id join repository r on r.id = t.repository_id,
          unnest('{hour,day}'::text[]) period
     group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5";

const COUNTED: &str = "select c.registry, c.source, c.starts_at, c.period::text as period, w.way, w.changes
     from coverage c, lateral (values ('event', c.event), ('resolved', c.resolved), ('observed', c.observed),
                               ('reconciled', c.reconciled), ('reordered', c.reordered), ('imported', c.imported),
                               ('signatures', c.signatures)) w (way, changes)
     where w.changes <> 0 order by 1, 2, 3, 4, 5";

async fn numbers(db: &mut PgConnection, statement: &'static str) -> Vec<String> {
    let rows = sqlx::query(statement).fetch_all(db).await.unwrap();
    let line = |row: &sqlx::postgres::PgRow| {
        let starts_at: time::OffsetDateTime = row.get("starts_at");
        let [registry, source, period, way] =
            ["registry", "source", "period", "way"].map(|name| row.get::<String, _>(name));
        let changes: i64 = row.get("changes");
        format!("{registry} {source} {period} {starts_at} {way}: {changes}")
    };
    rows.iter().map(line).collect()
}

/// Waits until the numbers equal a direct count.
async fn wait_counted(db: &mut PgConnection) -> Vec<String> {
    let direct = numbers(db, DIRECT).await;
    assert!(!direct.is_empty());
    let mut last = Vec::new();
    let equal = eventually("the numbers", SOON, async || {
        last = numbers(db, COUNTED).await;
        (last == direct).then_some(())
    });
    if tokio::time::timeout(SOON - std::time::Duration::from_secs(1), equal)
        .await
        .is_err()
    {
        panic!("expected {direct:#?}, counted {last:#?}");
    }
    direct
}

/// Waits until the last event is counted, which is later than its revision: a push counts once no
/// earlier one can still appear.
async fn wait_last_event(db: &mut PgConnection) {
    let statement = "select (select max(last_event_at) from coverage) =
                (select max(received_at) from push where origin in ('event', 'resolved'))";
    eventually("the last event", SOON, async || {
        let counted: bool = sqlx::query_scalar(statement)
            .fetch_one(&mut *db)
            .await
            .unwrap();
        counted.then_some(())
    })
    .await;
}

/// Returns this push as one that became known in this way.
fn known_by(way: &str, push: Push) -> Push {
    let origin = match way {
        "observed" => Origin::Resolved,
        other => other.parse().unwrap(),
    };
    let prefix = match way {
        "observed" => Push::OBSERVED,
        _ => "",
    };
    Push {
        origin,
        event_id: format!("{prefix}{}", push.event_id),
        ..push
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_counts_by_the_way_in_which_it_became_known() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    let cases = [
        // Two pushes within a second, of which the registry wrote the first one last.
        vec![(1, 10, "event"), (2, 11, "event"), (1, 3600, "reconciled")],
        // A push beside a delete, which the registry carried out first.
        vec![(1, 10, "event"), (0, 11, "event"), (1, 3600, "reconciled")],
        // The tag returned to an old digest without an event.
        vec![(1, 10, "event"), (2, 300, "event"), (1, 3600, "reconciled")],
        // A pull named a digest without an event, and an event lacked its digest.
        vec![(1, 10, "event"), (3, 20, "observed")],
        vec![(1, 10, "event"), (3, 20, "resolved")],
        // A pull told of the change; the late event of it has an earlier time.
        vec![(1, 10, "event"), (3, 30, "observed"), (3, 20, "event")],
        vec![(1, 10, "imported")],
    ];
    for (place, pushes) in cases.iter().enumerate() {
        let image = format!("registry.example.com/shop/web:v{place}");
        let pushes = pushes.iter().map(|(content, second, way)| match content {
            0 => known_by(way, delete(&image, *second)),
            _ => known_by(way, push(&image, *second, *content)),
        });
        send(&nats, pushes.collect::<Vec<_>>()).await;
    }
    let mut connection = db.connect().await;
    wait_applied(&mut connection, &nats).await;
    wait_counted(&mut connection).await;
    let row = async |db: &mut PgConnection| -> Vec<i64> {
        let statement = "select array[event, resolved, observed, reconciled, reordered, imported]
             from coverage where period = 'day' order by starts_at desc limit 1";
        sqlx::query_scalar(statement).fetch_one(db).await.unwrap()
    };
    assert_eq!(row(&mut connection).await, [10, 1, 1, 1, 2, 1]);

    // The event of a change that reconciling found arrives late, at the time of its push.
    let late = push("registry.example.com/shop/web:v2", 3700, 1);
    send(&nats, [late]).await;
    wait_applied(&mut connection, &nats).await;
    wait_counted(&mut connection).await;
    assert_eq!(row(&mut connection).await, [11, 1, 1, 0, 2, 1]);
    indexer.stop().await;
}

/// Pushes and deletes of a few tags in a few minutes, in no order of time.
fn any_pushes(count: usize, runner: &mut TestRunner) -> Vec<Push> {
    let one = (0..6_usize, 0..900_i64, 0..4_u64, 0..8_usize, 0..2_usize);
    let tree = prop::collection::vec(one, count).new_tree(runner).unwrap();
    let ways = [
        "event",
        "event",
        "event",
        "event",
        "resolved",
        "observed",
        "reconciled",
        "imported",
    ];
    let make = |(number, (tag, second, content, way, source)): (
        usize,
        (usize, i64, u64, usize, usize),
    )| {
        let image = match tag {
            5 => format!("r.example.com/shop/web:sha256-{}.sig", "ab".repeat(32)),
            _ => format!("r.example.com/shop/app{}:t{tag}", tag / 2),
        };
        let push = match content {
            0 => delete(&image, second),
            _ => push(&image, second, content),
        };
        let push = Push {
            source: ["main", "ci"][source].to_owned(),
            event_id: format!("{number}"),
            ..push
        };
        known_by(ways[way], push)
    };
    tree.current().into_iter().enumerate().map(make).collect()
}

async fn count_with(db: &TestDb, nats: &TestNats, pushes: Vec<Push>) -> Vec<String> {
    let indexer = Indexer::start(db.url(), nats.url());
    indexer.ctx.health.wait_ready().await;
    let mut connection = db.connect().await;
    let mut counted = Vec::new();
    for pushes in pushes.chunks(150) {
        send(nats, pushes.to_vec()).await;
        wait_applied(&mut connection, nats).await;
        counted = wait_counted(&mut connection).await;
    }
    wait_last_event(&mut connection).await;
    indexer.stop().await;
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_equal_a_direct_count_after_late_pushes_a_restore_and_an_upgrade() {
    let (db, nats) = (tagtrail_testkit::postgres().await, TestNats::start().await);
    let mut runner = TestRunner::deterministic();
    count_with(&db, &nats, any_pushes(450, &mut runner)).await;
    let backup = db.copy().await;
    let counted = count_with(&db, &nats, any_pushes(300, &mut runner)).await;
    assert!(counted.len() > 20, "{counted:#?}");

    // An older backup of Postgres, which gets the later pushes again.
    count_with(&backup, &nats, any_pushes(10, &mut runner)).await;

    // A database of a version without numbers.
    let mut connection = db.connect().await;
    sqlx::raw_sql("truncate coverage, coverage_change, coverage_position")
        .execute(&mut connection)
        .await
        .unwrap();
    let again = count_with(&db, &nats, any_pushes(10, &mut runner)).await;
    assert!(again.len() >= counted.len());
}
