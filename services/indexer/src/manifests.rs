//! Stores the manifests of MANIFESTS in Postgres. The instance that holds the lock does it for all.
//!
//! The position moves in the statement that inserts the manifests, so no manifest is skipped after
//! a change of instance or with Postgres from an older backup; and MANIFESTS keeps every message.
//! Reading a message twice is harmless: a digest has one manifest.

use std::convert::Infallible;

use futures_util::FutureExt as _;
use tagtrail_bus::consume::Delivery;
use tagtrail_bus::topology::Stream;
use tagtrail_postgres::{DbArgs, Lock};
use tagtrail_proto::{Event, Manifest, Subject};

use crate::error::Error;
use crate::shared::Shared;
use crate::store::manifests as store;

/// Most messages stored at once.
const BATCH: usize = 100;

/// Stores manifests until a stop is requested. After an error the work starts over from the
/// position.
pub(crate) async fn manifests(db: DbArgs, shared: Shared) -> anyhow::Result<()> {
    shared
        .repeat("storing manifests", || hold(&db, &shared))
        .await;
    Ok(())
}

/// Waits for the lock, and stores manifests until an error.
async fn hold(db: &DbArgs, shared: &Shared) -> Result<Infallible, Error> {
    let mut db = shared.session(db, "manifests", Lock::Manifests).await?;
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
            // Take only messages that have arrived, so that a single message does not wait.
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

/// Parses the manifest in a message, if the message is on the subject of the manifest's digest.
fn manifest(message: &Delivery) -> Option<Manifest> {
    let event = serde_json::from_slice::<Event<Manifest>>(&message.payload);
    match event.map(|event| event.data.cleaned()) {
        Ok(manifest) => {
            let digest = manifest.digest.clone();
            if (Subject::Manifest { digest }).to_string() == message.subject {
                return Some(manifest);
            }
            tracing::error!(
                sequence = message.sequence,
                "ignoring a manifest that MANIFESTS has under the digest of another one"
            );
        }
        Err(error) => tracing::error!(
            sequence = message.sequence,
            "ignoring a message of MANIFESTS that is not a manifest: {error}"
        ),
    }
    None
}
