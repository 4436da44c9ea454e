//! The gates that a head must pass before a rollout of its digest may start.
//!
//! Each gate ends by itself: with the answer of the registry, or after a time. While a gate waits
//! for an answer, the decision is taken again after pauses that grow with the wait.

use std::time::Duration;

use tagtrail_proto::{Digest, Gate, Image, Origin, Waiting};
use time::OffsetDateTime;

/// The time that a registry has to answer the first request for a manifest.
const UNREAD: Duration = Duration::from_secs(5);
/// The time after which a missing manifest counts as unread again, because no further attempt was
/// recorded: the longest pause between two attempts is 30 s.
const MISSING: Duration = Duration::from_secs(45);
/// The shortest and the longest pause before the next look at a closed gate.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// The present revision of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of the revision.
    pub revision: u64,
    /// The digest of the tag; `None` if the tag is deleted.
    pub digest: Option<Digest>,
    /// The origin of the push behind the revision.
    pub origin: Origin,
    /// True if the push has a time of its own: the sender's time, and not that of the receipt.
    pub own_time: bool,
    /// True if the tag had this digest before.
    pub held_before: bool,
    /// The last time at which the registry confirmed the digest after the push.
    pub confirmed_at: Option<OffsetDateTime>,
    /// The manifest of the digest.
    pub manifest: ManifestState,
    /// The time at which the indexer recorded the revision.
    pub recorded_at: OffsetDateTime,
}

/// The state of reading a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestState {
    /// The manifest is not read yet.
    Unread,
    /// The registry did not have the manifest.
    Missing {
        /// The time of the last attempt.
        looked_at: OffsetDateTime,
        /// True after the last of all attempts: the registry was asked for the tag instead.
        given_up: bool,
    },
    /// The manifest is read.
    Read,
    /// The manifest is read. A client made the image up in order to delete a tag.
    Tombstone,
}

/// The settings that gates depend on.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// True if the registry of the image can be asked.
    pub asked: bool,
    /// True if the trigger must not wait for manifests.
    pub skip_manifest: bool,
}

/// Returns the gate that this head closes, if any.
pub fn closed(image: &Image, head: &Head, rules: Rules, now: OffsetDateTime) -> Option<Waiting> {
    let waiting = |gate, why: String, opens_at: Option<OffsetDateTime>| Waiting {
        gate,
        image: image.clone(),
        registry: image.registry.clone(),
        why,
        since: head.recorded_at,
        opens_at,
    };
    let registry = &image.registry;
    if head.manifest == ManifestState::Tombstone {
        let why = "a client made this image up in order to delete the tag".to_owned();
        return Some(waiting(Gate::Tombstone, why, None));
    }
    if !rules.asked {
        return None;
    }
    let may_be_replayed = head.origin == Origin::Event && !head.own_time && head.held_before;
    if may_be_replayed && head.confirmed_at.is_none() {
        let why = format!(
            "a push without a time of its own returned the tag to an older digest, so {registry} is asked whether the tag has this digest"
        );
        return Some(waiting(Gate::Recheck, why, None));
    }
    if rules.skip_manifest || head.held_before {
        return None;
    }
    let (why, opens_at) = match head.manifest {
        ManifestState::Read | ManifestState::Tombstone => return None,
        ManifestState::Unread => (
            format!("the manifest of the new digest is being read from {registry}"),
            Some(head.recorded_at + UNREAD),
        ),
        ManifestState::Missing {
            looked_at,
            given_up: false,
        } => (
            format!("{registry} has no manifest of the new digest yet; it is read again"),
            Some(looked_at + MISSING),
        ),
        ManifestState::Missing { looked_at, .. } => {
            if head.confirmed_at.is_some_and(|at| at > looked_at) {
                return None;
            }
            let why = format!(
                "{registry} has no manifest of the new digest, so it is asked whether the tag still has this digest"
            );
            (why, None)
        }
    };
    let open = opens_at.is_some_and(|at| at <= now);
    (!open).then(|| waiting(Gate::Manifest, why, opens_at))
}

