//! Reads from REVISIONS the images that have new revisions. After any error the stream is opened
//! again.

use std::collections::BTreeMap;
use std::convert::Infallible;

use futures_util::FutureExt as _;
use tagtrail_bus::Bus;
use tagtrail_bus::consume::{Position, ReadError, nanoseconds};
use tagtrail_bus::topology::Stream;
use tagtrail_proto::{Image, Subject, TraceContext};
use tokio::sync::mpsc;

use crate::shared::Failures;

/// The most revisions in one piece of news.
const BATCH: usize = 1000;

/// News from REVISIONS.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) images: Affected,
    /// The position after the last message read.
    pub(crate) position: Position,
}

/// The images whose heads may have changed.
#[derive(Debug)]
pub(crate) enum Affected {
    /// All images: the stream was just opened, and any message may have come before.
    All,
    /// Images with new revisions, each with the trace of its last revision.
    Only(BTreeMap<Image, Option<TraceContext>>),
}

/// Reads from `position` on, or without a position from the end of the stream: the planner checks
/// all triggers when the stream is opened.
pub(crate) async fn read_news(
    bus: &Bus,
    mut position: Option<Position>,
    sender: mpsc::Sender<News>,
) -> Infallible {
    let mut failures = Failures::default();
    loop {
        let Err(error) = read_from(bus, &mut position, &sender).await else {
            // The planner has dropped the receiver and drops this future next.
            return std::future::pending().await;
        };
        let pause = failures.pause();
        tracing::warn!("reading REVISIONS again in {pause:?}: {error}");
        tokio::time::sleep(pause).await;
    }
}

/// Returns `Ok` when the planner has dropped the receiver.
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
            // Only the image in the subject matters: the planner reads the heads from the database.
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
            // Takes only messages that have already arrived: the shortest timer waits a
            // millisecond.
            delivery = match reader.next().now_or_never() {
                Some(next) => next?,
                None => break,
            };
        }
        affected = Affected::Only(images);
    }
}
