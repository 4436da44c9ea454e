//! A test: every table of the client fits 80 columns, also with the longest names.

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use super::screen::Screen;
use super::screen::tests::{screen, wide};
use super::{
    coverage, digest, history, images, manifest, report, resolve, rollouts, tags, triggers, watch,
};

fn digest_of(letter: &str) -> String {
    format!("sha256:{}", letter.repeat(64))
}

const TIME: &str = "2026-11-26T22:15:27.392241Z";

fn image() -> String {
    format!(
        "registry.of-a-long-department.example.com:5000/{}web:{}",
        "part-of-a-path/".repeat(12),
        "t".repeat(128)
    )
}

fn revision() -> Value {
    json!({
        "registry": "registry.of-a-long-department.example.com:5000", "repository": "shop/web", "tag": "latest",
        "image": image(), "revision": 1_234_567, "kind": "recreated", "digest": digest_of("a"),
        "pinned": format!("registry.example.com/shop/web@{}", digest_of("a")), "late": true, "occurred_at": TIME,
        "actor": "somebody.with-a-long-name@of-a-long-department.example.com", "source": "s".repeat(63),
        "tags": 1234, "deleted": 123_456, "changed_at": TIME, "signature": true, "from": TIME, "until": TIME,
    })
}

fn rollout() -> Value {
    let image = json!({ "revision": 1_234_567, "digest": digest_of("b") });
    json!({
        "trigger": "t".repeat(63), "number": 123_456, "state": "superseded", "attempts": 1234, "created_at": TIME,
        "images": { "web": image, "worker-with-a-long-name": image, "x".repeat(63): image },
        "error": format!("the command ended with exit status: 127: {}", "no such file: /a/path/with/many/parts ".repeat(9)),
    })
}

fn list(item: &Value) -> Value {
    json!({ "items": [item, item], "next": "x", "left": 12 })
}

/// The text of each command, with long names and numbers.
fn all(screen: &Screen) -> Vec<(&'static str, String)> {
    let trigger = json!({
        "name": "t".repeat(63), "state": "paused", "target": "webhook", "newer": 3, "current": rollout(), "last": rollout(), "condition": "rolling_out", "next_attempt_at": TIME,
        "wanted": rollout()["images"],
        "reasons": [{ "code": "unknown_image", "image": image(), "why": "no push and no import is recorded ".repeat(5), "opens_at": TIME, "cure": "push it" },
                    { "code": "other_generation", "image": null, "why": "why", "cure": "cure" }],
        "waiting": [{ "gate": "recheck", "image": image(), "why": "the registry has not confirmed it yet, ".repeat(5), "since": TIME }],
    });
    let number = 12_345_678;
    let covered = json!({
        "since": TIME,
        "items": [{
            "registry": "registry.of-a-long-department.example.com:5000", "source": "s".repeat(63), "signatures": number,
            "changes": { "event": number, "resolved": number, "observed": number, "reconciled": number, "reordered": number, "imported": number },
            "lost_share": 1.0, "last_event_at": TIME, "last_reconciled_at": TIME,
        }],
        "not_compared": [{ "registry": "registry.example.com", "repository": "a/b/".repeat(30), "failed_at": TIME,
                           "last_reconciled_at": TIME, "reason": "the registry answered 503 Service Unavailable ".repeat(5) }],
    });
    let read = json!({
        "digest": digest_of("c"), "registry": "registry.example.com", "repository": "a/b/".repeat(30), "size": 1234, "tombstone": true,
        "platforms": vec![json!({ "os": "windows", "architecture": "amd64", "os_version": "10.0.20348.2113" }); 9],
        "index": { "children": [{ "digest": digest_of("d"), "size": 1234, "media_type": null, "platform": "windows/amd64:10.0.20348.2113" }], "children_left_out": 3 },
        "image": {
            "digest": digest_of("d"), "platform": "windows/amd64:10.0.20348.2113", "size": 84_123_456,
            "layers": [{ "digest": digest_of("e"), "size": 28_200_000, "created_by": "RUN apt-get install ".repeat(9) }], "layers_left_out": 3,
            "settings": { "environment": { "A_LONG_NAME_OF_A_VARIABLE_THAT_SOME_TOOL_READS": "a/b:".repeat(60) }, "user": "65532:65532",
                          "ports": ["8080/tcp"], "entrypoint": ["/app/server"], "command": ["-a ".repeat(60)] },
        },
        "labels": { "com.example.a-very-long-key-of-a-label-that-some-tool-makes": "a value ".repeat(40), "b": "v".repeat(200) },
    });
    let columns = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({ "name": name })).collect()
    };
    let answer = |columns: Vec<Value>| {
        json!({ "about": "The images of each trigger, from the end of one rollout to another.", "from": TIME, "to": TIME, "columns": columns,
                "items": [{ "trigger": "t".repeat(63), "image": image(), "since": TIME, "changes": number, "seconds": 12.5, "digest": digest_of("a"),
                            "until": null, "reconciled": number, "signatures": number, "reordered": number }] })
    };
    let few = answer(columns(&["trigger", "image", "digest", "since", "seconds"]));
    let many = answer(columns(&[
        "trigger",
        "image",
        "since",
        "until",
        "changes",
        "seconds",
        "digest",
        "reconciled",
        "signatures",
        "reordered",
    ]));
    let event = json!({ "subject": image(), "data": revision() });
    vec![
        ("resolve", resolve::describe(&revision(), screen)),
        ("history", history::describe(&list(&revision()), screen)),
        ("images", images::describe(&list(&revision()), screen)),
        ("tags", tags::describe(&list(&revision()), screen)),
        ("report", report::describe(&few, screen)),
        ("report", report::describe(&many, screen)),
        (
            "watch",
            watch::Lines::new(screen)
                .format("revision", &event)
                .join("\n"),
        ),
        (
            "watch --kinds",
            watch::Lines::mixed(screen)
                .format("revision", &event)
                .join("\n"),
        ),
        ("digest", digest::describe(&list(&revision()), screen)),
        ("manifest", manifest::describe(&read, screen)),
        ("coverage", coverage::describe(&covered, screen)),
        ("triggers", triggers::describe(&[trigger], screen)),
        ("rollouts", rollouts::describe(&list(&rollout()), screen)),
    ]
}

#[test]
fn every_table_fits_80_columns() {
    for (command, text) in all(&screen(80)) {
        let widest = text.lines().map(|line| line.width()).max().unwrap();
        assert!(widest <= 80, "{command}: {widest} columns\n{text}");
    }
}

#[test]
fn wide_tables_have_whole_names_digests_and_times() {
    for (command, text) in all(&wide()) {
        let whole = text.contains(TIME) || command == "manifest";
        assert!(
            whole && !text.replace("… 12 more", "").contains('…'),
            "{command}\n{text}"
        );
        let digest = ["a", "b", "c"]
            .iter()
            .any(|letter| text.contains(&digest_of(letter)));
        assert!(
            digest || ["digest", "coverage", "images"].contains(&command),
            "{command}\n{text}"
        );
    }
}
