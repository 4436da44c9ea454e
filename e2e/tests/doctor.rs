//! `tagtrail doctor`, with a real registry, gateway and passwords.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tagtrail_e2e::{Up, shared_folder, use_ring};
use tagtrail_testkit::{Registry, SOON, TestImage, eventually};

/// Runs the doctor. Returns exit code and output, which must not contain a secret.
fn doctor(up: &Up, file: &Path, arguments: &[&str]) -> (i32, String, String) {
    let done = Command::new(tagtrail_testkit::binary())
        .arg("doctor")
        .args(arguments)
        .envs(tagtrail_e2e::SECRETS)
        .env("TAGTRAIL_CONFIG", file)
        .env("COLUMNS", "1000")
        .env("TAGTRAIL_GATEWAY", up.address("gateway"))
        .env("TAGTRAIL_API", up.address("api"))
        .env(
            "TAGTRAIL_ADMIN",
            up.address("admin").trim_start_matches("http://"),
        )
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(done.stdout), text(done.stderr));
    let all = format!("{out}{err}");
    for secret in [tagtrail_e2e::HOOK_SECRET, Registry::PASSWORD, "not-the-"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    (done.status.code().unwrap(), out, err)
}

/// The fields `result` and `found` of a check in the JSON output.
fn found(json: &str, of: &str, check: &str) -> (String, String) {
    let json: Value = serde_json::from_str(json).unwrap();
    let checks = json["checks"].as_array().unwrap();
    let check = checks
        .iter()
        .find(|item| item["of"] == of && item["check"] == check)
        .unwrap_or_else(|| panic!("no {check} of {of} in {json:#}"));
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    (text("result"), text("found"))
}

/// Writes a file with a registry, and the source `main` of kind `quay`, whose events lack digests.
fn write(folder: &Path, name: &str, registry: &Registry, password: &str) -> PathBuf {
    let kept = folder.join(format!("{name}-password"));
    std::fs::write(&kept, password).unwrap();
    let path = folder.join(name);
    let (host, user) = (registry.host(), Registry::USER);
    let text = format!(
        r#"
[[source]]
name = "main"
kind = "quay"
registry = "{host}"
secret = {{ env = "MAIN_HOOK_SECRET" }}

[[registry]]
name = "{host}"
url = "http://{host}"
username = "{user}"
password = {{ file = {kept:?} }}
"#
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_reports_each_check_and_the_cure_of_each_error() {
    use_ring();
    let folder = shared_folder();
    let registry = Registry::with_password().await;
    let file = write(folder.path(), "right.toml", &registry, Registry::PASSWORD);
    let up = Up::start(&folder.path().join("data"), &file).await;

    let (code, out, err) = doctor(&up, &file, &["--output", "json"]);
    assert_eq!(code, 0, "{out}{err}");
    for (of, check, word) in [
        ("source", "gateway", "accepts $MAIN_HOOK_SECRET"),
        ("source", "digests", "is asked for them"),
        ("registry", "answer", "answers"),
        ("registry", "credentials", "accepts those of ci (Basic)"),
        ("registry", "clock", "agrees"),
    ] {
        let (result, found) = found(&out, of, check);
        assert_eq!(result, "ok", "{check}: {found}");
        assert!(found.contains(word), "{check}: {found}");
    }
    // No event was received yet, so the settings for Quay are printed.
    let (result, cause) = found(&out, "source", "events");
    assert_eq!(result, "warning");
    assert!(cause.starts_with("no event received since "), "{cause}");
    let (code, out, err) = doctor(&up, &file, &[]);
    assert_eq!(code, 0, "{out}{err}");
    let line = format!(
        "Webhook URL              {}/hooks/main/$MAIN_HOOK_SECRET",
        up.address("gateway")
    );
    assert!(out.contains(&line), "{out}");

    // An event without a digest counts as received once the registry returned the digest.
    let _ = registry.push(&TestImage::new("one"), "shop/web:latest");
    let host = registry.host();
    let pushed = json!({ "repository": "shop/web", "docker_url": format!("{host}/shop/web"), "updated_tags": ["latest"] });
    let posted = reqwest::Client::new()
        .post(format!("{}/hooks/main", up.address("gateway")))
        .bearer_auth(tagtrail_e2e::HOOK_SECRET)
        .json(&pushed)
        .send()
        .await
        .unwrap();
    assert_eq!(posted.status(), 202);
    eventually("the push", SOON, async || {
        let (_, out, _) = doctor(&up, &file, &["--output", "json"]);
        let (result, text) = found(&out, "source", "events");
        (result == "ok" && text.starts_with("last event received ")).then_some(())
    })
    .await;
    let (_, out, _) = doctor(&up, &file, &[]);
    assert!(!out.contains("Settings for"), "{out}");

    // A wrong password.
    let wrong = write(folder.path(), "wrong.toml", &registry, "not-the-password");
    let (code, out, err) = doctor(&up, &wrong, &["--output", "json"]);
    assert_eq!(code, 1, "{out}");
    assert!(err.contains("1 of "), "{err}");
    let (result, cause) = found(&out, "registry", "credentials");
    assert_eq!(result, "error");
    assert!(cause.contains("401"), "{cause}");
    assert!(out.contains("correct username and password of [[registry]]"));
    assert_eq!(found(&out, "registry", "answer").0, "ok");
    assert_eq!(found(&out, "source", "gateway").0, "ok");

    // The registry sends another secret. Trials of the doctor itself are not counted.
    let (_, out, _) = doctor(&up, &file, &["--output", "json"]);
    assert_eq!(found(&out, "gateway", "refused").0, "ok");
    let url = format!("{}/hooks/main", up.address("gateway"));
    let client = reqwest::Client::new();
    let post = async |url: &str| {
        let request = client.post(url).bearer_auth("not-the-secret");
        request.send().await.unwrap().status()
    };
    assert_eq!(post(&url).await, 401);
    assert_eq!(
        post(&format!("{}/hooks/mian", up.address("gateway"))).await,
        404
    );
    let (code, out, _) = doctor(&up, &file, &["--output", "json"]);
    assert_eq!(code, 0, "{out}");
    for (of, text) in [("source", "wrong (401)"), ("gateway", "path (404)")] {
        let (result, cause) = found(&out, of, "refused");
        let one = cause.starts_with("1 request was refused") && cause.contains(text);
        assert!(result == "warning" && one, "{cause}");
    }

    // A source that the running gateway does not have, and a secret that the gateway refuses.
    let text = std::fs::read_to_string(&file).unwrap();
    let unknown = folder.path().join("unknown.toml");
    std::fs::write(&unknown, text.replace("\"main\"", "\"new\"")).unwrap();
    let (code, out, _) = doctor(&up, &unknown, &["--output", "json"]);
    assert_eq!(code, 1);
    let (result, cause) = found(&out, "source", "gateway");
    assert_eq!(result, "error");
    assert!(
        cause.contains("has no such source") && cause.contains("/hooks/new"),
        "{cause}"
    );
    let kept = folder.path().join("secret");
    std::fs::write(&kept, "not-the-secret").unwrap();
    let secret = format!("{{ file = {kept:?} }}");
    let other = folder.path().join("other.toml");
    std::fs::write(
        &other,
        text.replace("{ env = \"MAIN_HOOK_SECRET\" }", &secret),
    )
    .unwrap();
    let (code, out, _) = doctor(&up, &other, &["--output", "json"]);
    assert_eq!(code, 1);
    let (result, cause) = found(&out, "source", "gateway");
    assert_eq!(result, "error");
    assert!(cause.contains("refuses <the content of "), "{cause}");
}
