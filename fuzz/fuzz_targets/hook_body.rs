//! Bodies of webhooks: no body causes a panic, and every message for the bus is valid.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tagtrail_config::File;
use tagtrail_gateway::KindSetup;
use tagtrail_proto::{Event, Push, Subject};

static FILE: LazyLock<File> = LazyLock::new(|| {
    // Each kind has two sources: of any registry, if events name the registry, and of
    // one.
    let sources = |kind: KindSetup| {
        let name = kind.names[0];
        let source = move |number: usize, registry: &str| {
            format!("[[source]]\nname = \"{name}-{number}\"\nkind = \"{name}\"\nsecret = {{ env = \"S\" }}\n{registry}\n")
        };
        let registry = "registry = \"registry.example.com:5000\"";
        let first = if kind.needs_registry { registry } else { "registry = \"any\"" };
        [source(0, first), source(1, "registry = \"registry.example.com\"")]
    };
    let text: String = tagtrail_gateway::kinds("", "").into_iter().flat_map(sources).collect();
    File::parse(&text, Path::new("tagtrail.toml")).expect("the file is right")
});

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
            push.check().expect("a valid push");
        }
    }
});
