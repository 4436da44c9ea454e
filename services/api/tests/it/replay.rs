//! Tests of triggers on recorded history.

use serde_json::{Value, json};

use crate::rows::{Revision, Rows, digest, on_time, text};
use crate::server::{Answer, Api};

const API: &str = "registry.example.com/shop/api";

/// Writes changes in the order of their recording: tag, second, content.
async fn write(rows: &mut Rows, changes: &[(&str, i64, u8)]) {
    let mut tags: std::collections::BTreeMap<&str, (i64, i64)> = std::collections::BTreeMap::new();
    for (tag, at, content) in changes {
        if !tags.contains_key(tag) {
            let id = rows.empty_tag(&format!("{API}:{tag}")).await;
            tags.insert(tag, (id, 0));
        }
        let (id, number) = tags.get_mut(tag).unwrap();
        *number += 1;
        rows.revision(*id, on_time(*number, *content, *at)).await;
    }
}

async fn test(api: &Api, spec: Value, from: i64, until: i64) -> Answer {
    let body = json!({ "spec": spec, "from": text(from), "until": text(until) });
    let request = api.request("POST", "/v1/triggers/test").json(&body);
    Answer::read(request.send().await.unwrap()).await
}

/// Returns time, kind and tag of each rollout.
fn rollouts(answer: &Answer) -> Vec<(String, String, String)> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one = |rollout: &Value| {
        let image = rollout["images"].as_object().unwrap().values().next();
        let image = text(&image.unwrap()["image"]);
        let tag = image.rsplit_once(':').unwrap().1.to_owned();
        (text(&rollout["at"]), text(&rollout["kind"]), tag)
    };
    answer.body["rollouts"]
        .as_array()
        .unwrap()
        .iter()
        .map(one)
        .collect()
}

fn rollout(at: i64, kind: &str, tag: &str) -> (String, String, String) {
    (text(at), kind.to_owned(), tag.to_owned())
}

#[tokio::test]
async fn a_policy_and_a_tag_are_tested_from_a_time_on() {
    let (api, mut rows) = Api::start().await;
    let changes = [
        ("1.4.0", 10, 1),
        ("latest", 12, 2),
        ("1.4.1", 100, 3),
        ("2.0.0", 110, 4),
        ("latest", 120, 5),
        ("1.4.1", 130, 6),
        ("1.5.0", 140, 7),
        ("1.5.0", 150, 0),
    ];
    write(&mut rows, &changes).await;
    let spec = json!({ "images": { "api": { "repository": API, "semver": "^1.4" } } });
    let tested = test(&api, spec.clone(), 50, 1000).await;
    assert_eq!(
        rollouts(&tested),
        [
            rollout(101, "semver", "1.4.1"),
            rollout(131, "re-push", "1.4.1"),
            rollout(141, "semver", "1.5.0"),
        ]
    );
    let body = &tested.body;
    assert_eq!(
        body["summary"],
        "3 rollouts (2 semver moves, 1 re-push); 0 downgrades (1 prevented)"
    );
    assert_eq!(body["before"]["api"]["image"], format!("{API}:1.4.0"));
    assert_eq!(body["after"]["api"]["digest"], digest(7).to_string());
    assert_eq!(
        (&body["stopped"], &body["changes"]),
        (&Value::Null, &json!(6))
    );
    // A shorter test begins with the images of its time.
    let tested = test(&api, spec, 120, 140).await;
    assert_eq!(rollouts(&tested), [rollout(131, "re-push", "1.4.1")]);

    let spec = json!({ "images": { "web": format!("{API}:latest") }, "settle": "30s" });
    let tested = test(&api, spec, 0, 1000).await;
    let expected = [
        rollout(43, "start", "latest"),
        rollout(151, "re-push", "latest"),
    ];
    assert_eq!(rollouts(&tested), expected);
    assert_eq!(tested.body["held_seconds"], json!({ "settle": 60.0 }));
}

#[tokio::test]
async fn late_revisions_and_manifests_count_as_for_the_planner() {
    let (api, mut rows) = Api::start().await;
    let tag = rows.empty_tag(&format!("{API}:latest")).await;
    rows.revision(tag, on_time(1, 1, 10)).await;
    rows.revision(tag, on_time(2, 3, 30)).await;
    let late = Revision {
        number: 3,
        content: 2,
        at: 20,
        recorded: 40,
        previous: Some(1),
        head: 2,
    };
    rows.revision(tag, late).await;
    rows.manifest(3).await;
    let spec = json!({ "images": { "web": format!("{API}:latest") } });
    let tested = test(&api, spec, 15, 1000).await;
    assert_eq!(rollouts(&tested), [rollout(31, "re-push", "latest")]);
    for (platform, expected) in [("linux/amd64", 1), ("linux/riscv64", 0)] {
        let policy = json!({ "repository": API, "newest": "pushed", "platforms": [platform] });
        let tested = test(&api, json!({ "images": { "web": policy } }), 0, 1000).await;
        assert_eq!(rollouts(&tested).len(), expected, "{platform}");
    }
}

