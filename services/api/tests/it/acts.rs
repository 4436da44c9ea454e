//! The record of acts, and the triggers on which a token may act.

use serde_json::{Value, json};

use crate::rows::Rows;
use crate::server::{Answer, Api, secret};

/// Starts the service with a token of each role, and one each that operates triggers of team a
/// alone and reports of team b alone.
pub(crate) async fn start() -> (Api, Rows, tempfile::TempDir) {
    let (api, mut rows, folder) = Api::with_tokens(&[
        ("reader", "read", ""),
        ("team-a", "operate", "triggers = [\"team-a-*\"]\n"),
        ("ops", "operate", ""),
        ("team-b", "operate", ""),
        ("approver", "approve", ""),
        ("reporter", "report", ""),
        ("reporter-b", "report", "triggers = [\"team-b-*\"]\n"),
    ])
    .await;
    for name in ["team-a-app", "team-b-app"] {
        rows.trigger(name, true).await;
    }
    (api, rows, folder)
}

pub(crate) async fn order(
    api: &Api,
    token: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> Answer {
    let mut request = api.request("POST", path);
    request = request.bearer_auth(secret(token));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_null() {
        request = request.json(&body);
    }
    Answer::read(request.send().await.unwrap()).await
}

pub(crate) async fn acts(api: &Api, query: &str) -> Vec<Value> {
    let request = api.request("GET", &format!("/v1/acts{query}"));
    let request = request.bearer_auth(secret("reader"));
    let answer = Answer::read(request.send().await.unwrap()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_token_acts_on_its_triggers_and_on_no_others() {
    let (api, _rows, _folder) = start().await;
    for (token, trigger, expected) in [
        ("team-a", "team-a-app", Ok(())),
        ("team-a", "team-b-app", Err("403 out_of_scope")),
        ("team-a", "unknown", Err("403 out_of_scope")),
        ("team-a", "team-b%2dapp", Err("403 out_of_scope")),
        ("ops", "team-b-app", Ok(())),
        ("ops", "unknown", Err("404 trigger_unknown")),
        ("reader", "team-a-app", Err("403 forbidden")),
        ("approver", "team-a-app", Err("403 forbidden")),
        ("reporter", "team-a-app", Err("403 forbidden")),
    ] {
        for act in ["pause", "retry", "resume"] {
            let path = format!("/v1/triggers/{trigger}/{act}");
            let answer = order(&api, token, &path, &[], Value::Null).await;
            let found = match answer.status {
                200 => Ok(()),
                _ => Err(answer.problem()),
            };
            let found = found.as_ref().copied().map_err(String::as_str);
            assert_eq!(found, expected, "{token} {path}");
        }
    }
    // Reading is not limited.
    let request = api.request("GET", "/v1/triggers/team-b-app");
    let request = request.bearer_auth(secret("team-a"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    let request = api.request("GET", "/v1/triggers");
    let request = request.bearer_auth(secret("reporter"));
    assert_eq!(request.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_token_that_triggers_are_named_after_acts_on_these_alone() {
    let (api, mut rows, _folder) = start().await;
    let pause = async |token: &str, trigger: &str| {
        let path = format!("/v1/triggers/{trigger}/pause");
        order(&api, token, &path, &[], Value::Null).await
    };
    assert_eq!(pause("team-b", "team-b-app").await.status, 200);
    let refused = pause("team-b", "team-a-app").await;
    assert_eq!(refused.problem(), "403 out_of_scope");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("add triggers = "), "{detail}");
    let freeze = json!({ "triggers": "team-*", "reason": "incident" });
    let refused = order(&api, "team-b", "/v1/holds", &[], freeze).await;
    assert_eq!(refused.problem(), "403 out_of_scope");
    // A trigger whose name only begins with the same letters carries no name of a token.
    rows.trigger("opsone", true).await;
    assert_eq!(pause("ops", "team-a-app").await.status, 200);
    rows.trigger("ops-one", true).await;
    assert_eq!(pause("ops", "ops-one").await.status, 200);
    let refused = pause("ops", "team-b-app").await;
    assert_eq!(refused.problem(), "403 out_of_scope");
}

#[tokio::test]
async fn a_trigger_shows_the_last_refused_act() {
    let (api, _rows, _folder) = start().await;
    let shown = async |trigger: &str| {
        let request = api.request("GET", &format!("/v1/triggers/{trigger}"));
        let request = request.bearer_auth(secret("reader"));
        Answer::read(request.send().await.unwrap()).await.body
    };
    assert_eq!(shown("team-b-app").await["refused"], Value::Null);
    for act in ["pause", "resume"] {
        let path = format!("/v1/triggers/team-b-app/{act}");
        let refused = order(&api, "team-a", &path, &[], Value::Null).await;
        assert_eq!(refused.status, 403);
    }
    // The second came within the same second.
    let refused = &shown("team-b-app").await["refused"];
    assert_eq!(refused["actor"], "team-a");
    assert_eq!(refused["act"], "pause");
    assert!(refused["at"].is_string(), "{refused}");
    assert_eq!(shown("team-a-app").await["refused"], Value::Null);
    assert!(acts(&api, "").await.is_empty());
}

#[tokio::test]
async fn each_change_is_an_act_with_its_author_and_reason() {
    let (api, mut rows, _folder) = start().await;
    let pause = "/v1/triggers/team-a-app/pause";
    let because = json!({ "reason": "  incident 123\n" });
    let id = [("X-Request-Id", "from-the-proxy-1")];
    let paused = order(&api, "team-a", pause, &id, because.clone()).await;
    assert_eq!(paused.header("x-request-id"), "from-the-proxy-1");
    let paused = paused.body;
    assert_eq!(paused["paused_by"], "team-a");
    assert_eq!(paused["paused_reason"], "incident 123");
    assert!(paused["paused_at"].is_string(), "{paused}");
    // Nothing to do: no act, and the author stays.
    let again = order(&api, "ops", pause, &[], Value::Null).await.body;
    assert_eq!(again["paused_by"], "team-a");
    let resumed = order(
        &api,
        "ops",
        "/v1/triggers/team-a-app/resume",
        &[],
        Value::Null,
    )
    .await;
    assert_eq!(resumed.body["paused_by"], Value::Null);
    assert_eq!(resumed.body["paused_reason"], Value::Null);

    let all = acts(&api, "").await;
    let words = |acts: &[Value]| -> Vec<String> {
        let of = |act: &Value| format!("{} {}", act["actor"], act["act"]).replace('"', "");
        acts.iter().map(of).collect()
    };
    assert_eq!(words(&all), ["ops resume", "team-a pause"]);
    let act = &all[1];
    assert_eq!(act["reason"], "incident 123");
    assert_eq!(act["trigger"], "team-a-app");
    assert_eq!(act["role"], "operate");
    assert_eq!(act["address"], "127.0.0.1");
    assert_eq!(act["request_id"], "from-the-proxy-1");
    for (query, expected) in [
        ("?actor=ops", &["ops resume"][..]),
        ("?trigger=team-b-app", &[]),
        ("?trigger=team-a-app&limit=1", &["ops resume"]),
        ("?since=2999-01-01T00:00:00Z", &[]),
    ] {
        assert_eq!(words(&acts(&api, query).await), expected, "{query}");
    }
    // Nobody changes the record, the owner of the table neither.
    for change in [
        "update act set actor = 'x'",
        "delete from act",
        "truncate act cascade",
    ] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(change))
            .execute(&mut rows.db)
            .await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{change}: {refused}");
    }
}

#[tokio::test]
async fn an_order_with_a_key_is_carried_out_once() {
    let (api, _rows, _folder) = start().await;
    let (pause, resume) = (
        "/v1/triggers/team-a-app/pause",
        "/v1/triggers/team-a-app/resume",
    );
    let key = [("Idempotency-Key", "one")];
    let send = async |token: &str, path: &str| order(&api, token, path, &key, Value::Null).await;
    assert_eq!(send("ops", pause).await.body["state"], "paused");
    order(&api, "ops", resume, &[], Value::Null).await;
    assert_eq!(send("ops", pause).await.body["state"], "active", "repeated");
    assert_eq!(
        send("ops", resume).await.problem(),
        "422 idempotency_key_reused"
    );
    // The key of another actor.
    assert_eq!(send("team-a", pause).await.body["state"], "paused");
    // An order that had nothing to do keeps its key too.
    let other = [("Idempotency-Key", "two")];
    order(&api, "ops", pause, &other, Value::Null).await;
    order(&api, "ops", resume, &[], Value::Null).await;
    let repeated = order(&api, "ops", pause, &other, Value::Null).await;
    assert_eq!(repeated.body["state"], "active");
    for wrong in ["", "a b", &"k".repeat(101)] {
        let refused = order(
            &api,
            "ops",
            pause,
            &[("Idempotency-Key", wrong)],
            Value::Null,
        )
        .await;
        assert_eq!(refused.problem(), "400 idempotency_key_invalid", "{wrong}");
    }
}

#[tokio::test]
async fn a_reason_is_checked() {
    let (api, _rows, _folder) = start().await;
    let pause = "/v1/triggers/team-a-app/pause";
    for (body, expected) in [
        (json!({ "reason": "" }), "400 reason_invalid"),
        (json!({ "reason": "x".repeat(501) }), "400 reason_invalid"),
        (json!({ "because": "x" }), "400 body_invalid"),
        (json!("x"), "400 body_invalid"),
        (json!({ "reason": "x".repeat(9000) }), "413 body_too_large"),
    ] {
        let refused = order(&api, "ops", pause, &[], body).await;
        assert_eq!(refused.problem(), expected);
    }
    let request = api.request("POST", pause).body("reason=x");
    let request = request.bearer_auth(secret("ops"));
    let refused = Answer::read(request.send().await.unwrap()).await;
    assert_eq!(refused.problem(), "415 body_not_json");
    let strange = order(&api, "ops", pause, &[], json!({ "reason": "a\u{1b}[2Jb" })).await;
    assert_eq!(strange.body["paused_reason"], "a\u{fffd}[2Jb");
}

#[tokio::test]
async fn orders_and_holds_respect_the_triggers_of_a_token() {
    let (api, mut rows, _folder) = start().await;
    let team_b = sqlx::query_scalar("select id from trigger where name = 'team-b-app'");
    let team_b: i32 = team_b.fetch_one(&mut rows.db).await.unwrap();
    let rollout = rows.rollout(team_b, 1, "running", 10).await;
    let because = json!({ "reason": "x" });
    let cancel = format!("/v1/rollouts/{rollout}/cancel");
    for path in [
        "/v1/triggers/team-b-app/rollout",
        "/v1/triggers/team-b-app/rollback",
        "/v1/triggers/team-b-app/pin",
        "/v1/triggers/team-b-app/release",
        &cancel,
    ] {
        let body = because.clone();
        let refused = order(&api, "team-a", path, &[], body.clone()).await;
        assert_eq!(refused.problem(), "403 out_of_scope", "{path}");
        let refused = order(&api, "approver", path, &[], body).await;
        assert_eq!(refused.problem(), "403 forbidden", "{path}");
    }
    for (pattern, expected) in [
        ("team-a-*", 200),
        ("team-a-app", 200),
        ("team-*", 403),
        ("*", 403),
    ] {
        let body = json!({ "triggers": pattern, "reason": "x" });
        let answer = order(&api, "team-a", "/v1/holds", &[], body).await;
        assert_eq!(answer.status, expected, "{pattern}");
    }
    let wide = order(
        &api,
        "ops",
        "/v1/holds",
        &[],
        json!({ "triggers": "*", "reason": "x" }),
    )
    .await;
    let path = format!("/v1/holds/{}", wide.body["id"]);
    let thaw = api.request("DELETE", &path).bearer_auth(secret("team-a"));
    let refused = Answer::read(thaw.send().await.unwrap()).await;
    assert_eq!(refused.problem(), "403 out_of_scope");
}
