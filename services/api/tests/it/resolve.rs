//! The revision of an image in force.

use serde_json::json;

use crate::rows::{digest, late_move, on_time, text};
use crate::server::Api;

const WEB: &str = "/v1/resolve?image=registry.example.com/shop/web";

/// Starts the API with the image `web`, as [`late_move`] makes it.
async fn web() -> Api {
    let (api, mut rows) = Api::start().await;
    rows.tag("registry.example.com/shop/web:latest", &late_move())
        .await;
    api
}

/// Returns the number of the resolved revision, or the problem.
async fn revision(api: &Api, question: &str) -> String {
    let answer = api.get(&format!("{WEB}{question}")).await;
    match answer.status {
        200 => answer.body["revision"].to_string(),
        _ => answer.problem(),
    }
}

#[tokio::test]
async fn without_a_time_the_head_is_resolved() {
    let api = web().await;
    let pinned = format!("registry.example.com/shop/web@{}", digest(3));
    let expected = json!({
        "image": "registry.example.com/shop/web:latest", "pinned": pinned, "digest": digest(3), "revision": 2, "kind": "moved",
        "occurred_at": text(30), "recorded_at": text(31),
    });
    assert_eq!(api.found(WEB).await, expected);
    assert_eq!(api.found(&format!("{WEB}:latest")).await, expected);
    assert_eq!(
        api.found(&WEB.replace("registry.e", "Registry.E")).await,
        expected,
        "a registry has no case"
    );
}

#[tokio::test]
async fn a_time_resolves_to_the_last_revision_not_after_it() {
    let api = web().await;
    for (at, expected) in [
        ("2026-03-03T14:00:09.999999Z", "404 tag_unknown"),
        ("2026-03-03T14:00:10Z", "1"),
        ("2026-03-03T14:00:19.9999999Z", "1"),
        ("2026-03-03T14:00:20Z", "3"),
        ("2026-03-03T15:00:29%2B01:00", "3"),
        ("2026-03-03%2014:00:30Z", "2"),
        ("9999-12-31T23:59:59.999999Z", "2"),
        ("0000-01-01T00:00:00Z", "404 tag_unknown"),
    ] {
        assert_eq!(revision(&api, &format!("&at={at}")).await, expected, "{at}");
    }
}

#[tokio::test]
async fn known_at_leaves_out_revisions_recorded_later() {
    let api = web().await;
    let at_known_at = async |at, known_at| {
        revision(
            &api,
            &format!("&at={}&known_at={}", text(at), text(known_at)),
        )
        .await
    };
    assert_eq!(
        at_known_at(25, 39).await,
        "1",
        "revision 3 was not recorded yet"
    );
    assert_eq!(at_known_at(25, 40).await, "3");
    assert_eq!(at_known_at(25, 10).await, "404 tag_unknown");
    assert_eq!(
        revision(&api, &format!("&known_at={}", text(30))).await,
        "1"
    );
    assert_eq!(
        revision(&api, &format!("&known_at={}", text(100))).await,
        "2"
    );
}

#[tokio::test]
async fn a_number_resolves_to_the_same_revision_for_ever() {
    let api = web().await;
    for (number, expected) in [
        ("1", "1"),
        ("3", "3"),
        ("4", "404 revision_unknown"),
        ("0", "400 revision_invalid"),
        ("x", "400 revision_invalid"),
    ] {
        assert_eq!(
            revision(&api, &format!("&revision={number}")).await,
            expected
        );
    }
    assert_eq!(
        revision(&api, &format!("&revision=1&at={}", text(10))).await,
        "400 parameter_conflict"
    );
    assert_eq!(
        revision(&api, &format!("&revision=1&known_at={}", text(10))).await,
        "400 parameter_conflict"
    );
}

#[tokio::test]
async fn of_revisions_with_one_time_the_greatest_number_is_in_force() {
    let (api, mut rows) = Api::start().await;
    rows.tag(
        "registry.example.com/shop/web:latest",
        &[on_time(1, 1, 10), on_time(2, 2, 10), on_time(3, 3, 10)],
    )
    .await;
    assert_eq!(revision(&api, &format!("&at={}", text(10))).await, "3");
    assert_eq!(revision(&api, "").await, "3");
}

#[tokio::test]
async fn a_deleted_tag_does_not_resolve_from_then_on() {
    let (api, mut rows) = Api::start().await;
    rows.tag(
        "registry.example.com/shop/web:latest",
        &[on_time(1, 1, 10), on_time(2, 0, 20)],
    )
    .await;
    assert_eq!(revision(&api, "").await, "404 tag_deleted");
    assert_eq!(revision(&api, "&revision=2").await, "404 tag_deleted");
    assert_eq!(
        revision(&api, &format!("&at={}", text(20))).await,
        "404 tag_deleted"
    );
    assert_eq!(revision(&api, &format!("&at={}", text(19))).await, "1");
    let detail = api.get(WEB).await.body["detail"].to_string();
    assert!(
        detail.contains("revision 2, at 2026-03-03T14:00:20Z"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_tag_without_history_is_unknown() {
    let (api, mut rows) = Api::start().await;
    rows.empty_tag("registry.example.com/shop/web:latest").await;
    for question in ["", ":other", "&revision=1", "&at=2026-03-03T14:00:00Z"] {
        assert_eq!(
            revision(&api, question).await,
            "404 tag_unknown",
            "{question}"
        );
    }
    rows.tag("registry.example.com/shop/web:v1", &[on_time(1, 1, 10)])
        .await;
    let early = api.get(&format!("{WEB}:v1&at={}", text(9))).await;
    assert!(
        early.body["detail"]
            .as_str()
            .unwrap()
            .contains("begins later"),
        "{early:?}"
    );
}
