//! Rollouts.

use serde_json::{Value, json};

use crate::rows::{Rows, digest, images, on_time, text};
use crate::server::Api;

fn numbers(items: &[Value]) -> Vec<(String, i64)> {
    items
        .iter()
        .map(|item| {
            (
                item["trigger"].as_str().unwrap().to_owned(),
                item["number"].as_i64().unwrap(),
            )
        })
        .collect()
}

/// Writes 15 rollouts of shop and 10 of blog, five at each time.
async fn two_triggers(rows: &mut Rows) {
    let (shop, blog) = (
        rows.trigger("shop", true).await,
        rows.trigger("blog", false).await,
    );
    for number in 1..=15 {
        rows.rollout(shop, number, "succeeded", (number - 1) / 3)
            .await;
        if number <= 10 {
            rows.rollout(blog, number, "failed", (number - 1) / 2).await;
        }
    }
}

#[tokio::test]
async fn a_rollout_is_returned_with_all_fields() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let failed = rows.rollout(shop, 1, "failed", 10).await;
    let pending = rows.rollout(shop, 2, "pending", 20).await;
    let mut images = images(1);
    images["web"]["previous"] = Value::Null;
    let expected = json!({
        "id": failed, "trigger": "shop", "number": 1, "epoch": text(0), "state": "failed", "images": images,
        "cause": { "reason": "revision", "changed": ["web"] }, "attempts": 1, "created_at": text(10), "finished_at": text(11),
        "error": "the target said no", "attempt": null, "watch": null,
    });
    assert_eq!(api.found(&format!("/v1/rollouts/{failed}")).await, expected);
    let list = api.found("/v1/rollouts").await;
    assert_eq!(
        (&list["items"][1], &list["items"][0]["id"], &list["next"]),
        (&expected, &json!(pending), &Value::Null)
    );
    assert_eq!(list["items"][0]["finished_at"], Value::Null);
    for unknown in ["00000000-0000-0000-0000-000000000000", "1", "%00"] {
        assert_eq!(
            api.get(&format!("/v1/rollouts/{unknown}")).await.problem(),
            "404 rollout_unknown"
        );
    }
}

#[tokio::test]
async fn pages_of_all_rollouts_are_newest_first_without_gap_or_repeat() {
    let (api, mut rows) = Api::start().await;
    two_triggers(&mut rows).await;
    let pages = api.pages("/v1/rollouts", 10).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    let items = pages.concat();
    let times: Vec<&str> = items
        .iter()
        .map(|item| item["created_at"].as_str().unwrap())
        .collect();
    assert!(
        times.is_sorted_by(|newer, older| newer >= older),
        "{times:?}"
    );
    let mut seen = numbers(&items);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25);
}

#[tokio::test]
async fn pages_of_one_trigger_are_newest_first_without_gap_or_repeat() {
    let (api, mut rows) = Api::start().await;
    two_triggers(&mut rows).await;
    let pages = api.pages("/v1/rollouts?trigger=shop", 6).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6, 3]);
    assert_eq!(
        numbers(&pages.concat()),
        (1..=15)
            .rev()
            .map(|n| ("shop".to_owned(), n))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        api.pages("/v1/rollouts?trigger=blog", 100).await[0].len(),
        10,
        "a trigger that is gone keeps its rollouts"
    );
    for unknown in ["other", "", "%00"] {
        assert_eq!(
            api.get(&format!("/v1/rollouts?trigger={unknown}"))
                .await
                .problem(),
            "404 trigger_unknown"
        );
    }
    let cursor = api.found("/v1/rollouts?trigger=shop&limit=1").await["next"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        api.get(&format!("/v1/rollouts?cursor={cursor}"))
            .await
            .problem(),
        "400 cursor_invalid"
    );
}

#[tokio::test]
async fn rollouts_are_found_by_state_image_and_time() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let blog = rows.trigger("blog", true).await;
    rows.rollout(shop, 1, "succeeded", 10).await;
    rows.rollout(blog, 1, "failed", 20).await;
    rows.rollout(shop, 2, "failed", 30).await;
    // A repository whose name begins like the other, and one at a registry with a port.
    for (number, image) in [
        (3, "registry.example.com/shop/web2:latest"),
        (4, "r.example.com:5000/shop/web:v1"),
    ] {
        rows.rollout(shop, number, "pending", number * 10 + 10)
            .await;
        sqlx::query("update rollout set images = jsonb_set(images, '{web,image}', to_jsonb($1::text)) where number = $2")
            .bind(image)
            .bind(number)
            .execute(&mut rows.db)
            .await
            .unwrap();
    }
    let (at_30, before_30) = (format!("since={}", text(30)), format!("until={}", text(30)));
    for (query, expected) in [
        ("state=failed", vec![("shop", 2), ("blog", 1)]),
        ("state=failed&trigger=shop", vec![("shop", 2)]),
        ("state=superseded", vec![]),
        (&at_30, vec![("shop", 4), ("shop", 3), ("shop", 2)]),
        (&before_30, vec![("blog", 1), ("shop", 1)]),
        (&format!("{before_30}&trigger=shop"), vec![("shop", 1)]),
        (
            "image=registry.example.com/shop/web",
            vec![("shop", 2), ("blog", 1), ("shop", 1)],
        ),
        (
            "image=registry.example.com/shop/web:latest&trigger=blog",
            vec![("blog", 1)],
        ),
        ("image=registry.example.com/shop/web:v1", vec![]),
        ("image=r.example.com:5000/shop/web", vec![("shop", 4)]),
        ("image=r.example.com:5000/shop/web:v1", vec![("shop", 4)]),
    ] {
        let pages = api.pages(&format!("/v1/rollouts?{query}"), 2).await;
        let found = numbers(&pages.concat());
        let expected: Vec<(String, i64)> = expected
            .into_iter()
            .map(|(trigger, number)| (trigger.to_owned(), number))
            .collect();
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn an_image_of_a_rollout_names_who_pushed_it_and_the_image_that_ran_before() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let revisions = [1, 2, 3].map(|number| on_time(number, u8::try_from(number).unwrap(), number));
    rows.tag("registry.example.com/shop/web:latest", &revisions)
        .await;
    rows.rollout(shop, 1, "succeeded", 10).await;
    rows.rollout(shop, 2, "superseded", 20).await;
    let third = rows.rollout(shop, 3, "pending", 30).await;
    let before = json!({ "image": "registry.example.com/shop/web:latest", "revision": 1, "digest": digest(1) });
    let mut expected = images(3);
    expected["web"]["actor"] = "ci-bot".into();
    expected["web"]["previous"] = before;
    let one = api.found(&format!("/v1/rollouts/{third}")).await;
    assert_eq!(one["images"], expected, "the second never ran");
    for list in ["/v1/rollouts", "/v1/rollouts?trigger=shop"] {
        let list = api.found(list).await;
        assert_eq!(list["items"][0], one);
        let first = &list["items"][2]["images"]["web"];
        assert_eq!(
            (&first["actor"], &first["previous"]),
            (&json!("ci-bot"), &Value::Null)
        );
    }
}