/// Returns the time of the next look at a closed gate. An answer need not make a revision, so no
/// message announces it. The pause is a quarter of the wait so far.
pub fn look_again(waiting: &Waiting, now: OffsetDateTime) -> OffsetDateTime {
    if waiting.gate == Gate::Settle {
        return waiting.opens_at.unwrap_or(now + PAUSES.1);
    }
    let waited = Duration::try_from(now - waiting.since).unwrap_or_default();
    let next = now + (waited / 4).clamp(PAUSES.0, PAUSES.1);
    waiting.opens_at.map_or(next, |opens_at| next.min(opens_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
    const ALWAYS: Rules = Rules {
        asked: true,
        skip_manifest: false,
    };

    fn image() -> Image {
        "registry.example.com/shop/web:stable".parse().unwrap()
    }

    /// A head that was recorded a number of milliseconds ago.
    fn head(ago: u64) -> Head {
        Head {
            revision: 3,
            digest: Some(Digest::sha256_of(b"3")),
            origin: Origin::Event,
            own_time: true,
            held_before: false,
            confirmed_at: None,
            manifest: ManifestState::Read,
            recorded_at: NOW - Duration::from_millis(ago),
        }
    }

    fn replayed(ago: u64) -> Head {
        Head {
            own_time: false,
            held_before: true,
            manifest: ManifestState::Unread,
            ..head(ago)
        }
    }

    fn gate_of(head: &Head, rules: Rules) -> Option<Gate> {
        closed(&image(), head, rules, NOW).map(|waiting| waiting.gate)
    }

    #[test]
    fn a_return_without_a_time_waits_for_the_registry_however_long_that_takes() {
        for ago in [0, 10_000, 86_400_000] {
            assert_eq!(gate_of(&replayed(ago), ALWAYS), Some(Gate::Recheck));
        }
        let confirmed = Head {
            confirmed_at: Some(NOW),
            ..replayed(3000)
        };
        assert_eq!(gate_of(&confirmed, ALWAYS), None);
    }

    #[test]
    fn a_return_is_planned_if_it_has_a_time_or_is_an_answer_or_nobody_can_be_asked() {
        let timed = Head {
            own_time: true,
            ..replayed(0)
        };
        let answer = Head {
            origin: Origin::Resolved,
            ..replayed(0)
        };
        let nobody = Rules {
            asked: false,
            ..ALWAYS
        };
        assert_eq!(gate_of(&timed, ALWAYS), None);
        assert_eq!(gate_of(&answer, ALWAYS), None);
        assert_eq!(gate_of(&replayed(0), nobody), None);
        let settling = Rules {
            skip_manifest: true,
            ..ALWAYS
        };
        assert_eq!(gate_of(&replayed(0), settling), Some(Gate::Recheck));
    }

    #[test]
    fn a_new_digest_waits_for_its_manifest_for_at_most_five_seconds() {
        let unread = |ago| Head {
            manifest: ManifestState::Unread,
            ..head(ago)
        };
        assert_eq!(gate_of(&unread(0), ALWAYS), Some(Gate::Manifest));
        assert_eq!(gate_of(&unread(4999), ALWAYS), Some(Gate::Manifest));
        assert_eq!(gate_of(&unread(5000), ALWAYS), None);
        assert_eq!(gate_of(&head(0), ALWAYS), None);
        for rules in [
            Rules {
                asked: false,
                ..ALWAYS
            },
            Rules {
                skip_manifest: true,
                ..ALWAYS
            },
        ] {
            assert_eq!(gate_of(&unread(0), rules), None);
        }
        let known = Head {
            held_before: true,
            ..unread(0)
        };
        assert_eq!(gate_of(&known, ALWAYS), None);
    }

    #[test]
    fn a_missing_manifest_waits_for_the_last_attempt_and_then_for_the_answer_about_the_tag() {
        let missing = |seconds, given_up| Head {
            manifest: ManifestState::Missing {
                looked_at: NOW - Duration::from_secs(seconds),
                given_up,
            },
            ..head(60_000)
        };
        assert_eq!(gate_of(&missing(30, false), ALWAYS), Some(Gate::Manifest));
        // The resolver ended between two attempts.
        assert_eq!(gate_of(&missing(45, false), ALWAYS), None);
        assert_eq!(gate_of(&missing(600, true), ALWAYS), Some(Gate::Manifest));
        let confirmed = |seconds| Head {
            confirmed_at: Some(NOW - Duration::from_secs(seconds)),
            ..missing(10, true)
        };
        assert_eq!(gate_of(&confirmed(20), ALWAYS), Some(Gate::Manifest));
        assert_eq!(gate_of(&confirmed(9), ALWAYS), None);
    }

    #[test]
    fn a_tombstone_never_passes() {
        let nobody = Rules {
            asked: false,
            skip_manifest: true,
        };
        let tombstone = Head {
            manifest: ManifestState::Tombstone,
            ..head(86_400_000)
        };
        assert_eq!(gate_of(&tombstone, nobody), Some(Gate::Tombstone));
    }

    #[test]
    fn pauses_grow_with_the_wait_and_end_when_the_gate_opens() {
        let pause = |head: &Head| {
            let waiting = closed(&image(), head, ALWAYS, NOW).unwrap();
            (look_again(&waiting, NOW) - NOW).whole_milliseconds()
        };
        let pauses = [0, 100, 4000, 86_400_000].map(|ago| pause(&replayed(ago)));
        assert_eq!(pauses, [20, 25, 1000, 5000]);
        let unread = Head {
            manifest: ManifestState::Unread,
            ..head(4990)
        };
        assert_eq!(pause(&unread), 10);
    }
}
