//! Settings: mistakes, warnings, and the page about them.

use super::*;
use crate::target::{Verifies, targets, warnings};

#[test]
fn a_wrong_setting_is_named_with_its_key_and_cure() {
    let folder = Folder::new();
    folder.write("line", "a\u{7f}b");
    folder.write("address", "deploy.example.com/secret");
    let url = "url = 'https://receiver.example.com'\n";
    for (settings, expected) in [
        ("secret = { file = 'old' }", "missing field `url`"),
        (
            "url = 7",
            "url: write a text, or { env = \"VARIABLE\" } or { file = \"path\" }, with prefix = \"…\" if a text precedes the secret",
        ),
        (
            "url = { file = 'address' }",
            "url must start with https:// (or http://)",
        ),
        (
            "url = { env = 'TAGTRAIL_SURELY_NOT_SET' }",
            "url: the environment variable TAGTRAIL_SURELY_NOT_SET is not set; set it, or name another one",
        ),
        (
            &format!("{url}method = 'GET'"),
            "method: unknown variant `GET`, expected one of `POST`, `PUT`, `PATCH`",
        ),
        (
            &format!("{url}timeout_seconds = 0"),
            "timeout_seconds must be 1 to 600",
        ),
        (
            &format!("{url}timeout_seconds = 601"),
            "timeout_seconds must be 1 to 600",
        ),
        (
            &format!("{url}content_type = 'json'"),
            "content_type: \"json\" is no media type; write one such as \"application/json\"",
        ),
        (
            &format!("{url}headers.Content-Type = 'x'"),
            "headers.Content-Type: is set by content_type",
        ),
        (
            &format!("{url}headers.Webhook-Signature = 'x'"),
            "headers.Webhook-Signature: is set by Tagtrail or by the connection; remove it",
        ),
        (
            &format!("{url}headers.Transfer-Encoding = 'x'"),
            "headers.Transfer-Encoding: is set by Tagtrail or by the connection; remove it",
        ),
        (
            &format!("{url}headers.'X Token' = 'x'"),
            "headers.X Token: is no name of a header; write one such as X-Token",
        ),
        (
            &format!("{url}headers.X-A = \"a\\r\\nX-B: b\""),
            "headers.X-A: the value may have printable ASCII characters only, 8 KiB at most",
        ),
        (
            &format!("{url}headers.X-A = {{ file = 'line' }}"),
            "headers.X-A: the value may have printable ASCII characters only, 8 KiB at most",
        ),
        (
            &format!("{url}headers.X-A = 'a'\nheaders.x-a = 'b'"),
            "headers.x-a: the header is set twice; keep one",
        ),
        (
            &format!("{url}headers.X-A = {{ file = 'a', env = 'b' }}"),
            "headers.X-A: a secret is either { env = \"VARIABLE\" } or { file = \"path\" }",
        ),
        (
            &format!("{url}secret = []"),
            "secret: a list of secrets holds one or two, the old and the new",
        ),
        (
            &format!("{url}secret = {{ file = 'token' }}"),
            "the secret must be whsec_ and 24 to 64 bytes in Base64; make one with: echo \"whsec_$(head -c 32 /dev/urandom | base64)\"",
        ),
        (
            &format!("{url}verb = 'PUT'"),
            "unknown field `verb`, expected one of `url`, `secret`, `headers`, `method`, `content_type`, `body`, `ca`, `proxy`, `timeout_seconds`, `done`",
        ),
    ] {
        assert_eq!(folder.refused(settings), expected);
    }
}

#[test]
fn a_receiver_without_any_secret_is_warned_about() {
    let folder = Folder::new();
    folder.write("url", "https://receiver.example.com/T0");
    let plain = "url = 'https://receiver.example.com/T0'\n";
    for (settings, warned) in [
        (plain, true),
        (&format!("{plain}headers.X-Stage = 'prod'"), true),
        (
            &format!("{plain}headers.X-Token = {{ file = 'token' }}"),
            false,
        ),
        (&format!("{plain}secret = {{ file = 'old' }}"), false),
        ("url = { file = 'url' }", false),
    ] {
        let lines = warnings(
            &targets(&folder.file(settings), &Clusters::default(), |_| None).0,
            &Verifies::new(),
        );
        let found = lines.iter().any(|line| {
            line.contains("https://receiver.example.com cannot tell rollouts from requests of strangers; set secret")
        });
        assert_eq!(found, warned, "{settings}: {lines:?}");
        assert_eq!(lines.len(), usize::from(warned), "{lines:?}");
    }
    let token = folder.0.path().join("token");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let settings = format!("{plain}headers.X-Token = {{ file = 'token' }}");
    let lines = warnings(
        &targets(&folder.file(&settings), &Clusters::default(), |_| None).0,
        &Verifies::new(),
    );
    assert!(lines[0].contains("chmod 600"), "{lines:?}");
}

#[test]
fn the_page_names_every_key_and_its_examples_are_valid() {
    let (folder, page) = (
        Folder::new(),
        include_str!("../../../../../../docs/webhook.md"),
    );
    let refused = folder.refused("no_such_key = 1");
    let (_, keys) = refused.split_once("expected one of ").unwrap();
    for key in keys.split('`').skip(1).step_by(2) {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
    let examples: Vec<&str> = page.split("```toml\n").skip(1).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let example = example.split("```").next().unwrap();
        let (_, settings) = example.split_once('\n').unwrap();
        let file = folder.file(settings);
        let parsed = Settings::parse(file.trigger[0].target().value, file.trigger[0].folder());
        assert!(parsed.is_ok(), "{}\n{example}", parsed.err().unwrap());
    }
}
