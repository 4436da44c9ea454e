//! Reports that read kept numbers or group by keys, against plain statements over the views.

use serde_json::Value;

use crate::rows::Rows;
use crate::server::Api;

const TIME: &str = "from=2026-03-01&to=2026-03-31";
/// The same in SQL: the rows of the time, and all that is known.
const DEPLOYMENTS: &str = "with ended as (
        select distinct on (id) id, state, changed_at from report.rollout_change where changed_at >= '2026-03-01' order by id, ordinal desc)
    select to_char(changed_at at time zone 'utc', 'YYYY-MM-DD') as day, count(*) filter (where state = 'succeeded') as succeeded,
           count(*) filter (where state = 'superseded') as superseded, count(*) filter (where state = 'failed') as failed,
           count(*) filter (where state in ('cancelled', 'rejected')) as cancelled
    from ended where state in ('succeeded', 'superseded', 'failed', 'cancelled', 'rejected') and changed_at < '2026-04-01' group by 1 order by 1";
const LEAD_TIME: &str = "with ended as (
        select distinct on (id) id, state, cause, changed_at from report.rollout_change where changed_at >= '2026-03-01' order by id, ordinal desc)
    select to_char(date_trunc('week', e.changed_at at time zone 'utc'), 'YYYY-MM-DD') as week, count(*) as images,
           round((percentile_cont(0.5) within group (order by extract(epoch from e.changed_at - h.occurred_at)))::numeric, 3) as p50_seconds,
           round((percentile_cont(0.9) within group (order by extract(epoch from e.changed_at - h.occurred_at)))::numeric, 3) as p90_seconds
    from ended e join report.rollout r on r.id = e.id and r.changed
    join report.history h on h.image = r.image and h.revision = r.revision
    where e.state = 'succeeded' and e.cause = 'revision' and e.changed_at < '2026-04-01' group by 1 order by 1";
const CHURN: &str = "with counted as (
        select image, count(*) as changes, min(revision) as first, max(revision) as last from report.history
        where recorded_at >= '2026-03-01' and recorded_at < '2026-04-01' group by image having count(*) > 1)
    select c.image, c.changes,
           (select round((percentile_cont(0.5) within group (order by extract(epoch from n.until - n.occurred_at)))::numeric, 3)
            from (select h.occurred_at, lead(h.occurred_at) over (order by h.occurred_at, h.revision) as until
                  from report.history h where h.image = c.image and h.revision between c.first and c.last) n
            where n.until is not null) as median_held_seconds
    from counted c order by c.changes desc, c.image";

/// Writes tags that move, and rollouts that end in several ways, some after another end.
async fn world(rows: &mut Rows) {
    for (name, count) in [
        ("shop/web:latest", 60),
        ("shop/api:main", 7),
        ("b/c:1", 7),
        ("once/x:1", 1),
    ] {
        let tag = rows
            .empty_tag(&format!("registry.example.com/{name}"))
            .await;
        rows.burst(tag, count).await;
    }
    let trigger = rows.trigger("shop", true).await;
    let ways: [&[&str]; 5] = [
        &["pending", "running", "succeeded"],
        &["pending", "superseded"],
        &["pending", "running", "failed"],
        &["pending", "running", "failed", "succeeded"],
        &["pending", "running", "succeeded", "failed"],
    ];
    for number in 1..=60_i64 {
        let way = ways[usize::try_from(number).unwrap() % ways.len()];
        let end = way[way.len() - 1];
        let at = number * 20_000;
        let id = rows.rollout(trigger, number, end, at).await;
        for (place, state) in (0_i64..).zip(way) {
            sqlx::query(
                "insert into rollout_change (rollout_id, state, rollout, changed_at)
                 values ($1::uuid, $2::rollout_state, '{}', $3)",
            )
            .bind(&id)
            .bind(state)
            .bind(crate::rows::time(at + place * number * 300))
            .execute(&mut rows.db)
            .await
            .unwrap();
        }
    }
}

#[tokio::test]
async fn reports_equal_plain_statements_over_the_views() {
    let (api, mut rows) = Api::start().await;
    world(&mut rows).await;
    sqlx::query("set timezone = 'UTC'")
        .execute(&mut rows.db)
        .await
        .unwrap();
    for (name, direct, least) in [
        ("deployments", DEPLOYMENTS, 10),
        ("lead-time", LEAD_TIME, 2),
        ("churn", CHURN, 3),
    ] {
        let answer = api.found(&format!("/v1/reports/{name}?{TIME}")).await;
        let expected: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "select to_json(q)::text from ({direct}) q"
        )))
        .fetch_all(&mut rows.db)
        .await
        .unwrap();
        let expected: Vec<Value> = expected
            .iter()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect();
        assert_eq!(answer["items"], Value::from(expected.clone()), "{name}");
        assert!(expected.len() >= least, "{name}: {expected:?}");
    }
}
