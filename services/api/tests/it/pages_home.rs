//! The home page, and `GET /v1/status`.

use serde_json::json;
use sqlx::PgConnection;
use tagtrail_testkit::{SOON, eventually};

use crate::rows::{Rows, on_time};
use crate::server::Api;

/// Returns the text of a page that must be 200.
pub(crate) async fn page(api: &Api, path: &str) -> String {
    let response = api.request("GET", path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/html"), "{kind}");
    response.text().await.unwrap()
}

/// Writes the hours of a source: in each hour of the last eight days, up to `until` hours ago.
pub(crate) async fn hours(db: &mut PgConnection, source: &str, until: i64) {
    for period in ["hour", "day"] {
        sqlx::query(
            "insert into coverage (period, starts_at, registry, source, event, last_event_at)
             select $3::coverage_period, date_trunc($3, at, 'UTC'), 'registry.example.com', $1, sum(2), max(at)
             from (select now() - n * interval '1 hour' as at from generate_series($2, 24 * 9) n) hours
             group by 1, 2",
        )
        .bind(source)
        .bind(until)
        .bind(period)
        .execute(&mut *db)
        .await
        .unwrap();
    }
}

/// Moves all revisions to the present: they are written with times of March.
async fn to_now(rows: &mut Rows) {
    sqlx::raw_sql(
        "alter table revision disable trigger user; alter table push disable trigger user;
         update revision set recorded_at = now() - interval '10 minutes', effective_at = now() - interval '11 minutes';
         update push set recorded_at = now() - interval '10 minutes', received_at = now() - interval '10 minutes 0.004 seconds'",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
}

#[tokio::test]
async fn before_the_first_event_the_page_names_the_next_steps() {
    let (api, _rows) = Api::start().await;
    let text = page(&api, "/").await;
    assert!(text.contains("No events yet"));
    for part in [
        "tagtrail init harbor=registry.example.com</code>",
        "tagtrail doctor --setup --gateway http://127.0.0.1:8400</code>",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let status = api.found("/v1/status").await;
    assert_eq!(status["totals"]["revisions"], 0);
    assert_eq!(status["totals"]["delay"], json!(null));
    assert_eq!(status["last_event_at"], json!(null));
}

#[tokio::test]
async fn before_the_first_event_each_source_has_its_address() {
    let db = tagtrail_testkit::postgres().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    let source = "[[source]]\nname = \"main\"\nkind = \"harbor\"\nregistry = \"harbor.acme.com\"\nsecret = { env = \"S\" }\n";
    std::fs::write(&path, source).unwrap();
    let api = Api::with(&db, |config| config.config = Some(path)).await;
    api.ctx.health.wait_ready().await;
    let text = page(&api, "/").await;
    for part in [
        "POST http://127.0.0.1:8400/hooks/main",
        "docker push harbor.acme.com/shop/web:latest",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn lists_of_an_empty_store_lead_on() {
    let (api, _rows) = Api::start().await;
    for (path, lead) in [
        ("/i", "href=\"/\">Home</a> shows what to set up"),
        ("/triggers", "add a [[trigger]] to tagtrail.toml"),
        ("/rollouts", "No rollout is recorded yet."),
        ("/holds", "No freeze, pin or fault is in force"),
        ("/sources", "href=\"/\">Home</a> shows what to set up"),
        ("/reports", "Nothing in this time"),
    ] {
        let text = page(&api, path).await;
        assert!(text.contains(lead), "{path}: {text}");
    }
}

#[tokio::test]
async fn lists_agree_on_the_age_of_a_rollout_and_the_time_that_it_took() {
    let (api, mut rows) = Api::start().await;
    rows.tag("registry.example.com/shop/web:latest", &[on_time(1, 1, 10)])
        .await;
    let shop = rows.trigger("shop", true).await;
    rows.rollout(shop, 1, "succeeded", 20).await;
    sqlx::raw_sql(
        "update rollout set created_at = now() - interval '5 hours', started_at = now() - interval '3 hours', finished_at = now() - interval '2 hours'",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    for path in [
        "/",
        "/rollouts",
        "/triggers/shop",
        "/i/registry.example.com/shop/web:latest",
    ] {
        let text = page(&api, path).await;
        let took = text.contains("took 3 h<") || text.contains("data-l=\"took\">3 h<");
        assert!(took, "{path}: {text}");
        assert!(!text.contains(">2 h ago<"), "{path}: {text}");
    }
    for path in ["/", "/rollouts"] {
        assert!(page(&api, path).await.contains(">5 h ago<"), "{path}");
    }
}

#[tokio::test]
async fn the_figures_are_those_of_the_status() {
    let (api, mut rows) = Api::start().await;
    for tag in ["latest", "main", "1.0"] {
        let image = format!("registry.example.com/shop/web:{tag}");
        rows.tag(&image, &[on_time(1, 1, 10), on_time(2, 2, 20)])
            .await;
    }
    rows.tag("registry.example.com/shop/api:1", &[on_time(1, 3, 10)])
        .await;
    to_now(&mut rows).await;
    hours(&mut rows.db, "main", 0).await;
    let status = api.found("/v1/status").await;
    assert_eq!(status["totals"]["images"], 4);
    assert_eq!(status["totals"]["repositories"], 2);
    assert_eq!(status["totals"]["registries"], 1);
    assert_eq!(status["totals"]["revisions"], 7);
    assert_eq!(status["totals"]["delay"]["median_ms"], 4.0);
    assert_eq!(status["partitions"].as_array().unwrap().len(), 2);
    assert_eq!(status["silent"], json!([]));
    // This api states itself that it runs; an indexer was killed.
    sqlx::raw_sql(
        "insert into service (service, instance, machine, pid, version, seen_at, ready, why)
         values ('indexer', 'x', 'host-1', 7, '0.9.0', now() - interval '2 minutes', true, null)",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    let status = eventually("the row of the api", SOON, async || {
        let status = api.found("/v1/status").await;
        (status["services"].as_array().unwrap().len() == 2).then_some(status)
    })
    .await;
    assert_eq!(status["services"][0]["service"], "api");
    assert_eq!(status["services"][0]["present"], true);
    assert_eq!(status["services"][1]["present"], false);
    let text = page(&api, "/").await;
    assert!(
        text.contains("<dd>4<small>2 repositories, 1 registry</small>"),
        "{text}"
    );
    assert!(text.contains("<dd>4.0 ms<small>"), "{text}");
    let today = &status["changes"]["today"];
    assert!(
        text.contains(&format!("<dt>Changes today</dt><dd>{today}<small>")),
        "{text}"
    );
    // All changes of the last hour are in the chart, and both repositories in the table.
    assert!(text.contains("last hour: 7 in all"), "{text}");
    assert!(
        text.contains("6 changes of shop/web over 24 hours"),
        "{text}"
    );
    assert!(text.contains("data-live=\"/v1/revisions\"") && text.contains("<template id=\"row\">"));
    assert!(text.contains("no process; the last one was seen"), "{text}");
    assert_eq!(text.matches("<h1").count(), 1);
    assert!(text.contains("Nothing: all triggers are up to date"));
}

#[tokio::test]
async fn failed_rollouts_triggers_behind_and_silent_sources_need_attention() {
    let (api, mut rows) = Api::start().await;
    rows.tag("registry.example.com/shop/web:latest", &[on_time(1, 1, 10)])
        .await;
    let shop = rows.trigger("shop", true).await;
    rows.rollout(shop, 1, "failed", 20).await;
    sqlx::query("update rollout set ended = true, error = 'the target said <script>alert(1)</script>\u{202e}'")
        .execute(&mut rows.db)
        .await
        .unwrap();
    rows.trigger("api", true).await;
    sqlx::raw_sql(
        "update trigger set state = 'paused', paused_by = 'on-call', paused_at = now(), paused_reason = 'a <b>freeze</b>' where name = 'api'",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    hours(&mut rows.db, "main", 0).await;
    hours(&mut rows.db, "quay", 6).await;
    let text = page(&api, "/").await;
    assert!(text.contains("shop #1 failed"), "{text}");
    assert!(text.contains("href=\"/rollouts/shop/1\""), "{text}");
    assert!(text.contains("quay is silent for 6 h"), "{text}");
    assert!(!text.contains("main is silent"), "{text}");
    assert!(text.contains("api is paused"), "{text}");
    assert!(
        !text.contains("<script>alert")
            && !text.contains("<b>freeze")
            && !text.contains('\u{202e}')
    );
    assert!(text.contains("0 of 2"), "{text}");
    let status = api.found("/v1/status").await;
    assert_eq!(status["triggers"], json!({ "failing": 1, "paused": 1 }));
    assert_eq!(status["silent"][0]["source"], "quay");
    assert_eq!(status["silent"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_page_is_small_for_long_names_and_many_triggers() {
    let (api, mut rows) = Api::start().await;
    for number in 0..20 {
        let image = format!(
            "registry.example.com/{}/{number}:{}",
            "n".repeat(100),
            "t".repeat(120)
        );
        rows.tag(&image, &[on_time(1, 1, 10), on_time(2, 2, 20)])
            .await;
        rows.trigger(&format!("{}-{number}", "trigger".repeat(8)), true)
            .await;
    }
    sqlx::raw_sql("update trigger set state = 'paused', paused_by = 'on-call', paused_at = now()")
        .execute(&mut rows.db)
        .await
        .unwrap();
    to_now(&mut rows).await;
    let text = page(&api, "/").await;
    assert!(text.len() < 60_000, "{}", text.len());
    assert!(
        text.matches('<').count() < 3000,
        "{}",
        text.matches('<').count()
    );
    assert!(!text.contains("style=") && !text.contains(" on") || !text.contains(" onclick"));
}
