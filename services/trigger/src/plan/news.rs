//! Reads from REVISIONS the images that have new revisions. After any error the stream is opened
//! again.

use std::collections::BTreeMap;
use std::convert::Infallible;

use futures_util::FutureExt as _;
use tagtrail_bus::Bus;
use tagtrail_bus::consume::{ReadError, Reader};
use tagtrail_bus::topology::Stream;
use tagtrail_daemon::Retry;
use tagtrail_proto::{Image, Position, Subject, TraceContext};
use tokio::sync::mpsc;

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
    /// All images: the stream was just opened. Unless it `continues` after the position of the last
    /// plan, any message may have come before.
    All { continues: bool },
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
    let mut retry = Retry::new("reading REVISIONS");
    loop {
        let Err(error) = read_from(bus, &mut position, &sender).await else {
            // The planner has dropped the receiver and drops this future next.
            return std::future::pending().await;
        };
        tokio::time::sleep(retry.failed(&error)).await;
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
        .read(Stream::Revisions, Subject::ALL_REVISIONS, start)
        .await?;
    let continues = position.is_some() && reader.restarted_because().is_none();
    let mut affected = Affected::All { continues };
    loop {
        let news = News {
            images: affected,
            position: reader.position(),
        };
        *position = Some(news.position);
        if sender.send(news).await.is_err() {
            return Ok(());
        }
        affected = Affected::Only(next_images(&mut reader).await?);
    }
}

/// Waits for a message, and returns the images of this and all messages that have arrived, each
/// with the trace of its last message.
async fn next_images(
    reader: &mut Reader,
) -> Result<BTreeMap<Image, Option<TraceContext>>, ReadError> {
    let mut images = BTreeMap::new();
    let mut delivery = reader.next().await?;
    for left in (0..BATCH).rev() {
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
        if left == 0 {
            break;
        }
        // Takes only messages that have already arrived: the shortest timer waits a millisecond.
        delivery = match reader.next().now_or_never() {
            Some(next) => next?,
            None => break,
        };
    }
    Ok(images)
}
