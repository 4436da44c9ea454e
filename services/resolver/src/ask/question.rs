//! A question: a checked message of UNRESOLVED.

use tagtrail_bus::jobs::Job;
use tagtrail_proto::{Event, Image, Push};
use time::OffsetDateTime;

/// A question for the digest of an image.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) image: Image,
    pub(super) push: Push,
    pub(super) job: Job,
}

/// A message that is not a valid question, and the reason.
#[derive(Debug)]
pub(super) struct InvalidMessage {
    pub(super) job: Job,
    /// The source of the event, if the message names it.
    pub(super) source: Option<String>,
    pub(super) reason: String,
}

impl Question {
    pub(super) fn read(job: Job) -> Result<Question, Box<InvalidMessage>> {
        let push = match serde_json::from_slice::<Event<Push>>(&job.payload) {
            Ok(event) => event.data,
            Err(error) => {
                return Err(Box::new(InvalidMessage {
                    reason: format!("not a push event: {error}"),
                    source: None,
                    job,
                }));
            }
        };
        match push.image() {
            Some(image) => Ok(Question { image, push, job }),
            None => Err(Box::new(InvalidMessage {
                reason: "the push names no tag".to_owned(),
                source: Some(push.source),
                job,
            })),
        }
    }

    /// Returns true if the indexer asked for a re-check, rather than an event for its digest.
    pub(super) fn is_recheck(&self) -> bool {
        self.push.event_id.starts_with(Push::RECHECK)
    }

    /// Returns the effective time of the head that a re-check is about, as the indexer wrote it.
    pub(super) fn head_at(&self) -> Option<OffsetDateTime> {
        let id = &self.push.event_id;
        let first = id.strip_prefix(Push::SECOND).unwrap_or(id);
        first
            .starts_with(Push::RECHECK)
            .then_some(self.push.occurred_at)
    }

    /// Returns true if a pull reported the digest in the question.
    pub(super) fn is_observation(&self) -> bool {
        self.push.event_id.starts_with(Push::OBSERVED)
    }

    /// Returns true for the second look, after an earlier answer.
    pub(super) fn is_second_look(&self) -> bool {
        self.push.event_id.starts_with(Push::SECOND)
    }
}
