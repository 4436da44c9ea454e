//! Replays quarantined bodies on request of the api. The api names an entry of QUARANTINE, and has
//! no right to publish pushes itself.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tagtrail_bus::topology::Stream;
use tagtrail_bus::{Bus, BusError};
use tagtrail_config::File;
use tagtrail_daemon::{Context, Retry};
use tagtrail_proto::{Quarantined, ReplayAnswer, ReplayRequest, Replayed};

use super::replay::replay;
use crate::interpret::Receipt;

/// The instances share the requests.
const GROUP: &str = "gateway";
/// Time-out of a replay, below that of the request.
const TIMEOUT: Duration = Duration::from_secs(6);

/// Answers requests until shutdown, one after the other: a person sent them.
pub(crate) async fn answer(bus: Bus, config: &Path, ctx: Context) -> anyhow::Result<()> {
    let mut retry = Retry::new("receiving requests to replay bodies");
    loop {
        let listening = async {
            let mut requests = bus.requests(ReplayRequest::SUBJECT, GROUP).await?;
            while let Some(request) = requests.next().await {
                let replayed = tokio::time::timeout(TIMEOUT, of(&bus, config, &request.payload));
                let answer = replayed.await.unwrap_or_else(|_| {
                    ReplayAnswer::Refused("NATS does not store the pushes in time".to_owned())
                });
                let text = serde_json::to_vec(&answer).unwrap_or_default();
                request.answer(Bytes::from(text)).await;
            }
            Err(BusError::Unreachable("the subscription ended".to_owned()))
        };
        let outcome: Result<(), BusError> = tokio::select! {
            () = ctx.shutdown.cancelled() => return Ok(()),
            outcome = listening => outcome,
        };
        if let Err(error) = outcome
            && !retry.wait(&error, &ctx.shutdown).await
        {
            return Ok(());
        }
    }
}

async fn of(bus: &Bus, config: &Path, payload: &[u8]) -> ReplayAnswer {
    let refused = |text: String| ReplayAnswer::Refused(text);
    let Ok(ReplayRequest { number }) = serde_json::from_slice(payload) else {
        return refused("the request has another form".to_owned());
    };
    let message = match bus.message(Stream::Quarantine, number).await {
        Ok(Some(message)) => message,
        Ok(None) => return ReplayAnswer::Unknown,
        Err(error) => return refused(error.to_string()),
    };
    let Ok(entry) = serde_json::from_slice::<Quarantined>(&message.payload) else {
        return refused("the entry was not written by Tagtrail".to_owned());
    };
    // Read anew: a person has just mended the cause.
    let file = match File::load(config) {
        Ok(file) => file,
        Err(error) => return refused(error.to_string()),
    };
    match replay(bus, &file, &entry).await {
        Ok(receipt) => {
            tracing::info!(
                number,
                source = entry.source,
                accepted = receipt.accepted,
                unresolved = receipt.unresolved,
                "replayed the quarantined body {number} of {}",
                entry.source
            );
            ReplayAnswer::Replayed(replayed(&receipt))
        }
        Err(error) => refused(tagtrail_daemon::chain(&error)),
    }
}

fn replayed(receipt: &Receipt) -> Replayed {
    let count = |count: usize| count as u64;
    Replayed {
        accepted: count(receipt.accepted),
        unresolved: count(receipt.unresolved),
        ignored: count(receipt.ignored),
    }
}
