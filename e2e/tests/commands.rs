//! The client and the operator's commands as people meet them: on a fresh installation, with a
//! wrong address, and after advice of their own errors.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::process::Command;

use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tagtrail_e2e::{Cli, HOOK_SECRET, SECRETS, Up, config, free_address, shared_folder, use_ring};
use tagtrail_testkit::{SOON, binary, eventually};
use tokio::task::JoinSet;

const WEB: &str = "registry.example.com/shop/web";

/// Servers that are not the API, with their addresses.
async fn other_servers() -> (JoinSet<std::io::Result<()>>, Vec<String>) {
    let empty = Router::new().fallback(get(async || Json(json!({}))));
    let page = Router::new().fallback(get(async || Html("<html>")));
    let missing = Router::new();
    let (mut servers, mut addresses) = (JoinSet::new(), Vec::new());
    for router in [empty, page, missing] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(format!("http://{}", listener.local_addr().unwrap()));
        servers.spawn(async move { axum::serve(listener, router).await });
    }
    (servers, addresses)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_answer_as_people_expect() {
    use_ring();
    let folder = shared_folder();
    let target = format!("http://{}/hidden", free_address());
    let file = config(folder.path(), "registry.example.com", &target);
    let up = Up::start(&folder.path().join("data"), &file).await;
    let cli = up.cli();
    quarantine_of_a_fresh_installation(&up);
    times(&up).await;
    names(&up);
    reports(&up);

    // 3 would mean that the API has no such thing.
    let (_servers, mut wrong) = other_servers().await;
    wrong.extend([
        up.address("gateway").to_owned(),
        format!("http://{}", free_address()),
    ]);
    for api in wrong {
        let cli = Cli { api: api.clone() };
        for command in [
            &["resolve", WEB][..],
            &["history", WEB],
            &["watch"],
            &["pause", "shop"],
            &["coverage"],
        ] {
            let output = cli.run(command);
            assert_eq!(output.code, 1, "{api} {command:?}: {output:?}");
            assert!(
                output.err.contains("TAGTRAIL_API"),
                "{api} {command:?}: {output:?}"
            );
        }
    }
    for (command, cure) in [
        (&["pause", "nope"][..], "triggers"),
        (&["rollouts", "nope"], "triggers"),
    ] {
        let output = cli.run(command);
        assert_eq!(output.code, 3, "{command:?}: {output:?}");
        assert!(
            output.err.contains(&format!("`tagtrail {cure}`")),
            "{output:?}"
        );
        assert_eq!(cli.run(&[cure]).code, 0, "{cure}");
    }

    // Nobody listens at the target of the trigger.
    let done = Command::new(binary())
        .args(["doctor", "--config", file.to_str().unwrap()])
        .envs(SECRETS)
        .env("COLUMNS", "1000")
        .env("TAGTRAIL_GATEWAY", up.address("gateway"))
        .env("TAGTRAIL_API", up.address("api"))
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    let line = text.lines().find(|line| line.contains("trigger shop"));
    let line = line.unwrap();
    assert!(
        line.contains("error") && line.contains("no answer from"),
        "{line}"
    );
    assert!(!text.contains("hidden"), "{text}");
}

fn reports(up: &Up) {
    let cli = up.cli();
    for name in [
        "deployments",
        "lead-time",
        "rollout-time",
        "releases-moved",
        "coverage",
        "churn",
        "running",
    ] {
        let march = ["--from", "2026-03-01", "--to", "2026-03-31", "--utc"];
        let output = cli.run(&[&["report", name][..], &march].concat());
        let said = "\n2026-03-01 00:00:00Z to 2026-04-01 00:00:00Z\n";
        assert!(output.code == 0 && output.out.contains(said), "{output:?}");
        let output = cli.run(&["report", name, "--sql"]);
        assert!(output.out.contains("report."), "{output:?}");
        assert_eq!(cli.json(&["report", name])["name"], name);
    }
    let output = cli.run(&["report", "nothing"]);
    assert!(
        output.code == 3 && output.err.contains("deployments"),
        "{output:?}"
    );
}

