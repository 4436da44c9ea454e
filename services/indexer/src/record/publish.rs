//! Publishes revisions in order, many at once, and never after a newer revision of the same tag.

use std::collections::{HashSet, VecDeque};

use futures_util::future::BoxFuture;
use tagtrail_bus::fence::Fence;
use tagtrail_bus::publish::{Ack, Message, PublishError};
use tagtrail_bus::topology::Stream;
use tagtrail_bus::{Bus, group};
use tagtrail_daemon::{Span, SpanKind};
use tagtrail_failpoint::FailPoint;
use tagtrail_history::recorded::Recorded;
use tagtrail_proto::{Event, Revision, Subject, TraceContext};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};

use crate::error::Error;
use crate::metrics::Metrics;
use crate::record::apply::Cause;

/// Most unacknowledged revisions of a partition. After a lost acknowledgement, revisions of
/// different tags may be out of ordinal order by up to this many.
pub(crate) const WINDOW: usize = 256;

/// A revision to publish. It waits as a row, and becomes JSON when its turn comes: the text of a
/// batch takes several times the memory.
#[derive(Debug)]
pub(crate) struct OutgoingRevision {
    recorded: Recorded,
    /// The time at which the push behind it was received.
    received_at: Option<OffsetDateTime>,
    /// Ends when the revision is published.
    span: Option<Box<Span>>,
}

impl OutgoingRevision {
    /// A newly recorded revision.
    pub(crate) fn new(new: Recorded, cause: Cause) -> OutgoingRevision {
        let span = cause.trace.map(|trace| {
            let mut span = Span::start("record", SpanKind::Consumer, Some(&trace));
            span.set("tagtrail.revision", new.event.id());
            Box::new(span)
        });
        OutgoingRevision {
            recorded: new,
            received_at: Some(cause.received_at),
            span,
        }
    }

    /// A revision that REVISIONS is missing.
    pub(crate) fn again(missing: Recorded) -> OutgoingRevision {
        OutgoingRevision {
            recorded: missing,
            received_at: None,
            span: None,
        }
    }

    fn subject(&self) -> Subject {
        Subject::of_revisions(&self.recorded.event.image())
    }

    fn trace(&self) -> Option<TraceContext> {
        self.span.as_ref().map(|span| *span.context())
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
        done = async {
            if fence.takes_groups() {
                in_groups(fence, incoming, published, metrics).await
            } else {
                in_order(fence, incoming, published, metrics).await
            }
        } => done,
    }
}

/// A revision sent and not acknowledged yet.
struct Sent {
    ordinal: u64,
    tag_id: i64,
    received_at: Option<OffsetDateTime>,
    acknowledgement: Acknowledgement,
    _span: Option<Box<Span>>,
}

/// Publishes with at most one unacknowledged message of each tag: otherwise a message could be
/// stored although the one before it of the same tag was lost.
///
/// Revisions have no `Nats-Msg-Id`, which the server would keep for ten minutes each. So nothing is
/// sent again blindly: after a missing acknowledgement the holder starts over, with a new fence and
/// a look at the last messages of REVISIONS.
async fn in_order(
    fence: &Fence,
    incoming: &mut mpsc::Receiver<Vec<OutgoingRevision>>,
    published: &watch::Sender<u64>,
    metrics: &Metrics,
) -> Result<(), Error> {
    let mut queue: VecDeque<OutgoingRevision> = VecDeque::new();
    let mut window: VecDeque<Sent> = VecDeque::new();
    let mut on_their_way: HashSet<i64> = HashSet::new();
    let mut open = true;
    let at_once = WINDOW.min(fence.at_once());
    loop {
        while window.len() < at_once
            && queue
                .front()
                .is_some_and(|next| !on_their_way.contains(&next.recorded.tag_id))
        {
            let Some(next) = queue.pop_front() else { break };
            let sent = send(fence, next).await?;
            FailPoint::IndexerSent.pass();
            on_their_way.insert(sent.tag_id);
            window.push_back(sent);
        }
        let acknowledged = match window.front_mut() {
            None if !open && queue.is_empty() => return Ok(()),
            None => None,
            Some(oldest) if open && queue.is_empty() => tokio::select! {
                biased;
                acknowledged = &mut oldest.acknowledgement => Some(acknowledged),
                batch = incoming.recv() => { take(batch, &mut queue, &mut open); continue },
            },
            Some(oldest) => Some((&mut oldest.acknowledgement).await),
        };
        match acknowledged {
            None => take(incoming.recv().await, &mut queue, &mut open),
            Some(acknowledged) => {
                acknowledged?;
                FailPoint::IndexerPublished.pass();
                if let Some(done) = window.pop_front() {
                    on_their_way.remove(&done.tag_id);
                    published.send_replace(done.ordinal);
                    metrics.published(done.received_at);
                }
            }
        }
    }
}

async fn send(fence: &Fence, next: OutgoingRevision) -> Result<Sent, Error> {
    let (ordinal, tag_id) = (next.recorded.ordinal, next.recorded.tag_id);
    let (subject, trace) = (next.subject(), next.trace());
    let message = Message::of(&subject, &next.recorded.event.event())?.with_trace(trace);
    let sent = fence.send(message).await?;
    Ok(Sent {
        ordinal,
        tag_id,
        received_at: next.received_at,
        acknowledgement: Box::pin(sent.acknowledged()),
        _span: next.span,
    })
}

/// Publishes all revisions that wait as one group, and then the next: a replicated stream takes no
/// second message behind a fence before it has stored the first. The order within a group is kept,
/// so a group may hold several revisions of a tag.
async fn in_groups(
    fence: &Fence,
    incoming: &mut mpsc::Receiver<Vec<OutgoingRevision>>,
    published: &watch::Sender<u64>,
    metrics: &Metrics,
) -> Result<(), Error> {
    let mut queue: VecDeque<OutgoingRevision> = VecDeque::new();
    loop {
        if queue.is_empty() {
            match incoming.recv().await {
                Some(batch) => queue.extend(batch),
                None => return Ok(()),
            }
        }
        let group: Vec<OutgoingRevision> = queue.drain(..queue.len().min(group::MOST)).collect();
        let Some(ordinal) = group.last().map(|last| last.recorded.ordinal) else {
            continue;
        };
        send_group(fence, &group).await?;
        FailPoint::IndexerPublished.pass();
        published.send_replace(ordinal);
        for done in &group {
            metrics.published(done.received_at);
        }
    }
}

/// Sends a group, and waits until it is stored. A single revision costs the server less without the
/// form of a group.
async fn send_group(fence: &Fence, group: &[OutgoingRevision]) -> Result<(), Error> {
    let subjects: Vec<Subject> = group.iter().map(OutgoingRevision::subject).collect();
    let mut messages = group
        .iter()
        .zip(&subjects)
        .map(|(next, subject)| {
            let event = next.recorded.event.clone().event();
            Ok(Message::of(subject, &event)?.with_trace(next.trace()))
        })
        .collect::<Result<Vec<_>, PublishError>>()?;
    if group.len() == 1
        && let Some(message) = messages.pop()
    {
        let sent = fence.send(message).await?;
        FailPoint::IndexerSent.pass();
        sent.acknowledged().await?;
    } else {
        fence.publish_group(&messages).await?;
    }
    Ok(())
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
