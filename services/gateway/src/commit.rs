//! The committer: one task, through which all pushes of a process go to one stream, where
//! nats-server syncs each message. There is a committer for each stream of pushes.
//!
//! While the server stores some pushes, others wait. Many that wait are stored as one group, which
//! costs a few syncs; few of them are published one by one. There is one group under way at a time:
//! two hinder each other. The server refuses a whole group for one id that the stream holds already
//! (a repeated webhook); then each push is published by itself with the same id, and so are the
//! pushes of a group without an answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tagtrail_bus::Bus;
use tagtrail_bus::group::MOST;
use tagtrail_bus::publish::{Ack, Message, PublishError};
use tagtrail_bus::topology::Stream;
use tagtrail_proto::{Subject, TraceContext};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::metrics::{GroupOutcome, Metrics};

/// Pushes that make a group. A smaller group is stored later than its pushes one by one
/// (docs/performance.md).
const FEWEST: usize = 12;
/// Bytes after which a group is complete.
const LARGEST: usize = 4 << 20;
/// Memory for the pushes that wait, in KiB. Each takes one at least, which bounds their number too.
const ROOM: u32 = 16 << 10;
/// Longest wait for the answer to a group: half of the time in which a body with one push must be
/// stored, so that its pushes can be published again.
const GROUP: Duration = Duration::from_millis(400);
/// Longest wait for the answers to single pushes before the next ones are published. Later answers
/// still reach their bodies.
const SINGLES: Duration = Duration::from_millis(800);

/// The queue of the pushes that wait. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    waiting: mpsc::UnboundedSender<Waiting>,
    room: Arc<Semaphore>,
}

/// The answer about a queued push. A push whose answer was dropped before the push was published is
/// not published.
#[derive(Debug)]
pub(crate) struct Answer(oneshot::Receiver<Result<Ack, PublishError>>);

/// Publishes the pushes of a queue, all of one stream, until the queue is dropped and empty.
#[derive(Debug)]
pub(crate) struct Committer {
    bus: Bus,
    metrics: Metrics,
    waiting: mpsc::UnboundedReceiver<Waiting>,
}

/// A push that waits.
#[derive(Debug)]
struct Waiting {
    subject: Subject,
    id: Option<String>,
    payload: Bytes,
    trace: Option<TraceContext>,
    answer: oneshot::Sender<Result<Ack, PublishError>>,
    _room: OwnedSemaphorePermit,
}

/// Runs a committer for each stream of pushes. Returns the queues, and the tasks, which end when
/// the queues are dropped.
pub(crate) fn committers(bus: &Bus, metrics: &Metrics) -> (HashMap<Stream, Queue>, JoinSet<()>) {
    let (mut queues, mut tasks) = (HashMap::new(), JoinSet::new());
    for &stream in bus.layout().streams.iter() {
        let (queue, committer) = committer(bus.clone(), metrics.clone());
        queues.insert(stream, queue);
        tasks.spawn(committer.run());
    }
    (queues, tasks)
}

/// Returns a committer with its queue.
fn committer(bus: Bus, metrics: Metrics) -> (Queue, Committer) {
    let (sender, waiting) = mpsc::unbounded_channel();
    let queue = Queue {
        waiting: sender,
        room: Arc::new(Semaphore::new(ROOM as usize)),
    };
    let committer = Committer {
        bus,
        metrics,
        waiting,
    };
    (queue, committer)
}

fn ended() -> PublishError {
    PublishError::Unacknowledged("the gateway stops".to_owned())
}

impl Queue {
    /// Queues a push, behind those of earlier calls. Waits while the queue is full; the caller sets
    /// the time.
    ///
    /// # Errors
    /// If the committer has ended.
    pub(crate) async fn push(&self, message: Message<'_>) -> Result<Answer, PublishError> {
        let kib = u32::try_from(message.payload.len() >> 10).unwrap_or(ROOM);
        let room = Arc::clone(&self.room).acquire_many_owned(kib.clamp(1, ROOM));
        let room = room.await.map_err(|_| ended())?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            subject: message.subject.clone(),
            id: message.id.map(ToOwned::to_owned),
            payload: message.payload,
            trace: message.trace,
            answer,
            _room: room,
        };
        self.waiting.send(waiting).map_err(|_| ended())?;
        Ok(Answer(answered))
    }
}

