//! `GET /v1/revisions?match=&since=`: the live feed, as server-sent events.
//!
//! Each event is a revision (`event: revision`, `data:` its `CloudEvent`), with an `id` that is a place in the feed. Whoever
//! comes again with `Last-Event-ID` goes on there: nothing is left out and nothing is repeated, over restarts of the api too.
//! Heartbeats carry the place as well, so that a follower of a quiet image does not start far behind. A follower that does not
//! read is dropped: the last thing that it gets is `event: dropped` with a problem in `data`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

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
use tagtrail_config::{ImageGlob, Role};
use tagtrail_proto::Revision;
use tokio::time::Instant;

use crate::config::Pace;
use crate::feed::{Follower, Item, Place, Start};
use crate::http::error::Error;
use crate::http::operation::{Method, Operation, ResponseBody, schema};
use crate::http::parameters::{Parameter, Parameters, text, time};
use crate::metrics::Metrics;
use crate::shared::Shared;

const MATCH: Parameter = Parameter {
    name: "match",
    required: false,
    description: "Only images that match: `*` within a part, `**` for any parts; without a tag, every tag.",
    example: "registry.example.com/foo/**:latest",
    schema: text,
};
const SINCE: Parameter = Parameter {
    name: "since",
    required: false,
    description: "Begin with what was recorded at this time or later (RFC 3339), rather than with what comes next.",
    example: "2026-03-03T14:02:00Z",
    schema: time,
};
const LAST_EVENT_ID: Parameter = Parameter {
    name: "Last-Event-ID",
    required: false,
    description: "Go on after the event with this `id`; it counts more than `since`.",
    example: "MSBmZWVkIDA6MTcsMzo0",
    schema: text,
};

pub(crate) const REVISIONS: Operation = Operation {
    id: "revisions",
    method: Method::Get,
    path: "/v1/revisions",
    summary: "The live feed: revisions as they are recorded, as server-sent events.",
    role: Role::Read,
    in_path: &[],
    query: &[MATCH, SINCE],
    header: &[LAST_EVENT_ID],
    body: None,
    response: ResponseBody::Events(schema::<tagtrail_proto::Event<Revision>>),
    problems: &[
        (400, "match_invalid"),
        (400, "time_invalid"),
        (400, "cursor_invalid"),
        (503, "busy"),
    ],
    serve: |method| on(method, revisions),
};

/// Longer than any identifier of ours: 256 partitions.
const LONGEST: usize = 8192;

async fn revisions(
    State(shared): State<Shared>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Error> {
    let parameters = Parameters::read(&uri, REVISIONS.query)?;
    let pattern = match parameters.text("match") {
        None => None,
        Some(text) => Some(text.parse::<ImageGlob>().map_err(Error::Match)?),
    };
    let last = headers
        .get(LAST_EVENT_ID.name)
        .filter(|value| !value.is_empty());
    let start = match (last, parameters.time("since")?) {
        (Some(last), _) => {
            let place = last.to_str().ok().and_then(decode);
            Start::After(place.ok_or(Error::Cursor)?)
        }
        (None, Some(time)) => Start::Since(time),
        (None, None) => Start::Now,
    };
    let follower = shared.feed.follow(start).await?;
    shared.metrics.followers.inc();
    let shown = Shown {
        follower,
        pattern,
        pace: shared.pace,
        metrics: shared.metrics.clone(),
        given: None,
        over: false,
    };
    let events = stream::unfold(shown, async |mut shown| {
        let event = shown.next().await?;
        Some((Ok::<_, Infallible>(event), shown))
    });
    let mut response = Sse::new(Box::pin(events)).into_response();
    // Proxies must not hold events back to send several at once.
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

/// A follower and what it is shown.
struct Shown {
    follower: Follower,
    pattern: Option<ImageGlob>,
    pace: Pace,
    metrics: Metrics,
    /// When the last event was given. The server asks for the next one only when the follower has taken it.
    given: Option<Instant>,
    over: bool,
}

impl Shown {
    /// The next event. `None`: there are no more.
    async fn next(&mut self) -> Option<Event> {
        if self.over {
            return None;
        }
        let event = match self.given {
            // At once, so that a follower knows that it follows, and where it is.
            None => self.mark("following").retry(Duration::from_secs(1)),
            Some(given) if given.elapsed() > self.pace.patience => {
                self.over = true;
                self.dropped()
            }
            Some(_) => match tokio::time::timeout(self.pace.heartbeat, self.matching()).await {
                Ok(item) => self.event("revision").data(&item?.event),
                Err(_) => self.mark("heartbeat"),
            },
        };
        self.given = Some(Instant::now());
        Some(event)
    }

    /// The next revision that is to be shown. Cancel safe.
    async fn matching(&mut self) -> Option<Arc<Item>> {
        loop {
            let item = self.follower.next().await?;
            if self
                .pattern
                .as_ref()
                .is_none_or(|pattern| pattern.matches(&item.image))
            {
                return Some(item);
            }
            // Far behind with little that matches, this would otherwise never yield.
            tokio::task::consume_budget().await;
        }
    }

    fn event(&self, name: &str) -> Event {
        Event::default()
            .event(name)
            .id(encode(self.follower.place()))
    }

    /// Says nothing but where the follower is: without `data` no event is dispatched (HTML standard, 9.2.6).
    fn mark(&self, comment: &str) -> Event {
        Event::default()
            .comment(comment)
            .id(encode(self.follower.place()))
    }

    fn dropped(&self) -> Event {
        self.metrics.dropped.inc();
        tracing::warn!("dropped a follower of the live feed that does not read");
        let problem = json!({
            "code": "reader_too_slow",
            "detail": format!("nothing was read for {:?}; come again with Last-Event-ID to go on from here", self.pace.patience),
        });
        self.event("dropped").data(problem.to_string())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.metrics.followers.dec();
    }
}

/// `1 feed <place>` in base64, as the cursors of lists.
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
    fn an_identifier_is_a_place_and_nothing_else_is() {
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
