//! Pushes and deletes of tags with an order, for the policies of a storm, computed from the seed.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use time::{Duration, OffsetDateTime};

use crate::events::{Expected, Key, Request, digest, request};
use crate::teams::{APP, BUILDS};

/// Requests are shuffled within windows of this size.
const WINDOW: usize = 12;

/// The tags of a storm, as their senders know them.
struct Versions {
    random: StdRng,
    time: OffsetDateTime,
    /// Number of digests so far: each push has a new one.
    digests: u64,
    requests: Vec<Request>,
    /// The last minor version, and the last build.
    last: [u64; 2],
}

/// Makes about `count` requests in the order of sending, and the reported pushes.
pub(crate) fn requests(
    seed: u64,
    count: u32,
    start: OffsetDateTime,
) -> (Vec<Request>, BTreeSet<Key>) {
    let mut versions = Versions {
        random: StdRng::seed_from_u64(seed ^ 0x0007_1a65),
        time: start,
        digests: 0,
        requests: Vec::new(),
        last: [0, 0],
    };
    for _ in 0..count {
        match versions.random.random_bool(0.6) {
            true => versions.version(),
            false => versions.build(),
        }
    }
    for window in versions.requests.chunks_mut(WINDOW) {
        window.shuffle(&mut versions.random);
    }
    let pushes = versions.requests.iter();
    let pushes = pushes.filter_map(|request| match &request.expected {
        Expected::Recorded(key) => Some(key.clone()),
        _ => None,
    });
    let pushes = pushes.collect();
    (versions.requests, pushes)
}

impl Versions {
    /// A change of the repository with versions.
    fn version(&mut self) {
        let last = self.last[0];
        let earlier = last.saturating_sub(self.random.random_range(0..6));
        let tag = format!("1.{earlier}.0");
        match self.random.random_range(0..100) {
            0..45 => {
                self.last[0] += 1;
                self.push("one", APP, &format!("1.{}.0", last + 1));
            }
            45..55 => {
                let patch = self.random.random_range(1..4);
                self.push("one", APP, &format!("1.{earlier}.{patch}"));
            }
            // Another image under the same tag.
            55..65 => self.push("one", APP, &tag),
            // The highest version is withdrawn.
            65..82 => self.send("one", APP, Some(&format!("1.{last}.0")), None, true),
            82..87 => self.send("one", APP, Some(&tag), None, true),
            87 => self.send("one", APP, None, None, true),
            _ => {
                let tag = *["latest", "9.0.0-rc.1", "1.9", "sha256-0abc", "v-9"]
                    .choose(&mut self.random)
                    .unwrap();
                self.push("one", APP, tag);
            }
        }
    }

    /// A build of two repositories.
    fn build(&mut self) {
        let last = self.last[1];
        let tag = last.to_string();
        let repository = *BUILDS.choose(&mut self.random).unwrap();
        match self.random.random_range(0..100) {
            0..50 => {
                self.last[1] += 1;
                let tag = self.last[1].to_string();
                BUILDS.iter().for_each(|one| self.push("two", one, &tag));
            }
            50..65 => {
                self.last[1] += 1;
                let tag = self.last[1].to_string();
                self.push("two", repository, &tag);
            }
            65..80 => self.push("two", repository, &tag),
            _ => self.send("two", repository, Some(&tag), None, true),
        }
    }

    fn push(&mut self, source: &'static str, repository: &str, tag: &str) {
        self.digests += 1;
        let digest = digest(repository, 1_000_000 + self.digests);
        self.send(source, repository, Some(tag), Some(digest), false);
    }

    fn send(
        &mut self,
        source: &'static str,
        repository: &str,
        tag: Option<&str>,
        digest: Option<String>,
        delete: bool,
    ) {
        self.time += Duration::milliseconds(self.random.random_range(1..400));
        let registry = format!("{source}.example.com");
        let id = format!("versions/{}", self.requests.len());
        let (at, tag) = (self.time, tag);
        self.requests.push(request(
            source, &registry, repository, tag, digest, delete, at, &id,
        ));
    }
}
