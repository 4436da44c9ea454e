//! `tagtrail doctor` with most servers missing: checks are independent, exit codes, and no secret
//! in the output.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

/// No process listens on this port.
const UNREACHABLE: &str = "http://127.0.0.1:1";

const FILE: &str = r#"
[[source]]
name = "main"
kind = "distribution"
registry = "any"
secret = { env = "DOCTOR_HOOK_SECRET" }

[[source]]
name = "hub"
kind = "dockerhub"
secret = { file = "/no/such/secret" }

[[source]]
name = "wrong"
kind = "harbour"
secret = { env = "DOCTOR_HOOK_SECRET" }

[[registry]]
name = "registry.example.com"
url = "http://127.0.0.1:1"
username = "ci"
password = { env = "DOCTOR_PASSWORD" }

[[registry]]
name = "other.example.com"
url = "http://127.0.0.1:1"
username = "ci"
password = { env = "DOCTOR_NEVER_SET" }
"#;

/// Starts a server that answers each `METHOD /path` with the result of `answer`: a status line,
/// then headers and a body.
fn serve(answer: fn(&str) -> &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines
                .map(Result::unwrap)
                .take_while(|line| !line.is_empty())
                .collect();
            let request = head[0].rsplit_once(' ').unwrap().0;
            let response = answer(request);
            let (line, rest) = response.split_once('\n').unwrap_or((response, "\r\n"));
            write!(stream, "HTTP/1.1 {line}\r\nconnection: close\r\n{rest}").unwrap();
        }
    });
    format!("http://{address}")
}

fn doctor(file: &str, arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tagtrail.toml");
    std::fs::write(&path, file).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_tagtrail"))
        .arg("doctor")
        .args(arguments)
        .env("COLUMNS", "1000")
        .env("TAGTRAIL_CONFIG", &path)
        .env("TAGTRAIL_GATEWAY", UNREACHABLE)
        .env("TAGTRAIL_API", UNREACHABLE)
        .env("TAGTRAIL_ADMIN", "127.0.0.1:1")
        .env("DOCTOR_HOOK_SECRET", "hidden-hook-secret")
        .env("DOCTOR_PASSWORD", "hidden-password")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(done.stdout), text(done.stderr));
    assert!(!format!("{out}{err}").contains("hidden"), "{out}{err}");
    (done.status.code().unwrap(), out, err)
}

#[test]
fn a_failed_check_does_not_stop_the_others() {
    let (code, out, err) = doctor(FILE, &["--output", "json"]);
    assert_eq!(code, 1, "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["well"], false);
    let found: Vec<(&str, &str, &str, &str)> = json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| {
            let text = |key: &str| check[key].as_str().unwrap();
            (text("of"), text("name"), text("check"), text("result"))
        })
        .collect();
    assert_eq!(
        found[1..],
        [
            ("source", "main", "gateway", "error"),
            ("source", "hub", "secret", "error"),
            ("source", "hub", "gateway", "error"),
            ("source", "hub", "digests", "error"),
            ("source", "wrong", "entry", "error"),
            ("registry", "registry.example.com", "answer", "error"),
            ("registry", "other.example.com", "entry", "error"),
            ("gateway", "", "refused", "warning"),
            ("api", "", "events", "warning"),
        ]
    );
    for check in json["checks"].as_array().unwrap() {
        let well = check["result"] == "ok";
        assert_eq!(check["cure"].is_null(), well, "{check}");
    }
    // Without the API, silent sources are unknown, so no settings are printed.
    assert_eq!(json["settings"], serde_json::json!([]));
    assert!(err.contains("7 of 10 checks failed"), "{err}");
}

#[test]
fn the_settings_name_the_given_gateway() {
    let (code, out, _) = doctor(FILE, &["--setup", "--gateway", "http://localhost:1"]);
    assert_eq!(code, 1);
    for line in [
        "source main                    gateway  error    no answer from http://localhost:1/hooks/main: ",
        "To do:\n  source main, gateway; source hub, gateway: start it with `tagtrail up` or",
        "Settings for the registry of source main (kind distribution):\n",
        "      url: http://localhost:1/hooks/main\n",
        "        Authorization: [\"Bearer $DOCTOR_HOOK_SECRET\"]\n",
        "Settings for the registry of source hub (kind dockerhub):\n",
        "http://localhost:1/hooks/hub/<the content of /no/such/secret>\n",
        "Only this machine can reach the gateway at this address",
    ] {
        assert!(out.contains(line), "{line:?} is not in\n{out}");
    }
}

