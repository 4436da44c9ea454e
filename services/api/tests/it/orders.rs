//! Orders on triggers and rollouts, as the planner receives them, and holds.

use std::time::Duration;

use serde_json::{Value, json};

use crate::rows::{Rows, digest, on_time, text};
use crate::server::{Answer, Api};

const WEB: &str = "registry.example.com/shop/web:latest";

async fn post(api: &Api, path: &str, body: Value) -> Answer {
    Answer::read(api.request("POST", path).json(&body).send().await.unwrap()).await
}

/// The rollouts 1 to 4 of the trigger `shop`: 3 failed, the others succeeded, and the last one has
/// the images of the first.
async fn shop() -> (Api, Rows) {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    for (number, state) in [
        (1, "succeeded"),
        (2, "succeeded"),
        (3, "failed"),
        (4, "succeeded"),
    ] {
        rows.rollout(shop, number, state, number * 10).await;
    }
    sqlx::query("update rollout set images = (select images from rollout where number = 1) where number = 4")
        .execute(&mut rows.db)
        .await
        .unwrap();
    (api, rows)
}

/// Returns kind, cause, digest of the image `web`, and `again` of the last order.
async fn last_order(rows: &mut Rows) -> (String, String, Option<String>, bool) {
    sqlx::query_as(
        "select kind, cause, images -> 'web' ->> 'digest', again from rollout_order order by id desc limit 1",
    )
    .fetch_one(&mut rows.db)
    .await
    .unwrap()
}

