//! `GET /v1/revisions?match=&since=`: the live feed, as server-sent events.
//!
//! A revision is `event: revision`, with the `CloudEvent` in `data`. The `id` of each event is a
//! place in the feed. A client that reconnects with `Last-Event-ID` continues there, without a gap
//! or a repeat, also after a restart of the api. The first event and each heartbeat is `event:
//! place`: a client has a place before its first revision, and a follower of a quiet image does not
//! restart far behind. A follower that does not read is dropped: the last event is `event:
//! dropped`, with a problem in `data`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::on;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::stream;
use serde_json::json;
use tagtrail_config::{ImagePattern, Role};
use tagtrail_proto::{Registry, Repository, Revision, Tag};
use tokio::time::Instant;

use crate::config::Pace;
use crate::feed::{Follower, Item, Place, Start};
use crate::http::error::Error;
use crate::http::guard::Actor;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, SIGNATURES, text, time};
use crate::http::tokens::ACCESS_TOKEN;
use crate::metrics::Metrics;
use crate::shared::Shared;

pub(super) const MATCH: Parameter = Parameter {
    name: "match",
    required: false,
    description: "Only images that match: `*` within a part, `**` for any parts; without a tag, every tag matches. A pattern whose first part is no registry matches in any registry.",
    example: "registry.example.com/foo/**:latest",
    schema: text,
};
const SINCE: Parameter = Parameter {
    name: "since",
    required: false,
    description: "Start with the revisions recorded at this time or later (RFC 3339), not with the next revision.",
    example: "2026-03-03T14:02:00Z",
    schema: time,
};
const LAST_EVENT_ID: Parameter = Parameter {
    name: "Last-Event-ID",
    required: false,
    description: "Continue after the event with this `id`; it takes precedence over `since`.",
    example: "MSBmZWVkIDA6MTcsMzo0",
    schema: text,
};

/// The parameters in which polyfills of `EventSource` send the last id: a header would need the
/// permission of CORS. The description of the API names only the header, as clients made from the
/// description send it.
const LAST_EVENT_ID_IN_QUERY: &[&str] = &["lastEventId", LAST_EVENT_ID.name];

pub(crate) const REVISIONS: Operation = Operation {
    id: "revisions",
    method: Method::Get,
    path: "/v1/revisions",
    summary: "The live feed: revisions as they are recorded, as server-sent events.",
    role: Role::Read,
    in_path: &[],
    query: &[MATCH, SINCE, SIGNATURES, ACCESS_TOKEN],
    header: &[LAST_EVENT_ID],
    body: None,
    response: ResponseBody::Events(schema::<tagtrail_proto::Event<Revision>>),
    problems: &[
        (400, "match_invalid"),
        (400, "time_invalid"),
        (400, "flag_invalid"),
        (400, "cursor_invalid"),
    ],
    serve: |method| on(method, revisions),
};

/// Longest id that is decoded. The id of 256 partitions is shorter.
const LONGEST: usize = 8192;
/// Time-out of the count of known images, which delays the first event.
const COUNTING: Duration = Duration::from_secs(1);

async fn revisions(
    State(shared): State<Shared>,
    Extension(actor): Extension<Actor>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Error> {
    let parameters = Parameters::read_also(&uri, REVISIONS.query, LAST_EVENT_ID_IN_QUERY)?;
    let pattern = match parameters.text("match") {
        None => None,
        Some(text) => Some(shared.names.get().pattern(text).map_err(Error::Match)?),
    };
    let tag = pattern.as_ref().and_then(|pattern| pattern.tag(false));
    let by_name = tag.is_some_and(Tag::names_signatures);
    let signatures = parameters.flag(SIGNATURES.name)? || by_name;
    let start = match (
        last_event_id(&headers, &parameters)?,
        parameters.time("since")?,
    ) {
        (Some(last), _) => Start::After(decode(last).ok_or(Error::Cursor)?),
        (None, Some(time)) => Start::Since(time),
        (None, None) => Start::Now,
    };
    let resumed = matches!(start, Start::After(_));
    let follower = shared.feed.follow(start, actor.token()).await?;
    // A client that resumes received the number before.
    let images = match &pattern {
        Some(pattern) if !resumed => images(&shared, pattern, signatures).await,
        _ => None,
    };
    shared.metrics.followers.inc();
    let events = EventStream {
        follower,
        pattern,
        signatures,
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

/// The events for a follower.
struct EventStream {
    follower: Follower,
    pattern: Option<ImagePattern>,
    /// Tags that hold signatures are sent too.
    signatures: bool,
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
            Some(_) => match tokio::time::timeout(self.pace.heartbeat, self.matching()).await {
                Ok(item) => self.event("revision").data(&item?.event),
                Err(_) => self.place(),
            },
        };
        self.last_at = Some(Instant::now());
        Some(event)
    }

    /// Waits for the next revision that matches. Cancel safe.
    async fn matching(&mut self) -> Option<Arc<Item>> {
        loop {
            let item = self.follower.next().await?;
            let pattern = self.pattern.as_ref();
            if (self.signatures || !item.image.tag.is_signature())
                && pattern.is_none_or(|pattern| pattern.matches(&item.image))
            {
                return Some(item);
            }
            // A follower that is far behind with few matches would otherwise never yield.
            tokio::task::consume_budget().await;
        }
    }

    fn event(&self, name: &str) -> Event {
        Event::default()
            .event(name)
            .id(encode(self.follower.place()))
    }

    /// An event without a revision, for its `id`. The event has `data` because many clients forget
    /// the `id` of an event without `data`, and would reconnect without their place.
    fn place(&mut self) -> Event {
        let data = match self.images.take() {
            Some(images) => json!({ "images": images }),
            None => json!({}),
        };
        self.event("place").data(data.to_string())
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

/// Writes `1 feed <place>` in base64, like the cursors of lists.
fn encode(place: &Place) -> String {
    URL_SAFE_NO_PAD.encode(format!("1 feed {}", place.text()))
}

fn decode(text: &str) -> Option<Place> {
    if text.len() > LONGEST {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    Place::parse(text.strip_prefix("1 feed ")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_of_the_feed_is_read_as_a_place() {
        let place = Place::parse("0:17,3:4").unwrap();
        assert_eq!(decode(&encode(&place)), Some(place));
        for wrong in [
            "",
            "17",
            "0:17",
            "!",
            &URL_SAFE_NO_PAD.encode("1 history 17"),
        ] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
