//! The stream QUARANTINE: bodies of authenticated senders that could not be interpreted. The api
//! reads them, and asks a gateway to replay one: it has no right to publish pushes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tagtrail_bus::Bus;
use tagtrail_bus::topology::Stream;
use tagtrail_daemon::Context;
use tagtrail_proto::{Quarantined, ReplayAnswer, ReplayRequest, Replayed};
use tokio::sync::watch;

use crate::http::error::Error;

/// Time between two counts.
const COUNTING: Duration = Duration::from_secs(10);
/// Time-out of a read, and of a replay, which waits until the pushes are stored.
const READING: Duration = Duration::from_secs(3);
const REPLAYING: Duration = Duration::from_secs(8);
/// Messages that are read at once.
const AT_ONCE: usize = 8;
/// Numbers that are tried for a page at most, as a multiple of its size: old ones may be missing.
const TRIED: u64 = 4;

/// The way to the stream. Clones are cheap and share their state.
#[derive(Debug, Clone)]
pub(crate) struct Quarantine {
    /// The connection, once there is one.
    bus: Arc<OnceLock<Bus>>,
    /// The number of entries, of the last count. `None`: not known.
    count: watch::Sender<Option<u64>>,
}

/// An entry with its number.
pub(crate) type Entry = (u64, Quarantined);

impl Quarantine {
    pub(crate) fn new() -> Quarantine {
        Quarantine {
            bus: Arc::default(),
            count: watch::Sender::new(None),
        }
    }

    /// Takes the connection of the live feed.
    pub(crate) fn set(&self, bus: &Bus) {
        let _ = self.bus.set(bus.clone());
    }

    /// Returns the number of entries, if it is known.
    pub(crate) fn count(&self) -> Option<u64> {
        *self.count.borrow()
    }

    /// Counts the entries from time to time, until a stop is requested.
    pub(crate) async fn keep(self, ctx: Context) -> anyhow::Result<()> {
        loop {
            let count = match self.bus() {
                Ok(bus) => read(bus.count(Stream::Quarantine)).await.ok(),
                Err(_) => None,
            };
            self.count.send_replace(count);
            tokio::select! {
                () = ctx.shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(COUNTING) => {}
            }
        }
    }

    fn bus(&self) -> Result<&Bus, Error> {
        let missing =
            || Error::QuarantineUnavailable("NATS was not reached since the start".to_owned());
        self.bus.get().ok_or_else(missing)
    }

    /// Returns at most `limit` entries below a number, the newest first; and the number below which
    /// there may be more.
    pub(crate) async fn list(
        &self,
        below: Option<u64>,
        limit: usize,
    ) -> Result<(Vec<Entry>, Option<u64>), Error> {
        let bus = self.bus()?;
        let held = read(bus.held(Stream::Quarantine)).await?;
        let last = below.map_or(*held.end(), |below| {
            below.saturating_sub(1).min(*held.end())
        });
        let tried = TRIED.saturating_mul(limit as u64).max(1);
        let first = last.saturating_sub(tried - 1).max(*held.start());
        let reads = stream::iter((first..=last).rev())
            .map(|number| async move { Ok::<_, Error>((number, self.one(number).await?)) });
        let mut reads = Box::pin(reads.buffered(AT_ONCE));
        let mut found = Vec::new();
        while let Some(read) = reads.next().await {
            let (number, entry) = read?;
            if found.len() == limit {
                return Ok((found, Some(number + 1)));
            }
            found.extend(entry.map(|entry| (number, entry)));
        }
        let more = first > *held.start() && !held.is_empty();
        Ok((found, more.then_some(first)))
    }

    /// Returns the entry with this number.
    pub(crate) async fn one(&self, number: u64) -> Result<Option<Quarantined>, Error> {
        let message = read(self.bus()?.message(Stream::Quarantine, number)).await?;
        let Some(message) = message else {
            return Ok(None);
        };
        serde_json::from_slice(&message.payload)
            .map(Some)
            .map_err(|error| {
                Error::QuarantineUnavailable(format!(
                    "entry {number} was not written by Tagtrail: {error}"
                ))
            })
    }

    /// Has a gateway interpret an entry with the present settings, and publish its pushes.
    pub(crate) async fn replay(&self, number: u64) -> Result<Replayed, Error> {
        let request = serde_json::to_vec(&ReplayRequest { number }).unwrap_or_default();
        let asking = self
            .bus()?
            .request(ReplayRequest::SUBJECT, request.into(), REPLAYING);
        let answer = asking.await.map_err(|error| {
            Error::QuarantineUnavailable(format!("no gateway replays the body: {error}"))
        })?;
        match serde_json::from_slice(&answer) {
            Ok(ReplayAnswer::Replayed(replayed)) => Ok(replayed),
            Ok(ReplayAnswer::Unknown) => Err(Error::QuarantineUnknown(number)),
            Ok(ReplayAnswer::Refused(why)) => Err(Error::NotReplayed(why)),
            Err(_) => Err(Error::QuarantineUnavailable(
                "the gateway is of another version".to_owned(),
            )),
        }
    }
}

async fn read<T>(
    reading: impl Future<Output = Result<T, tagtrail_bus::consume::ReadError>>,
) -> Result<T, Error> {
    match tokio::time::timeout(READING, reading).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => Err(Error::QuarantineUnavailable(error.to_string())),
        // NATS does not answer a request that the account may not make.
        Err(_) => Err(Error::QuarantineUnavailable(
            "no answer; the account of the api needs the rights of deploy/nats/nats.conf"
                .to_owned(),
        )),
    }
}
