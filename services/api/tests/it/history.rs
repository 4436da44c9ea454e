//! The revisions of a tag.

use serde_json::{Value, json};

use crate::rows::{digest, late_move, on_time, text};
use crate::server::Api;

const WEB: &str = "/v1/history?image=registry.example.com/shop/web";

fn numbers(items: &[Value]) -> Vec<i64> {
    items
        .iter()
        .map(|item| item["revision"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn an_item_is_the_data_of_the_event_without_the_head() {
    let (api, mut rows) = Api::start().await;
    rows.tag(
        "registry.example.com/shop/web:latest",
        &[on_time(1, 1, 10), on_time(2, 2, 20), on_time(3, 0, 30)],
    )
    .await;
    let answer = api.found(WEB).await;
    assert_eq!(answer["next"], Value::Null);
    assert_eq!(
        answer["items"][1],
        json!({
            "registry": "registry.example.com", "repository": "shop/web", "tag": "latest", "revision": 2, "kind": "moved",
            "digest": digest(2), "pinned": format!("registry.example.com/shop/web@{}", digest(2)),
            "previous": { "revision": 1, "digest": digest(1) }, "late": false, "occurred_at": text(20), "recorded_at": text(21),
            "origin": "event", "source": "main", "actor": "ci-bot", "media_type": "application/json", "size": 2,
        })
    );
    let (deleted, created) = (&answer["items"][0], &answer["items"][2]);
    assert_eq!(
        (&deleted["kind"], &deleted["digest"], &deleted["pinned"]),
        (&json!("deleted"), &Value::Null, &Value::Null)
    );
    assert_eq!(
        (&created["kind"], &created["previous"]),
        (&json!("created"), &Value::Null)
    );
}

#[tokio::test]
async fn a_late_revision_is_listed_by_its_time_not_by_its_number() {
    let (api, mut rows) = Api::start().await;
    rows.tag("registry.example.com/shop/web:latest", &late_move())
        .await;
    let items = api.found(WEB).await["items"].as_array().unwrap().clone();
    assert_eq!(numbers(&items), [2, 3, 1]);
    assert_eq!(
        (&items[1]["late"], &items[1]["previous"]["revision"]),
        (&json!(true), &json!(1))
    );
}

#[tokio::test]
async fn pages_neither_repeat_nor_leave_out_even_within_one_instant() {
    let (api, mut rows) = Api::start().await;
    // 25 revisions, five for each second: pages of ten begin and end within a second.
    let revisions: Vec<_> = (1..=25)
        .map(|n| on_time(n, u8::try_from(n).unwrap(), (n - 1) / 5))
        .collect();
    rows.tag("registry.example.com/shop/web:latest", &revisions)
        .await;
    rows.tag("registry.example.com/shop/web:other", &revisions)
        .await;
    let pages = api.pages(WEB, 10).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(numbers(&pages.concat()), (1..=25).rev().collect::<Vec<_>>());
    // A last page that is full has no next page.
    assert_eq!(api.pages(WEB, 5).await.len(), 5);
}

#[tokio::test]
async fn a_range_has_its_first_time_and_not_its_last() {
    let (api, mut rows) = Api::start().await;
    rows.tag("registry.example.com/shop/web:latest", &late_move())
        .await;
    for (query, expected) in [
        (format!("&since={}", text(20)), vec![2, 3]),
        (format!("&until={}", text(20)), vec![1]),
        (
            format!("&since={}&until={}", text(10), text(30)),
            vec![3, 1],
        ),
        (format!("&since={}", text(31)), vec![]),
    ] {
        let pages = api.pages(&format!("{WEB}{query}"), 1).await;
        assert_eq!(numbers(&pages.concat()), expected, "{query}");
    }
    let swapped = format!("{WEB}&since={}&until={}", text(30), text(10));
    let swapped = api.get(&swapped).await;
    assert_eq!(swapped.problem(), "400 parameter_conflict");
    let wrong = api.get(&format!("{WEB}&since=yesterday")).await;
    assert_eq!(wrong.problem(), "400 time_invalid");
}

#[tokio::test]
async fn a_tag_without_history_is_unknown() {
    let (api, mut rows) = Api::start().await;
    rows.empty_tag("registry.example.com/shop/web:latest").await;
    assert_eq!(api.get(WEB).await.problem(), "404 tag_unknown");
}
