//! The live feed over HTTP: events as they are recorded, as server-sent events.
//!
//! An event has the name of its kind (`event: revision`) and the `CloudEvent` in `data`. The `id`
//! of each event is a place in the feed, over all kinds that the client asked for. A client that
//! reconnects with `Last-Event-ID` continues there, without a gap or a repeat, also after a restart
//! of the api and at another one. The first event and each heartbeat is `event: place`: a client
//! has a place before its first event, and a follower of a quiet image does not restart far behind.
//! `event: reset` states that changes after the place were deleted meanwhile. A follower that does
//! not read is dropped: the last event is `event: dropped`, with a problem in `data`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream;
use serde_json::json;
use tagtrail_config::{ImagePattern, TriggerGlob};
use tagtrail_proto::{Image, Registry, Repository, Tag, clean_text};
use tokio::time::Instant;

use crate::config::Pace;
use crate::feed::{About, EventKind, Follower, Item, Kinds, Place, Start};
use crate::http::error::Error;
use crate::http::guard::Actor;
use crate::http::parameters::{Parameter, Parameters, SIGNATURES, text, time};
use crate::metrics::Metrics;
use crate::shared::Shared;

pub(super) const SINCE: Parameter = Parameter {
    name: "since",
    required: false,
    description: "Start with the events recorded at this time or later (RFC 3339), not with the next event.",
    example: "2026-03-03T14:02:00Z",
    schema: time,
};
pub(super) const LAST_EVENT_ID: Parameter = Parameter {
    name: "Last-Event-ID",
    required: false,
    description: "Continue after the event with this `id`; it takes precedence over `since`.",
    example: "MSBmZWVkIDA6MTcsMzo0",
    schema: text,
};

/// The parameters in which polyfills of `EventSource` send the last id: a header would need the
/// permission of CORS. The description of the API names only the header, as clients made from the
/// description send it.
pub(super) const LAST_EVENT_ID_IN_QUERY: &[&str] = &["lastEventId", LAST_EVENT_ID.name];

/// Longest id that is decoded. The id of 256 partitions is shorter.
const LONGEST: usize = 8192;
/// Time-out of the count of known images, which delays the first event.
const COUNTING: Duration = Duration::from_secs(1);

/// Answers with the events of these kinds.
pub(super) async fn open(
    shared: Shared,
    actor: &Actor,
    headers: &HeaderMap,
    parameters: &Parameters,
    kinds: Kinds,
) -> Result<Response, Error> {
    let pattern = match parameters.text("match") {
        None => None,
        Some(text) => Some(shared.names.get().pattern(text).map_err(Error::Match)?),
    };
    let tag = pattern.as_ref().and_then(|pattern| pattern.tag(false));
    let by_name = tag.is_some_and(Tag::names_signatures);
    let triggers = match parameters.text("trigger") {
        None => None,
        Some(text) => {
            let glob = TriggerGlob::try_from(text.to_owned());
            Some(glob.map_err(|why| Error::TriggerInvalid(clean_text(&why, 200)))?)
        }
    };
    let filter = Filter {
        pattern,
        signatures: parameters.flag(SIGNATURES.name)? || by_name,
        triggers,
    };
    let start = match (
        last_event_id(headers, parameters)?,
        parameters.time("since")?,
    ) {
        (Some(last), _) => decode(last).ok_or(Error::Cursor)?,
        (None, Some(time)) => Start::Since(time),
        (None, None) => Start::Now,
    };
    let resumed = matches!(start, Start::After { .. });
    let counts = !resumed && kinds.contains(&EventKind::Revision);
    let follower = shared.feed.follow(kinds, start, actor.token()).await?;
    // A client that resumes received the number before.
    let images = match &filter.pattern {
        Some(pattern) if counts => images(&shared, pattern, filter.signatures).await,
        _ => None,
    };
    shared.metrics.followers.inc();
    let events = EventStream {
        follower,
        filter,
        images,
        pace: shared.pace,
        metrics: shared.metrics.clone(),
        last_at: None,
        ended: false,
    };
    let events = stream::unfold(events, async |mut events| {
        let event = events.next().await?;
        Some((Ok::<_, Infallible>(event), events))
    });
    let mut response = Sse::new(Box::pin(events)).into_response();
    // Keeps proxies from buffering events.
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

/// Returns the last id that the client received: of the header, or else of the query.
fn last_event_id<'a>(
    headers: &'a HeaderMap,
    parameters: &'a Parameters,
) -> Result<Option<&'a str>, Error> {
    let header = headers.get(LAST_EVENT_ID.name);
    let header = header.map(|value| value.to_str().map_err(|_| Error::Cursor));
    let in_query = LAST_EVENT_ID_IN_QUERY.iter();
    let mut given = in_query.filter_map(|name| parameters.text(name));
    let present = |text: &&str| !text.is_empty();
    Ok(header
        .transpose()?
        .filter(present)
        .or_else(|| given.find(present)))
}