impl Answer {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`PublishError`]; the same push may be queued again.
    pub(crate) async fn acknowledged(self) -> Result<Ack, PublishError> {
        self.0.await.map_err(|_| ended())?
    }
}

impl Waiting {
    fn message(&self) -> Message<'_> {
        Message {
            subject: &self.subject,
            id: self.id.as_deref(),
            payload: self.payload.clone(),
            trace: self.trace,
        }
    }

    /// Answers. A caller that no longer waits needs no answer.
    fn answer(self, answer: Result<Ack, PublishError>) {
        let _ = self.answer.send(answer);
    }
}

impl Committer {
    /// Publishes pushes in the order of the queue.
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.waiting.recv().await {
            let round = self.round(first);
            if round.len() < FEWEST {
                self.singly(round).await;
            } else {
                self.together(round).await;
            }
        }
    }

    /// Returns the pushes that wait, the first of them and as many others as a group may have.
    fn round(&mut self, first: Waiting) -> Vec<Waiting> {
        let (mut round, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(waiting) = next {
            if !waiting.answer.is_closed() {
                bytes += waiting.payload.len();
                round.push(waiting);
            }
            next = if round.len() < MOST && bytes < LARGEST {
                self.waiting.try_recv().ok()
            } else {
                None
            };
        }
        round
    }

    /// Publishes pushes as a group; if that fails, one by one.
    async fn together(&self, round: Vec<Waiting>) {
        let (group, places) = group(&round);
        let (count, publishing) = (group.len(), self.bus.publish_group(&group));
        let acks = match timeout(GROUP, publishing).await {
            Ok(Ok(acks)) => acks,
            failed => {
                tracing::debug!(
                    pushes = count,
                    ?failed,
                    "publishing the pushes of a group by themselves"
                );
                self.metrics.count_group(count, GroupOutcome::failed);
                drop(group);
                return self.singly(round).await;
            }
        };
        self.metrics.count_group(count, GroupOutcome::stored);
        drop(group);
        for (waiting, place) in round.into_iter().zip(places) {
            if let Some(&ack) = acks.get(place.number) {
                let duplicate = place.taken;
                waiting.answer(Ok(Ack { duplicate, ..ack }));
            }
        }
    }

    /// Publishes pushes one by one, and waits a while for their answers.
    async fn singly(&self, round: Vec<Waiting>) {
        let mut sent = JoinSet::new();
        for mut waiting in round {
            if waiting.answer.is_closed() {
                continue;
            }
            match self.bus.send(waiting.message()).await {
                Ok(unacknowledged) => drop(sent.spawn(async move {
                    tokio::select! {
                        ack = unacknowledged.acknowledged() => waiting.answer(ack),
                        () = waiting.answer.closed() => {}
                    }
                })),
                Err(error) => waiting.answer(Err(error)),
            }
        }
        let all = async { while sent.join_next().await.is_some() {} };
        if timeout(SINGLES, all).await.is_err() {
            sent.detach_all();
        }
    }
}

/// The place of a push in its group.
struct Place {
    number: usize,
    /// An equal push has the place already.
    taken: bool,
}

/// Returns the messages of a group, in which equal pushes have one message, and the place of each
/// push.
fn group(round: &[Waiting]) -> (Vec<Message<'_>>, Vec<Place>) {
    let (mut messages, mut places) = (Vec::new(), Vec::with_capacity(round.len()));
    let mut numbers = HashMap::new();
    for waiting in round {
        let id = waiting.id.as_deref();
        let first = id.and_then(|id| numbers.get(id).copied());
        let number = first.unwrap_or(messages.len());
        let taken = first.is_some();
        places.push(Place { number, taken });
        if !taken {
            messages.push(waiting.message());
            numbers.extend(id.map(|id| (id, number)));
        }
    }
    (messages, places)
}

#[cfg(test)]
mod tests;
