//! Every reason for which a trigger does not roll out, by the API, the commands and doctor.

use std::process::Command;

use serde_json::Value;
use tagtrail_proto::ReasonCode;
use tagtrail_testkit::{binary, stand};

use crate::server::Api;

/// Runs a command of the client. Returns the text, without line ends.
fn client(api: &Api, arguments: &[&str]) -> String {
    let done = Command::new(binary())
        .args(arguments)
        .env("TAGTRAIL_API", api.url())
        .output()
        .unwrap();
    let (out, err) = (
        done.stdout,
        String::from_utf8_lossy(&done.stderr).into_owned(),
    );
    let text = String::from_utf8(out).unwrap();
    assert!(!text.is_empty(), "{arguments:?}: {err}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_is_shown_by_the_api_the_commands_and_doctor() {
    let (api, mut rows) = Api::start().await;
    let (mut standing, mut file) = (Vec::new(), String::new());
    for code in ReasonCode::ALL {
        let (name, seen) = stand(&mut rows.db, *code).await;
        file += &format!(
            "[[trigger]]\nname = \"{name}\"\nimages.web = \"registry.example.com/blog/web:latest\"\ntarget.command = {{ run = [\"true\"] }}\n"
        );
        standing.push((*code, name, seen));
    }
    let list = api.found("/v1/triggers").await;
    let items = list["items"].as_array().unwrap();
    for (code, name, seen) in &standing {
        let one = api.found(&format!("/v1/triggers/{name}")).await;
        let listed = items.iter().find(|item| item["name"] == **name).unwrap();
        for trigger in [&one, listed] {
            let reasons = trigger["reasons"].as_array().unwrap();
            let of_code: Vec<&Value> = reasons
                .iter()
                .filter(|reason| reason["code"] == code.as_str())
                .collect();
            assert_eq!(of_code.len(), 1, "{name}: {trigger}");
            let why = of_code[0]["why"].as_str().unwrap();
            assert!(why.contains(seen), "{name}: {why}");
        }
        let status = client(&api, &["status", name]);
        assert!(status.contains(seen), "{name}: {status}");
        let explained = client(&api, &["explain", name]);
        assert!(
            explained.contains("registry.example.com/shop/web"),
            "{explained}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    std::fs::write(&path, file).unwrap();
    let path = path.to_str().unwrap();
    let found = client(
        &api,
        &[
            "doctor",
            "--config",
            path,
            "--api",
            api.url(),
            "--output",
            "json",
        ],
    );
    let report: Value = serde_json::from_str(&found).unwrap();
    let checks = report["checks"].as_array().unwrap();
    for (code, name, seen) in &standing {
        let of_code = |check: &&Value| check["name"] == **name && check["check"] == code.as_str();
        let found: Vec<&Value> = checks.iter().filter(of_code).collect();
        assert_eq!(found.len(), 1, "{name}: {report}");
        assert!(
            found[0]["found"].as_str().unwrap().contains(seen),
            "{found:?}"
        );
    }
}