#[test]
fn an_empty_file_is_no_error() {
    let (code, out, err) = doctor("", &[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("tagtrail.toml has no [[source]]"), "{out}");
    let (code, _, err) = doctor("[[source", &[]);
    assert_eq!(code, 1);
    assert!(err.contains("it is not TOML"), "{err}");
    let (code, _, err) = doctor("", &["--config", "/no/such/file"]);
    assert_eq!(code, 1);
    assert!(err.contains("/no/such/file: can't be read"), "{err}");
}

#[test]
fn settings_are_printed_for_a_source_without_events() {
    let server = serve(|request| match request {
        "OPTIONS /hooks/main" | "OPTIONS /hooks/new" => {
            "200 OK\nwebhook-allowed-origin: *\r\ncontent-length: 0\r\n\r\n"
        }
        "GET /v1/coverage" => {
            "200 OK\ncontent-type: application/json\r\n\r\n{\"since\":\"2026-11-01T00:00:00Z\",\"items\":[{\"registry\":\"r\",\"source\":\"main\",\
             \"changes\":{\"event\":95,\"reconciled\":5},\"lost_share\":0.05,\"last_event_at\":\"2026-11-02T00:00:00Z\"}]}"
        }
        _ => "404 Not Found\ncontent-length: 0\r\n\r\n",
    });
    let source = |name: &str| {
        format!(
            "[[source]]\nname = '{name}'\nkind = 'harbor'\nsecret = {{ env = 'DOCTOR_HOOK_SECRET' }}\n"
        )
    };
    let file = source("main") + &source("new");
    let (code, out, err) = doctor(&file, &["--gateway", &server, "--api", &server]);
    assert_eq!(code, 0, "warnings alone are no failure: {out}{err}");
    for text in [
        "source main",
        "the registry lost 5 of 100 webhooks (5.0 %)",
        "no event received since 2026-11-01T00:00:00Z",
        "Settings for the registry of source new (kind harbor):",
        "/hooks/new",
    ] {
        assert!(out.contains(text), "{text:?} is not in\n{out}");
    }
    assert!(!out.contains("of source main (kind"), "{out}");
    // A server that is not a gateway is recognized.
    let (code, out, _) = doctor(&source("other"), &["--gateway", &server, "--api", &server]);
    assert_eq!(code, 1);
    assert!(
        out.contains("answers 404, which Tagtrail's gateway does not return"),
        "{out}"
    );
}

#[test]
fn refused_requests_and_images_that_were_never_seen_are_named() {
    let server = serve(|request| match request {
        "OPTIONS /hooks/main" => "200 OK\nwebhook-allowed-origin: *\r\ncontent-length: 0\r\n\r\n",
        "GET /metrics" => {
            "200 OK\n\r\ntagtrail_gateway_requests_total{source=\"main\",status=\"401\"} 3\n"
        }
        "GET /v1/coverage" => "200 OK\ncontent-type: application/json\r\n\r\n{\"items\":[]}",
        "GET /v1/resolve?image=r.example.com%2Fshop%2Fweb%3Alatest" => {
            "200 OK\ncontent-type: application/json\r\n\r\n{\"revision\":1}"
        }
        _ => {
            "404 Not Found\ncontent-type: application/problem+json\r\n\r\n{\"title\":\"x\",\"code\":\"tag_unknown\"}"
        }
    });
    let file = "
[[source]]
name = 'main'
kind = 'harbor'
registry = 'r.example.com'
secret = { env = 'DOCTOR_HOOK_SECRET' }

[[trigger]]
name = 'shop'
images.web = 'r.example.com/shop/web:latest'
images.worker = 'r.example.com/shop/wroker:latest'
target.command = { run = ['/bin/true'] }
";
    let admin = server.strip_prefix("http://").unwrap();
    let arguments = ["--gateway", &server, "--api", &server, "--admin", admin];
    let (code, out, err) = doctor(file, &arguments);
    assert_eq!(code, 0, "warnings alone are no failure: {out}{err}");
    for text in [
        "warning  3 requests were refused since the gateway started, because the secret was missing or wrong (401)",
        "set the secret of source main in the settings of its registry",
        "warning  r.example.com/shop/wroker:latest was never seen, so the trigger starts no rollout",
        "no request to a path of no source",
    ] {
        assert!(out.contains(text), "{text:?} is not in\n{out}");
    }
}
