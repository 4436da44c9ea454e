//! The requests of registries and scripts in a storm, computed from the seed alone.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tagtrail_proto::{Digest, instant};
use time::{Duration, OffsetDateTime};

/// The sources and their registries.
pub(crate) const REGISTRIES: [(&str, &str); 2] =
    [("one", "one.example.com"), ("two", "two.example.com")];
const REPOSITORIES: [&str; 4] = ["shop/web", "shop/worker", "foo/bar", "foo/baz"];
const TAGS: [&str; 5] = ["latest", "v1", "v2", "v3", "edge"];
/// Digests of a repository: few, so that tags return to old digests, and deletes hit several tags.
const DIGESTS: u64 = 8;
/// Requests are shuffled within windows of this size, as retries of registries reorder events.
const WINDOW: usize = 50;

/// The identity of a push: registry, repository, tag, microseconds since 1970, digest, and true for
/// a delete.
pub(crate) type Key = (String, String, Option<String>, i64, Option<String>, bool);

/// A request to a gateway.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) source: &'static str,
    pub(crate) body: String,
    pub(crate) expected: Expected,
}

/// The expected result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Accepted, and recorded as this push.
    Recorded(Key),
    /// Unknown, since the sender closes the connection before the answer. Another request has the
    /// same body.
    Unread,
    /// Refused, since the secret is wrong.
    Refused,
    /// Accepted, and quarantined.
    Quarantined,
}

/// Makes the requests, in the order of sending, and the reported pushes.
pub(crate) fn requests(
    seed: u64,
    count: u32,
    start: OffsetDateTime,
) -> (Vec<Request>, BTreeSet<Key>) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut requests, mut pushes) = (Vec::new(), BTreeSet::new());
    let mut time = start;
    for n in 0..count {
        // Some pushes have the time of the push before.
        if !random.random_bool(0.05) {
            time += Duration::milliseconds(random.random_range(1..400));
        }
        let late = random.random_bool(0.1);
        let at = if late {
            time - Duration::seconds(random.random_range(1..600))
        } else {
            time
        };
        let request = random_push(&mut random, n, at);
        if let Expected::Recorded(key) = &request.expected {
            pushes.insert(key.clone());
        }
        if random.random_bool(0.03) {
            requests.push(Request {
                expected: Expected::Unread,
                ..request.clone()
            });
        }
        if random.random_bool(0.2) {
            // Half of the repeats have another event id, as from a registry with two endpoints: the
            // bus can't recognize them as duplicates.
            let body = match random.random_bool(0.5) {
                true => request
                    .body
                    .replace(&format!("\"e{n}\""), &format!("\"e{n}/2\"")),
                false => request.body.clone(),
            };
            requests.push(Request {
                body,
                ..request.clone()
            });
        }
        requests.push(request);
        if random.random_bool(0.03) {
            requests.push(hostile(&mut random, n));
        }
    }
    for window in requests.chunks_mut(WINDOW) {
        window.shuffle(&mut random);
    }
    (requests, pushes)
}

pub(crate) fn digest(repository: &str, n: u64) -> String {
    Digest::sha256_of(format!("{repository}/{n}").as_bytes()).to_string()
}

fn random_push(random: &mut StdRng, n: u32, at: OffsetDateTime) -> Request {
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
    request(
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

/// Makes a push of an image, for the end of a storm.
pub(crate) fn push(
    source: &'static str,
    repository: &str,
    tag: &str,
    n: u64,
    at: OffsetDateTime,
) -> Request {
    let registry = REGISTRIES
        .iter()
        .find(|(name, _)| *name == source)
        .unwrap()
        .1;
    let digest = Some(digest(repository, n));
    request(
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

#[expect(clippy::too_many_arguments, reason = "the fields of a push")]
pub(crate) fn request(
    source: &'static str,
    registry: &str,
    repository: &str,
    tag: Option<&str>,
    digest: Option<String>,
    delete: bool,
    at: OffsetDateTime,
    id: &str,
) -> Request {
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
    Request {
        source,
        body: body.to_string(),
        expected: Expected::Recorded(key),
    }
}

/// Makes a request that must leave no trace in the store.
fn hostile(random: &mut StdRng, n: u32) -> Request {
    let digest = digest("evil", 1);
    let (expected, body) = match random.random_range(0..4) {
        0 => (
            Expected::Refused,
            json!({ "repository": "evil/stranger", "tag": "latest", "digest": digest }).to_string(),
        ),
        1 => (
            Expected::Quarantined,
            format!("{{\"repository\": \"evil/cut\", {n}"),
        ),
        2 => (
            Expected::Quarantined,
            json!({ "repository": "evil/digest", "tag": "latest", "digest": "sha256:../../etc" })
                .to_string(),
        ),
        _ => (
            Expected::Quarantined,
            json!({ "repository": "../evil", "tag": "x".repeat(300), "digest": digest })
                .to_string(),
        ),
    };
    Request {
        source: "one",
        body,
        expected,
    }
}
