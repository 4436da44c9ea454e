//! The bodies of refused requests.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::EXPECT;
use futures_util::StreamExt as _;

/// Most bytes to read and drop after a refusal, more than any permitted body has, and the longest
/// time.
const DISCARD: (usize, Duration) = (32 << 20, Duration::from_secs(3));

/// Drops the body of a refused request, of which nothing was read. The answer does not wait.
pub fn discard(headers: &HeaderMap, body: Body) {
    // A sender that waits for `100 Continue` does not send the body after a refusal.
    let held_back = headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !held_back {
        discard_rest(body);
    }
}

/// Drops the rest of a body. Many clients send everything before they read the answer. Closing a
/// connection with unread bytes resets the connection, and the answer is lost; so a little of the
/// body is read.
#[expect(
    clippy::disallowed_methods,
    reason = "the task ends within 3 s, and nothing depends on it"
)]
pub fn discard_rest(body: Body) {
    let mut stream = body.into_data_stream();
    let (most, time) = DISCARD;
    tokio::spawn(tokio::time::timeout(time, async move {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            bytes += chunk.len();
            if bytes > most {
                break;
            }
        }
    }));
}
