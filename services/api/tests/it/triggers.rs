//! Triggers: the current and the last rollout, and the orders of people.

use serde_json::{Value, json};

use crate::rows::{images, on_time, text};
use crate::server::Api;

#[tokio::test]
async fn current_has_succeeded_and_last_is_the_newest_that_began() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let without = json!({
        "name": "shop", "images": { "web": "registry.example.com/shop/web:latest" }, "target": "webhook", "state": "active",
        "paused_by": null, "paused_at": null, "paused_reason": null, "refused": null, "problem": null, "stale": false, "generation": 0, "door": null, "labels": {}, "condition": "settled", "current": null, "last": null, "next_attempt_at": null, "newer": 0, "waiting": [], "gates": [], "gate_settings": {}, "holds": [], "watch": null,
        "wanted": null, "reasons": [], "policies": {},
    });
    assert_eq!(api.found("/v1/triggers/shop").await, without);

    let first = rows.rollout(shop, 1, "succeeded", 10).await;
    rows.rollout(shop, 2, "failed", 20).await;
    rows.rollout(shop, 3, "superseded", 30).await;
    sqlx::query("update rollout set started_at = null where number = 3")
        .execute(&mut rows.db)
        .await
        .unwrap();
    let trigger = api.found("/v1/triggers/shop").await;
    let expected = json!({
        "id": first, "trigger": "shop", "number": 1, "epoch": text(0), "state": "succeeded", "images": images(1),
        "cause": { "reason": "revision", "changed": ["web"] }, "attempts": 1, "created_at": text(10), "finished_at": text(11), "error": null,
    });
    assert_eq!(trigger["current"], expected);
    assert_eq!(trigger["last"]["number"], 2);
    assert_eq!(trigger["condition"], "failing");
    // A rollout that runs has not brought its images yet.
    rows.rollout(shop, 4, "running", 40).await;
    let trigger = api.found("/v1/triggers/shop").await;
    assert_eq!(trigger["current"], expected);
    assert_eq!(trigger["last"]["number"], 4);
    assert_eq!(trigger["condition"], "rolling_out");
    assert!(trigger["next_attempt_at"].is_string(), "{trigger}");
}

#[tokio::test]
async fn a_retry_is_ordered_of_a_configured_trigger() {
    let (api, mut rows) = Api::start().await;
    rows.trigger("shop", true).await;
    rows.trigger("gone", false).await;
    let answer = api.send("POST", "/v1/triggers/shop/retry").await;
    assert_eq!(answer.body["name"], "shop");
    let refused = api.send("POST", "/v1/triggers/gone/retry").await.problem();
    assert_eq!(refused, "404 trigger_unknown");
    let ordered: Vec<String> = sqlx::query_scalar("select name from trigger where retry")
        .fetch_all(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(ordered, ["shop"]);
}

#[tokio::test]
async fn heads_that_the_last_rollout_does_not_have_are_counted() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let newer = async || api.found("/v1/triggers/shop").await["newer"].take();
    assert_eq!(newer().await, 0, "no image has a head");
    let image = "registry.example.com/shop/web:latest";
    rows.tag(image, &[on_time(1, 1, 10), on_time(2, 2, 20)])
        .await;
    assert_eq!(newer().await, 1, "there is no rollout");
    rows.rollout(shop, 1, "succeeded", 30).await;
    assert_eq!(newer().await, 1);
    rows.rollout(shop, 2, "running", 40).await;
    assert_eq!(newer().await, 0);
}

#[tokio::test]
async fn closed_gates_are_shown_unless_the_trigger_is_paused() {
    let (api, mut rows) = Api::start().await;
    rows.trigger("shop", true).await;
    let recheck = json!({
        "gate": "recheck", "image": "registry.example.com/shop/web:latest", "registry": "registry.example.com",
        "why": "the registry is asked", "since": text(10), "opens_at": null,
    });
    // A planner of a later version may know more gates.
    let unknown = json!({ "gate": "window" });
    sqlx::query("update trigger set waiting = $1")
        .bind(json!([recheck, unknown]))
        .execute(&mut rows.db)
        .await
        .unwrap();
    let waiting = api.found("/v1/triggers/shop").await["waiting"].take();
    assert_eq!(waiting, json!([recheck]));
    let paused = api.send("POST", "/v1/triggers/shop/pause").await;
    assert_eq!(paused.body["waiting"], json!([]));
}

