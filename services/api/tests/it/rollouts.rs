//! Rollouts.

use serde_json::{Value, json};

use crate::rows::{Rows, images, text};
use crate::server::Api;

fn numbers(items: &[Value]) -> Vec<(String, i64)> {
    items
        .iter()
        .map(|item| {
            (
                item["trigger"].as_str().unwrap().to_owned(),
                item["number"].as_i64().unwrap(),
            )
        })
        .collect()
}

/// Writes 15 rollouts of shop and 10 of blog, five at each time.
async fn two_triggers(rows: &mut Rows) {
    let (shop, blog) = (
        rows.trigger("shop", true).await,
        rows.trigger("blog", false).await,
    );
    for number in 1..=15 {
        rows.rollout(shop, number, "succeeded", (number - 1) / 3)
            .await;
        if number <= 10 {
            rows.rollout(blog, number, "failed", (number - 1) / 2).await;
        }
    }
}

#[tokio::test]
async fn a_rollout_is_returned_with_all_fields() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let failed = rows.rollout(shop, 1, "failed", 10).await;
    let pending = rows.rollout(shop, 2, "pending", 20).await;
    let expected = json!({
        "id": failed, "trigger": "shop", "number": 1, "state": "failed", "images": images(1),
        "cause": { "reason": "revision", "changed": ["web"] }, "attempts": 1, "created_at": text(10), "finished_at": text(11),
        "error": "the target said no",
    });
    assert_eq!(api.found(&format!("/v1/rollouts/{failed}")).await, expected);
    let list = api.found("/v1/rollouts").await;
    assert_eq!(
        (&list["items"][1], &list["items"][0]["id"], &list["next"]),
        (&expected, &json!(pending), &Value::Null)
    );
    assert_eq!(list["items"][0]["finished_at"], Value::Null);
    for unknown in ["00000000-0000-0000-0000-000000000000", "1", "%00"] {
        assert_eq!(
            api.get(&format!("/v1/rollouts/{unknown}")).await.problem(),
            "404 rollout_unknown"
        );
    }
}

#[tokio::test]
async fn pages_of_all_rollouts_are_newest_first_without_gap_or_repeat() {
    let (api, mut rows) = Api::start().await;
    two_triggers(&mut rows).await;
    let pages = api.pages("/v1/rollouts", 10).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    let items = pages.concat();
    let times: Vec<&str> = items
        .iter()
        .map(|item| item["created_at"].as_str().unwrap())
        .collect();
    assert!(
        times.is_sorted_by(|newer, older| newer >= older),
        "{times:?}"
    );
    let mut seen = numbers(&items);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25);
}

#[tokio::test]
async fn pages_of_one_trigger_are_newest_first_without_gap_or_repeat() {
    let (api, mut rows) = Api::start().await;
    two_triggers(&mut rows).await;
    let pages = api.pages("/v1/rollouts?trigger=shop", 6).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6, 3]);
    assert_eq!(
        numbers(&pages.concat()),
        (1..=15)
            .rev()
            .map(|n| ("shop".to_owned(), n))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        api.pages("/v1/rollouts?trigger=blog", 100).await[0].len(),
        10,
        "a trigger that is gone keeps its rollouts"
    );
    for unknown in ["other", "", "%00"] {
        assert_eq!(
            api.get(&format!("/v1/rollouts?trigger={unknown}"))
                .await
                .problem(),
            "404 trigger_unknown"
        );
    }
    let cursor = api.found("/v1/rollouts?trigger=shop&limit=1").await["next"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        api.get(&format!("/v1/rollouts?cursor={cursor}"))
            .await
            .problem(),
        "400 cursor_invalid"
    );
}
