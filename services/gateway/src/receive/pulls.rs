//! Pulls as observations. A pull by tag names the digest of the tag, so a pull of another digest
//! than the last reported one shows a lost push, or a tag that moved in a pull-through cache.
//!
//! The gateway has no database, so it remembers the last reported digest of each image. A pull that
//! differs, or the first one of an image, goes to the resolver, which compares it with history.
//! Forgetting an image is harmless: its next pull is a first one.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tagtrail_proto::{Digest, Image, Push, Registry};

/// Most remembered images, which take about 5 MiB.
const IMAGES: usize = 100_000;
/// Shortest time between two observations of an image. The resolver waits as long for a quiet tag,
/// and asks about the present.
const APART: Duration = Duration::from_secs(2);
/// Most observations in a second, of all images together. A pull beyond the limit is not
/// remembered, so the next pull of the image counts.
const PER_SECOND: u32 = 200;

/// A report of the digest of a tag, in a body.
#[derive(Debug)]
pub(crate) enum Sighting {
    /// A push or a delete of a tag. `None`: the digest is unknown.
    Changed(Image, Option<Digest>),
    /// A pull, as an observation.
    Pulled(Box<Push>),
}

/// The digests that were reported last.
#[derive(Debug)]
pub(crate) struct Pulls {
    /// The registries that the resolver may ask. Observations of other registries are useless.
    registries: RwLock<HashSet<Registry>>,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The images that were reported lately, by hash. Two images of equal hash hide an observation,
    /// which happens to one of 100,000 images once in a billion restarts.
    recent: HashMap<u64, Known>,
    /// The images before. A full table of recent images replaces this table.
    older: HashMap<u64, Known>,
    /// The random key keeps a sender from choosing images of equal hash.
    key: RandomState,
    /// The observations in the second that began at this time.
    sent: Option<(Instant, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// The hash of the digest. `None`: the digest is unknown.
    digest: Option<u64>,
    observed_at: Option<Instant>,
}

impl Pulls {
    pub(crate) fn new(registries: HashSet<Registry>) -> Pulls {
        Pulls {
            registries: RwLock::new(registries),
            memory: Mutex::default(),
        }
    }

    /// Replaces the registries that the resolver may ask.
    pub(crate) fn set_registries(&self, registries: HashSet<Registry>) {
        let now = self.registries.write();
        *now.unwrap_or_else(PoisonError::into_inner) = registries;
    }

    /// Remembers the reports of a body, and returns the observations to be published.
    pub(crate) fn take<'a>(
        &'a self,
        sightings: &'a [Sighting],
        now: Instant,
    ) -> (Vec<Push>, Noted<'a>) {
        let mut observations = Vec::new();
        let noted = Noted {
            pulls: self,
            sightings,
        };
        if sightings.is_empty() {
            return (observations, noted);
        }
        let registries = self.registries.read();
        let registries = registries.unwrap_or_else(PoisonError::into_inner);
        let mut memory = self.memory();
        for sighting in sightings {
            match sighting {
                Sighting::Changed(image, digest) if registries.contains(&image.registry) => {
                    memory.change(image, digest.as_ref());
                }
                Sighting::Pulled(push)
                    if registries.contains(&push.registry) && memory.pull(push, now) =>
                {
                    observations.push(Push::clone(push));
                }
                _ => {}
            }
        }
        (observations, noted)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reports of a body that is being stored. If the body is not stored, also because the sender
/// closed the connection, its images are forgotten.
#[derive(Debug)]
pub(crate) struct Noted<'a> {
    pulls: &'a Pulls,
    sightings: &'a [Sighting],
}

impl Noted<'_> {
    /// Keeps the reports: the body is stored.
    pub(crate) fn stored(mut self) {
        self.sightings = &[];
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if self.sightings.is_empty() {
            return;
        }
        let mut memory = self.pulls.memory();
        for sighting in self.sightings {
            let image = match sighting {
                Sighting::Changed(image, _) => Some(image.clone()),
                Sighting::Pulled(push) => push.image(),
            };
            if let Some(image) = image {
                memory.forget(&image);
            }
        }
    }
}

