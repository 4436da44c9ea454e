//! Reading bodies, with limits on size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tagtrail_daemon::http::discard_rest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::Error;

/// Longest time for a whole body to arrive.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Memory for the bodies that are being received, of all senders together.
const BUDGET: usize = 256 << 20;
/// Smallest reservation for a body, which also bounds the number of requests.
const MIN_RESERVATION: usize = 64 << 10;

/// The memory budget for the bodies that are being received.
#[derive(Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Budget {
        Budget(Arc::new(Semaphore::new(BUDGET >> 10)))
    }
}

impl Budget {
    /// Reserves memory for a body of the announced size, or of `most` bytes if the size is unknown.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the body exceeds `most`, [`Error::Busy`] if the budget is used up.
    pub(crate) fn reserve(&self, body: &Body, most: usize) -> Result<OwnedSemaphorePermit, Error> {
        let hint = body.size_hint();
        if hint.lower() > most as u64 {
            return Err(Error::TooLarge { most });
        }
        let size = hint
            .upper()
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(most);
        let kib = u32::try_from(size.clamp(MIN_RESERVATION, most) >> 10).unwrap_or(u32::MAX);
        Arc::clone(&self.0)
            .try_acquire_many_owned(kib)
            .map_err(|_| Error::Busy)
    }
}

/// Reads a whole body of at most `most` bytes.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::TooSlow`], [`Error::Incomplete`].
pub(crate) async fn read(body: Body, most: usize) -> Result<Bytes, Error> {
    // `Budget::reserve` refused an announced size over the limit.
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
    let outcome = timeout(RECEIVE_TIMEOUT, read)
        .await
        .unwrap_or(Err(Error::TooSlow(RECEIVE_TIMEOUT)));
    if matches!(outcome, Err(Error::TooLarge { .. })) {
        discard_rest(Body::from_stream(stream));
    }
    outcome
}

/// Returns whether the body is compressed. No registry compresses bodies, and refusing compression
/// rules out decompression bombs.
pub(crate) fn is_encoded(headers: &HeaderMap) -> bool {
    let plain = |value: &str| matches!(value.trim().to_ascii_lowercase().as_str(), "" | "identity");
    headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        !value
            .to_str()
            .is_ok_and(|value| value.split(',').all(plain))
    })
}
