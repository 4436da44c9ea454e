//! Approvals and rejections of rollouts.

use serde_json::{Value, json};

use crate::rows::Rows;
use crate::server::{Answer, Api, secret};

/// Starts the service with approvers and others, and a trigger whose rollout 1 waits for two
/// approvals. Returns the id of the rollout too.
async fn start() -> (Api, Rows, String, tempfile::TempDir) {
    let (api, mut rows, folder) = Api::with_tokens(&[
        ("release-ann", "approve", ""),
        ("release-bob", "approve", "triggers = [\"team-a-*\"]\n"),
        ("release-eve", "approve", "triggers = [\"*\"]\n"),
        ("cat", "approve", ""),
        ("ops", "operate", ""),
        ("reader", "read", ""),
    ])
    .await;
    let shop = rows.trigger("shop", true).await;
    let id = rows.rollout(shop, 1, "pending", 10).await;
    sqlx::query(
        "with t as (update trigger set gate_settings = '{\"approvals\": {\"needs\": 2, \"by\": [\"release-*\"], \"within\": \"24h\"}}')
         update rollout set attempts = 0, state = 'awaiting_approval',
             gates = '[{\"gate\": \"approval\", \"why\": \"0 of 2 approvals\", \"since\": \"2026-03-03T14:00:00Z\", \"opens_at\": null}]'",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    (api, rows, id, folder)
}

async fn post(api: &Api, token: &str, path: &str, key: &str, body: Value) -> Answer {
    let request = api.request("POST", path);
    let request = request.bearer_auth(secret(token));
    let request = request.header("idempotency-key", key).json(&body);
    Answer::read(request.send().await.unwrap()).await
}

async fn waiting(api: &Api, query: &str) -> Vec<Value> {
    let request = api.request("GET", &format!("/v1/approvals{query}"));
    let request = request.bearer_auth(secret("reader"));
    let answer = Answer::read(request.send().await.unwrap()).await;
    answer.body["items"].as_array().unwrap().clone()
}

/// Returns actor and verdict of all rows, and whether the planner was told, which it forgets.
async fn given(rows: &mut Rows) -> (Vec<(String, String)>, bool) {
    let given = sqlx::query_as("select actor, verdict from approval order by id")
        .fetch_all(&mut rows.db)
        .await
        .unwrap();
    let touched: i64 = sqlx::query_scalar(
        "with t as (update trigger set touched = false where touched returning id) select count(*) from t",
    )
    .fetch_one(&mut rows.db)
    .await
    .unwrap();
    (given, touched == 1)
}

#[tokio::test]
async fn approvers_approve_and_everybody_sees_it() {
    let (api, mut rows, id, _folder) = start().await;
    let path = format!("/v1/rollouts/{id}/approve");
    for (token, expected) in [
        ("reader", "403 forbidden"),
        ("ops", "403 forbidden"),
        ("cat", "403 not_an_approver"),
        ("release-bob", "403 out_of_scope"),
    ] {
        let refused = post(&api, token, &path, token, json!({})).await;
        assert_eq!(refused.problem(), expected, "{token}");
    }
    assert_eq!(given(&mut rows).await, (Vec::new(), false));
    // No planner runs here. The same key is the same approval.
    for _ in 0..2 {
        let body = json!({ "reason": "looks good" });
        let answer = post(&api, "release-ann", &path, "one", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["act"], "approve");
        assert_eq!(answer.body["rollout"]["id"], id.as_str());
    }
    let approved = vec![("release-ann".to_owned(), "approved".to_owned())];
    assert_eq!(given(&mut rows).await, (approved, true));
    let items = waiting(&api, "?trigger=shop").await;
    assert_eq!(items[0]["rollout"]["id"], id.as_str());
    assert_eq!(
        (&items[0]["needs"], &items[0]["by"], &items[0]["within"]),
        (&json!(2), &json!(["release-*"]), &json!("24h"))
    );
    assert_eq!(items[0]["given"][0]["actor"], "release-ann");
    assert_eq!(items[0]["given"][0]["reason"], "looks good");
    assert_eq!(waiting(&api, "?trigger=blog").await.len(), 0);
    let acts: Vec<(String, String)> = sqlx::query_as("select actor, act from act")
        .fetch_all(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(acts, [("release-ann".to_owned(), "approve".to_owned())]);
}

#[tokio::test]
async fn a_rejection_needs_a_reason_and_a_rollout_that_has_not_begun() {
    let (api, mut rows, id, _folder) = start().await;
    let path = format!("/v1/rollouts/{id}/reject");
    let reject = async |key: &str, body| post(&api, "release-ann", &path, key, body).await;
    assert_eq!(reject("a", json!({})).await.problem(), "400 body_invalid");
    let empty = reject("b", json!({ "reason": " " })).await;
    assert_eq!(empty.problem(), "400 reason_invalid");
    let answer = reject("c", json!({ "reason": "no" })).await;
    assert_eq!(answer.body["done"], false, "no planner runs here");
    let rejected = vec![("release-ann".to_owned(), "rejected".to_owned())];
    assert_eq!(given(&mut rows).await, (rejected, true));
    // Approvals before a rejection no longer count.
    assert_eq!(waiting(&api, "").await[0]["given"], json!([]));
    // Verdicts are never changed.
    for statement in ["update approval set actor = 'x'", "delete from approval"] {
        assert!(sqlx::query(statement).execute(&mut rows.db).await.is_err());
    }
    sqlx::query("update rollout set attempts = 1, state = 'running'")
        .execute(&mut rows.db)
        .await
        .unwrap();
    let late = reject("d", json!({ "reason": "no" })).await;
    assert_eq!(late.problem(), "409 not_approvable");
    sqlx::query("update trigger set gate_settings = '{}'")
        .execute(&mut rows.db)
        .await
        .unwrap();
    let needless = reject("e", json!({ "reason": "no" })).await;
    assert_eq!(needless.problem(), "409 not_approvable");
    let unknown = "/v1/rollouts/0198c5b0-7a3e-7c51-9f6d-2f1f5d1c9a11/approve";
    let unknown = post(&api, "release-ann", unknown, "f", json!({})).await;
    assert_eq!(unknown.problem(), "404 rollout_unknown");
}

#[tokio::test]
async fn a_refused_order_leaves_no_transaction_open() {
    let (api, mut rows, id, _folder) = start().await;
    let because = json!({ "reason": "because" });
    let unknown = "00000000-0000-7000-8000-000000000000";
    let refused = [
        ("cat", format!("/v1/rollouts/{id}/approve")),
        ("release-eve", format!("/v1/rollouts/{unknown}/approve")),
        ("release-eve", "/v1/triggers/nobody/pause".to_owned()),
        ("release-eve", "/v1/triggers/shop/release".to_owned()),
        ("release-eve", "/v1/triggers/shop/rollback".to_owned()),
        ("release-eve", "/v1/holds/77/release".to_owned()),
    ];
    let mut answers = Vec::new();
    for (place, (token, path)) in refused.iter().enumerate() {
        let answer = post(&api, token, path, &place.to_string(), because.clone()).await;
        let open: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'",
        )
        .fetch_one(&mut rows.db)
        .await
        .unwrap();
        assert_eq!(open, 0, "{path}: {answer:?}");
        answers.push((path, answer.status));
        // The planner can take the trigger at once.
        sqlx::query("select from trigger for update nowait")
            .execute(&mut rows.db)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    assert!(
        answers.iter().all(|(_, status)| *status >= 400),
        "{answers:?}"
    );
}