/// Returns number of orders and of pins in force.
async fn counts(rows: &mut Rows) -> (i64, i64) {
    sqlx::query_as(
        "select (select count(*) from rollout_order), (select count(*) from hold where kind = 'pin' and released_at is null)",
    )
    .fetch_one(&mut rows.db)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_rollback_names_the_newest_other_set_that_succeeded_and_pins_it() {
    let (api, mut rows) = shop().await;
    let path = "/v1/triggers/shop/rollback";
    let answer = post(&api, path, json!({ "reason": "broken" })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // No planner runs.
    assert_eq!(answer.body["done"], false);
    let order = last_order(&mut rows).await;
    let expected = Some(digest(2).to_string());
    assert_eq!(
        order,
        ("rollout".to_owned(), "rollback".to_owned(), expected, false)
    );
    let holds = api.found("/v1/holds").await["items"].take();
    assert_eq!(holds[0]["kind"], "pin");
    assert_eq!(holds[0]["triggers"], "shop");
    assert_eq!(holds[0]["reason"], "broken");
    assert_eq!(holds[0]["images"], json!({ "web": digest(2) }));
    assert_eq!(holds[0]["actor"], "local");
    // Another pin replaces the first.
    post(
        &api,
        path,
        json!({ "reason": "x", "to": 3, "until": "2999-01-01T00:00:00Z" }),
    )
    .await;
    assert_eq!(counts(&mut rows).await, (2, 1));
    // An order to roll out means the pinned set.
    post(&api, "/v1/triggers/shop/rollout", json!({})).await;
    let expected = Some(digest(3).to_string());
    assert_eq!(
        last_order(&mut rows).await,
        ("rollout".to_owned(), "order".to_owned(), expected, true)
    );
    let acts = api.found("/v1/acts").await["items"].take();
    let words: Vec<&str> = acts
        .as_array()
        .unwrap()
        .iter()
        .map(|act| act["act"].as_str().unwrap())
        .collect();
    assert_eq!(words, ["rollout", "rollback", "rollback"]);
    assert_eq!(acts[1]["details"]["to"], 3);
    assert!(acts[1]["hold"].is_number());
}

#[tokio::test]
async fn an_impossible_order_is_refused_and_leaves_nothing() {
    let (api, mut rows) = shop().await;
    rows.trigger("new", true).await;
    rows.tag(WEB, &[on_time(1, 1, 10), on_time(2, 0, 20)]).await;
    let because = |more: Value| {
        let mut body = json!({ "reason": "x" });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    };
    let other = digest(9).to_string();
    for (path, body, expected) in [
        ("shop/rollback", json!({}), "400 body_invalid"),
        (
            "shop/rollback",
            because(json!({ "to": 9 })),
            "404 rollout_unknown",
        ),
        (
            "shop/rollback",
            because(json!({ "until": text(0) })),
            "400 time_invalid",
        ),
        ("new/rollback", because(json!({})), "409 set_impossible"),
        ("gone/rollback", because(json!({})), "404 trigger_unknown"),
        (
            "shop/rollout",
            json!({ "skip": ["pause"], "reason": "x" }),
            "400 gate_invalid",
        ),
        (
            "shop/rollout",
            json!({ "skip": ["manifest"] }),
            "400 reason_invalid",
        ),
        (
            "shop/pin",
            because(json!({ "images": {} })),
            "400 body_invalid",
        ),
        (
            "shop/pin",
            because(json!({ "images": { "x": { "revision": 1 } } })),
            "409 set_impossible",
        ),
        (
            "shop/pin",
            because(json!({ "images": { "web": { "revision": 0 } } })),
            "400 revision_invalid",
        ),
        (
            "shop/pin",
            because(json!({ "images": { "web": { "revision": 2 } } })),
            "404 revision_unknown",
        ),
        (
            "shop/pin",
            because(json!({ "images": { "web": { "digest": "sha256:12" } } })),
            "400 digest_invalid",
        ),
        (
            "shop/pin",
            because(json!({ "images": { "web": { "digest": other } } })),
            "409 set_impossible",
        ),
    ] {
        let refused = post(&api, &format!("/v1/triggers/{path}"), body.clone()).await;
        assert_eq!(refused.problem(), expected, "{path} {body}");
    }
    api.send("POST", "/v1/triggers/shop/pause").await;
    let refused = post(&api, "/v1/triggers/shop/rollback", because(json!({}))).await;
    assert_eq!(refused.problem(), "409 trigger_paused");
    assert_eq!(counts(&mut rows).await, (0, 0));
    let acts = api.found("/v1/acts").await["items"].take();
    assert_eq!(acts.as_array().unwrap().len(), 1, "the pause alone: {acts}");
}

#[tokio::test]
async fn a_pin_takes_a_revision_or_a_digest_that_the_tag_had() {
    let (api, mut rows) = shop().await;
    rows.tag(WEB, &[on_time(1, 7, 10), on_time(2, 8, 20)]).await;
    let until = "2999-01-01T00:00:00.000001Z";
    for (chosen, content) in [
        (json!({ "revision": 1 }), 7),
        (json!({ "digest": digest(8) }), 8),
    ] {
        let body = json!({ "images": { "web": chosen }, "reason": "x", "until": until });
        post(&api, "/v1/triggers/shop/pin", body).await;
        let order = last_order(&mut rows).await;
        assert_eq!(order.2, Some(digest(content).to_string()));
        assert_eq!((order.1.as_str(), order.3), ("order", false));
        let hold = api.found("/v1/holds").await["items"][0].take();
        assert_eq!(hold["until"], until);
    }
    // Until the release: then there is nothing to release.
    let released = post(&api, "/v1/triggers/shop/release", json!({})).await;
    assert_eq!(released.body["done"], false);
    assert_eq!(last_order(&mut rows).await.0, "release");
    let again = post(&api, "/v1/triggers/shop/release", json!({}))
        .await
        .body;
    assert_eq!(again["done"], true);
    assert!(
        again["answer"]
            .as_str()
            .unwrap()
            .starts_with("nothing to do")
    );
    assert_eq!(counts(&mut rows).await, (3, 0));
}

#[tokio::test]
async fn the_answer_to_an_order_has_the_effect_once_the_planner_carried_it_out() {
    let (api, mut rows) = shop().await;
    let id: uuid::Uuid = sqlx::query_scalar(
        "update rollout set state = 'running', finished_at = null where number = 4 returning id",
    )
    .fetch_one(&mut rows.db)
    .await
    .unwrap();
    let cancel = format!("/v1/rollouts/{id}/cancel");
    let request = api.request("POST", &cancel).header("Idempotency-Key", "k");
    let sent = request.json(&json!({ "reason": "wrong" })).send();
    let planner = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let done = sqlx::query("update rollout_order set done_at = now(), answer = 'rollout 4 is cancelled' where kind = 'cancel'")
                .execute(&mut rows.db)
                .await
                .unwrap();
            if done.rows_affected() > 0 {
                break;
            }
        }
    };
    let (sent, ()) = tokio::join!(sent, planner);
    let answer = Answer::read(sent.unwrap()).await.body;
    assert_eq!(answer["done"], true, "{answer}");
    assert_eq!(answer["answer"], "rollout 4 is cancelled");
    assert_eq!(answer["rollout"]["number"], 4);
    assert_eq!(answer["act"], "cancel");
    // The same order again is the same answer.
    let request = api.request("POST", &cancel).header("Idempotency-Key", "k");
    let request = request.json(&json!({ "reason": "wrong" }));
    let again = Answer::read(request.send().await.unwrap()).await.body;
    assert_eq!(again, answer);
    assert_eq!(counts(&mut rows).await.0, 1);
    sqlx::query("update rollout set state = 'succeeded', finished_at = now() where number = 4")
        .execute(&mut rows.db)
        .await
        .unwrap();
    let ended = post(&api, &cancel, json!({ "reason": "wrong" })).await.body;
    assert_eq!(
        (&ended["done"], counts(&mut rows).await.0),
        (&json!(true), 1)
    );
    let unknown = "/v1/rollouts/0198c5b0-7a3e-7c51-9f6d-2f1f5d1c9a11/cancel";
    let refused = post(&api, unknown, json!({ "reason": "x" })).await;
    assert_eq!(refused.problem(), "404 rollout_unknown");
}

