//! Manifests: what each digest is, from MANIFESTS into the store. One instance does it for all, the one that has the lock.
//!
//! The position moves in the statement that writes what was read, so nothing is passed over, whoever goes on and whichever backup the
//! store comes from; and MANIFESTS forgets nothing. Reading twice is harmless: a digest means one thing.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::FutureExt as _;
use tagtrail_bus::consume::Delivery;
use tagtrail_bus::topology::Stream;
use tagtrail_daemon::Retry;
use tagtrail_postgres::session::ping_interval;
use tagtrail_postgres::{DbArgs, Lock};
use tagtrail_proto::{Event, Manifest, Subject};

use crate::error::Error;
use crate::shared::Shared;
use crate::store::manifests as store;

/// Messages taken in at once.
const BATCH: usize = 100;
/// How often an instance that waits for its turn asks.
const TURN: Duration = Duration::from_secs(1);

/// Stores manifests until a stop is asked for. Whatever goes wrong, it starts over from the position.
pub(crate) async fn manifests(db: DbArgs, shared: Shared) -> anyhow::Result<()> {
    let mut retry = Retry::new("storing manifests");
    loop {
        let Err(error) = tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            ended = hold(&db, &shared) => ended,
        };
        if !retry.wait(&error, &shared.shutdown).await {
            return Ok(());
        }
    }
}

/// Waits for the lock, and works as long as it has it.
async fn hold(db: &DbArgs, shared: &Shared) -> Result<Infallible, Error> {
    let mut db = db.session("manifests", shared.silence).await?;
    // An instance that waits must not fall silent either.
    let turn = TURN.min(ping_interval(shared.silence));
    while !shared.within(Lock::Manifests.try_acquire(&mut db)).await? {
        tokio::time::sleep(turn).await;
    }
    let start = shared.within(store::position(&mut db)).await?;
    let opening = shared
        .bus
        .read(Stream::Manifests, Subject::ALL_MANIFESTS, start);
    let mut reader = shared.while_pinging(&mut db, opening).await?;
    loop {
        let mut batch = Vec::new();
        let mut next = Some(shared.while_pinging(&mut db, reader.next()).await?);
        while let Some(delivery) = next {
            batch.extend(manifest(&delivery));
            // Only what is there already: nobody waits to fill a batch.
            next = if batch.len() < BATCH {
                reader.next().now_or_never().transpose()?
            } else {
                None
            };
        }
        let added = shared
            .within(store::add(&mut db, &batch, reader.position()))
            .await?;
        shared.metrics.manifests.inc_by(added);
    }
}

/// The manifest that a message tells of, if it stands where it belongs.
fn manifest(message: &Delivery) -> Option<Manifest> {
    let told = serde_json::from_slice::<Event<Manifest>>(&message.payload);
    let told = told.map(|event| event.data.cleaned());
    match told {
        Ok(manifest) => {
            let digest = manifest.digest.clone();
            if (Subject::Manifest { digest }).to_string() == message.subject {
                return Some(manifest);
            }
            tracing::error!(
                sequence = message.sequence,
                "MANIFESTS holds a manifest under another digest; it is left out"
            );
        }
        Err(error) => tracing::error!(
            sequence = message.sequence,
            "MANIFESTS holds what is no manifest, which is left out: {error}"
        ),
    }
    None
}
