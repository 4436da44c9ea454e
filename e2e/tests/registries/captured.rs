//! Bodies that real registries sent while real clients worked, in captured order and in others:
//! history has the same digests at all times.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use tagtrail_e2e::{HOOK_SECRET, Up, shared_folder, use_ring};
use tagtrail_testkit::{SOON, eventually};

/// The requests during one command, and the events that count.
struct Captured {
    name: String,
    kind: String,
    requests: Vec<Value>,
    events: Vec<Value>,
}

/// The captured commands whose events name digests or times. Gitea's events need its answers.
fn all() -> Vec<Captured> {
    let folder: PathBuf = [
        env!("CARGO_MANIFEST_DIR"),
        "../services/gateway/tests/fixtures/captured",
    ]
    .iter()
    .collect();
    let files = std::fs::read_dir(folder).unwrap().map(|file| {
        let path = file.unwrap().path();
        let text = std::fs::read(&path).unwrap();
        let captured: Value = serde_json::from_slice(&text).unwrap();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Captured {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            kind: text(&captured["source"]["kind"]),
            requests: list(&captured["requests"]),
            events: list(&captured["expected"]["events"]),
        }
    });
    files.filter(|captured| captured.kind != "gitea").collect()
}

/// The events of a tag, by its image.
fn images(captured: &Captured) -> BTreeSet<String> {
    let tagged = captured.events.iter().filter_map(|event| {
        let (repository, tag) = (event["repository"].as_str()?, event["tag"].as_str()?);
        Some(format!("{repository}:{tag}"))
    });
    tagged.collect()
}

/// The digest of the image at this time by the events alone, in the order of their times.
fn expected(captured: &Captured, image: &str, at: &str) -> Option<String> {
    let (repository, tag) = image.split_once(':').unwrap();
    // Times of one file have the same date. Zeros at the end of a fraction are left out.
    let key = |time: &str| time.trim_end_matches('Z').to_owned();
    let mut events: Vec<&Value> = captured.events.iter().collect();
    events.sort_by_key(|event| key(event["occurred_at"].as_str().unwrap()));
    let mut head: Option<String> = None;
    for event in events {
        if key(event["occurred_at"].as_str().unwrap()) > key(at)
            || event["repository"] != repository
        {
            continue;
        }
        let digest = event["digest"].as_str().map(str::to_owned);
        match (event["action"].as_str(), event["scope"].as_str()) {
            (Some("push"), _) if event["tag"] == tag => head = digest,
            (Some("delete"), Some("digest")) if head == digest => head = None,
            (Some("delete"), Some("tag"))
                if event["tag"] == tag && (digest.is_none() || head == digest) =>
            {
                head = None;
            }
            _ => {}
        }
    }
    head
}

/// The orders in which the requests are sent.
fn orders(count: usize) -> [Vec<usize>; 3] {
    let forward: Vec<usize> = (0..count).collect();
    let backward: Vec<usize> = forward.iter().rev().copied().collect();
    let mut odd_first = forward.clone();
    odd_first.sort_by_key(|place| (place % 2 == 0, *place));
    [forward, backward, odd_first]
}

#[tokio::test(flavor = "multi_thread")]
async fn captured_requests_give_the_same_history_in_any_order() {
    use_ring();
    let folder = shared_folder();
    let all = all();
    assert!(all.len() >= 23, "{}", all.len());
    let host = |place: usize, order: usize| format!("c{place}-{order}.example.com");
    let mut text = String::new();
    for (place, captured) in all.iter().enumerate() {
        for order in 0..3 {
            text += &format!(
                "[[source]]\nname = \"c{place}-{order}\"\nkind = \"{}\"\nregistry = \"{}\"\nsecret = {{ env = \"MAIN_HOOK_SECRET\" }}\n\n",
                captured.kind,
                host(place, order)
            );
        }
    }
    let file = folder.path().join("tagtrail.toml");
    std::fs::write(&file, text).unwrap();
    let up = Up::start(&folder.path().join("data"), &file).await;
    let client = reqwest::Client::new();
    for (place, captured) in all.iter().enumerate() {
        for (number, order) in orders(captured.requests.len()).into_iter().enumerate() {
            let url = format!("{}/hooks/c{place}-{number}", up.address("gateway"));
            for request in order.into_iter().map(|at| &captured.requests[at]) {
                let mut post = client.post(&url).bearer_auth(HOOK_SECRET);
                for (name, value) in request["headers"].as_object().unwrap() {
                    if name != "Accept-Encoding" {
                        post = post.header(name, value.as_str().unwrap());
                    }
                }
                let body = request["body"].as_str().unwrap().to_owned();
                let answer = post.body(body).send().await.unwrap();
                assert!(
                    answer.status().is_success(),
                    "{}: {answer:?}",
                    captured.name
                );
            }
        }
    }
    // The second time, all requests are recorded: also those that change nothing.
    for _ in 0..2 {
        for (place, captured) in all.iter().enumerate() {
            for order in 0..3 {
                check(&up, captured, &host(place, order), order).await;
            }
        }
    }
}

/// Waits until history has the expected digest of each image at the time of each event.
async fn check(up: &Up, captured: &Captured, host: &str, order: usize) {
    let times = captured
        .events
        .iter()
        .map(|event| event["occurred_at"].as_str().unwrap());
    let times: Vec<&str> = times.collect();
    for image in images(captured) {
        for at in &times {
            let expected = expected(captured, &image, at);
            let api = up.address("api");
            let url = format!("{api}/v1/resolve?image={host}/{image}&at={at}");
            let name = &captured.name;
            let goal = format!("{name}, order {order}: {image} at {at}: {expected:?}");
            eventually(&goal, SOON, async || {
                let found: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
                let digest = found["digest"].as_str().map(str::to_owned);
                (digest == expected).then_some(())
            })
            .await;
        }
    }
}