impl Memory {
    /// Remembers the digest of an event.
    fn change(&mut self, image: &Image, digest: Option<&Digest>) {
        let key = self.key.hash_one(image);
        let observed_at = self.known(key).and_then(|known| known.observed_at);
        let digest = digest.map(|digest| self.key.hash_one(digest));
        self.remember(
            key,
            Known {
                digest,
                observed_at,
            },
        );
    }

    /// Returns whether a pull becomes an observation, and remembers its digest then.
    fn pull(&mut self, push: &Push, now: Instant) -> bool {
        let Some((image, digest)) = push.image().zip(push.digest.as_ref()) else {
            return false;
        };
        let key = self.key.hash_one(&image);
        let digest = Some(self.key.hash_one(digest));
        let known = self.known(key);
        if known.is_some_and(|known| known.digest == digest) {
            return false;
        }
        let last = known.and_then(|known| known.observed_at);
        let is_merged = last.is_some_and(|last| now.saturating_duration_since(last) < APART);
        if is_merged || !self.may_send(now) {
            return false;
        }
        let observed_at = Some(now);
        self.remember(
            key,
            Known {
                digest,
                observed_at,
            },
        );
        true
    }

    /// Counts an observation. Returns false beyond [`PER_SECOND`].
    fn may_send(&mut self, now: Instant) -> bool {
        let (began, count) = match self.sent {
            Some((began, count)) if now.saturating_duration_since(began).as_secs() == 0 => {
                (began, count)
            }
            _ => (now, 0),
        };
        self.sent = Some((began, count.saturating_add(1)));
        count < PER_SECOND
    }

    fn known(&mut self, key: u64) -> Option<Known> {
        if let Some(known) = self.recent.get(&key) {
            return Some(*known);
        }
        let known = self.older.remove(&key)?;
        self.remember(key, known);
        Some(known)
    }

    fn remember(&mut self, key: u64, known: Known) {
        if self.recent.len() >= IMAGES / 2 && !self.recent.contains_key(&key) {
            self.older = std::mem::take(&mut self.recent);
        }
        self.older.remove(&key);
        self.recent.insert(key, known);
    }

