//! Publishes revisions in order, many at once, and never after a newer revision of the same tag.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tagtrail_bus::Bus;
use tagtrail_bus::publish::{Ack, Fence, Message, PublishError};
use tagtrail_bus::topology::Stream;
use tagtrail_daemon::{Retry, Span, SpanKind};
use tagtrail_failpoint::FailPoint;
use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Event, Revision, Subject};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};

use crate::error::Error;
use crate::metrics::Metrics;
use crate::record::apply::Cause;

/// Most unacknowledged revisions of a partition. After a resend, revisions of different tags may be
/// out of ordinal order by up to this many.
pub(crate) const WINDOW: usize = 256;
/// Failed acknowledgements in a row after which the work on the partition starts over.
const ATTEMPTS: u32 = 3;

/// A revision to publish.
#[derive(Debug)]
pub(crate) struct OutgoingRevision {
    ordinal: u64,
    tag_id: i64,
    subject: Subject,
    /// The `Nats-Msg-Id`. `None`: the server must not treat the message as a duplicate.
    id: Option<String>,
    payload: bytes::Bytes,
    /// The time at which the push behind it was received.
    received_at: Option<OffsetDateTime>,
    /// Ends when the revision is published.
    span: Option<Box<Span>>,
}

impl OutgoingRevision {
    /// A newly recorded revision.
    pub(crate) fn new(new: Recorded, cause: Cause) -> Result<OutgoingRevision, Error> {
        let id = new.event.id();
        let span = cause.trace.map(|trace| {
            let mut span = Span::start("record", SpanKind::Consumer, Some(&trace));
            span.set("tagtrail.revision", id.clone());
            Box::new(span)
        });
        Ok(OutgoingRevision {
            id: Some(id),
            received_at: Some(cause.received_at),
            span,
            ..OutgoingRevision::again(new)?
        })
    }

    /// A revision that REVISIONS is missing. It is sent without a `Nats-Msg-Id`: the server may
    /// still remember the id of the lost copy, and would drop this message as a duplicate.
    pub(crate) fn again(new: Recorded) -> Result<OutgoingRevision, Error> {
        let subject = Subject::of_revisions(&new.event.image());
        let payload = Message::of(&subject, &new.event.event())?.payload;
        Ok(OutgoingRevision {
            ordinal: new.ordinal,
            tag_id: new.tag_id,
            subject,
            id: None,
            payload,
            received_at: None,
            span: None,
        })
    }
}

/// Returns the revisions that REVISIONS is missing. Right only after fencing, while no other
/// instance can publish.
pub(crate) async fn missing(bus: &Bus, revisions: Vec<Recorded>) -> Result<Vec<Recorded>, Error> {
    let mut subjects: Vec<Subject> = revisions
        .iter()
        .map(|new| Subject::of_revisions(&new.event.image()))
        .collect();
    subjects.sort_by_key(Subject::to_string);
    subjects.dedup();
    let mut last = std::collections::HashMap::new();
    for (subject, payload) in bus.last_messages(Stream::Revisions, subjects).await? {
        // Ignore messages without a revision: no indexer published such a message.
        if let Ok(event) = serde_json::from_slice::<Event<Revision>>(&payload) {
            last.insert(subject.to_string(), event.data.revision);
        }
    }
    Ok(revisions
        .into_iter()
        .filter(|new| {
            last.get(&Subject::of_revisions(&new.event.image()).to_string())
                .is_none_or(|number| *number < new.event.revision)
        })
        .collect())
}

type Acknowledgement = BoxFuture<'static, Result<Ack, PublishError>>;

/// Publishes incoming revisions until the sender is dropped and all are acknowledged; `published`
/// follows with the ordinals.
///
/// After the session of the fence is lost, nothing more is published. The server may have lost
/// acknowledged revisions, and newer revisions of the same tags would hide the loss.
pub(crate) async fn publish(
    fence: &Fence,
    incoming: &mut mpsc::Receiver<Vec<OutgoingRevision>>,
    published: &watch::Sender<u64>,
    metrics: &Metrics,
) -> Result<(), Error> {
    tokio::select! {
        biased;
        () = fence.lost() => Err(PublishError::Lost.into()),
        done = in_order(fence, incoming, published, metrics) => done,
    }
}

/// Publishes with at most one unacknowledged message of each tag, and after a failure sends all
/// unacknowledged messages again, in order. Otherwise a message could be stored although the one
/// before it of the same tag was lost.
async fn in_order(
    fence: &Fence,
    incoming: &mut mpsc::Receiver<Vec<OutgoingRevision>>,
    published: &watch::Sender<u64>,
    metrics: &Metrics,
) -> Result<(), Error> {
    let mut queue: VecDeque<OutgoingRevision> = VecDeque::new();
    let mut window: VecDeque<(OutgoingRevision, Acknowledgement)> = VecDeque::new();
    let mut on_their_way: HashSet<i64> = HashSet::new();
    let mut retry = Retry::new("publishing revisions").at_most(Duration::from_secs(1));
    let (mut failures, mut open) = (0, true);
    let at_once = WINDOW.min(fence.at_once());
    loop {
        while window.len() < at_once
            && queue
                .front()
                .is_some_and(|next| !on_their_way.contains(&next.tag_id))
        {
            let Some(next) = queue.pop_front() else { break };
            let message = Message {
                subject: &next.subject,
                id: next.id.as_deref(),
                payload: next.payload.clone(),
                trace: next.span.as_ref().map(|span| *span.context()),
            };
            let sent = fence.send(message).await?;
            FailPoint::IndexerSent.pass();
            on_their_way.insert(next.tag_id);
            window.push_back((next, Box::pin(sent.acknowledged())));
        }
        let outcome = match window.front_mut() {
            None if !open && queue.is_empty() => return Ok(()),
            None => None,
            Some((_, oldest)) if open && queue.is_empty() => tokio::select! {
                biased;
                outcome = oldest => Some(outcome),
                batch = incoming.recv() => { take(batch, &mut queue, &mut open); continue },
            },
            Some((_, oldest)) => Some(oldest.await),
        };
        match outcome {
            None => take(incoming.recv().await, &mut queue, &mut open),
            Some(Ok(_)) => {
                FailPoint::IndexerPublished.pass();
                if let Some((done, _)) = window.pop_front() {
                    on_their_way.remove(&done.tag_id);
                    published.send_replace(done.ordinal);
                    metrics.published(done.received_at);
                }
                failures = 0;
                retry.succeeded();
            }
            // A message without a `Nats-Msg-Id` could be stored twice: the holder must first look
            // up the last messages on the stream.
            Some(Err(error @ PublishError::Unacknowledged(_)))
                if failures < ATTEMPTS && window.iter().all(|(sent, _)| sent.id.is_some()) =>
            {
                failures += 1;
                for (again, _) in window.drain(..).rev() {
                    queue.push_front(again);
                }
                on_their_way.clear();
                tokio::time::sleep(retry.failed(&error)).await;
            }
            Some(Err(final_error)) => return Err(final_error.into()),
        }
    }
}

fn take(
    batch: Option<Vec<OutgoingRevision>>,
    queue: &mut VecDeque<OutgoingRevision>,
    open: &mut bool,
) {
    match batch {
        Some(batch) => queue.extend(batch),
        None => *open = false,
    }
}
