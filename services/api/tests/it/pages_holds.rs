//! The page of holds, and the forms on it.

use crate::pages_acts::{form, page, send};
use crate::pages_triggers::{behind, run};
use crate::server::Api;

fn field(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[tokio::test]
async fn a_freeze_has_a_reason_and_its_end_names_the_rollouts_that_start() {
    let (api, mut rows) = Api::start().await;
    let (shop, _) = behind(&mut rows).await;
    let (status, shown) = page(&api, "", "/holds").await;
    assert_eq!(status, 200);
    assert!(shown.contains("No freeze, pin or fault is in force."));
    let mut fields = form(&shown, "/holds");
    fields.push(field("triggers", "sho*"));
    let (status, text) = send(&api, "", "/holds", &fields).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("reason_invalid"), "{text}");
    fields.push(field("reason", "<i>load</i> test"));
    fields.push(field("until", "for 2 days"));
    let first = send(&api, "", "/holds", &fields).await;
    assert_eq!((first.0, first.1.as_str()), (303, "/holds"));
    assert_eq!(send(&api, "", "/holds", &fields).await.0, 303);
    let holds = api.found("/v1/holds").await;
    assert_eq!(holds["items"].as_array().unwrap().len(), 1);
    assert_eq!(holds["items"][0]["hard"], false);
    assert!(holds["items"][0]["ended_at"].is_null());
    // Another form of the same page is out of date, and keeps what was typed.
    let mut stale = form(&shown, "/holds");
    stale[0].1.push('x');
    stale.extend([field("triggers", "web-*"), field("reason", "mine")]);
    let (status, text) = send(&api, "", "/holds", &stale).await;
    assert_eq!(status, 409, "{text}");
    assert!(text.contains("value=\"web-*\"") && text.contains("value=\"mine\""));
    let id = holds["items"][0]["id"].as_u64().unwrap();
    let release = format!("/holds/{id}/release");
    let (_, shown) = page(&api, "", "/holds").await;
    assert!(shown.contains("&lt;i&gt;load") && shown.contains("starts nothing"));
    let fields = form(&shown, &release);
    // A push came, which the freeze holds: the person has not seen that it would start.
    rows.rollout(shop, 3, "pending", 33).await;
    run(
        &mut rows,
        "update rollout set state = 'held', attempts = 0, gates = '[{\"gate\": \"freeze\", \"why\": \"x\", \"since\": \"2026-03-03T14:00:00Z\", \"opens_at\": null}]' where number = 3",
    )
    .await;
    let (status, text) = send(&api, "", &release, &fields).await;
    assert_eq!(status, 409, "{text}");
    assert!(text.contains("shop #3"), "{text}");
    assert_eq!(
        send(&api, "", &release, &form(&text, &release)).await.0,
        303
    );
    let (_, shown) = page(&api, "", "/holds").await;
    assert!(shown.contains("No freeze, pin or fault is in force."));
    assert!(shown.contains("sho*"), "among the released ones: {shown}");
    assert_eq!(api.found("/v1/holds").await["items"], serde_json::json!([]));
    let ended = api
        .found("/v1/holds?ended_since=2026-03-03T14:00:00Z")
        .await;
    let ended = &ended["items"][0];
    assert_eq!(
        (&ended["triggers"], &ended["released_by"]),
        (&"sho*".into(), &"local".into())
    );
    assert!(ended["ended_at"].is_string(), "{ended}");
    let wrong = api.get("/v1/holds?ended_since=yesterday").await;
    assert_eq!(wrong.problem(), "400 time_invalid");
    assert_eq!(send(&api, "", "/holds/999/release", &fields).await.0, 409);
    api.stop().await;
}

#[tokio::test]
async fn only_operators_freeze_and_only_what_they_may() {
    let (api, mut rows, _folder) = Api::with_tokens(&[
        ("ops", "operate", "triggers = [\"*\"]\n"),
        ("shops", "operate", "triggers = [\"shop-*\"]\n"),
        ("approver", "approve", ""),
        ("reader", "read", ""),
    ])
    .await;
    behind(&mut rows).await;
    let (_, shown) = page(&api, "ops", "/holds").await;
    let mut fields = form(&shown, "/holds");
    fields.extend([field("triggers", "*"), field("reason", "incident")]);
    for (token, code) in [
        ("reader", "forbidden"),
        ("approver", "forbidden"),
        ("shops", "out_of_scope"),
    ] {
        let (status, text) = send(&api, token, "/holds", &fields).await;
        assert_eq!(status, 403, "{token}: {text}");
        assert!(text.contains(code), "{token}: {text}");
    }
    for token in ["reader", "approver"] {
        let (_, seen) = page(&api, token, "/holds").await;
        assert!(
            !seen.contains("<form method=\"post\" action=\"/holds"),
            "{token}"
        );
    }
    assert_eq!(send(&api, "ops", "/holds", &fields).await.0, 303);
    let (_, shown) = page(&api, "ops", "/holds").await;
    let start = shown.find("action=\"/holds/").unwrap() + 8;
    let release = &shown[start..start + shown[start..].find('"').unwrap()];
    let fields = form(&shown, release);
    let (_, seen) = page(&api, "shops", "/holds").await;
    assert!(!seen.contains(release), "{seen}");
    let (status, text) = send(&api, "shops", release, &fields).await;
    assert_eq!(status, 403, "{text}");
    assert_eq!(send(&api, "ops", release, &fields).await.0, 303);
    api.stop().await;
}