#[tokio::test]
async fn much_history_of_other_repositories_is_passed_in_parts() {
    let (api, mut rows) = Api::start().await;
    let busy = rows.empty_tag(&format!("{API}:busy")).await;
    rows.burst(busy, 11_000).await;
    let other = rows
        .empty_tag("registry.example.com/shop/other:latest")
        .await;
    rows.burst(other, 12_000).await;
    let tag = rows.empty_tag(&format!("{API}:latest")).await;
    rows.revision(tag, on_time(1, 1, 20_000)).await;
    let spec =
        json!({ "images": { "web": format!("{API}:latest"), "busy": format!("{API}:busy") } });
    let tested = test(&api, spec, 0, 40_000).await;
    assert_eq!(tested.body["count"], 1, "{:?}", tested.body["summary"]);
    assert_eq!(tested.body["changes"], 11_001);
    let spec = json!({ "images": { "busy": format!("{API}:busy") } });
    let tested = test(&api, spec, 0, 40_000).await;
    assert_eq!(
        (&tested.body["count"], &tested.body["left_out"]),
        (&json!(11_000), &json!(10_000))
    );
}

#[tokio::test]
async fn gates_of_recorded_rollouts_open_as_they_would_have() {
    let (api, mut rows) = Api::start().await;
    let changes = [("latest", 5, 1), ("latest", 100, 2), ("latest", 130, 3)];
    write(&mut rows, &changes).await;
    let spec = |more: Value| {
        let mut spec = json!({ "images": { "web": format!("{API}:latest") }, "settle": "0s" });
        let more = more.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(more);
        spec
    };
    let gap = test(&api, spec(json!({ "gap": "1m" })), 10, 1000).await;
    assert_eq!(
        rollouts(&gap),
        [
            rollout(101, "re-push", "latest"),
            rollout(161, "re-push", "latest")
        ]
    );
    assert_eq!(gap.body["rollouts"][1]["held_seconds"]["gap"], 30.0);
    let approvals = json!({ "approvals": { "needs": 2, "within": "1h" } });
    let asked = test(&api, spec(approvals), 10, 1000).await;
    assert_eq!((asked.status, &asked.body["approvals"]), (200, &json!(2)));
    assert_eq!(asked.body["rollouts"][0]["approval_at"], text(101));
    let never = json!({ "window": { "closed": ["mon-sun"], "zone": "Europe/Berlin" } });
    let held = test(&api, spec(never), 10, 1000).await;
    assert_eq!(
        (&held.body["count"], &held.body["gave_way"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(held.body["waits"]["gates"][0]["gate"], "window");
    let unknown = json!({ "window": { "open": ["mon-fri"], "zone": "Mars/Base" } });
    let refused = test(&api, spec(unknown), 10, 1000).await;
    assert_eq!(refused.problem(), "400 spec_invalid");

    // Another trigger of the group was rolled out from second 90 on.
    let blog = rows.trigger("blog", true).await;
    let id = rows.rollout(blog, 1, "succeeded", 90).await;
    rows.changes_of_group(
        blog,
        &id,
        "db",
        &[("pending", 90), ("running", 91), ("succeeded", 120)],
    )
    .await;
    let grouped = test(&api, spec(json!({ "group": "db" })), 10, 1000).await;
    assert_eq!(rollouts(&grouped).len(), 2);
    let waited = grouped.body["rollouts"][0]["held_seconds"]["group"].as_f64();
    assert!(
        waited.is_some_and(|seconds| (19.0..26.0).contains(&seconds)),
        "{grouped:?}"
    );
    let own = spec(json!({ "group": "db", "name": "blog" }));
    let own = test(&api, own, 10, 1000).await;
    assert_eq!(rollouts(&own)[0], rollout(101, "re-push", "latest"));
}

#[tokio::test]
async fn mistakes_in_a_test_are_named_and_a_trigger_may_have_its_name() {
    let (api, mut rows) = Api::start().await;
    let images = |policy: Value| json!({ "images": { "api": policy } });
    for (spec, problem) in [
        (json!({}), "400 spec_invalid"),
        (images(json!("no image")), "400 spec_invalid"),
        (
            images(json!({ "repository": API, "semver": "newest" })),
            "400 spec_invalid",
        ),
        (
            images(json!({ "repository": API, "semver": null })),
            "400 body_invalid",
        ),
        (json!({ "images": {}, "unknown": 1 }), "400 spec_invalid"),
    ] {
        let answer = test(&api, spec.clone(), 0, 10).await;
        assert_eq!(answer.problem(), problem, "{spec}");
    }
    let spec = images(json!(format!("{API}:latest")));
    assert_eq!(
        test(&api, spec.clone(), 10, 0).await.problem(),
        "400 parameter_conflict"
    );
    let body = json!({ "spec": spec, "from": "yesterday" });
    let request = api.request("POST", "/v1/triggers/test").json(&body);
    let answer = Answer::read(request.send().await.unwrap()).await;
    assert_eq!(answer.problem(), "400 time_invalid");
    let deep = format!("{{\"spec\":{}{}", "[".repeat(60_000), "]");
    let request = api.request("POST", "/v1/triggers/test");
    let request = request
        .header("content-type", "application/json")
        .body(deep);
    let answer = Answer::read(request.send().await.unwrap()).await;
    assert_eq!(answer.problem(), "400 body_invalid");

    rows.trigger("test", true).await;
    assert_eq!(api.found("/v1/triggers/test").await["name"], "test");
    let request = api.request("POST", "/v1/triggers/shop").json(&body);
    let answer = Answer::read(request.send().await.unwrap()).await;
    assert_eq!(answer.problem(), "405 method_not_allowed");
}
