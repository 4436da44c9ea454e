//! A task: a question or a manifest in hand, from a stream or from the table `postponed`.

use std::time::Duration;

use tagtrail_bus::jobs::Job;
use tagtrail_proto::TraceContext;
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;

use crate::postponed::{Change, Entry, Key, Postponed, Row};

/// The least pause of a message that the table has no room for.
const WITHOUT_ROOM: Duration = Duration::from_secs(5);

/// A message in hand. A dropped task comes back: NATS redelivers its message, or its row is due
/// again.
#[derive(Debug)]
pub(crate) struct Task {
    /// The trace that the message belongs to.
    pub(crate) trace: Option<TraceContext>,
    /// The number of attempts, this one included: 1, 2, 3 …
    pub(crate) attempt: u32,
    held: Held,
    postponed: Postponed,
    /// The place of the task among those of its registry.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Held {
    Message(Box<Job>),
    Row { row: Row, body: Vec<u8> },
}

impl Task {
    /// Returns the task of a message in a stream.
    pub(crate) fn of_job(job: Job, postponed: &Postponed) -> Task {
        Task {
            trace: job.trace,
            attempt: job.attempt,
            held: Held::Message(Box::new(job)),
            postponed: postponed.clone(),
            _place: None,
        }
    }

    /// Returns the task of a row of `postponed` that this process has claimed.
    pub(crate) fn of_row(row: Row, entry: Entry, postponed: Postponed) -> Task {
        Task {
            trace: entry.trace,
            attempt: entry.attempts,
            held: Held::Row {
                row,
                body: entry.body,
            },
            postponed,
            _place: None,
        }
    }

    /// Returns the task with its place, which becomes free when the task ends.
    pub(crate) fn with_place(self, place: Option<OwnedSemaphorePermit>) -> Task {
        Task {
            _place: place,
            ..self
        }
    }

    /// Returns the body of the message.
    pub(crate) fn payload(&self) -> &[u8] {
        match &self.held {
            Held::Message(job) => &job.payload,
            Held::Row { body, .. } => body,
        }
    }

    /// Ends the task: it is done.
    pub(crate) async fn done(self) {
        match self.held {
            Held::Message(job) => job.ack().await,
            Held::Row { row, .. } => self.postponed.send(Change::Done(row)).await,
        }
    }

    /// Puts the task off after an attempt. It comes back after `pause`.
    pub(crate) async fn later(self, key: Key, pause: Duration) {
        let attempts = self.attempt;
        self.put_off(key, attempts, pause).await;
    }

    /// Puts the task off before an attempt: its registry has no place for it, or rests.
    pub(crate) async fn wait(self, key: Key, pause: Duration) {
        let attempts = self.attempt.saturating_sub(1);
        self.put_off(key, attempts, pause).await;
    }

    async fn put_off(self, key: Key, attempts: u32, pause: Duration) {
        match self.held {
            Held::Message(job) if self.postponed.has_room(&key) => {
                let entry = Entry {
                    body: job.payload.to_vec(),
                    trace: self.trace,
                    attempts,
                    due_at: OffsetDateTime::now_utc() + pause,
                    key,
                };
                self.postponed.send(Change::Add(entry, job)).await;
            }
            held => {
                // NATS redelivers a message without a pause at once, again and again.
                let pause = match (&held, self.postponed.is_kept()) {
                    (Held::Message(_), true) => pause.max(WITHOUT_ROOM),
                    _ => pause,
                };
                Task { held, ..self }.again(pause).await;
            }
        }
    }

    /// Puts off a task whose registry is unknown or plays no part. It comes back after `pause`.
    pub(crate) async fn again(self, pause: Duration) {
        match self.held {
            Held::Message(job) => job.nak(pause).await,
            Held::Row { row, .. } => {
                let due_at = OffsetDateTime::now_utc() + pause;
                self.postponed.send(Change::Due(row, due_at)).await;
            }
        }
    }

    /// Returns the task, for another instance.
    pub(crate) async fn release(self) {
        self.again(Duration::ZERO).await;
    }
}
