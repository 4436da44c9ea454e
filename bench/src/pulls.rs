//! A registry that is pulled from: a steady stream of pull events, beside which the gateway is
//! measured.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::json;
use tagtrail_proto::Digest;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::http::Connection;
use crate::serve::SECRET;
use crate::stack::{self, REGISTRY};

/// Pull events per second.
pub(crate) const PER_SECOND: u64 = 5000;
/// Events of a body, as a busy registry collects them.
const EVENTS: u64 = 50;
/// Pulled images.
const IMAGES: u64 = 10_000;
/// Pulls of an image until its tag moves. So each second 1,000 pulls name another digest than the
/// one reported last, more than the gateway turns into observations.
const UNTIL_MOVED: u64 = 5;

/// Pulls until it is dropped.
#[derive(Debug)]
pub(crate) struct Pulls(JoinSet<anyhow::Result<()>>);

impl Pulls {
    /// Starts to send pull events to the source `registry` of a gateway.
    pub(crate) fn start(address: &str) -> Pulls {
        let address = address.to_owned();
        let mut sending = JoinSet::new();
        sending.spawn(async move {
            let mut client = Connection::connect(&address).await?;
            let mut turns = interval(Duration::from_secs(1) / (PER_SECOND / EVENTS) as u32);
            turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut number = 0;
            loop {
                turns.tick().await;
                let (status, answer) = client.ask(body(&address, number)?).await?;
                anyhow::ensure!(status == 202, "answered {status}: {answer:?}");
                number += EVENTS;
            }
        });
        Pulls(sending)
    }

    /// Ends the pulls.
    ///
    /// # Errors
    /// The pulls had ended before, because the gateway refused them.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        match self.0.try_join_next() {
            Some(ended) => ended?,
            None => {
                self.0.shutdown().await;
                Ok(())
            }
        }
    }
}

/// Builds a body with the pulls from `number` on.
fn body(address: &str, number: u64) -> anyhow::Result<Request<Full<Bytes>>> {
    let event = |number: u64| {
        let (image, pull) = (number % IMAGES, number / IMAGES);
        let digest = Digest::sha256_of(format!("pull/{image}/{}", pull / UNTIL_MOVED).as_bytes());
        json!({
            "action": "pull",
            "target": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "repository": stack::repository(image as usize),
                "tag": "pulled",
                "digest": digest,
            },
            "request": { "host": REGISTRY, "method": "GET", "useragent": "containerd/2.1" },
        })
    };
    let events: Vec<_> = (number..number + EVENTS).map(event).collect();
    let body = json!({ "events": events }).to_string();
    Ok(Request::post("/hooks/registry")
        .header("host", address)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {SECRET}"))
        .body(Full::new(Bytes::from(body)))?)
}