fn quarantine_of_a_fresh_installation(up: &Up) {
    let nats = ["--nats-url", up.address("nats")];
    let cli = up.cli();
    let output = cli.run(&[&["quarantine"][..], &nats].concat());
    assert_eq!(
        (output.code, output.out.as_str()),
        (0, "nothing in quarantine\n"),
        "{output:?}"
    );
    let list = cli.json(&[&["quarantine"][..], &nats].concat());
    assert_eq!(list, json!({ "items": [] }));
    for number in ["0", "1"] {
        let arguments = [&["quarantine"][..], &nats, &["show", number]].concat();
        let output = cli.run(&arguments);
        assert_eq!(output.code, 3, "{output:?}");
        assert!(
            output.err.contains(&format!("no entry {number}")),
            "{output:?}"
        );
    }
}

/// Names and digests that a command prints are taken by the other commands, and a name like a known
/// name is answered with the known name.
fn names(up: &Up) {
    let cli = up.cli();
    let images = cli.run(&["images", "shop/"]);
    assert!(images.out.contains(WEB), "{images:?}");
    let tags = cli.run(&["tags", WEB]).out;
    let short = "1".repeat(12);
    assert!(tags.contains(&format!("  {short}  ")), "{tags}");
    for digest in [short.as_str(), &short[..6], WEB] {
        let holders = cli.json(&["digest", digest]);
        let image = format!("{WEB}:latest");
        assert_eq!(holders["items"][0]["image"], json!(image), "{holders}");
    }
    for (command, code, meant) in [
        (["history", "shop/web"], 2, WEB),
        (["resolve", "registry.example.com/shop/wbe"], 3, WEB),
        (
            ["history", "registry.example.com/shop/web:latset"],
            3,
            "web:latest",
        ),
        (["tags", "registry.exmaple.com/shop/web"], 3, WEB),
        (["pause", "shpo"], 3, "shop"),
        (["rollouts", "shoop"], 3, "shop"),
    ] {
        let output = cli.run(&command);
        let asked = output.err.contains("did you mean ") && output.err.contains(meant);
        assert!(output.code == code && asked, "{command:?}: {output:?}");
    }
    let none = cli.run(&["images", "nothing/"]);
    assert_eq!(none.code, 3, "{none:?}");
}

/// A time may be written as each error text advises.
async fn times(up: &Up) {
    let push = json!({ "repository": "shop/web", "tag": "latest", "digest": format!("sha256:{}", "1".repeat(64)), "id": "1", "time": "2026-03-03T12:00:00Z" });
    let posted = reqwest::Client::new()
        .post(format!("{}/hooks/ci", up.address("gateway")))
        .bearer_auth(HOOK_SECRET)
        .json(&push)
        .send()
        .await
        .unwrap();
    assert_eq!(posted.status(), 202);
    let cli = up.cli();
    let at = |time: &str| cli.run(&["resolve", WEB, "--at", time]);
    eventually("the push", SOON, async || {
        (cli.run(&["resolve", WEB]).code == 0).then_some(())
    })
    .await;
    for (time, code) in [
        ("2026-03-03T13:00:00+01:00", 0),
        ("2026-03-03T13:00:00%2B01:00", 0),
        ("2026-03-03T12:59:59+01:00", 3),
        ("2026-03-04", 0),
        ("2026-03-03", 3),
        ("2026-03-03T14:02:00", 0),
        ("2026-03-03 11:59", 3),
        ("2h", 0),
        ("yesterday", 0),
        ("noon", 2),
    ] {
        let output = at(time);
        assert_eq!(output.code, code, "{time}: {output:?}");
        assert!(!output.err.contains("%2B"), "{time}: {output:?}");
    }
    let swapped = cli.run(&["history", WEB, "--since", "1h", "--until", "2h"]);
    assert!(
        swapped.code == 2 && swapped.err.contains("is later than until"),
        "{swapped:?}"
    );
    // The API's own advice is for addresses.
    let ask = async |time: &str| {
        let url = format!("{}/v1/resolve?image={WEB}&at={time}", up.address("api"));
        reqwest::get(url).await.unwrap()
    };
    let refused = ask("2026-03-03T15:02:00+01:00").await;
    assert_eq!(refused.status(), 400);
    let text = refused.text().await.unwrap();
    for word in text
        .split([' ', '"', ','])
        .filter(|word| word.starts_with("2026-"))
    {
        assert_eq!(ask(word).await.status(), 200, "{word}");
    }
}