#[tokio::test]
async fn configured_triggers_are_listed_by_name() {
    let (api, mut rows) = Api::start().await;
    assert_eq!(api.found("/v1/triggers").await, json!({ "items": [] }));
    for (name, configured) in [("shop", true), ("gone", false), ("blog", true)] {
        let trigger = rows.trigger(name, configured).await;
        rows.rollout(trigger, 1, "succeeded", 10).await;
    }
    let items = api.found("/v1/triggers").await["items"].take();
    let names: Vec<&Value> = items
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["name"])
        .collect();
    assert_eq!(names, ["blog", "shop"]);
    assert_eq!(items[1]["current"]["trigger"], "shop");
    assert_eq!(
        api.get("/v1/triggers/gone").await.problem(),
        "404 trigger_unknown"
    );
    assert_eq!(
        api.send("POST", "/v1/triggers/gone/pause").await.problem(),
        "404 trigger_unknown"
    );
}

#[tokio::test]
async fn pausing_and_resuming_twice_is_harmless() {
    let (api, mut rows) = Api::start().await;
    rows.trigger("blog", true).await;
    rows.trigger("shop", true).await;
    for (call, state) in [
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "active"),
        ("resume", "active"),
        ("pause", "paused"),
    ] {
        let answer = api.send("POST", &format!("/v1/triggers/shop/{call}")).await;
        assert_eq!(
            (answer.status, &answer.body["name"], &answer.body["state"]),
            (200, &json!("shop"), &json!(state))
        );
        assert_eq!(api.found("/v1/triggers/shop").await, answer.body);
        assert_eq!(api.found("/v1/triggers/blog").await["state"], "active");
    }
}

#[tokio::test]
async fn invalid_names_of_triggers_are_unknown() {
    let (api, _rows) = Api::start().await;
    for name in ["shop", "Shop", "%00", "%ff", "a%2Fb", "-"] {
        let problem = api.get(&format!("/v1/triggers/{name}")).await.problem();
        assert!(
            ["404 trigger_unknown", "404 not_found"].contains(&problem.as_str()),
            "{name}: {problem}"
        );
        let problem = api
            .send("POST", &format!("/v1/triggers/{name}/resume"))
            .await
            .problem();
        assert!(problem.starts_with("404 "), "{name}: {problem}");
    }
}

#[tokio::test]
async fn holds_are_shown_with_the_condition_that_they_cause() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    rows.rollout(shop, 1, "succeeded", 10).await;
    let condition = async || {
        let shop = api.found("/v1/triggers/shop").await;
        (
            shop["condition"].clone(),
            shop["holds"].as_array().unwrap().len(),
        )
    };
    sqlx::query("insert into hold (kind, triggers, actor) values ('freeze', 'sh*', 'ann'), ('freeze', 'blog', 'ann')")
        .execute(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(condition().await, (json!("settled"), 1));
    rows.rollout(shop, 2, "pending", 20).await;
    sqlx::query("update rollout set attempts = 0 where number = 2")
        .execute(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(condition().await, (json!("held"), 1));
    sqlx::query("update hold set released_at = now(), released_by = 'ann'")
        .execute(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(condition().await, (json!("rolling_out"), 0));
}

#[tokio::test]
async fn a_held_rollout_is_shown_with_its_closed_gates_until_it_ends() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    rows.rollout(shop, 1, "pending", 10).await;
    // A planner of a later version may know other gates.
    let gates = json!([
        { "gate": "moon", "why": "full", "since": "2026-03-03T14:00:00Z", "opens_at": null },
        { "gate": "freeze", "why": "frozen by ann", "since": "2026-03-03T14:00:00Z", "opens_at": "2026-03-03T15:00:00Z" },
    ]);
    sqlx::query("update rollout set attempts = 0, state = 'held', gates = $1, opens_at = '2026-03-03T15:00:00Z'")
        .bind(&gates)
        .execute(&mut rows.db)
        .await
        .unwrap();
    let trigger = api.found("/v1/triggers/shop").await;
    let shown = json!([{
        "gate": "freeze", "why": "frozen by ann", "since": "2026-03-03T14:00:00.000000Z", "opens_at": "2026-03-03T15:00:00.000000Z",
    }]);
    assert_eq!(trigger["gates"], shown);
    assert_eq!(trigger["condition"], "held");
    assert_eq!(trigger["last"]["opens_at"], "2026-03-03T15:00:00.000000Z");
    let list = api.found("/v1/rollouts?state=held").await;
    assert_eq!(list["items"][0]["gates"], shown);
    sqlx::query("update rollout set state = 'cancelled', finished_at = now()")
        .execute(&mut rows.db)
        .await
        .unwrap();
    let list = api.found("/v1/rollouts?trigger=shop").await;
    assert_eq!(list["items"][0]["gates"], json!(null));
    let trigger = api.found("/v1/triggers/shop").await;
    assert_eq!(trigger["gates"], json!([]));
}

#[tokio::test]
async fn the_wanted_set_the_policies_and_the_reasons_are_shown() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    rows.rollout(shop, 1, "succeeded", 10).await;
    let first = api.found("/v1/triggers/shop").await;
    assert_eq!(first["wanted"], first["last"]["images"]);
    assert_eq!(
        (&first["reasons"], &first["policies"]),
        (&json!([]), &json!({}))
    );
    let rule = json!({ "repository": "registry.example.com/shop/web", "semver": "^1" });
    let gone = json!({
        "code": "no_candidate", "image": "registry.example.com/shop/web", "why": "no tag passes",
        "since": text(10), "opens_at": null, "cure": null,
    });
    // A planner of a later version may know more codes.
    let unknown = json!({ "code": "moon", "image": null, "why": "", "since": null, "opens_at": null, "cure": null });
    sqlx::query("update trigger set wanted = '{}', policies = $1, reasons = $2")
        .bind(json!({ "web": rule }))
        .bind(json!([gone, unknown]))
        .execute(&mut rows.db)
        .await
        .unwrap();
    let shop = api.found("/v1/triggers/shop").await;
    assert_eq!(
        (&shop["condition"], &shop["wanted"]),
        (&json!("waiting"), &Value::Null)
    );
    assert_eq!(
        shop["policies"]["web"],
        json!({ "rule": rule, "selected": null })
    );
    assert_eq!(shop["reasons"].as_array().unwrap().len(), 1);
    let reason = &shop["reasons"][0];
    assert_eq!(
        (&reason["code"], &reason["since"]),
        (&json!("no_candidate"), &json!(text(10)))
    );
    let cure = reason["cure"].as_str().unwrap();
    assert!(cure.contains("tagtrail explain shop"), "{cure}");
}

