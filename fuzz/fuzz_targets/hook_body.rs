//! Bodies of webhooks: whatever they hold, what goes on the bus is valid, and nothing panics.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tagtrail_config::File;
use tagtrail_proto::{Event, Push, Subject};

static FILE: LazyLock<File> = LazyLock::new(|| {
    // Every kind as it is without a registry of its own, and with one.
    let source = |(number, kind): (usize, &&str)| {
        let registry = if number % 2 == 0 { "" } else { "registry = \"registry.example.com\"" };
        let needs = matches!(*kind, "generic" | "zot" | "nexus");
        let registry = if needs { "registry = \"registry.example.com:5000\"" } else { registry };
        format!("[[source]]\nname = \"s{number}\"\nkind = \"{kind}\"\nsecret = {{ env = \"S\" }}\n{registry}\n")
    };
    let twice = KINDS.iter().flat_map(|kind| [kind, kind]);
    let text: String = twice.enumerate().map(source).collect();
    File::parse(&text, Path::new("tagtrail.toml")).expect("the file is right")
});

const KINDS: &[&str] = &[
    "distribution", "generic", "harbor", "quay", "dockerhub", "ghcr", "gitea", "zot", "ecr", "gar", "acr", "artifactory", "nexus",
    "msr", "aliyun",
];

// The first byte chooses the source, the first line is the content type.
fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (content_type, body) = rest.split_at(end);
    let place = usize::from(*first) % FILE.source.len();
    let Some((receipt, messages)) =
        tagtrail_gateway::fuzz::understand(&FILE, place, content_type, body)
    else {
        return;
    };
    assert_eq!(messages.len(), receipt.accepted + receipt.unresolved);
    for (subject, payload) in messages {
        let subject: Subject = subject.parse().expect("a subject that can be read");
        let event: Event<Push> =
            serde_json::from_slice(&payload).expect("an event that can be read");
        let push = event.data;
        assert_eq!(Subject::of_push(&push, 8), subject);
        assert!(payload.len() < 256 * 1024, "more than PUSHES takes");
        if matches!(subject, Subject::Push { .. }) {
            push.check().expect("a fact that is whole");
        }
    }
});
