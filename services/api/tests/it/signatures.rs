//! Tags that hold signatures and the like are no images.

use serde_json::json;
use tagtrail_proto::Tag;

use crate::rows::on_time;
use crate::server::Api;

#[tokio::test]
async fn coverage_counts_the_changes_of_signatures_apart() {
    let (api, mut rows) = Api::start().await;
    let repository = "registry.example.com/shop/web";
    let hex = "0123456789abcdef".repeat(4);
    let moves = [on_time(1, 1, 10), on_time(2, 2, 20)];
    rows.tag(&format!("{repository}:latest"), &moves).await;
    // Of the tag's second change the list of referrers moved three times.
    let moves = [on_time(1, 3, 20), on_time(2, 4, 21), on_time(3, 5, 22)];
    rows.tag(&format!("{repository}:sha256-{hex}"), &moves)
        .await;
    let coverage = api.found("/v1/coverage?since=2000-01-01T00:00:00Z").await;
    let item = &coverage["items"][0];
    assert_eq!(item["signatures"], json!(3), "{coverage}");
    assert_eq!(item["changes"]["event"], json!(2), "{coverage}");
}

#[test]
fn the_documented_query_leaves_out_signatures_by_the_same_rule() {
    let reports = include_str!("../../../../docs/reports.md");
    assert!(reports.contains(&format!("tag !~ '{}'", Tag::SIGNATURE)));
}
