//! Which images have news, from REVISIONS. It never ends: whatever goes wrong, the stream is opened again.

use std::collections::BTreeMap;
use std::convert::Infallible;

use futures_util::FutureExt as _;
use tagtrail_bus::Bus;
use tagtrail_bus::consume::{Position, ReadError, nanoseconds};
use tagtrail_bus::topology::Stream;
use tagtrail_proto::{Image, Subject, TraceContext};
use tokio::sync::mpsc;

use crate::shared::Failures;

/// Revisions taken in at once.
const BATCH: usize = 1000;

/// What was read.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) images: Affected,
    /// Up to where.
    pub(crate) position: Position,
}

#[derive(Debug)]
pub(crate) enum Affected {
    /// The stream was opened: anything may have happened before.
    All,
    /// These have new revisions, each with the trace that brought the last one.
    Only(BTreeMap<Image, Option<TraceContext>>),
}

/// Reads from `position` on; without one from the end, since the planner looks at everything when the stream is opened.
pub(crate) async fn read_news(
    bus: &Bus,
    mut position: Option<Position>,
    sender: mpsc::Sender<News>,
) -> Infallible {
    let mut failures = Failures::default();
    loop {
        let Err(error) = read_from(bus, &mut position, &sender).await else {
            // Nobody listens any more; the planner ends, and this with it.
            return std::future::pending().await;
        };
        let pause = failures.pause();
        tracing::warn!("reading REVISIONS again in {pause:?}: {error}");
        tokio::time::sleep(pause).await;
    }
}

/// `Ok`: the listener is gone.
async fn read_from(
    bus: &Bus,
    position: &mut Option<Position>,
    sender: &mpsc::Sender<News>,
) -> Result<(), ReadError> {
    let start = match *position {
        Some(position) => position,
        None => bus.end_of(Stream::Revisions).await?,
    };
    let mut reader = bus
        .read(Stream::Revisions, "tagtrail.revision.>", start)
        .await?;
    let mut at = Position {
        stream_created_ns: Some(reader.stream_created_ns()),
        ..start
    };
    if let Some(why) = reader.restarted_because() {
        tracing::warn!("reading REVISIONS from its first message: {why}");
        (at.sequence, at.time_ns) = (0, None);
    }
    let mut affected = Affected::All;
    loop {
        *position = Some(at);
        if sender
            .send(News {
                images: affected,
                position: at,
            })
            .await
            .is_err()
        {
            return Ok(());
        }
        let mut images = BTreeMap::new();
        let mut delivery = reader.next().await?;
        for _ in 0..BATCH {
            // What stands there counts by its image alone: the heads in the database say the rest.
            if let Ok(Subject::Revision {
                registry,
                repository,
                tag,
            }) = delivery.subject.parse()
            {
                let image = Image {
                    registry,
                    repository,
                    tag,
                };
                images.insert(image, delivery.trace);
            }
            at.sequence = delivery.sequence;
            at.time_ns = Some(nanoseconds(delivery.time));
            // Only what is there already: the shortest wait of a timer is a millisecond.
            delivery = match reader.next().now_or_never() {
                Some(next) => next?,
                None => break,
            };
        }
        affected = Affected::Only(images);
    }
}
