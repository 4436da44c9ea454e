//! `GET /v1/changes`: the newest revisions of all images.

use serde_json::{Value, json};

use crate::rows::{late_move, on_time, text};
use crate::server::Api;

fn names(items: &[Value]) -> Vec<String> {
    let name = |item: &Value| {
        format!(
            "{}:{}#{}",
            item["repository"].as_str().unwrap(),
            item["tag"].as_str().unwrap(),
            item["revision"]
        )
    };
    items.iter().map(name).collect()
}

#[tokio::test]
async fn changes_of_all_partitions_are_merged_by_the_time_of_recording() {
    let (api, mut rows) = Api::start().await;
    assert_eq!(
        api.found("/v1/changes").await,
        json!({ "items": [], "next": null })
    );
    rows.tag("registry.example.com/shop/web:latest", &late_move())
        .await;
    rows.tag(
        "registry.example.com/shop/api:1",
        &[on_time(1, 4, 25), on_time(2, 5, 35)],
    )
    .await;
    rows.tag("other.example.com/x:1", &[on_time(1, 6, 45)])
        .await;
    let expected = [
        "x:1#1",
        "shop/web:latest#3",
        "shop/api:1#2",
        "shop/web:latest#2",
        "shop/api:1#1",
        "shop/web:latest#1",
    ];
    let all = api.found("/v1/changes").await;
    assert_eq!(names(all["items"].as_array().unwrap()), expected);
    // The same item as in the history of its image.
    let history = api
        .found("/v1/history?image=registry.example.com/shop/web:latest")
        .await;
    assert_eq!(all["items"][1], history["items"][1]);
    for limit in 1..=7 {
        let pages = api.pages("/v1/changes", limit).await.concat();
        assert_eq!(names(&pages), expected, "pages of {limit}");
    }
    let bounded = format!("/v1/changes?since={}&until={}", text(26), text(36));
    let bounded = api.found(&bounded).await;
    let between = names(bounded["items"].as_array().unwrap());
    assert_eq!(between, ["shop/web:latest#2", "shop/api:1#1"]);
}

#[tokio::test]
async fn a_pattern_selects_images_and_signatures_are_left_out() {
    let (api, mut rows) = Api::start().await;
    let signature = format!(
        "registry.example.com/shop/web:sha256-{}.sig",
        "a".repeat(64)
    );
    rows.tag(&signature, &[on_time(1, 7, 5)]).await;
    rows.tag("registry.example.com/shop/web:latest", &[on_time(1, 1, 10)])
        .await;
    rows.tag("other.example.com/x:1", &[on_time(1, 6, 12)])
        .await;
    let found = async |query: &str| {
        let answer = api.found(&format!("/v1/changes?{query}")).await;
        names(answer["items"].as_array().unwrap()).len()
    };
    assert_eq!(found("").await, 2);
    assert_eq!(found("signatures=true").await, 3);
    assert_eq!(found("match=registry.example.com/shop/*").await, 1);
    assert_eq!(
        found("match=registry.example.com/shop/*&signatures=true").await,
        2
    );
    assert_eq!(found("match=nowhere.example.com/*").await, 0);
    let problem = api.get("/v1/changes?match=").await.problem();
    assert_eq!(problem, "400 match_invalid");
    let problem = api
        .get("/v1/changes?cursor=MSBoaXN0b3J5IDE")
        .await
        .problem();
    assert_eq!(problem, "400 cursor_invalid");
}

#[tokio::test]
async fn a_page_of_a_pattern_with_few_matches_ends_early_and_goes_on() {
    let (api, mut rows) = Api::start().await;
    rows.tag("registry.example.com/rare:1", &[on_time(1, 1, -10)])
        .await;
    let busy = rows.empty_tag("registry.example.com/busy:1").await;
    rows.burst(busy, 5500).await;
    let path = "/v1/changes?match=registry.example.com/rare";
    let first = api.found(path).await;
    assert_eq!(first["items"], json!([]));
    let next = first["next"].as_str().unwrap();
    let second = api.found(&format!("{path}&cursor={next}")).await;
    assert_eq!(names(second["items"].as_array().unwrap()), ["rare:1#1"]);
    assert_eq!(second["next"], Value::Null);
}
