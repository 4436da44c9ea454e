//! `GET /v1/triggers/{name}/explain`.

use serde_json::{Value, json};

use crate::rows::*;
use crate::server::Api;

const API: &str = "registry.example.com/shop/api";

/// Writes a trigger `shop` with a policy over tags that were pushed one after the other.
async fn shop(rows: &mut Rows, policy: Value) -> i32 {
    let shop = rows.trigger("shop", true).await;
    sqlx::query("update trigger set images = $2, policies = $3 where id = $1")
        .bind(shop)
        .bind(json!({ "web": API }))
        .bind(json!({ "web": policy }))
        .execute(&mut rows.db)
        .await
        .unwrap();
    for (tag, n) in [("1.0.0", 1), ("1.2.0", 2), ("1.1.0", 3), ("latest", 4)] {
        let at = i64::from(n) * 10;
        rows.tag(&format!("{API}:{tag}"), &[on_time(1, n, at)])
            .await;
    }
    shop
}

fn codes(image: &Value) -> Vec<(String, String)> {
    let tags = image["passed_over"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    tags.map(|one| (text(&one["tag"]), text(&one["code"])))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(tag, code): &(&str, &str)| ((*tag).to_owned(), (*code).to_owned());
    expected.iter().map(pair).collect()
}

#[tokio::test]
async fn each_tag_that_is_not_selected_has_a_reason() {
    let (api, mut rows) = Api::start().await;
    let policy = json!({ "repository": API, "semver": "^1" });
    shop(&mut rows, policy.clone()).await;
    let image = api.found("/v1/triggers/shop/explain").await["images"]["web"].take();
    assert_eq!((&image["image"], &image["rule"]), (&json!(API), &policy));
    assert_eq!(image["selected"]["tag"], "1.2.0");
    assert_eq!(
        codes(&image),
        pairs(&[
            ("1.1.0", "lower"),
            ("1.0.0", "lower"),
            ("latest", "no_version")
        ])
    );
    assert_eq!(image["left"], 0);
    let cut = api.found("/v1/triggers/shop/explain?limit=1").await;
    let cut = &cut["images"]["web"];
    assert_eq!(
        (codes(cut), &cut["left"]),
        (pairs(&[("1.1.0", "lower")]), &json!(2))
    );
    // Before 1.1.0 and 1.2.0 were recorded.
    let then = api
        .found(&format!("/v1/triggers/shop/explain?at={}", text(15)))
        .await;
    assert_eq!(then["images"]["web"]["selected"]["tag"], "1.0.0");
    let before = api
        .found(&format!("/v1/triggers/shop/explain?at={}", text(1)))
        .await;
    assert_eq!(before["images"]["web"]["selected"], Value::Null);
}

#[tokio::test]
async fn manifests_that_are_not_read_and_named_tags_are_explained() {
    let (api, mut rows) = Api::start().await;
    shop(
        &mut rows,
        json!({ "repository": API, "semver": "^1", "platforms": ["linux/amd64"] }),
    )
    .await;
    let image = api.found("/v1/triggers/shop/explain").await["images"]["web"].take();
    assert_eq!(image["selected"], Value::Null);
    assert_eq!(codes(&image)[0].1, "metadata_wait");

    rows.trigger("blog", true).await;
    let web = "registry.example.com/shop/web:latest";
    let none = api.found("/v1/triggers/blog/explain").await;
    assert_eq!(none["images"]["web"]["selected"], Value::Null);
    rows.tag(web, &[on_time(1, 1, 10)]).await;
    let image = api.found("/v1/triggers/blog/explain").await["images"]["web"].take();
    assert_eq!(
        (
            &image["rule"],
            &image["selected"]["tag"],
            &image["selected"]["revision"]
        ),
        (&Value::Null, &json!("latest"), &json!(1))
    );
}

#[tokio::test]
async fn wrong_questions_are_refused() {
    let (api, _rows) = Api::start().await;
    for (query, problem) in [
        ("", "404 trigger_unknown"),
        ("?limit=0", "400 limit_invalid"),
        ("?limit=101", "400 limit_invalid"),
        ("?at=yesterday", "400 time_invalid"),
    ] {
        let answer = api.get(&format!("/v1/triggers/shop/explain{query}")).await;
        assert_eq!(answer.problem(), problem, "{query}");
    }
}