#[tokio::test]
async fn a_freeze_is_listed_until_it_ends() {
    let (api, mut rows) = shop().await;
    rows.trigger("blog", true).await;
    let freeze = async |body: Value| post(&api, "/v1/holds", body).await;
    let body = json!({ "triggers": "sh*", "reason": "fair", "hard": true });
    let hold = freeze(body).await.body;
    assert_eq!(
        (&hold["kind"], &hold["hard"]),
        (&json!("freeze"), &json!(true))
    );
    let touched = async |rows: &mut Rows| -> Vec<String> {
        let touched =
            sqlx::query_scalar("update trigger set touched = false where touched returning name");
        touched.fetch_all(&mut rows.db).await.unwrap()
    };
    assert_eq!(touched(&mut rows).await, ["shop"]);
    // The list also has the end.
    let mut listed = hold.clone();
    listed["ended_at"] = Value::Null;
    listed["released_by"] = Value::Null;
    assert_eq!(api.found("/v1/holds").await, json!({ "items": [listed] }));
    for (body, expected) in [
        (json!({ "triggers": "sh*" }), "400 body_invalid"),
        (
            json!({ "triggers": "Shop!", "reason": "x" }),
            "400 match_invalid",
        ),
        (
            json!({ "triggers": "*", "reason": "" }),
            "400 reason_invalid",
        ),
        (
            json!({ "triggers": "*", "reason": "x", "until": "now" }),
            "400 time_invalid",
        ),
    ] {
        assert_eq!(freeze(body).await.problem(), expected);
    }
    let path = format!("/v1/holds/{}", hold["id"]);
    assert_eq!(api.send("DELETE", &path).await.body, hold);
    assert_eq!(touched(&mut rows).await, ["shop"]);
    assert_eq!(
        api.send("DELETE", &path).await.problem(),
        "404 hold_unknown"
    );
    assert_eq!(
        api.send("DELETE", "/v1/holds/x").await.problem(),
        "404 hold_unknown"
    );
    post(&api, "/v1/triggers/shop/rollback", json!({ "reason": "x" })).await;
    let pin = api.found("/v1/holds").await["items"][0]["id"].take();
    let refused = api.send("DELETE", &format!("/v1/holds/{pin}")).await;
    assert_eq!(refused.problem(), "409 hold_of_trigger");
    // A hold is released once, and never deleted.
    for change in ["update hold set released_by = 'x'", "delete from hold"] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(change))
            .execute(&mut rows.db)
            .await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("never deleted"), "{change}: {refused}");
    }
}
