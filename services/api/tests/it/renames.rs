//! Old names of triggers, and orders for higher numbers.

use serde_json::{Value, json};

use crate::server::{Answer, Api};

#[tokio::test]
async fn an_old_name_leads_to_the_present_one() {
    let (api, mut rows) = Api::start().await;
    let store = rows.trigger("store", true).await;
    rows.trigger("other", true).await;
    rows.rollout(store, 1, "succeeded", 10).await;
    sqlx::query("insert into trigger_name (name, trigger_id) values ('shop', $1), ('other', $1)")
        .bind(store)
        .execute(&mut rows.db)
        .await
        .unwrap();
    sqlx::query("insert into act (actor, act, trigger, request_id) values ('ann', 'pause', 'shop', 'x'), ('ann', 'resume', 'store', 'x'), ('ann', 'pause', 'other', 'x')")
        .execute(&mut rows.db)
        .await
        .unwrap();
    for (method, path, expected) in [
        ("GET", "/v1/triggers/shop", "/v1/triggers/store"),
        (
            "POST",
            "/v1/triggers/shop/pause",
            "/v1/triggers/store/pause",
        ),
        (
            "POST",
            "/v1/triggers/shop/release?",
            "/v1/triggers/store/release?",
        ),
    ] {
        let answer = api.once(method, path).await;
        let place = answer.headers()["location"].to_str().unwrap();
        assert_eq!((answer.status().as_u16(), place), (308, expected), "{path}");
    }
    // The usual client follows, and the order reaches the trigger.
    let paused = api.send("POST", "/v1/triggers/shop/pause").await.body;
    assert_eq!(
        (&paused["name"], &paused["state"]),
        (&json!("store"), &json!("paused"))
    );
    // A trigger that has the name today goes before, and nobody had the last one.
    assert_eq!(api.found("/v1/triggers/other").await["name"], "other");
    let unknown = api.send("GET", "/v1/triggers/shops").await.problem();
    assert_eq!(unknown, "404 trigger_unknown");

    // Lists take both names.
    for name in ["shop", "store"] {
        let rollouts = api.found(&format!("/v1/rollouts?trigger={name}")).await;
        assert_eq!(rollouts["items"][0]["trigger"], "store");
        let acts = api.found(&format!("/v1/acts?trigger={name}")).await;
        let acts: Vec<&Value> = acts["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|act| &act["act"])
            .collect();
        assert_eq!(acts, ["pause", "resume", "pause"], "{name}");
    }
}

#[tokio::test]
async fn an_order_for_higher_numbers_is_recorded_with_its_act_also_while_paused() {
    let (api, mut rows) = Api::start().await;
    rows.trigger("shop", true).await;
    api.send("POST", "/v1/triggers/shop/pause").await;
    let post = async |body: Value| {
        let request = api
            .request("POST", "/v1/triggers/shop/renumber")
            .json(&body);
        Answer::read(request.send().await.unwrap()).await
    };
    let answer = post(json!({ "above": 120, "reason": "lost" })).await;
    assert_eq!(answer.body["act"], "renumber");
    assert_eq!(answer.body["done"], false, "no planner runs");
    let found: (String, i64, Value) = sqlx::query_as(
        "select r.kind, r.above, a.details from rollout_order r join act a on a.id = r.act_id",
    )
    .fetch_one(&mut rows.db)
    .await
    .unwrap();
    assert_eq!(found, ("renumber".to_owned(), 120, json!({ "above": 120 })));
    for wrong in [
        json!({}),
        json!({ "above": -1 }),
        json!({ "above": 1_000_000_000_001_u64 }),
    ] {
        assert_eq!(post(wrong).await.problem(), "400 body_invalid");
    }
}
