//! What registries and scripts tell in a storm: made of the seed alone.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tagtrail_proto::{Digest, instant};
use time::{Duration, OffsetDateTime};

/// Sources, each with the registry that it speaks for.
pub(crate) const REGISTRIES: [(&str, &str); 2] =
    [("one", "one.example.com"), ("two", "two.example.com")];
const REPOSITORIES: [&str; 4] = ["shop/web", "shop/worker", "foo/bar", "foo/baz"];
const TAGS: [&str; 5] = ["latest", "v1", "v2", "v3", "edge"];
/// Digests of a repository: few, so that they come back and deletes of them concern several tags.
const DIGESTS: u64 = 8;
/// Registries repeat within this many events what they did not deliver at first.
const WINDOW: usize = 50;

/// One fact: registry, repository, tag, microseconds since 1970, digest, and whether it is a delete.
pub(crate) type Key = (String, String, Option<String>, i64, Option<String>, bool);

/// One request to a gateway.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) source: &'static str,
    pub(crate) body: String,
    pub(crate) kind: Kind,
}

/// What is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Accepted, and then a fact.
    Fact(Key),
    /// The same, from a sender that does not wait for the answer. It is always sent again by one that does.
    Abandoned,
    /// Refused: the secret is wrong.
    Stranger,
    /// Accepted and set aside.
    Nonsense,
}

/// The events in the order in which they are sent, and the facts that they tell of.
pub(crate) fn events(seed: u64, count: u32, start: OffsetDateTime) -> (Vec<Event>, BTreeSet<Key>) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut events, mut facts) = (Vec::new(), BTreeSet::new());
    let mut time = start;
    for n in 0..count {
        // Now and then two about the very same instant.
        if !random.random_bool(0.05) {
            time += Duration::milliseconds(random.random_range(1..400));
        }
        let late = random.random_bool(0.1);
        let at = if late {
            time - Duration::seconds(random.random_range(1..600))
        } else {
            time
        };
        let event = event(&mut random, n, at);
        if let Kind::Fact(key) = &event.kind {
            facts.insert(key.clone());
        }
        if random.random_bool(0.03) {
            events.push(Event {
                kind: Kind::Abandoned,
                ..event.clone()
            });
        }
        if random.random_bool(0.2) {
            // Half of them as a registry with two endpoints says it: the same fact, under an identifier that the bus does not know.
            let body = match random.random_bool(0.5) {
                true => event
                    .body
                    .replace(&format!("\"e{n}\""), &format!("\"e{n}/2\"")),
                false => event.body.clone(),
            };
            events.push(Event {
                body,
                ..event.clone()
            });
        }
        events.push(event);
        if random.random_bool(0.03) {
            events.push(hostile(&mut random, n));
        }
    }
    for window in events.chunks_mut(WINDOW) {
        window.shuffle(&mut random);
    }
    (events, facts)
}

fn digest(repository: &str, n: u64) -> String {
    Digest::sha256_of(format!("{repository}/{n}").as_bytes()).to_string()
}

fn event(random: &mut StdRng, n: u32, at: OffsetDateTime) -> Event {
    let (source, registry) = *REGISTRIES.choose(random).unwrap();
    let repository = *REPOSITORIES.choose(random).unwrap();
    let tag = *TAGS.choose(random).unwrap();
    let digest = digest(repository, random.random_range(0..DIGESTS));
    let (tag, digest, delete) = match random.random_range(0..100) {
        0..6 => (Some(tag), None, true),
        6..11 => (None, Some(digest), true),
        11 => (None, None, true),
        _ => (Some(tag), Some(digest), false),
    };
    fact(
        source,
        registry,
        repository,
        tag,
        digest,
        delete,
        at,
        &format!("e{n}"),
    )
}

/// A push of an image, for the end of a storm.
pub(crate) fn push(
    source: &'static str,
    repository: &str,
    tag: &str,
    n: u64,
    at: OffsetDateTime,
) -> Event {
    let registry = REGISTRIES
        .iter()
        .find(|(name, _)| *name == source)
        .unwrap()
        .1;
    let digest = Some(digest(repository, n));
    fact(
        source,
        registry,
        repository,
        Some(tag),
        digest,
        false,
        at,
        &format!("last/{repository}/{n}"),
    )
}

#[expect(clippy::too_many_arguments, reason = "the columns of a fact")]
fn fact(
    source: &'static str,
    registry: &str,
    repository: &str,
    tag: Option<&str>,
    digest: Option<String>,
    delete: bool,
    at: OffsetDateTime,
    id: &str,
) -> Event {
    let mut body = json!({
        "repository": repository,
        "action": if delete { "delete" } else { "push" },
        "time": instant::format(at).unwrap(),
        "id": id,
    });
    let fields = body.as_object_mut().unwrap();
    if let Some(tag) = tag {
        fields.insert("tag".to_owned(), tag.into());
    }
    if let Some(digest) = &digest {
        fields.insert("digest".to_owned(), Value::from(digest.as_str()));
    }
    let key = (
        registry.to_owned(),
        repository.to_owned(),
        tag.map(ToOwned::to_owned),
        i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap(),
        digest,
        delete,
    );
    Event {
        source,
        body: body.to_string(),
        kind: Kind::Fact(key),
    }
}

/// What must leave no trace in the store.
fn hostile(random: &mut StdRng, n: u32) -> Event {
    let digest = digest("evil", 1);
    let (kind, body) = match random.random_range(0..4) {
        0 => (
            Kind::Stranger,
            json!({ "repository": "evil/stranger", "tag": "latest", "digest": digest }).to_string(),
        ),
        1 => (
            Kind::Nonsense,
            format!("{{\"repository\": \"evil/cut\", {n}"),
        ),
        2 => (
            Kind::Nonsense,
            json!({ "repository": "evil/digest", "tag": "latest", "digest": "sha256:../../etc" })
                .to_string(),
        ),
        _ => (
            Kind::Nonsense,
            json!({ "repository": "../evil", "tag": "x".repeat(300), "digest": digest })
                .to_string(),
        ),
    };
    Event {
        source: "one",
        body,
        kind,
    }
}