#[tokio::test]
async fn retry_ends_the_faults_of_failed_rollouts_and_release_ends_all() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let failed = rows.rollout(shop, 1, "failed", 10).await;
    sqlx::query(
        "insert into hold (kind, triggers, reason, rollout_id, image, actor)
         values ('fault', 'shop', 'rollout 1 failed', $1::uuid, null, 'tagtrail'), ('fault', 'shop', 'moved', null, 'web', 'tagtrail'),
             ('fault', 'blog', 'other', null, 'web', 'tagtrail')",
    )
    .bind(&failed)
    .execute(&mut rows.db)
    .await
    .unwrap();
    let reasons = async || {
        let holds = api.found("/v1/triggers/shop").await["holds"].take();
        let holds = holds.as_array().unwrap().iter();
        let reasons = holds.map(|hold| hold["reason"].as_str().unwrap().to_owned());
        reasons.collect::<Vec<_>>()
    };
    assert_eq!(reasons().await, ["moved", "rollout 1 failed"]);
    let answer = api.send("POST", "/v1/triggers/shop/retry").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(reasons().await, ["moved"]);
    api.send("POST", "/v1/triggers/shop/release").await;
    assert_eq!(reasons().await, Vec::<String>::new());
    let left: i64 = sqlx::query_scalar("select count(*) from hold where released_at is null")
        .fetch_one(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(left, 1);
}

