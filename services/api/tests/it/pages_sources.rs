//! The page of sources, and `GET /v1/sources`.

use serde_json::{Value, json};

use crate::pages_home::{hours, page};
use crate::rows::on_time;
use crate::server::Api;

const FILE: &str = r#"
[[source]]
name = "main"
kind = "distribution"
registry = "registry.example.com"
secret = { env = "HOOK_SECRET" }

[[source]]
name = "nexus-ci"
kind = "nexus"
registry = "nexus.example.com"
secret = { env = "HOOK_SECRET" }
"#;

fn one<'a>(sources: &'a Value, name: &str) -> &'a Value {
    let items = sources["items"].as_array().unwrap();
    items.iter().find(|item| item["name"] == name).unwrap()
}

#[tokio::test]
async fn sources_send_or_are_silent_and_a_configured_one_is_shown_before_its_first_event() {
    let db = tagtrail_testkit::postgres().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    std::fs::write(&path, FILE).unwrap();
    let api = Api::with(&db, |config| config.config = Some(path)).await;
    api.ctx.health.wait_ready().await;
    let mut rows = crate::rows::Rows::new(db.connect().await).await;
    rows.tag(
        "registry.example.com/shop/web:latest",
        &[on_time(1, 1, 10), on_time(2, 2, 20)],
    )
    .await;
    // Twelve events, an hour apart, the last of them just now.
    sqlx::raw_sql(
        "insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin, source, event_id, stream_seq)
         select 1, 'push', sha256('x'), at, at, 'event', at, at, 'event', 'main', n::text, n
         from (select n, now() - n * interval '1 hour' as at from generate_series(0, 11) n) e order by at;
         insert into reconcile (registry, repository, last_at, tags, asked, found) values ('registry.example.com', 'shop/web', now(), 1, 1, 0);
         insert into reconcile_failure (registry, repository, failed_at, reason) values ('registry.example.com', 'shop/api', now(), 'it said <b>401</b>')",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    hours(&mut rows.db, "main", 0).await;
    hours(&mut rows.db, "quay", 5).await;
    sqlx::raw_sql("update coverage set reconciled = 1 where source = 'main' and period = 'hour' and starts_at = (select max(starts_at) from coverage where period = 'hour' and source = 'main')")
        .execute(&mut rows.db)
        .await
        .unwrap();
    // Two changes found by comparing; an event about the second one came later.
    sqlx::raw_sql(
        "with p as (
             insert into push (tag_id, action, digest, occurred_at, effective_at, occurred_at_source, received_at, recorded_at, origin, source, event_id, stream_seq)
             select 1, 'push', sha256(n::text::bytea), at, at, 'event', at, at, 'reconciled', 'main', 'found ' || n, 90 + n
             from (select n, now() - n * interval '1 millisecond' as at from generate_series(3, 4) n) e
             returning id, digest, effective_at, stream_seq - 90 as number
         ), v as (
             insert into revision (tag_id, number, kind, digest, effective_at, recorded_at, previous, head, push_id, partition, ordinal)
             select 1, number, 'moved', digest, effective_at, effective_at, 2, number, id, 0, 100 + number from p
         )
         insert into coverage_change (tag_id, effective_at, number, counted_as)
         select 1, effective_at, number, case number when 3 then 'reconciled' else 'event' end from p",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    let sources = api.found("/v1/sources").await;
    let lost = sources["lost"].as_array().unwrap();
    let lost: Vec<_> = lost
        .iter()
        .map(|one| json!([one["image"], one["revision"], one["origin"]]))
        .collect();
    assert_eq!(
        lost,
        [json!([
            "registry.example.com/shop/web:latest",
            3,
            "reconciled"
        ])]
    );
    let main = one(&sources, "main");
    assert_eq!(main["state"], "sending");
    assert_eq!(main["kind"], "distribution");
    assert_eq!(main["registries"], json!(["registry.example.com"]));
    let slots = main["half_hours"].as_array().unwrap();
    let counted: u64 = slots.iter().map(|slot| slot.as_u64().unwrap()).sum();
    assert_eq!((slots.len(), counted), (48, 12), "{main}");
    let gap = main["usual_gap_seconds"].as_f64().unwrap();
    assert!((gap - 3600.0).abs() < 1.0, "{gap}");
    assert_eq!(main["lost_of_week"], 1);
    let quay = one(&sources, "quay");
    assert_eq!(
        (&quay["state"], &quay["kind"]),
        (&json!("silent"), &Value::Null)
    );
    assert_eq!(quay["silent_since"], quay["last_event_at"]);
    let nexus = one(&sources, "nexus-ci");
    assert_eq!(
        (&nexus["state"], &nexus["last_event_at"]),
        (&json!("no_event"), &Value::Null)
    );

    // Events come a second apart: after nine minutes without one, the source no longer sends.
    assert!(text_of(&api, "main").await.contains("sending, last"));
    sqlx::raw_sql(
        "alter table push disable trigger user;
         update push set received_at = now() - (stream_seq % 12 + 9) * interval '1 second' where origin = 'event' and source = 'main'",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    for (ago, state, said) in [
        (9, "sending", "sending, last"),
        (540, "idle", "idle for 9 min"),
    ] {
        sqlx::query("update coverage set last_event_at = now() - $1 * interval '1 second' where source = 'main' and last_event_at is not null")
            .bind(f64::from(ago))
            .execute(&mut rows.db)
            .await
            .unwrap();
        assert_eq!(
            one(&api.found("/v1/sources").await, "main")["state"],
            state,
            "{ago} s"
        );
        assert!(text_of(&api, "main").await.contains(said), "{ago} s");
    }

    let text = page(&api, "/sources").await;
    assert!(
        text.contains("1 idle, 1 silent, 1 without an event"),
        "{text}"
    );
    assert!(
        text.contains("silent for 5 h") && text.contains("id=\"quay\""),
        "{text}"
    );
    assert!(
        text.contains("Pushes of main by half hour over 24 hours, 12 in all"),
        "{text}"
    );
    assert!(
        text.contains("shop/api") && text.contains("it said &lt;b&gt;401"),
        "{text}"
    );
    assert!(!text.contains("<b>401"), "{text}");
    assert_eq!(text.matches("<h1").count(), 1);
}

/// Returns the row of a source on the page.
async fn text_of(api: &Api, name: &str) -> String {
    let text = page(api, "/sources").await;
    let row = &text[text.find(&format!("<tr id=\"{name}\"")).unwrap()..];
    row[..row.find("</tr>").unwrap()].to_owned()
}

#[tokio::test]
async fn without_sources_the_page_says_so() {
    let (api, _rows) = Api::start().await;
    let text = page(&api, "/sources").await;
    assert!(
        text.contains("There is no <code>[[source]]</code>"),
        "{text}"
    );
    assert_eq!(api.found("/v1/sources").await["items"], json!([]));
}
