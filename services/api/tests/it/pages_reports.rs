//! Reports: the same rows as JSON, as CSV, on a page, and by the SQL that they name.

use serde_json::{Value, json};

use crate::rows::{Rows, digest, on_time, text};
use crate::server::{Answer, Api};

const WEB: &str = "registry.example.com/shop/web";
/// The time of the rows.
const TIME: &str = "from=2026-03-01&to=2026-03-31";
const NAMES: [&str; 7] = [
    "deployments",
    "lead-time",
    "rollout-time",
    "releases-moved",
    "coverage",
    "churn",
    "running",
];

/// Writes tags, and three rollouts of two triggers.
async fn world(rows: &mut Rows) {
    let moves: Vec<_> = (1..=5_i64)
        .map(|number| on_time(number, u8::try_from(number).unwrap(), number * 10))
        .collect();
    rows.tag(&format!("{WEB}:latest"), &moves).await;
    rows.tag(
        &format!("{WEB}:v1.2.3"),
        &[on_time(1, 1, 10), on_time(2, 2, 70)],
    )
    .await;
    rows.tag(&format!("{WEB}:1.2.4"), &[on_time(1, 1, 10)])
        .await;
    rows.tag(
        "registry.example.com/other/app:2.0.0",
        &[on_time(1, 1, 10), on_time(2, 3, 20)],
    )
    .await;
    let shop = rows.trigger("shop", true).await;
    let eu = rows.trigger("shop-eu", true).await;
    sqlx::query("update trigger set labels = '{\"team\": \"eu\"}' where name = 'shop-eu'")
        .execute(&mut rows.db)
        .await
        .unwrap();
    for (trigger, number, state, at) in [
        (shop, 2, "succeeded", 30),
        (shop, 3, "failed", 40),
        (eu, 4, "succeeded", 50),
    ] {
        let id = rows.rollout(trigger, number, state, at).await;
        for (state, at) in [("pending", at), ("running", at), (state, at + 5)] {
            sqlx::query(
                "insert into rollout_change (rollout_id, state, rollout, changed_at)
                 values ($1::uuid, $2::rollout_state, '{}', $3)",
            )
            .bind(&id)
            .bind(state)
            .bind(crate::rows::time(at))
            .execute(&mut rows.db)
            .await
            .unwrap();
        }
    }
    sqlx::query(
        "insert into coverage (period, starts_at, registry, source, event, resolved, reconciled)
         select p::coverage_period, '2026-03-03T14:00:00Z', 'registry.example.com', '=main', 9, 1, 2 from unnest(array['hour', 'day']) p",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
}

async fn items(api: &Api, name: &str, query: &str) -> Value {
    api.found(&format!("/v1/reports/{name}?{TIME}{query}"))
        .await["items"]
        .take()
}

#[tokio::test]
async fn each_report_counts_what_its_question_asks_for() {
    let (api, mut rows) = Api::start().await;
    world(&mut rows).await;
    let day = |succeeded, failed| json!([{ "day": "2026-03-03", "succeeded": succeeded, "superseded": 0, "failed": failed, "cancelled": 0 }]);
    for (query, expected) in [
        ("", day(2, 1)),
        ("&trigger=shop", day(1, 1)),
        ("&team=eu", day(1, 0)),
        ("&match=registry.example.com/shop/**", day(2, 1)),
        ("&match=registry.example.com/other/*", json!([])),
        ("&match=&trigger=&team=&known_at=", day(2, 1)),
    ] {
        assert_eq!(items(&api, "deployments", query).await, expected, "{query}");
    }
    // Revision 2 was pushed at 20 s and ran at 35 s, revision 4 at 40 s and ran at 55 s.
    assert_eq!(
        items(&api, "lead-time", "").await,
        json!([{ "week": "2026-03-02", "images": 2, "p50_seconds": 15.0, "p90_seconds": 15.0 }])
    );
    let times = items(&api, "rollout-time", "").await;
    let of_five = times
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["up_to_seconds"] == 5.0);
    assert_eq!(of_five.unwrap()["rollouts"], 2, "{times}");
    assert_eq!(
        times[15],
        json!({ "above_seconds": 3600, "up_to_seconds": null, "rollouts": 0 })
    );
    let moved = items(&api, "releases-moved", "").await;
    assert_eq!(
        moved[0],
        json!({
            "image": format!("{WEB}:v1.2.3"), "revision": 2, "kind": "moved", "previous_digest": digest(1), "digest": digest(2),
            "occurred_at": text(70), "actor": "ci-bot", "seconds_after": 60.0,
        })
    );
    assert_eq!(moved.as_array().unwrap().len(), 2);
    let of_shop = items(&api, "releases-moved", "&match=shop/*").await;
    assert_eq!(of_shop, json!([moved[0]]));
    let churn = items(&api, "churn", "").await;
    assert_eq!(
        churn[0],
        json!({ "image": format!("{WEB}:latest"), "changes": 5, "median_held_seconds": 10.0 })
    );
    assert_eq!(churn.as_array().unwrap().len(), 3);
    assert_eq!(
        items(&api, "coverage", "").await,
        json!([{ "registry": "registry.example.com", "source": "=main", "event": 9, "resolved": 1, "observed": 0, "reconciled": 2, "covered": 0.833_333 }])
    );
    let ran = items(&api, "running", "&trigger=shop").await;
    assert_eq!(
        ran,
        json!([{ "trigger": "shop", "name": "web", "image": format!("{WEB}:latest"), "revision": 2, "digest": digest(2), "number": 2, "since": text(35), "until": null }])
    );
}

