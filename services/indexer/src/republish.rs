//! Publishing revisions again, for subscribers that lost what they had. It does not disturb the indexers that run meanwhile.
//!
//! Of each tag the revisions go out in order and end with its newest, so what stands last on its subject is its head again. Each
//! is sent on the condition that nothing came after the one before: if an indexer publishes something new in between, the tag is
//! begun anew. They carry their own identifiers as events, but none as messages: the stream would swallow a repetition.

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

/// Tags that are published at once.
const AT_ONCE: usize = 64;
/// Times that a tag is begun anew because something new came in between.
const ATTEMPTS: u32 = 20;

/// What is published again.
#[derive(Debug, Clone)]
pub enum Republish {
    /// All revisions of an image.
    Image(Image),
    /// What was recorded at this time or later.
    Since(OffsetDateTime),
}

/// How much was published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RepublishCounts {
    /// Images of which anything was.
    pub images: u64,
    /// Revisions.
    pub revisions: u64,
}

/// Why it ended early. What was published until then does no harm.
#[derive(Debug, thiserror::Error)]
pub enum RepublishError {
    /// Postgres.
    #[error("Postgres failed")]
    Database(#[from] sqlx::Error),
    /// NATS.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// NATS, while publishing.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// New revisions come faster than old ones can be sent.
    #[error("{0} moves too often to be published again now: try it in a quieter moment")]
    Contended(Image),
}

/// Publishes again; `progress` is told the number of revisions so far.
///
/// # Errors
/// [`RepublishError`].
pub async fn republish(
    db: &mut PgConnection,
    bus: &Bus,
    what: Republish,
    mut progress: impl FnMut(u64),
) -> Result<RepublishCounts, RepublishError> {
    let session = bus.session().await?;
    let tags: BTreeMap<i64, u64> = match what {
        Republish::Image(image) => {
            let tag = store::tags::tag_id(db, &image).await?;
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
                    // From its beginning: what came in between is its newest now, and must come last again.
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

/// Where a tag is to go on.
#[derive(Debug, Clone, Copy)]
struct Place {
    tag: i64,
    /// The number before the next one.
    number: u64,
    /// Sequence of the last message that we know of on its subject; `None`: not looked up yet.
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
    /// As many as are read at once; `next` says where to go on.
    Page { next: Option<Place>, count: u64 },
    /// Somebody published something of the tag in between.
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
        // The last message is looked up before the page is read: an indexer commits before it publishes, so the page holds all
        // that stands before that message, and whatever comes after it is noticed.
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

/// Publishes revisions of one tag, each after the one before.
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
