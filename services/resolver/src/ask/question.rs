//! What is asked: a message of UNRESOLVED, checked.

use tagtrail_bus::jobs::Job;
use tagtrail_proto::{Event, Image, Push};

/// A question about an image.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) image: Image,
    pub(super) push: Push,
    pub(super) job: Job,
}

/// A message that is no question, and why.
#[derive(Debug)]
pub(super) struct InvalidMessage {
    pub(super) job: Job,
    /// The source that it came by, as far as that can be read.
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
                reason: "a question needs a tag".to_owned(),
                source: Some(push.source),
                job,
            })),
        }
    }

    /// Whether it was raised by Tagtrail itself, rather than by an event.
    pub(super) fn is_recheck(&self) -> bool {
        self.push.event_id.starts_with(Push::DOUBT)
    }

    /// Whether it was answered a while ago, and is asked once more.
    pub(super) fn is_second_look(&self) -> bool {
        self.push.event_id.starts_with(Push::SECOND)
    }
}