#[tokio::test]
async fn an_image_runs_from_the_rollout_that_brought_it_to_the_one_that_replaced_it() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let image = |name: &str, content: u8| json!({ "image": format!("registry.example.com/shop/{name}:latest"), "revision": content, "digest": digest(content) });
    // The worker is new in rollout 2, and not in 4. Rollout 5 brings the first web back.
    for (number, state, images) in [
        (1, "succeeded", json!({ "web": image("web", 1) })),
        (
            2,
            "succeeded",
            json!({ "web": image("web", 1), "worker": image("worker", 7) }),
        ),
        (
            3,
            "failed",
            json!({ "web": image("web", 2), "worker": image("worker", 7) }),
        ),
        (4, "succeeded", json!({ "web": image("web", 3) })),
        (
            5,
            "succeeded",
            json!({ "web": image("web", 1), "worker": image("worker", 7) }),
        ),
        (
            6,
            "succeeded",
            json!({ "web": image("web", 1), "worker": image("worker", 8) }),
        ),
    ] {
        sqlx::query(
            "with o as (
                 insert into rollout (id, trigger_id, number, state, images, cause, attempts, created_at, finished_at)
                 values (gen_random_uuid(), $1, $2, $3::rollout_state, $4, '{\"reason\": \"revision\", \"changed\": []}', 1, $5, $5) returning id)
             insert into rollout_change (rollout_id, state, rollout, changed_at) select id, $3::rollout_state, '{}', $5 from o",
        )
        .bind(shop)
        .bind(number)
        .bind(state)
        .bind(images)
        .bind(crate::rows::time(number * 10))
        .execute(&mut rows.db)
        .await
        .unwrap();
    }
    let spans = async |query: &str| -> Vec<Value> {
        let rows = items(&api, "running", query).await;
        let span = |row: &Value| {
            json!([
                row["name"],
                row["digest"],
                row["number"],
                row["since"],
                row["until"]
            ])
        };
        rows.as_array().unwrap().iter().map(span).collect()
    };
    let web = |content, number, since, until: Value| {
        json!(["web", digest(content), number, text(since), until])
    };
    let worker = |content, number, since, until: Value| {
        json!(["worker", digest(content), number, text(since), until])
    };
    assert_eq!(
        spans("").await,
        [
            worker(8, 6, 60, Value::Null),
            web(1, 5, 50, Value::Null),
            worker(7, 5, 50, json!(text(60))),
            web(3, 4, 40, json!(text(50))),
            worker(7, 2, 20, json!(text(40))),
            web(1, 1, 10, json!(text(40))),
        ]
    );
    // A time without a rollout has the images that ran then, each with its true times.
    let then = format!("/v1/reports/running?from={}&to={}", text(25), text(26));
    let then = api.found(&then).await;
    assert_eq!(then["items"].as_array().unwrap().len(), 2);
    for (row, since) in then["items"].as_array().unwrap().iter().zip([20, 10]) {
        assert_eq!(
            (&row["since"], &row["until"]),
            (&json!(text(since)), &json!(text(40)))
        );
    }
    // Before rollout 4 was known, both images still ran.
    let known = spans(&format!("&known_at={}", text(39))).await;
    assert_eq!(
        known,
        [worker(7, 2, 20, Value::Null), web(1, 1, 10, Value::Null)]
    );
}

