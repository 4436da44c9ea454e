//! `--help` is the manual: every command has one, and it names what people and programs rely on.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::process::Command;

fn help(arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_tagtrail"))
        .args(arguments)
        .arg("--help")
        .output()
        .unwrap();
    assert!(done.status.success(), "{arguments:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn every_command_explains_itself() {
    let all = help(&[]);
    for (command, mentions) in [
        (
            "up",
            &[
                "--data",
                "--config",
                "--gateway",
                "--api",
                "--admin",
                "127.0.0.1:8400",
                "127.0.0.1:8401",
                "127.0.0.1:8402",
                ".tagtrail",
            ][..],
        ),
        (
            "gateway",
            &[
                "NATS_URL",
                "TAGTRAIL_CONFIG",
                "TAGTRAIL_GATEWAY_LISTEN",
                "TAGTRAIL_ADMIN",
                "TAGTRAIL_LOG",
            ],
        ),
        ("resolver", &["NATS_URL", "TAGTRAIL_CONFIG"]),
        (
            "indexer",
            &["NATS_URL", "DATABASE_URL", "TAGTRAIL_PARTITIONS"],
        ),
        (
            "trigger",
            &[
                "NATS_URL",
                "DATABASE_URL",
                "TAGTRAIL_CONFIG",
                "TAGTRAIL_WORKERS",
            ],
        ),
        (
            "api",
            &[
                "DATABASE_URL",
                "NATS_URL",
                "TAGTRAIL_CONFIG",
                "TAGTRAIL_API_LISTEN",
            ],
        ),
        ("migrate", &["DATABASE_URL"]),
        (
            "quarantine",
            &["list", "show", "feed", "NATS_URL", "--data"],
        ),
        (
            "republish",
            &["--image", "--since", "NATS_URL", "DATABASE_URL", "--data"],
        ),
        (
            "resolve",
            &[
                "TAGTRAIL_API",
                "--at",
                "--known-at",
                "--revision",
                "--output",
                "table",
                "json",
            ],
        ),
        ("history", &["TAGTRAIL_API", "--limit", "--output"]),
        (
            "watch",
            &["TAGTRAIL_API", "TAGTRAIL_TOKEN", "--since", "--output"],
        ),
        ("digest", &["TAGTRAIL_API", "--output"]),
        ("triggers", &["TAGTRAIL_API", "--output"]),
        ("rollouts", &["TAGTRAIL_API", "--limit", "--output"]),
        ("pause", &["TAGTRAIL_API"]),
        ("resume", &["TAGTRAIL_API"]),
    ] {
        assert!(
            all.contains(&format!("  {command} ")),
            "{command} is not listed"
        );
        let text = help(&[command]);
        for mention in mentions {
            assert!(
                text.contains(mention),
                "{command} --help does not name {mention}:\n{text}"
            );
        }
    }
}

#[test]
fn passwords_in_the_environment_are_not_shown() {
    let done = Command::new(env!("CARGO_BIN_EXE_tagtrail"))
        .args(["trigger", "--help"])
        .env("DATABASE_URL", "postgres://user:hidden@127.0.0.1/tagtrail")
        .env("NATS_URL", "nats://user:hidden@127.0.0.1:4222")
        .output()
        .unwrap();
    assert!(!String::from_utf8(done.stdout).unwrap().contains("hidden"));
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_to_do() {
    for arguments in [
        &["resolve"][..],
        &["no-such-command"],
        &["rollouts", "--limit", "0"],
        &["up", "--gateway", "nowhere"],
    ] {
        let done = Command::new(env!("CARGO_BIN_EXE_tagtrail"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(2), "{arguments:?}");
        assert!(
            String::from_utf8(done.stderr).unwrap().contains("error: "),
            "{arguments:?}"
        );
    }
}