/// Counts the known images that match. `None`: not counted, since only people read the number, and
/// the feed works without it.
async fn images(shared: &Shared, pattern: &ImagePattern, signatures: bool) -> Option<u64> {
    let count = shared.database.ask_large(async |db| {
        let mut count = 0;
        for folds in [false, true] {
            let matches = |registry: &Registry, repository: &Repository| {
                pattern.matches_repository(registry, repository, folds)
            };
            count += tagtrail_history::images::count(db, matches, pattern.tag(folds), signatures)
                .await?;
        }
        Ok(count)
    });
    match tokio::time::timeout(COUNTING, count).await {
        Ok(Ok(count)) => Some(count),
        Ok(Err(error)) => {
            tracing::debug!("could not count the images for a follower: {error}");
            None
        }
        Err(_) => None,
    }
}

/// The events that a follower receives.
struct Filter {
    /// Of revisions, and of rollouts by their images.
    pattern: Option<ImagePattern>,
    /// Tags that hold signatures are sent too.
    signatures: bool,
    /// Of rollouts, holds and triggers.
    triggers: Option<TriggerGlob>,
}

impl Filter {
    fn takes(&self, item: &Item) -> bool {
        let image = |image: &Image| {
            let pattern = self.pattern.as_ref();
            pattern.is_none_or(|pattern| pattern.matches(image))
        };
        let trigger = |name: &str| {
            let triggers = self.triggers.as_ref();
            triggers.is_none_or(|triggers| triggers.matches(name))
        };
        match &item.about {
            About::Image(one) => (self.signatures || !one.tag.is_signature()) && image(one),
            About::Rollout {
                trigger: name,
                images,
            } => trigger(name) && (self.pattern.is_none() || images.iter().any(image)),
            // The holds of a pattern concern each trigger that it matches.
            About::Hold(held) => self.triggers.as_ref().is_none_or(|triggers| {
                TriggerGlob::try_from(held.clone()).is_ok_and(|held| triggers.meets(&held))
            }),
            About::Trigger(name) => trigger(name),
        }
    }
}

/// The events for a follower.
struct EventStream {
    follower: Follower,
    filter: Filter,
    /// The number of known images that match, for the first event.
    images: Option<u64>,
    pace: Pace,
    metrics: Metrics,
    /// The time of the last event. The server asks for the next event only after the client has
    /// read the last.
    last_at: Option<Instant>,
    ended: bool,
}

