//! A question: a checked message of UNRESOLVED.

use std::time::Duration;

use tagtrail_proto::{Event, Image, Push};
use time::OffsetDateTime;

use crate::postponed::{Key, Work};
use crate::task::Task;

/// A question for the digest of an image.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) image: Image,
    pub(super) push: Push,
    pub(super) task: Task,
}

/// A message that is not a valid question, and the reason.
#[derive(Debug)]
pub(super) struct InvalidMessage {
    pub(super) task: Task,
    /// The source of the event, if the message names it.
    pub(super) source: Option<String>,
    pub(super) reason: String,
}

impl Question {
    pub(super) fn read(task: Task) -> Result<Question, Box<InvalidMessage>> {
        let push = match serde_json::from_slice::<Event<Push>>(task.payload()) {
            Ok(event) => event.data,
            Err(error) => {
                return Err(Box::new(InvalidMessage {
                    reason: format!("not a push event: {error}"),
                    source: None,
                    task,
                }));
            }
        };
        match push.image() {
            Some(image) => Ok(Question { image, push, task }),
            None => Err(Box::new(InvalidMessage {
                reason: "the push names no tag".to_owned(),
                source: Some(push.source),
                task,
            })),
        }
    }

    /// Returns the identity of the question. Of two questions of the same kind about an image the
    /// later one stands for both, because both ask for its digest now.
    pub(super) fn key(&self) -> Key {
        let kind = if self.is_second_look() {
            "second look"
        } else if self.is_recheck() {
            "recheck"
        } else if self.is_observation() {
            "observation"
        } else {
            "event"
        };
        Key {
            work: Work::Question,
            registry: self.image.registry.clone(),
            source: self.push.source.clone(),
            key: format!("{} {kind}", self.image),
        }
    }

    /// Puts the question off after an attempt. It comes back after `pause`.
    pub(super) async fn later(self, pause: Duration) {
        let key = self.key();
        self.task.later(key, pause).await;
    }

    /// Puts the question off before an attempt: its registry has no place for it, or rests.
    pub(super) async fn wait(self, pause: Duration) {
        let key = self.key();
        self.task.wait(key, pause).await;
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
