//! Reports of receivers about the result of rollouts.

use serde_json::{Value, json};

use crate::acts::{acts, order, start};
use crate::rows::Rows;
use crate::server::{Api, secret};

/// A rollout in this state, of a trigger whose receiver reports, with an attempt. Returns its path.
async fn watched(rows: &mut Rows, trigger: &str, state: &str) -> String {
    let trigger: i32 =
        sqlx::query_scalar("update trigger set reports = true where name = $1 returning id")
            .bind(trigger)
            .fetch_one(&mut rows.db)
            .await
            .unwrap();
    let id = rows.rollout(trigger, 1, state, 10).await;
    sqlx::query(
        "insert into rollout_attempt (rollout_id, number, trigger_id, started_at, instance, machine, pid, pid_started)
         values ($1::uuid, 1, $2, now() - interval '1 minute', 1, '', 1, 1)",
    )
    .bind(&id)
    .bind(trigger)
    .execute(&mut rows.db)
    .await
    .unwrap();
    format!("/v1/rollouts/{id}/outcome")
}

/// Reports as the token `reporter`. Returns the problem, or whether the report counts.
async fn report(api: &Api, path: &str, key: &str, body: Value) -> String {
    let headers = [("Idempotency-Key", key)];
    let headers = if key.is_empty() {
        &[][..]
    } else {
        &headers[..]
    };
    let answer = order(api, "reporter", path, headers, body).await;
    match answer.status {
        200 => answer.body["counts"].to_string(),
        _ => answer.problem(),
    }
}

#[tokio::test]
async fn a_receiver_reports_progress_and_then_one_result() {
    let (api, mut rows, _folder) = start().await;
    let path = watched(&mut rows, "team-a-app", "watching").await;
    let progress = json!({ "state": "progressing", "text": "1 of 2" });
    let done = json!({ "state": "succeeded", "text": "all\u{1b}[2J" });
    for (key, body, expected) in [
        ("", progress.clone(), "true"),
        // At most one report of progress a second is recorded.
        ("", progress.clone(), "false"),
        ("k", done.clone(), "true"),
        ("k", done.clone(), "false"),
        (
            "k",
            json!({ "state": "failed" }),
            "422 idempotency_key_reused",
        ),
        ("", done.clone(), "false"),
        // A late message takes no result back.
        ("", progress, "false"),
        // Another result counts: the receiver has changed its mind.
        ("", json!({ "state": "failed" }), "true"),
    ] {
        assert_eq!(
            report(&api, &path, key, body.clone()).await,
            expected,
            "{body}"
        );
    }
    let recorded: Vec<(String, Option<String>, String)> =
        sqlx::query_as("select state, text, actor from rollout_report order by id")
            .fetch_all(&mut rows.db)
            .await
            .unwrap();
    let expected = [
        ("progressing", Some("1 of 2")),
        ("succeeded", Some("all\u{fffd}[2J")),
        ("failed", None),
    ];
    let expected: Vec<_> = expected
        .map(|(state, text)| {
            (
                state.to_owned(),
                text.map(str::to_owned),
                "reporter".to_owned(),
            )
        })
        .into();
    assert_eq!(recorded, expected);
    let acts = acts(&api, "?actor=reporter").await;
    let states: Vec<&Value> = acts.iter().map(|act| &act["details"]["state"]).collect();
    assert_eq!(states, ["failed", "succeeded", "progressing"]);
    assert!(
        acts.iter()
            .all(|act| act["act"] == "outcome" && act["role"] == "report")
    );
    // Reports are kept for good.
    let changed = sqlx::query("delete from rollout_report")
        .execute(&mut rows.db)
        .await;
    assert!(changed.is_err());
}

#[tokio::test]
async fn a_report_that_nobody_waits_for_is_refused_and_leaves_nothing() {
    let (api, mut rows, _folder) = start().await;
    let path = watched(&mut rows, "team-a-app", "watching").await;
    let ended = watched(&mut rows, "team-b-app", "succeeded").await;
    let done = || json!({ "state": "succeeded" });
    assert_eq!(report(&api, &ended, "", done()).await, "false");
    let unknown = "/v1/rollouts/0198c5b0-7a3e-7c51-9f6d-2f1f5d1c9a11/outcome";
    assert_eq!(
        report(&api, unknown, "", done()).await,
        "404 rollout_unknown"
    );
    for body in [
        json!({ "state": "done" }),
        json!({ "state": "succeeded", "text": "" }),
        json!({ "state": "succeeded", "text": "x".repeat(2001) }),
        json!({ "state": "succeeded", "reason": "x" }),
        json!({}),
    ] {
        assert_eq!(
            report(&api, &path, "", body.clone()).await,
            "400 body_invalid",
            "{body}"
        );
    }
    sqlx::query("update trigger set reports = false")
        .execute(&mut rows.db)
        .await
        .unwrap();
    assert_eq!(
        report(&api, &path, "", done()).await,
        "409 outcome_unexpected"
    );
    // Only the role `report` may report, on the triggers of its token.
    for token in ["ops", "reader", "approver"] {
        let refused = order(&api, token, &path, &[], done()).await;
        assert_eq!(refused.problem(), "403 forbidden", "{token}");
    }
    let refused = order(&api, "reporter-b", &path, &[], done()).await;
    assert_eq!(refused.problem(), "403 out_of_scope");
    let counts: (i64, i64) =
        sqlx::query_as("select (select count(*) from rollout_report), (select count(*) from act)")
            .fetch_one(&mut rows.db)
            .await
            .unwrap();
    assert_eq!(counts, (0, 0));
}

#[tokio::test]
async fn a_rollout_shows_its_observation() {
    let (api, mut rows, _folder) = start().await;
    let path = watched(&mut rows, "team-a-app", "watching").await;
    sqlx::query(
        "update rollout set applied_at = '2026-03-03T14:00:00Z', observe_until = '2026-03-03T14:15:00Z', looks = 2,
             looked_at = '2026-03-03T14:00:03Z', seen = 'the receiver reported progress'",
    )
    .execute(&mut rows.db)
    .await
    .unwrap();
    let read = async |path: &str| {
        let request = api.request("GET", path);
        let request = request.bearer_auth(secret("reader"));
        let answer = crate::server::Answer::read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    let expected = json!({
        "since": "2026-03-03T14:00:00.000000Z", "until": "2026-03-03T14:15:00.000000Z",
        "looked_at": "2026-03-03T14:00:03.000000Z", "stage": 0, "seen": "the receiver reported progress",
    });
    let rollout = read(path.trim_end_matches("/outcome")).await;
    assert_eq!(rollout["watch"], expected);
    let trigger = read("/v1/triggers/team-a-app").await;
    assert_eq!(trigger["watch"], expected);
    assert_eq!(trigger["condition"], "rolling_out");
    assert_eq!(trigger["next_attempt_at"], Value::Null);
    assert_eq!(read("/v1/triggers/team-b-app").await["watch"], Value::Null);
}
