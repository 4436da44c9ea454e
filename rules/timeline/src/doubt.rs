//! Which pushes leave a doubt about the end of their tag's timeline, so that the registry is asked
//! for the present digest of the tag.
//!
//! Clocks of senders differ, and registries report pushes before they write the tag. The times of
//! two pushes then say too little about their order, and only the registry knows the outcome. A
//! doubt is always about the end of the timeline: an answer about now can't order the past.

use tagtrail_proto::{Digest, Origin};
use time::{Duration, OffsetDateTime};

use crate::{Effect, MAX_AHEAD};

/// Largest distance of two pushes whose order is doubtful: the lead that a clock may have, and the
/// same again for a clock that is behind.
pub const NEAR: Duration = Duration::seconds(2 * MAX_AHEAD.whole_seconds());

/// The end of a tag's timeline without the push in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The digest of the tag; `None`: deleted, or never seen.
    pub digest: Option<Digest>,
    /// The effective time of the newest push; `None`: there was no push.
    pub at: Option<OffsetDateTime>,
}

/// A push that may leave a doubt.
#[derive(Debug, Clone, Copy)]
pub struct Suspect<'a> {
    /// The effective time.
    pub at: OffsetDateTime,
    /// The change that the push reports.
    pub effect: &'a Effect,
    /// The push is about this tag, not about the whole repository.
    pub of_tag: bool,
    /// The way in which the push became known.
    pub origin: Origin,
    /// The effective time is the sender's own time of the event.
    pub own_time: bool,
    /// The push set the head to a digest that the tag had before.
    pub returns: bool,
}

impl Suspect<'_> {
    /// Returns whether the tag has another state after the push than at its `end`, if the push is
    /// applied there.
    fn differs(&self, end: Option<&Digest>) -> bool {
        match self.effect {
            Effect::Push(digest) => end != Some(digest),
            Effect::Delete | Effect::DeleteRepository => end.is_some(),
            Effect::DeleteDigest(digest) => end == Some(digest),
        }
    }
}

/// Returns whether the registry must be asked about the tag after this push.
pub fn is_doubtful(push: Suspect<'_>, end: &End) -> bool {
    let differs = push.differs(end.digest.as_ref());
    let late = end.at.is_some_and(|newest| push.at < newest);
    if push.origin != Origin::Event {
        // An answer stands after the head that its question was about. If a newer push overtook the
        // answer, or two answers share an instant, only a new answer can tell. So a series of
        // questions ends.
        return differs && end.at.is_some_and(|newest| push.at <= newest);
    }
    let near = end
        .at
        .is_some_and(|newest| (push.at - newest).abs() <= NEAR);
    match push.effect {
        Effect::Push(_) => differs && near || push.returns && !push.own_time,
        Effect::Delete | Effect::DeleteDigest(_) | Effect::DeleteRepository if differs => {
            near || late || !push.own_time
        }
        // The tag has another digest than the delete names.
        Effect::DeleteDigest(_) => push.of_tag && end.digest.is_some(),
        Effect::Delete | Effect::DeleteRepository => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(n)
    }

    fn digest(n: u8) -> Digest {
        Digest::sha256_of(&[n])
    }

    /// A tag with digest 1, whose newest push is at second 1000.
    fn end() -> End {
        End {
            digest: Some(digest(1)),
            at: Some(second(1000)),
        }
    }

    fn event(effect: &Effect, at: i64) -> Suspect<'_> {
        Suspect {
            at: second(at),
            effect,
            of_tag: true,
            origin: Origin::Event,
            own_time: true,
            returns: false,
        }
    }

    #[test]
    fn two_different_pushes_within_two_minutes_are_doubtful_in_both_orders() {
        let (same, other) = (Effect::Push(digest(1)), Effect::Push(digest(2)));
        for at in [880, 1000, 1120] {
            assert!(is_doubtful(event(&other, at), &end()), "{at}");
            assert!(is_doubtful(event(&Effect::Delete, at), &end()), "{at}");
            assert!(!is_doubtful(event(&same, at), &end()), "{at}");
        }
        for at in [879, 1121] {
            assert!(!is_doubtful(event(&other, at), &end()), "{at}");
        }
    }

    #[test]
    fn the_first_push_of_a_tag_is_certain() {
        let never = End {
            digest: None,
            at: None,
        };
        assert!(!is_doubtful(event(&Effect::Push(digest(1)), 5), &never));
        assert!(!is_doubtful(event(&Effect::Delete, 5), &never));
    }

    #[test]
    fn a_delete_or_a_return_without_a_time_of_its_own_is_doubtful() {
        let (other, delete) = (Effect::Push(digest(2)), Effect::Delete);
        let untimed = |effect, returns| Suspect {
            own_time: false,
            returns,
            ..event(effect, 9000)
        };
        assert!(is_doubtful(untimed(&delete, false), &end()));
        assert!(is_doubtful(untimed(&other, true), &end()));
        assert!(!is_doubtful(untimed(&other, false), &end()));
        let timed_return = Suspect {
            returns: true,
            ..event(&other, 9000)
        };
        assert!(!is_doubtful(timed_return, &end()));
    }

    #[test]
    fn a_delete_dated_before_an_earlier_push_is_doubtful_however_far() {
        assert!(is_doubtful(event(&Effect::Delete, 1), &end()));
        let named = Effect::DeleteDigest(digest(1));
        assert!(is_doubtful(event(&named, 1), &end()));
        let gone = End {
            digest: None,
            ..end()
        };
        assert!(!is_doubtful(event(&Effect::Delete, 1), &gone));
    }

    #[test]
    fn a_delete_of_the_tag_that_names_another_digest_is_doubtful() {
        let other = Effect::DeleteDigest(digest(2));
        assert!(is_doubtful(event(&other, 9000), &end()));
        // Of the digest everywhere: the tag does not have the digest, and nothing follows.
        let everywhere = Suspect {
            of_tag: false,
            ..event(&other, 1000)
        };
        assert!(!is_doubtful(everywhere, &end()));
    }

    #[test]
    fn only_an_answer_that_was_overtaken_is_doubtful() {
        let (same, other) = (Effect::Push(digest(1)), Effect::Push(digest(2)));
        for origin in [Origin::Resolved, Origin::Reconciled, Origin::Imported] {
            let answer = |effect, at| Suspect {
                origin,
                own_time: false,
                returns: true,
                ..event(effect, at)
            };
            assert!(is_doubtful(answer(&other, 1000), &end()));
            assert!(is_doubtful(answer(&other, 10), &end()));
            assert!(!is_doubtful(answer(&other, 1001), &end()));
            assert!(!is_doubtful(answer(&same, 10), &end()));
        }
    }
}