#[tokio::test]
async fn with_known_at_an_answer_is_final() {
    let (api, mut rows) = Api::start().await;
    world(&mut rows).await;
    let known = format!("&known_at={}", text(60));
    let mut before = Vec::new();
    for name in NAMES {
        let answer = api.get(&format!("/v1/reports/{name}?{TIME}{known}")).await;
        match name {
            "coverage" => assert_eq!(answer.problem(), "400 parameter_conflict"),
            _ => {
                assert_eq!(
                    (answer.status, &answer.body["final"]),
                    (200, &json!(true)),
                    "{name}"
                );
                assert!(answer.header("cache-control").contains("immutable"));
                before.push(answer.body);
            }
        }
    }
    // Later: the failed rollout succeeds by a retry, and a late push changes the past.
    sqlx::query(
        "insert into rollout_change (rollout_id, state, rollout, changed_at)
         select id, 'succeeded', '{}', $1 from rollout where state = 'failed'",
    )
    .bind(crate::rows::time(100))
    .execute(&mut rows.db)
    .await
    .unwrap();
    rows.tag(
        "registry.example.com/late/app:1.0.0",
        &[
            on_time(1, 1, 10),
            crate::rows::Revision {
                recorded: 200,
                ..on_time(2, 2, 20)
            },
        ],
    )
    .await;
    let mut again = Vec::new();
    for name in NAMES.iter().filter(|name| **name != "coverage") {
        again.push(
            api.found(&format!("/v1/reports/{name}?{TIME}{known}"))
                .await,
        );
    }
    assert_eq!(before, again);
    let now = items(&api, "deployments", "").await;
    assert_eq!(
        (&now[0]["succeeded"], &now[0]["failed"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(
        items(&api, "releases-moved", "")
            .await
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test]
async fn the_sql_of_a_report_makes_the_same_rows() {
    let (api, mut rows) = Api::start().await;
    world(&mut rows).await;
    for name in NAMES {
        let quoted = "&trigger=shop%27%20or%20true&match=registry.example.com/**";
        for query in ["", quoted] {
            let answer = api
                .found(&format!("/v1/reports/{name}?{TIME}{query}"))
                .await;
            let sql = format!(
                "select count(*) from ({}) q",
                answer["sql"].as_str().unwrap()
            );
            let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .fetch_one(&mut rows.db)
                .await
                .unwrap();
            let items = answer["items"].as_array().unwrap();
            assert_eq!(
                usize::try_from(count).unwrap(),
                items.len(),
                "{name}{query}"
            );
            // Each column is described, and no other is there.
            let columns = answer["columns"].as_array().unwrap().iter();
            let mut columns: Vec<&str> = columns.map(|one| one["name"].as_str().unwrap()).collect();
            columns.sort_unstable();
            for item in items {
                let names: Vec<&String> = item.as_object().unwrap().keys().collect();
                assert_eq!(names, columns, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn reports_are_pages_and_csv() {
    let (api, mut rows) = Api::start().await;
    let empty = Answer::read(api.once("GET", "/reports").await).await;
    assert_eq!(empty.status, 200);
    world(&mut rows).await;
    for name in NAMES {
        for path in [
            format!("/reports/{name}?{TIME}"),
            format!("/reports?{TIME}&trigger=shop"),
        ] {
            let answer = api.once("GET", &path).await;
            assert_eq!(answer.status(), 200, "{path}");
            let page = answer.text().await.unwrap();
            assert!(
                page.len() < 60_000 && page.contains("from report."),
                "{path}: {} bytes",
                page.len()
            );
            assert!(!page.contains(" style=") && page.matches("<h1").count() == 1);
            // Each report has its own forms, with the whole question; a page of many has none
            // that leaves reports out.
            let foot = &page[page.find("<footer").unwrap()..];
            for form in ["This page as", "tagtrail report "] {
                assert_eq!(
                    foot.contains(form),
                    !path.starts_with("/reports?"),
                    "{foot}"
                );
            }
            let shown = page.matches("<summary>SQL</summary>").count();
            for form in ["href=\"/v1/reports/", ".csv?from="] {
                let found = page[..page.find("<footer").unwrap()].matches(form).count();
                assert!(found >= shown, "{path}: {found} {form} of {shown}");
            }
        }
        let csv = api
            .once("GET", &format!("/reports/{name}.csv?{TIME}"))
            .await;
        assert_eq!(csv.headers()["content-type"], "text/csv; charset=utf-8");
        let csv = csv.text().await.unwrap();
        let rows = items(&api, name, "").await;
        assert_eq!(
            csv.lines().count(),
            rows.as_array().unwrap().len() + 1,
            "{csv}"
        );
        let json = api
            .once("GET", &format!("/reports/{name}.json?{TIME}"))
            .await;
        assert_eq!(json.status(), 303);
        assert!(
            json.headers()["location"]
                .to_str()
                .unwrap()
                .starts_with(&format!("/v1/reports/{name}?from="))
        );
    }
    let coverage = api
        .once("GET", &format!("/reports/coverage.csv?{TIME}"))
        .await;
    // A cell that begins with a sign of a formula gets a quote.
    assert!(coverage.text().await.unwrap().contains("\"'=main\""));
    let typed = api
        .once("GET", "/reports?from=3+Mar+2026&to=yesterday+12:00")
        .await;
    assert_eq!(typed.status(), 303);
    for (path, expected) in [
        ("/v1/reports/nothing", "404 report_unknown"),
        ("/v1/reports/churn?from=soon", "400 time_invalid"),
        (
            "/v1/reports/churn?from=2026-03-05&to=2026-03-01",
            "400 parameter_conflict",
        ),
        ("/v1/reports/churn?from=1990-01-01", "400 time_invalid"),
        (
            "/v1/reports/churn?known_at=2999-01-01T00:00:00Z",
            "400 time_invalid",
        ),
        ("/v1/reports/churn?match=[", "400 match_invalid"),
        ("/v1/reports/churn?window=30d", "400 parameter_unknown"),
    ] {
        assert_eq!(api.get(path).await.problem(), expected, "{path}");
    }
    assert_eq!(api.once("GET", "/reports/nothing").await.status(), 404);
}