#[tokio::test]
async fn triggers_are_listed_by_name_condition_and_label() {
    let (api, mut rows) = Api::start().await;
    for (name, labels) in [
        ("shop-web", json!({ "team": "shop" })),
        ("shop-api", json!({ "team": "core", "tier": "1" })),
        ("pay", json!({})),
    ] {
        rows.trigger(name, true).await;
        sqlx::query(
            "update trigger set labels = $2, problem = $3, broken = $3 is not null where name = $1",
        )
        .bind(name)
        .bind(labels)
        .bind((name == "pay").then_some("a mistake"))
        .execute(&mut rows.db)
        .await
        .unwrap();
    }
    rows.trigger("shop-old", false).await;
    // The api has made this one, and the trigger service has not read it yet.
    rows.trigger("shop-new", false).await;
    sqlx::query("update trigger set spec_hash = $1 where name = 'shop-new'")
        .bind(vec![7_u8; 32])
        .execute(&mut rows.db)
        .await
        .unwrap();
    for (query, expected) in [
        ("", &["pay", "shop-api", "shop-web"][..]),
        ("?condition=removed", &["shop-old"]),
        ("?condition=removed&match=pay*", &[]),
        ("?match=shop-*", &["shop-api", "shop-web"]),
        ("?match=shop-*&label=team%3Dshop", &["shop-web"]),
        ("?label=team", &["shop-api", "shop-web"]),
        ("?label=team%3Dx", &[]),
        ("?condition=broken", &["pay"]),
        ("?condition=settled&match=*api", &["shop-api"]),
    ] {
        let found = api.found(&format!("/v1/triggers{query}")).await;
        let items = found["items"].as_array().unwrap();
        let names: Vec<&str> = items
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected, "{query}");
    }
    for (query, problem) in [
        ("?match=Shop", "400 match_invalid"),
        ("?condition=fine", "400 condition_invalid"),
        ("?label=%3Dx", "400 label_invalid"),
    ] {
        let answer = api.send("GET", &format!("/v1/triggers{query}")).await;
        assert_eq!(answer.problem(), problem, "{query}");
    }
}

#[tokio::test]
async fn generations_are_listed_newest_first_with_the_processes() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", false).await;
    for (generation, spec) in [(1, Some(json!({ "name": "shop" }))), (2, None)] {
        sqlx::query(
            "insert into trigger_spec (trigger_id, generation, door, file, spec, complete, hash, actor)
             values ($1, $2, 'file', 'tagtrail.toml', $3, true, $4, 'configuration')",
        )
        .bind(shop)
        .bind(i64::from(generation))
        .bind(spec)
        .bind(vec![7_u8; 32])
        .execute(&mut rows.db)
        .await
        .unwrap();
    }
    sqlx::query(
        r#"insert into trigger_process (instance, machine, pid, seen_at, others)
         values (1, 'a', 7, now(), '{}'), (2, 'a', 8, now(), '{"shop": 1}'), (3, 'a', 9, now() - interval '2 minutes', '{}')"#,
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    let found = api.found("/v1/triggers/shop/generations").await;
    let items = found["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["generation"]), (2, &json!(2)));
    assert_eq!(items[0]["spec"], json!(null));
    assert_eq!(items[1]["spec"], json!({ "name": "shop" }));
    assert_eq!(items[1]["actor"], "configuration");
    let processes = found["processes"].as_array().unwrap();
    let processes: Vec<_> = processes
        .iter()
        .map(|one| (&one["pid"], &one["has_newest"]))
        .collect();
    assert_eq!(
        processes,
        [(&json!(7), &json!(true)), (&json!(8), &json!(false))]
    );
    let page = api.found("/v1/triggers/shop/generations?limit=1").await;
    let next = page["next"].as_str().unwrap();
    let page = api
        .found(&format!(
            "/v1/triggers/shop/generations?limit=1&cursor={next}"
        ))
        .await;
    assert_eq!(page["items"][0]["generation"], 1);
    let unknown = api.send("GET", "/v1/triggers/none/generations").await;
    assert_eq!(unknown.problem(), "404 trigger_unknown");
}

#[tokio::test]
async fn an_unknown_image_names_known_ones_that_look_like_it() {
    let (api, mut rows) = Api::start().await;
    rows.tag("registry.example.com/shop/wep:latest", &[on_time(1, 1, 10)])
        .await;
    rows.tag("registry.example.com/log/agent:1.2", &[on_time(1, 2, 10)])
        .await;
    let shop = rows.trigger("shop", true).await;
    let agent = rows.trigger("agent", true).await;
    for (id, image) in [
        (shop, "registry.example.com/shop/web:latest"),
        (agent, "registry.example.com/log/agent:1.3"),
    ] {
        let reasons = json!([{ "code": "unknown_image", "image": image, "why": "no push is recorded",
            "since": null, "opens_at": null, "cure": null }]);
        sqlx::query("update trigger set reasons = $1, wanted = '{}' where id = $2")
            .bind(reasons)
            .bind(id)
            .execute(&mut rows.db)
            .await
            .unwrap();
    }
    let list = api.found("/v1/triggers").await;
    let cure = |place: usize| list["items"][place]["reasons"][0]["cure"].as_str().unwrap();
    let text = "push the image, or correct its name; known: ";
    assert_eq!(cure(0), format!("{text}registry.example.com/log/agent:1.2"));
    assert_eq!(cure(1), format!("{text}registry.example.com/shop/wep"));
}