impl EventStream {
    /// Waits for the next event. `None`: the stream ends.
    async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let event = match self.last_at {
            // Sent at once, so that the client has an id from the start.
            None => self.place().retry(Duration::from_secs(1)),
            Some(last) if last.elapsed() > self.pace.patience => {
                self.ended = true;
                self.dropped()
            }
            Some(_) if self.follower.take_deleted() => self.reset(),
            Some(_) => match tokio::time::timeout(self.pace.heartbeat, self.matching()).await {
                Ok(item) => {
                    let item = item?;
                    self.event(item.kind().as_str()).data(&item.event)
                }
                Err(_) => self.place(),
            },
        };
        self.last_at = Some(Instant::now());
        Some(event)
    }

    /// Waits for the next event that matches. Cancel safe.
    async fn matching(&mut self) -> Option<Arc<Item>> {
        loop {
            let item = self.follower.next().await?;
            if self.filter.takes(&item) {
                return Some(item);
            }
            // A follower that is far behind with few matches would otherwise never yield.
            tokio::task::consume_budget().await;
        }
    }

    fn event(&self, name: &str) -> Event {
        let id = encode(self.follower.kinds(), self.follower.place());
        Event::default().event(name).id(id)
    }

    /// An event of no kind, for its `id`. The event has `data` because many clients forget
    /// the `id` of an event without `data`, and would reconnect without their place.
    fn place(&mut self) -> Event {
        let data = match self.images.take() {
            Some(images) => json!({ "images": images }),
            None => json!({}),
        };
        self.event("place").data(data.to_string())
    }

    /// States that changes are missing: the client asks for the present conditions instead.
    fn reset(&self) -> Event {
        let problem = json!({
            "code": "changes_deleted",
            "detail": "conditions of triggers of more than 30 days ago are deleted, and some of them may have followed your Last-Event-ID; GET /v1/triggers has the present ones. The feed continues with the oldest change that is left",
        });
        self.event("reset").data(problem.to_string())
    }

    fn dropped(&self) -> Event {
        self.metrics.dropped.inc();
        tracing::warn!("dropped a follower of the live feed: it does not read");
        let problem = json!({
            "code": "reader_too_slow",
            "detail": format!("the client read nothing for {:?}; reconnect with Last-Event-ID to continue here", self.pace.patience),
        });
        self.event("dropped").data(problem.to_string())
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.metrics.followers.dec();
    }
}

/// Writes `1 events <kinds> <place>` in base64, like the cursors of lists. Of revisions alone it is
/// `1 feed <place>`, which earlier versions read, too.
fn encode(kinds: &Kinds, place: &Place) -> String {
    let place = place.text();
    let words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    URL_SAFE_NO_PAD.encode(match words.as_slice() {
        ["revision"] => format!("1 feed {place}"),
        words => format!("1 events {} {place}", words.join("+")),
    })
}

fn decode(text: &str) -> Option<Start> {
    if text.len() > LONGEST {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let (kinds, place) = match text.strip_prefix("1 feed ") {
        Some(place) => ("revision", place),
        None => text.strip_prefix("1 events ")?.split_once(' ')?,
    };
    let kinds: Kinds = kinds
        .split('+')
        .map(EventKind::parse)
        .collect::<Option<_>>()?;
    let place = Place::parse(place)?;
    place.is_of(&kinds).then_some(Start::After { kinds, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_of_the_feed_is_read_as_a_place() {
        let all: Kinds = EventKind::ALL.into();
        for (kinds, text) in [
            (Kinds::from([EventKind::Revision]), "0:17,3:4"),
            (all.clone(), "0:17,rollout:3,hold:0,trigger:8"),
            (all, ""),
        ] {
            let place = Place::parse(text).unwrap();
            let Some(Start::After {
                kinds: read,
                place: end,
            }) = decode(&encode(&kinds, &place))
            else {
                panic!("{text}")
            };
            assert_eq!((read, end), (kinds, place));
        }
        for wrong in [
            "1 history 17",
            "1 feed rollout:3",
            "1 events 0:17",
            "1 events rollout 0:17",
            "1 events source source:3",
        ] {
            assert!(decode(&URL_SAFE_NO_PAD.encode(wrong)).is_none(), "{wrong}");
        }
        for wrong in ["", "17", "0:17", "!"] {
            assert!(decode(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn ids_of_revisions_alone_are_those_of_earlier_versions() {
        let place = Place::parse("0:17").unwrap();
        let id = encode(&[EventKind::Revision].into(), &place);
        assert_eq!(id, URL_SAFE_NO_PAD.encode("1 feed 0:17"));
    }
}
