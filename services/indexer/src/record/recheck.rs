//! Revisions whose order is doubtful, and the question about them to the registry. Pure.
//!
//! The question is about the present. The answer is a new push; the revision itself stays as it is.

use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Action, Kind, Origin, Push, Scope, TimeSource};
use time::Duration;

/// Largest distance of a late revision from the head at which the order is doubtful: the clocks of
/// two senders differ.
const NEAR: Duration = Duration::seconds(10);

/// Returns the question that a revision raises, if any.
pub(crate) fn question_for(recorded: &Recorded) -> Option<Push> {
    let revision = &recorded.event;
    // Only events can be out of order; the other origins are answers of the registry.
    if revision.origin != Origin::Event {
        return None;
    }
    let same_instant = recorded.previous_at == Some(revision.occurred_at);
    let shortly_before = revision.late && recorded.head_at - revision.occurred_at <= NEAR;
    // Without a time of its own, a late event looks like a new one.
    let maybe_old = revision.kind == Kind::Reverted && recorded.time_source == TimeSource::Received;
    (same_instant || shortly_before || maybe_old).then(|| Push {
        action: Action::Push,
        scope: Scope::Tag,
        registry: revision.registry.clone(),
        repository: revision.repository.clone(),
        tag: Some(revision.tag.clone()),
        digest: None,
        media_type: None,
        size: None,
        actor: None,
        occurred_at: revision.occurred_at,
        occurred_at_source: recorded.time_source,
        source: revision.source.clone(),
        origin: Origin::Event,
        event_id: format!("{}{}", Push::RECHECK, revision.id()),
    })
}

#[cfg(test)]
mod tests {
    use tagtrail_proto::{Digest, Image, Point, Revision};
    use time::OffsetDateTime;

    use super::*;

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(second)
    }

    /// Revision 2 of a tag, the head, at second 100; revision 1 is one second older.
    fn recorded() -> Recorded {
        let image: Image = "registry.example.com/foo/bar:latest".parse().unwrap();
        let digest = Digest::sha256_of(b"2");
        let event = Revision {
            pinned: Some(image.pinned(&digest)),
            registry: image.registry,
            repository: image.repository,
            tag: image.tag,
            revision: 2,
            kind: Kind::Moved,
            digest: Some(digest.clone()),
            previous: Some(Point {
                revision: 1,
                digest: Some(Digest::sha256_of(b"1")),
            }),
            late: false,
            head: Point {
                revision: 2,
                digest: Some(digest),
            },
            occurred_at: at(100),
            recorded_at: at(101),
            origin: Origin::Event,
            source: "main".to_owned(),
            actor: None,
            media_type: None,
            size: None,
        };
        Recorded {
            tag_id: 1,
            ordinal: 2,
            push_id: 2,
            event,
            previous_at: Some(at(99)),
            head_at: at(100),
            time_source: TimeSource::Event,
        }
    }

    fn doubted(change: impl FnOnce(&mut Recorded)) -> bool {
        let mut recorded = recorded();
        change(&mut recorded);
        question_for(&recorded).is_some()
    }

    #[test]
    fn a_push_on_time_is_not_doubted() {
        assert!(!doubted(|_| {}));
        assert!(!doubted(|recorded| recorded.previous_at = None));
        // A return to an older digest, at a time that the sender reports.
        assert!(!doubted(|recorded| recorded.event.kind = Kind::Reverted));
        assert!(!doubted(
            |recorded| recorded.time_source = TimeSource::Received
        ));
    }

    #[test]
    fn two_states_of_the_same_instant_are_doubted() {
        assert!(doubted(|recorded| recorded.previous_at = Some(at(100))));
    }

    #[test]
    fn a_push_shortly_before_the_head_is_doubted() {
        let late = |seconds: i64| {
            doubted(|recorded| {
                recorded.event.late = true;
                recorded.head_at = at(100 + seconds);
            })
        };
        assert!(late(1) && late(10));
        assert!(!late(11));
    }

    #[test]
    fn a_return_to_an_older_digest_without_a_time_is_doubted() {
        assert!(doubted(|recorded| {
            recorded.event.kind = Kind::Reverted;
            recorded.time_source = TimeSource::Received;
        }));
    }

    #[test]
    fn an_answer_of_the_registry_is_never_doubted() {
        for origin in [Origin::Resolved, Origin::Reconciled, Origin::Imported] {
            assert!(!doubted(|recorded| {
                recorded.event.origin = origin;
                recorded.previous_at = Some(at(100));
            }));
        }
    }

    #[test]
    fn the_question_is_about_the_tag_and_names_no_digest() {
        let mut recorded = recorded();
        recorded.previous_at = Some(at(100));
        let question = question_for(&recorded).unwrap();
        assert_eq!(question.image().unwrap(), recorded.event.image());
        assert_eq!((question.digest, question.actor), (None, None));
        assert_eq!(
            question.event_id,
            "doubt:registry.example.com/foo/bar:latest#2"
        );
    }
}
