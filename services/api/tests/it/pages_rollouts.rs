//! The pages of rollouts, and the verdicts and orders on them.

use crate::pages_acts::{form, page, send};
use crate::pages_triggers::{behind, run};
use crate::rows::{Rows, digest, on_time};
use crate::server::Api;

const WAITS: &str = "with t as (update trigger set gate_settings = '{\"approvals\": {\"needs\": 2, \"by\": [\"release-*\", \"local\"], \"within\": \"24h\"}}')
    update rollout set attempts = 0, state = 'awaiting_approval',
        gates = '[{\"gate\": \"approval\", \"why\": \"0 of 2 approvals\", \"since\": \"2026-03-03T14:00:00Z\", \"opens_at\": null}]'
    where number = 2";

async fn approvals(rows: &mut Rows) -> Vec<(String, String)> {
    sqlx::query_as("select actor, verdict from approval order by id")
        .fetch_all(&mut rows.db)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_list_agrees_with_the_api_and_has_pages() {
    let (api, mut rows) = Api::start().await;
    let (status, empty) = page(&api, "", "/rollouts").await;
    assert_eq!(status, 200);
    assert!(empty.contains("No rollout is recorded yet."));
    let (shop, _) = behind(&mut rows).await;
    for number in 2..=60 {
        let state = match number % 3 {
            0 => "failed",
            _ => "succeeded",
        };
        rows.rollout(shop, number, state, 100 + number).await;
    }
    for question in [
        "",
        "?trigger=&state=&image=",
        "?state=failed",
        "?trigger=shop&state=failed",
        "?image=registry.example.com/shop/web",
    ] {
        let asked = question.replace("trigger=&state=&image=", "");
        let listed = api.found(&format!("/v1/rollouts{asked}")).await;
        let (status, shown) = page(&api, "", &format!("/rollouts{question}")).await;
        assert_eq!(status, 200, "{question}");
        assert!(shown.len() < 60_000, "{question}: {} bytes", shown.len());
        let items = listed["items"].as_array().unwrap();
        assert_eq!(shown.matches("<th scope=\"row\">").count(), items.len());
        for item in items {
            let link = format!("/rollouts/{}\"", item["id"].as_str().unwrap());
            assert!(shown.contains(&link), "{question} {item}");
        }
        assert_eq!(shown.contains("rel=\"next\""), !listed["next"].is_null());
    }
    let (_, first) = page(&api, "", "/rollouts?trigger=shop").await;
    let next = &first[first.find("rel=\"next\" href=\"").unwrap() + 17..];
    let next = next[..next.find('"').unwrap()].replace("&amp;", "&");
    let (status, second) = page(&api, "", &next).await;
    assert_eq!(status, 200);
    assert_eq!(second.matches("<th scope=\"row\">").count(), 10);
    for (path, expected) in [
        ("/rollouts?state=asleep", 400),
        ("/rollouts/shop/99", 404),
        ("/rollouts/00000000-0000-0000-0000-000000000000", 404),
        ("/rollouts/nothing", 404),
        ("/rollouts/shop/2", 303),
    ] {
        assert_eq!(page(&api, "", path).await.0, expected, "{path}");
    }
    api.stop().await;
}

#[tokio::test]
async fn a_part_of_an_image_finds_rollouts_and_an_unknown_trigger_has_none() {
    let (api, mut rows) = Api::start().await;
    let (_, id) = behind(&mut rows).await;
    rows.trigger("idle", true).await;
    let link = format!("/rollouts/{id}\"");
    for (question, finds) in [
        ("q=shop/web", true),
        ("q=SHOP", true),
        ("q=web:lat", true),
        ("q=shop/api", false),
        ("image=registry.example.com/shop/we", false),
        ("image=shop/web", true),
        ("image=web", true),
        ("image=shop/web&trigger=shop&state=", true),
    ] {
        let (status, shown) = followed(&api, &format!("/rollouts?{question}")).await;
        assert_eq!(status, 200, "{question}");
        assert_eq!(shown.contains(&link), finds, "{question}: {shown}");
        let cleared = shown.contains("<a href=\"/rollouts\">All rollouts</a>");
        assert_eq!(cleared, !finds, "{question}: {shown}");
    }
    for (query, finds) in [
        ("q=Shop/Web", 1),
        ("q=shop/api", 0),
        ("trigger=shop&q=web", 1),
    ] {
        let found = api.found(&format!("/v1/rollouts?{query}")).await;
        assert_eq!(found["items"].as_array().unwrap().len(), finds, "{query}");
    }
    // The api answers about an image, or refuses: a program gets no other image than it named.
    let part = api.get("/v1/rollouts?image=shop/web").await;
    assert_eq!(part.problem(), "400 image_invalid");
    let unknown = api.get("/v1/rollouts?trigger=nobody").await;
    assert_eq!(unknown.problem(), "404 trigger_unknown");
    for name in ["nobody", "No+Name"] {
        let (status, shown) =
            page(&api, "", &format!("/rollouts?trigger={name}&state=failed")).await;
        assert_eq!(status, 200, "{name}");
        let said = format!("There is no trigger <q>{}</q>", name.replace('+', " "));
        assert!(shown.contains(&said), "{shown}");
        assert!(shown.contains("href=\"/rollouts?state=failed\""), "{shown}");
    }
    let (_, idle) = page(&api, "", "/rollouts?trigger=idle").await;
    assert!(idle.contains("No rollout matches.") && !idle.contains("There is no trigger"));
    api.stop().await;
}

/// Returns status and text of a page, behind a redirect if there is one.
async fn followed(api: &Api, path: &str) -> (u16, String) {
    let answer = api.once("GET", path).await;
    match answer.headers().get("location") {
        Some(there) => page(api, "", there.to_str().unwrap()).await,
        None => (answer.status().as_u16(), answer.text().await.unwrap()),
    }
}

#[tokio::test]
async fn a_rollout_shows_its_steps_and_the_answers_of_its_target() {
    let (api, mut rows) = Api::start().await;
    let (shop, before) = behind(&mut rows).await;
    let id = rows.rollout(shop, 3, "succeeded", 33).await;
    run(
        &mut rows,
        "update rollout set started_at = created_at + interval '12 ms', traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'",
    )
    .await;
    run(
        &mut rows,
        "insert into rollout_attempt (rollout_id, number, trigger_id, instance, machine, pid, pid_started, started_at, finished_at, outcome, status, error, said)
         select id, n, trigger_id, 1, 'm', 1, 1, created_at + n * interval '100 ms', created_at + n * interval '150 ms',
             case n when 1 then 'failed' else 'done' end::attempt_outcome, case n when 1 then 503 else 200 end,
             case n when 1 then 'the <target> \"said\" no' end,
             case n when 1 then repeat('<script>alert(1)</script>', 600) else 'ok' end
         from rollout, generate_series(1, 2) n where number = 3",
    )
    .await;
    let (status, shown) = page(&api, "", &format!("/rollouts/{id}")).await;
    assert_eq!(status, 200);
    for part in [
        "shop #3",
        "Pushed",
        "Stored",
        "Recorded",
        "Planned",
        "Started",
        "Attempt 1",
        "Waited",
        "Attempt 2",
        "Done",
        "503",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "&lt;target&gt;",
        "&lt;script&gt;",
        "differs",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    for raw in ["<script>alert", "style=", "<target>"] {
        assert!(!shown.contains(raw), "{raw}");
    }
    assert!(shown.len() < 60_000, "{} bytes", shown.len());
    // It ended: there is nothing to order.
    assert!(!shown.contains("<form method=\"post\" action=\"/rollouts"));
    let answer = api.found(&format!("/v1/rollouts/{id}")).await;
    let now = answer["images"]["web"]["digest"].as_str().unwrap();
    assert!(shown.contains(now) && shown.contains(&digest(1).to_string()));
    let compared = format!("/compare/{}..{now}?image=", digest(1));
    assert!(shown.contains(&compared), "{compared}: {shown}");
    assert!(shown.contains("href=\"/rollouts/shop/2\"") && !shown.contains("/rollouts/shop/4"));
    // A rollout without attempts, and one whose push is not known.
    let (status, first) = page(&api, "", &format!("/rollouts/{before}")).await;
    assert_eq!(status, 200);
    assert!(first.contains("href=\"/rollouts/shop/2\"") && !first.contains("/rollouts/shop/0"));
    api.stop().await;
}

#[tokio::test]
async fn a_rollout_of_a_lost_webhook_counts_from_the_finding_and_says_so() {
    let (api, mut rows) = Api::start().await;
    let (shop, _) = behind(&mut rows).await;
    let reported = rows.rollout(shop, 2, "succeeded", 22).await;
    for (number, origin, prefix, by) in [
        (4, "reconciled", "", "comparing the registry"),
        (5, "resolved", "observed:", "a pull"),
    ] {
        let at = number * 10;
        rows.revision_of(
            1,
            on_time(number, u8::try_from(number).unwrap(), at),
            origin,
            prefix,
        )
        .await;
        let id = rows.rollout(shop, number, "succeeded", at + 2).await;
        run(&mut rows, "update rollout set started_at = created_at").await;
        let (_, shown) = page(&api, "", &format!("/rollouts/{id}")).await;
        for part in [
            format!("No event reported the push: {by} found it"),
            format!("by {by}: the push was earlier"),
            "from the finding to the end".to_owned(),
        ] {
            assert!(shown.contains(&part), "{part}: {shown}");
        }
        assert!(
            !shown.contains("from the push") && !shown.contains(">Pushed<"),
            "{shown}"
        );
        let (_, list) = page(&api, "", "/rollouts").await;
        let row = &list[list.find(&id).unwrap()..];
        let row = &row[..row.find("</tr>").unwrap()];
        assert!(row.contains("since it was found"), "{row}");
    }
    let (_, shown) = page(&api, "", &format!("/rollouts/{reported}")).await;
    assert!(
        shown.contains("from the push to the end") && shown.contains(">Pushed<"),
        "{shown}"
    );
    api.stop().await;
}

#[tokio::test]
async fn approvers_give_verdicts_on_the_set_that_they_saw() {
    let (api, mut rows, _folder) = Api::with_tokens(&[
        ("release-ann", "approve", ""),
        ("release-bob", "approve", "triggers = [\"other-*\"]\n"),
        ("cat", "approve", ""),
        ("ops", "operate", ""),
        ("reader", "read", ""),
    ])
    .await;
    let (shop, _) = behind(&mut rows).await;
    let id = rows.rollout(shop, 2, "pending", 22).await;
    run(&mut rows, WAITS).await;
    let (approve, reject) = (
        format!("/rollouts/{id}/approve"),
        format!("/rollouts/{id}/reject"),
    );
    let place = format!("/rollouts/{id}");
    let (status, shown) = page(&api, "release-ann", &place).await;
    assert_eq!(status, 200);
    assert!(shown.contains("0 of 2 approvals"), "{shown}");
    for content in [1, 2] {
        assert!(shown.contains(&digest(content).to_string()), "{content}");
    }
    let fields = form(&shown, &approve);
    for (token, code) in [
        ("reader", "forbidden"),
        ("ops", "forbidden"),
        ("release-bob", "out_of_scope"),
        ("cat", "not_an_approver"),
    ] {
        let (_, seen) = page(&api, token, &place).await;
        for form in [&approve, &reject] {
            assert!(!seen.contains(&format!("\"{form}\"")), "{token}");
        }
        let (status, text) = send(&api, token, &approve, &fields).await;
        assert_eq!(status, 403, "{token}: {text}");
        assert!(text.contains(code), "{token}: {text}");
    }
    // The set of another rollout, and none.
    let other = rows.rollout(shop, 4, "pending", 50).await;
    run(&mut rows, &WAITS.replace("number = 2", "number = 4")).await;
    let (_, another) = page(&api, "release-ann", &format!("/rollouts/{other}")).await;
    let wrong = form(&another, &format!("/rollouts/{other}/approve"));
    let (status, text) = send(&api, "release-ann", &approve, &wrong).await;
    assert_eq!(status, 409, "{text}");
    assert!(text.contains("nothing was done"));
    let unseen = vec![fields[0].clone()];
    assert_eq!(send(&api, "release-ann", &approve, &unseen).await.0, 409);
    assert!(approvals(&mut rows).await.is_empty());
    // No planner runs here. The same form twice is one approval.
    for _ in 0..2 {
        let sent = send(&api, "release-ann", &approve, &fields).await;
        assert_eq!((sent.0, sent.1.as_str()), (303, place.as_str()));
    }
    let given = [("release-ann".to_owned(), "approved".to_owned())];
    assert_eq!(approvals(&mut rows).await, given);
    let (_, shown) = page(&api, "release-ann", &place).await;
    assert!(shown.contains("1 of 2 approvals") && shown.contains("You have approved"));
    // A rejection needs a reason.
    let mut fields = form(&shown, &reject);
    let (status, text) = send(&api, "release-ann", &reject, &fields).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("reason_invalid"), "{text}");
    fields.push(("reason".to_owned(), "smoke <b>tests</b> failed".to_owned()));
    assert_eq!(send(&api, "release-ann", &reject, &fields).await.0, 303);
    assert_eq!(approvals(&mut rows).await.len(), 2);
    api.stop().await;
}

#[tokio::test]
async fn operators_retry_and_cancel_what_has_not_ended() {
    let (api, mut rows) = Api::start().await;
    let (shop, _) = behind(&mut rows).await;
    let id = rows.rollout(shop, 3, "running", 33).await;
    run(
        &mut rows,
        "update rollout set error = 'no', attempts = 2 where number = 3",
    )
    .await;
    let place = format!("/rollouts/{id}");
    let (retry, cancel) = (format!("{place}/retry"), format!("{place}/cancel"));
    let (_, shown) = page(&api, "", &place).await;
    let fields = form(&shown, &retry);
    let mut ended = form(&shown, &cancel);
    assert_eq!(send(&api, "", &retry, &fields).await.0, 303);
    let acts = api.found("/v1/acts").await;
    assert_eq!(acts["items"][0]["act"], "retry");
    let (status, text) = send(&api, "", &cancel, &ended).await;
    assert_eq!(status, 400, "{text}");
    ended.push(("reason".to_owned(), "a mistake".to_owned()));
    // A newer rollout came: the retry would be one of that, and the page says so.
    let (_, shown) = page(&api, "", &place).await;
    let fields = form(&shown, &retry);
    rows.rollout(shop, 4, "pending", 50).await;
    assert_eq!(send(&api, "", &retry, &fields).await.0, 409);
    assert_eq!(send(&api, "", &cancel, &ended).await.0, 409);
    let (_, shown) = page(&api, "", &place).await;
    assert!(!shown.contains(&format!("\"{retry}\"")));
    let mut fields = form(&shown, &cancel);
    fields.push(("reason".to_owned(), "a mistake".to_owned()));
    assert_eq!(send(&api, "", &cancel, &fields).await.0, 303);
    let acts = api.found("/v1/acts").await;
    assert_eq!(acts["items"][0]["act"], "cancel");
    assert_eq!(acts["items"][0]["reason"], "a mistake");
    api.stop().await;
}

#[tokio::test]
async fn an_explanation_shows_what_the_api_says() {
    let (api, mut rows) = Api::start().await;
    behind(&mut rows).await;
    let (status, shown) = page(&api, "", "/triggers/shop/explain").await;
    assert_eq!(status, 200);
    let said = api.found("/v1/triggers/shop/explain").await;
    let selected = said["images"]["web"]["selected"]["digest"]
        .as_str()
        .unwrap();
    assert!(shown.contains(selected) && shown.contains("revision 3"));
    // The second revision was in force then.
    let (status, then) = page(&api, "", "/triggers/shop/explain?at=2026-03-03T14:00:25Z").await;
    assert_eq!(status, 200);
    assert!(then.contains(&digest(2).to_string()), "{then}");
    for (path, expected) in [
        ("/triggers/shop/explain?at=", 200),
        ("/triggers/shop/explain?at=3%20Mar%202026%2014:00:25", 303),
        ("/triggers/shop/explain?at=soon", 400),
        ("/triggers/nobody/explain", 404),
    ] {
        assert_eq!(page(&api, "", path).await.0, expected, "{path}");
    }
    api.stop().await;
}
