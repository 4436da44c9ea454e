//! The coverage report: changes by how they became known.

use serde_json::json;

use crate::rows::on_time;
use crate::server::Api;

#[tokio::test]
async fn a_change_counts_by_how_it_became_known_and_a_wrong_order_is_no_loss() {
    let (api, mut rows) = Api::start().await;
    let (event, reconciled) = (("event", ""), ("reconciled", "reconciled:"));
    let cases = [
        // Two pushes within a second, of which the registry wrote the first one last.
        vec![(1, 10, event), (2, 11, event), (1, 3600, reconciled)],
        // A push beside a delete, which the registry carried out first.
        vec![(1, 10, event), (0, 11, event), (1, 3600, reconciled)],
        // The tag returned to an old digest without an event.
        vec![(1, 10, event), (2, 300, event), (1, 3600, reconciled)],
        // A pull named a digest without an event, and an event lacked its digest.
        vec![(1, 10, event), (3, 20, ("resolved", "observed:"))],
        vec![(1, 10, event), (3, 20, ("resolved", ""))],
        // A pull told of the change, and the late event of it had an earlier time.
        vec![
            (1, 10, event),
            (3, 20, event),
            (3, 30, ("resolved", "observed:")),
        ],
        vec![(1, 10, ("imported", "imported:"))],
    ];
    for (place, changes) in cases.iter().enumerate() {
        let image = format!("registry.example.com/shop/web:v{place}");
        let tag = rows.empty_tag(&image).await;
        for (number, (content, at, (origin, prefix))) in (1..).zip(changes) {
            let revision = on_time(number, *content, *at);
            rows.revision_of(tag, revision, origin, prefix).await;
        }
    }
    let report = api.found("/v1/coverage?since=2026-01-01T00:00:00Z").await;
    let item = &report["items"][0];
    assert_eq!(
        item["changes"],
        json!({ "event": 10, "resolved": 1, "observed": 1, "reconciled": 1, "reordered": 2, "imported": 1 }),
        "{report}"
    );
    let share = item["lost_share"].as_f64().unwrap();
    assert!((share - 2.0 / 15.0).abs() < 1e-9, "{share}");
}

#[tokio::test]
async fn repositories_whose_last_comparison_failed_are_listed() {
    let (api, mut rows) = Api::start().await;
    sqlx::raw_sql(
        "insert into reconcile (registry, repository, last_at, tags, asked, found) values
             ('r.example.com', 'mended', now(), 1, 1, 0), ('r.example.com', 'broken', now() - interval '1 hour', 1, 1, 0);
         insert into reconcile_failure (registry, repository, failed_at, reason) values
             ('r.example.com', 'mended', now() - interval '1 hour', '500'),
             ('r.example.com', 'broken', now() - interval '1 minute', '406 Not Acceptable'),
             ('r.example.com', 'never', now() - interval '2 minutes', '401')",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    let report = api.found("/v1/coverage").await;
    let failed = report["not_compared"].as_array().unwrap();
    let of = |place: usize, key: &str| failed[place][key].clone();
    assert_eq!(failed.len(), 2, "{report}");
    assert_eq!(
        (of(0, "repository"), of(0, "reason")),
        (json!("broken"), json!("406 Not Acceptable"))
    );
    assert!(of(0, "last_reconciled_at").is_string());
    assert_eq!(
        (of(1, "repository"), of(1, "last_reconciled_at")),
        (json!("never"), json!(null))
    );
}
