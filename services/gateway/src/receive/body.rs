//! Reading bodies, with limits on size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tagtrail_daemon::http::discard_rest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::error::Error;
use crate::receive::strangers::{Share, Strangers};

/// Longest time for a whole body to arrive.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Memory for the bodies that are being received, of all authentic senders together.
const BUDGET: usize = 256 << 20;
/// Smallest reservation for a body, which also bounds the number of requests.
const MIN_RESERVATION: usize = 64 << 10;

/// The memory for the bodies that are being received.
#[derive(Debug)]
pub(crate) struct Budget {
    authentic: Arc<Semaphore>,
    strangers: Arc<Strangers>,
}

/// Memory for one body.
#[derive(Debug)]
pub(crate) enum Room {
    /// Reserved for the body of an authentic sender.
    Reserved { _place: OwnedSemaphorePermit },
    /// Counted as the body of a stranger arrives.
    Counted(Share),
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            authentic: Arc::new(Semaphore::new(BUDGET >> 10)),
            strangers: Arc::default(),
        }
    }
}

impl Budget {
    /// Reserves memory for a body of the announced size, or of `most` bytes if the size is unknown.
    /// Nothing is reserved for the body of a stranger.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the body exceeds `most`, [`Error::Busy`] if the budget is used up.
    pub(crate) fn room(&self, body: &Body, most: usize, authentic: bool) -> Result<Room, Error> {
        let hint = body.size_hint();
        if hint.lower() > most as u64 {
            return Err(Error::TooLarge { most });
        }
        if !authentic {
            return Ok(Room::Counted(self.strangers.share()));
        }
        let size = hint
            .upper()
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(most);
        self.reserve(size.min(most))
    }

    /// Reserves memory for a body of an authentic sender.
    ///
    /// # Errors
    /// [`Error::Busy`] if the budget is used up.
    pub(crate) fn reserve(&self, size: usize) -> Result<Room, Error> {
        let kib = u32::try_from(size.max(MIN_RESERVATION) >> 10).unwrap_or(u32::MAX);
        Arc::clone(&self.authentic)
            .try_acquire_many_owned(kib)
            .map(|_place| Room::Reserved { _place })
            .map_err(|_| Error::Busy)
    }
}

impl Room {
    /// Makes room for a body of `size` bytes so far.
    fn grow(&self, whole: &mut Vec<u8>, size: usize, most: usize) -> Result<(), Error> {
        match self {
            Room::Reserved { .. } => Ok(()),
            Room::Counted(share) => share.grow(whole, size, most),
        }
    }

    fn arrived(&self, bytes: usize) {
        if let Room::Counted(share) = self {
            share.arrived(bytes);
        }
    }

    async fn forfeited(&self) -> Error {
        match self {
            Room::Reserved { .. } => std::future::pending().await,
            Room::Counted(share) => share.forfeited().await,
        }
    }

    /// Waits until a smaller body has taken the room.
    pub(crate) async fn displaced(&self) -> Error {
        match self {
            Room::Reserved { .. } => std::future::pending().await,
            Room::Counted(share) => share.displaced().await,
        }
    }
}

/// Reads a whole body of at most `most` bytes.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::TooSlow`], [`Error::Incomplete`]; of a stranger also
/// [`Error::BelowRate`] and [`Error::Busy`].
pub(crate) async fn read(body: Body, most: usize, room: &Room) -> Result<Bytes, Error> {
    let mut whole = match room {
        // `Budget::room` refused an announced size over the limit.
        Room::Reserved { .. } => {
            let announced = usize::try_from(body.size_hint().lower()).unwrap_or(0);
            Vec::with_capacity(announced.min(most))
        }
        Room::Counted(_) => Vec::new(),
    };
    let mut stream = body.into_data_stream();
    let read = async {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(Error::Incomplete)?;
            let size = whole.len() + chunk.len();
            if size > most {
                return Err(Error::TooLarge { most });
            }
            room.grow(&mut whole, size, most)?;
            room.arrived(chunk.len());
            whole.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let outcome = tokio::select! {
        read = read => read,
        forfeited = room.forfeited() => Err(forfeited),
        () = sleep(RECEIVE_TIMEOUT) => Err(Error::TooSlow(RECEIVE_TIMEOUT)),
    };
    match outcome {
        Ok(()) => Ok(whole.into()),
        Err(error) => {
            if matches!(error, Error::TooLarge { .. } | Error::Busy) {
                discard_rest(Body::from_stream(stream));
            }
            Err(error)
        }
    }
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
