//! The addresses of servers: errors name the setting that an address comes from.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};

/// Runs a command in an empty folder, without the variables of the test.
fn run(mut command: Command) -> (Output, String) {
    let folder = tempfile::tempdir().unwrap();
    let done = command
        .current_dir(folder.path())
        .env_remove("TAGTRAIL_DATA")
        .output()
        .unwrap();
    let error = String::from_utf8(done.stderr.clone()).unwrap();
    (done, error)
}

#[test]
fn an_unreachable_api_is_reported_with_the_setting_that_names_it() {
    let images = |arguments: &[&str], variable: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tagtrail"));
        command
            .arg("images")
            .args(arguments)
            .env_remove("TAGTRAIL_API");
        if let Some(variable) = variable {
            command.env("TAGTRAIL_API", variable);
        }
        let (done, error) = run(command);
        assert!(!done.status.success());
        error
    };
    // Nothing listens on port 1.
    let flag = images(&["--api", "127.0.0.1:1"], None);
    assert!(
        flag.contains("http://127.0.0.1:1/") && flag.contains("correct --api"),
        "{flag}"
    );
    let variable = images(&[], Some("127.0.0.1:1"));
    assert!(
        variable.contains("TAGTRAIL_API") && !variable.contains("--api"),
        "{variable}"
    );
    assert!(
        variable.contains("eval \"$(tagtrail env --data DIR)\""),
        "{variable}"
    );
    let wrong = images(&[], Some("ftp://127.0.0.1"));
    assert!(
        wrong.starts_with("error: TAGTRAIL_API \"ftp://127.0.0.1\""),
        "{wrong}"
    );
}

#[test]
fn the_evaluation_of_the_variables_fails_if_there_are_none() {
    let mut shell = Command::new("sh");
    let text = r#"eval "$(TAGTRAIL env --data no-such-folder)" || exit 7"#;
    let text = text.replace("TAGTRAIL", env!("CARGO_BIN_EXE_tagtrail"));
    shell.args(["-c", &text]);
    let (done, error) = run(shell);
    assert_eq!(done.status.code(), Some(7), "{error}");
    assert!(
        error.contains("no-such-folder/endpoints.json") && error.contains("--data"),
        "{error}"
    );
}

#[test]
fn a_proxy_of_the_environment_is_used_for_other_machines_only() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let seen = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let read = stream.read(&mut request).unwrap();
        let answer = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer).unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let ask = |api: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tagtrail"));
        command.args(["images", "--api", api]);
        for name in ["HTTP_PROXY", "http_proxy"] {
            command.env(name, &proxy);
        }
        for name in ["NO_PROXY", "no_proxy"] {
            command.env_remove(name);
        }
        run(command).1
    };
    // The proxy would answer 502; nothing listens on port 1.
    let local = ask("http://127.0.0.1:1");
    assert!(local.contains("onnection refused"), "{local}");
    let other = ask("http://api.corp.example");
    assert!(other.contains("502"), "{other}");
    let seen = seen.join().unwrap();
    assert!(
        seen.starts_with("GET http://api.corp.example/v1/"),
        "{seen}"
    );
}