    fn forget(&mut self, image: &Image) {
        let key = self.key.hash_one(image);
        self.recent.remove(&key);
        self.older.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use tagtrail_proto::{Action, Origin, Scope, TimeSource};
    use time::OffsetDateTime;

    use super::*;

    const REGISTRY: &str = "registry.example.com:5000";

    fn pulls() -> Pulls {
        Pulls::new(HashSet::from([REGISTRY.parse().unwrap()]))
    }

    /// Takes a body that is stored, and returns the number of observations.
    fn observed(pulls: &Pulls, body: &[Sighting], now: Instant) -> usize {
        let (observations, noted) = pulls.take(body, now);
        noted.stored();
        observations.len()
    }

    fn digest(text: &str) -> Digest {
        Digest::sha256_of(text.as_bytes())
    }

    fn changed(image: &str, text: &str) -> Sighting {
        let image = format!("{REGISTRY}/{image}").parse().unwrap();
        Sighting::Changed(image, Some(digest(text)))
    }

    fn pulled(image: &str, text: &str) -> Sighting {
        pulled_from(REGISTRY, image, text)
    }

    fn pulled_from(registry: &str, image: &str, text: &str) -> Sighting {
        let image: Image = format!("{registry}/{image}").parse().unwrap();
        Sighting::Pulled(Box::new(Push {
            action: Action::Push,
            scope: Scope::Tag,
            registry: image.registry,
            repository: image.repository,
            tag: Some(image.tag),
            digest: Some(digest(text)),
            media_type: None,
            size: None,
            actor: None,
            occurred_at: OffsetDateTime::UNIX_EPOCH,
            occurred_at_source: TimeSource::Received,
            source: "main".to_owned(),
            origin: Origin::Event,
            event_id: format!("{}1", Push::OBSERVED),
        }))
    }

    #[test]
    fn only_a_pull_of_another_digest_than_the_last_report_is_observed() {
        let (pulls, start) = (pulls(), Instant::now());
        let observed =
            |sighting, seconds| observed(&pulls, &[sighting], start + Duration::from_secs(seconds));
        assert_eq!(observed(pulled("a:v1", "one"), 0), 1, "the first");
        assert_eq!(observed(pulled("a:v1", "one"), 5), 0, "as before");
        assert_eq!(observed(changed("a:v1", "two"), 6), 0);
        assert_eq!(observed(pulled("a:v1", "two"), 7), 0, "as pushed");
        assert_eq!(observed(pulled("a:v2", "two"), 7), 1, "another tag");
        assert_eq!(observed(pulled("a:v1", "three"), 10), 1, "moved");
        // Merged with the observation before, and told by the next pull after the pause.
        assert_eq!(observed(pulled("a:v1", "four"), 11), 0);
        assert_eq!(observed(pulled("a:v1", "four"), 12), 1);
        // A deleted tag, or a push whose digest is unknown.
        let image = format!("{REGISTRY}/a:v1").parse().unwrap();
        assert_eq!(observed(Sighting::Changed(image, None), 20), 0);
        assert_eq!(observed(pulled("a:v1", "four"), 21), 1);
        let other = pulled_from("other.example.com", "a:v1", "one");
        assert_eq!(observed(other, 30), 0, "a registry that can't be asked");
    }

    #[test]
    fn a_body_that_was_not_stored_is_observed_again() {
        let (pulls, now) = (pulls(), Instant::now());
        let body = [changed("a:v1", "one"), pulled("b:v1", "one")];
        assert_eq!(pulls.take(&body, now).0.len(), 1);
        let next = [pulled("a:v1", "one"), pulled("b:v1", "one")];
        assert_eq!(observed(&pulls, &next, now), 2);
    }

    #[test]
    fn pulls_of_ever_new_images_are_bounded_in_memory_and_in_observations() {
        let (pulls, start) = (pulls(), Instant::now());
        let mut observations = 0;
        let (seconds, rate) = (5, 5000);
        for second in 0..seconds {
            for number in 0..rate {
                let now = start + Duration::from_secs(second) + Duration::from_millis(number / 10);
                let image = format!("a:v{}", second * rate + number);
                observations += observed(&pulls, &[pulled(&image, "one")], now);
            }
        }
        let most = usize::try_from(seconds * u64::from(PER_SECOND)).unwrap();
        assert_eq!(observations, most);
        // Pushes fill the memory, which keeps its bound.
        for number in 0..IMAGES + IMAGES / 4 {
            observed(&pulls, &[changed(&format!("b:v{number}"), "one")], start);
        }
        let memory = pulls.memory();
        assert!(memory.recent.len() + memory.older.len() <= IMAGES);
        let bytes = (memory.recent.capacity() + memory.older.capacity()) * (8 + size_of::<Known>());
        assert!(bytes < 8 << 20, "{bytes}");
    }

    #[test]
    fn images_in_use_are_not_forgotten() {
        let (pulls, start) = (pulls(), Instant::now());
        let now = start + Duration::from_secs(10);
        observed(&pulls, &[changed("used:v1", "one")], start);
        for number in 0..IMAGES + IMAGES / 2 {
            observed(&pulls, &[changed(&format!("b:v{number}"), "one")], start);
            if number % (IMAGES / 4) == 0 {
                assert_eq!(observed(&pulls, &[pulled("used:v1", "one")], now), 0);
            }
        }
    }
}
