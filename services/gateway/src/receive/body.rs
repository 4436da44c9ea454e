//! Taking a body in, within bounds of size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody as _};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, EXPECT};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::Error;

/// Time for a whole body to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Memory for the bodies under way, of all senders together.
const BUDGET: usize = 256 << 20;
/// What any body counts for at least, so that the number of requests is bounded too.
const LEAST: usize = 64 << 10;
/// Bytes that are read and thrown away of a request that is refused anyway, and the time for it.
const THROWN_AWAY: (usize, Duration) = (16 << 20, Duration::from_secs(2));

/// Budget for the bodies under way.
#[derive(Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Budget {
        Budget(Arc::new(Semaphore::new(BUDGET >> 10)))
    }
}

impl Budget {
    /// A place for a body of the announced size, or of any size up to `most` if none is announced.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it can't be taken, [`Error::Busy`] if there is no place now.
    pub(crate) fn reserve(&self, body: &Body, most: usize) -> Result<OwnedSemaphorePermit, Error> {
        let hint = body.size_hint();
        if hint.lower() > most as u64 {
            return Err(Error::TooLarge { most });
        }
        let size = hint
            .upper()
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(most);
        let kib = u32::try_from(size.clamp(LEAST, most) >> 10).unwrap_or(u32::MAX);
        Arc::clone(&self.0)
            .try_acquire_many_owned(kib)
            .map_err(|_| Error::Busy)
    }
}

/// Reads a whole body, of `most` bytes at most.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::TooSlow`], [`Error::Incomplete`].
pub(crate) async fn read(body: Body, most: usize) -> Result<Bytes, Error> {
    // What was announced is within the limit, or there would be no place for it.
    let announced = usize::try_from(body.size_hint().lower())
        .unwrap_or(0)
        .min(most);
    let mut stream = body.into_data_stream();
    let read = async {
        let mut whole = BytesMut::with_capacity(announced);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(Error::Incomplete)?;
            if whole.len() + chunk.len() > most {
                return Err(Error::TooLarge { most });
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    };
    let outcome = timeout(PATIENCE, read)
        .await
        .unwrap_or(Err(Error::TooSlow(PATIENCE)));
    if matches!(outcome, Err(Error::TooLarge { .. })) {
        drain(stream).await;
    }
    outcome
}

/// Lets go of the body of a request that is refused.
pub(crate) async fn throw_away(headers: &HeaderMap, body: Body) {
    // Some senders wait to be asked for the body. These are not.
    let held_back = headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !held_back {
        drain(body.into_data_stream()).await;
    }
}

/// Reads on for a little while after a refusal: many clients send all before they listen, and a connection closed with unread
/// bytes is reset, which takes the answer with it.
async fn drain(mut stream: BodyDataStream) {
    let (most, time) = THROWN_AWAY;
    let read = async {
        let mut bytes = 0;
        while let Some(Ok(chunk)) = stream.next().await {
            bytes += chunk.len();
            if bytes > most {
                break;
            }
        }
    };
    // Whatever is left is the sender's loss.
    let _ = timeout(time, read).await;
}

/// Whether the body is something else than its own bytes. Nothing that registries send is compressed, and what is not
/// decompressed can't explode.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    let plain = |value: &str| matches!(value.trim().to_ascii_lowercase().as_str(), "" | "identity");
    headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        !value
            .to_str()
            .is_ok_and(|value| value.split(',').all(plain))
    })
}
