//! Publishes revisions again, for subscribers that lost theirs, while the indexers run on.
//!
//! The revisions of a tag go out in order and end with the newest, so the last message on the tag's
//! subject is the head again. Each message has a condition: no other message came after the
//! previous revision. If an indexer publishes a new revision in between, the tag starts over. The
//! events keep their ids, but the messages have no `Nats-Msg-Id`: the server would drop duplicates.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::PgConnection;
use tagtrail_bus::publish::{Message, PublishError};
use tagtrail_bus::topology::Stream;
use tagtrail_bus::{Bus, BusError, Session};
use tagtrail_history::recorded::{self, Recorded};
use tagtrail_proto::{Event, Image, Revision, Subject};
use time::OffsetDateTime;

use crate::store;

/// Tags published at once.
const AT_ONCE: usize = 64;
/// Most restarts of a tag because of new revisions.
const ATTEMPTS: u32 = 20;

/// The revisions to publish again.
#[derive(Debug, Clone)]
pub enum Republish {
    /// All revisions of an image.
    Image(Image),
    /// All revisions recorded at this time or later.
    Since(OffsetDateTime),
}

/// The counts of published revisions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepublishCounts {
    /// Images with published revisions.
    pub images: u64,
    /// Published revisions.
    pub revisions: u64,
}

/// Why publishing ended early. The revisions published until then do no harm.
#[derive(Debug, thiserror::Error)]
pub enum RepublishError {
    /// Postgres failed.
    #[error("Postgres failed")]
    Database(#[from] sqlx::Error),
    /// NATS did not answer.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// NATS did not store a message.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// New revisions of an image come faster than old revisions can be sent.
    #[error("{0} changes too often to be published again now: try again when it changes less")]
    Contended(Image),
}

/// Publishes revisions again, and calls `progress` with the number of revisions so far.
///
/// # Errors
/// [`RepublishError`].
pub async fn republish(
    db: &mut PgConnection,
    bus: &Bus,
    selection: Republish,
    mut progress: impl FnMut(u64),
) -> Result<RepublishCounts, RepublishError> {
    let session = bus.session().await?;
    let tags: BTreeMap<i64, u64> = match selection {
        Republish::Image(image) => {
            let tag = tagtrail_history::tag_id(db, &image).await?;
            tag.map(|tag| (tag, 0)).into_iter().collect()
        }
        Republish::Since(time) => store::revisions::tags_since(db, time).await?,
    };
    let mut done = RepublishCounts::default();
    let tags: Vec<Place> = tags
        .into_iter()
        .map(|(tag, number)| Place::new(tag, number))
        .collect();
    for some in tags.chunks(AT_ONCE) {
        let mut left = some.to_vec();
        let mut attempt = 0;
        while !left.is_empty() {
            let outcomes: Vec<RepublishOutcome> = round(db, bus, &session, left).await?;
            left = Vec::new();
            for outcome in outcomes {
                match outcome {
                    RepublishOutcome::Page { next, count } => {
                        done.revisions += count;
                        match next {
                            Some(next) => left.push(next),
                            None => done.images += 1,
                        }
                    }
                    RepublishOutcome::Contended(_, image) if attempt >= ATTEMPTS => {
                        return Err(RepublishError::Contended(image));
                    }
                    // From its first revision: the revision that came in between is the newest now,
                    // and must come last again.
                    RepublishOutcome::Contended(tag, _) => {
                        left.extend(some.iter().filter(|place| place.tag == tag).copied());
                    }
                }
            }
            attempt += 1;
            progress(done.revisions);
        }
    }
    Ok(done)
}

/// The place of a tag at which publishing goes on.
#[derive(Debug, Clone, Copy)]
struct Place {
    tag: i64,
    /// The last number published.
    number: u64,
    /// Sequence of the last known message on the tag's subject; `None`: not looked up yet.
    sequence: Option<u64>,
}

impl Place {
    fn new(tag: i64, number: u64) -> Place {
        Place {
            tag,
            number,
            sequence: None,
        }
    }
}

enum RepublishOutcome {
    /// One page is published; `next` is the place of the following page.
    Page { next: Option<Place>, count: u64 },
    /// An indexer published a revision of the tag in between.
    Contended(i64, Image),
}

/// Publishes the next page of each of these tags.
async fn round(
    db: &mut PgConnection,
    bus: &Bus,
    session: &Session,
    places: Vec<Place>,
) -> Result<Vec<RepublishOutcome>, RepublishError> {
    let mut pages = Vec::with_capacity(places.len());
    for mut place in places {
        // Look up the last message before the page is read. An indexer commits before it publishes,
        // so the page has every revision up to that message, and the condition detects every later
        // message.
        if place.sequence.is_none() {
            let Some(image) = store::tags::image(db, place.tag).await? else {
                continue;
            };
            let subject = Subject::of_revisions(&image);
            let last = bus.last_message(Stream::Revisions, &subject).await?;
            place.sequence = Some(last.map_or(0, |(sequence, _)| sequence));
        }
        pages.push((
            place,
            recorded::revisions_of(db, place.tag, place.number).await?,
        ));
    }
    stream::iter(pages)
        .map(|(place, page)| publish_page(session, place, page))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Publishes a page of revisions of a tag, in order.
async fn publish_page(
    session: &Session,
    mut place: Place,
    page: Vec<Recorded>,
) -> Result<RepublishOutcome, RepublishError> {
    let count = page.len() as u64;
    for recorded in page {
        let image = recorded.event.image();
        let subject = Subject::of_revisions(&image);
        place.number = recorded.event.revision;
        let event: Event<Revision> = recorded.event.event();
        let message = Message::of(&subject, &event)?;
        let before = place.sequence.unwrap_or(0);
        let sent = session.send_after(message, before).await?;
        match sent.acknowledged().await {
            Ok(ack) => place.sequence = Some(ack.sequence),
            Err(PublishError::Fenced) => return Ok(RepublishOutcome::Contended(place.tag, image)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(RepublishOutcome::Page {
        next: (count == recorded::PAGE).then_some(place),
        count,
    })
}