#[tokio::test]
async fn the_attempts_of_a_rollout_are_listed_newest_first() {
    let (api, mut rows) = Api::start().await;
    let shop = rows.trigger("shop", true).await;
    let id = rows.rollout(shop, 1, "running", 10).await;
    let path = format!("/v1/rollouts/{id}/attempts");
    assert_eq!(api.found(&path).await["items"], json!([]));
    let long = "x".repeat(2000);
    sqlx::query(
        "insert into rollout_attempt (rollout_id, number, trigger_id, started_at, finished_at, outcome, status, error, said,
             instance, machine, pid, pid_started)
         values ($1::uuid, 1, $2, '2026-03-03 14:00Z', '2026-03-03 14:01Z', 'failed', 503, 'no', $3, 1, 'm', 1, 1),
                ($1::uuid, 2, $2, '2026-03-03 14:02Z', null, null, null, null, 'step one', 1, 'm', 1, 1)",
    )
    .bind(&id)
    .bind(shop)
    .bind(&long)
    .execute(&mut rows.db)
    .await
    .unwrap();
    let list = api.found(&path).await;
    let expected = json!([
        { "number": 2, "started_at": "2026-03-03T14:02:00.000000Z", "finished_at": null, "outcome": null, "status": null,
          "error": null, "next_at": null, "said": "step one" },
        { "number": 1, "started_at": "2026-03-03T14:00:00.000000Z", "finished_at": "2026-03-03T14:01:00.000000Z",
          "outcome": "failed", "status": 503, "error": "no", "next_at": null, "said": long },
    ]);
    assert_eq!(list["items"], expected);
    let page = api.found(&format!("{path}?limit=1")).await;
    let next = page["next"].as_str().unwrap();
    let rest = api.found(&format!("{path}?limit=1&cursor={next}")).await;
    assert_eq!(rest["items"][0]["number"], 1);
    // The rollout itself shows the last attempt, with the end of its output.
    let rollout = api.found(&format!("/v1/rollouts/{id}")).await;
    assert_eq!(rollout["attempt"]["said"], "step one");
    let unknown = "/v1/rollouts/0198c5b0-7a3e-7c51-9f6d-2f1f5d1c9a11/attempts";
    assert_eq!(api.get(unknown).await.problem(), "404 rollout_unknown");
}

#[tokio::test]
async fn rollouts_of_a_digest_are_newest_first_and_paged() {
    let (api, mut rows) = Api::start().await;
    let (shop, other) = (
        rows.trigger("shop", true).await,
        rows.trigger("other", true).await,
    );
    for (trigger, number, at) in [(shop, 1, 10), (shop, 2, 20), (other, 2, 30), (shop, 3, 40)] {
        rows.rollout(trigger, number, "succeeded", at).await;
    }
    let path = format!("/v1/digests/{}/rollouts", crate::rows::digest(2));
    let pages = api.pages(&path, 1).await;
    let found: Vec<(&str, u64)> = pages
        .iter()
        .flatten()
        .map(|one| {
            (
                one["trigger"].as_str().unwrap(),
                one["number"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, [("other", 2), ("shop", 2)]);
    // The answer is that of the list of all rollouts.
    let listed = api.found("/v1/rollouts?trigger=other").await;
    assert_eq!(pages[0][0], listed["items"][0]);
    let none = format!("/v1/digests/{}/rollouts", crate::rows::digest(9));
    assert_eq!(api.found(&none).await["items"].as_array().unwrap().len(), 0);
    let unknown = api.get("/v1/digests/abcdef/rollouts").await;
    assert_eq!(unknown.problem(), "404 digest_unknown");
    // A copy of the images, with the tag where it is known.
    let (images, tags): (i64, i64) =
        sqlx::query_as("select count(*), count(tag_id) from rollout_image")
            .fetch_one(&mut rows.db)
            .await
            .unwrap();
    assert_eq!((images, tags), (4, 0));
}
