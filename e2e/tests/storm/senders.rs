//! Those who tell: again and again until they are told that it was accepted, as registries do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::events::{Event, Kind};
use crate::world::SECRET;

/// Requests under way at once.
const SENDERS: usize = 8;

/// What came of them.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) again: AtomicU64,
}

/// Sends all events, about evenly over a time and then as long as it takes.
pub(crate) async fn send(events: Vec<Event>, gateways: Vec<String>, over: Duration) -> Arc<Sent> {
    let sent = Arc::new(Sent::default());
    let pace = over / u32::try_from(events.len()).unwrap();
    let start = Instant::now();
    let queue: VecDeque<(Instant, Event)> = events
        .into_iter()
        .zip(0..)
        .map(|(event, n)| (start + pace * n, event))
        .collect();
    let queue = Arc::new(Mutex::new(queue));
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let (queue, gateways, sent) = (Arc::clone(&queue), gateways.clone(), Arc::clone(&sent));
        senders.spawn(async move {
            let client = reqwest::Client::builder()
                .timeout(Duration::from_secs(3))
                .build()
                .unwrap();
            let mut turn = number;
            loop {
                let Some((at, event)) = queue.lock().await.pop_front() else {
                    return;
                };
                tokio::time::sleep_until(at).await;
                deliver(&client, &gateways, &mut turn, &event, &sent).await;
            }
        });
    }
    while let Some(done) = senders.join_next().await {
        done.unwrap();
    }
    sent
}

async fn deliver(
    client: &reqwest::Client,
    gateways: &[String],
    turn: &mut usize,
    event: &Event,
    sent: &Sent,
) {
    loop {
        *turn += 1;
        let gateway = &gateways[*turn % gateways.len()];
        if event.kind == Kind::Abandoned {
            abandon(gateway, event).await;
            return;
        }
        let secret = if event.kind == Kind::Stranger {
            "guessed"
        } else {
            SECRET
        };
        let answer = client
            .post(format!("http://{gateway}/hooks/{}", event.source))
            .bearer_auth(secret)
            .body(event.body.clone())
            .send()
            .await;
        match (answer.map(|answer| answer.status().as_u16()), &event.kind) {
            (Ok(401), Kind::Stranger) => {
                sent.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            (Ok(status), Kind::Stranger) if status < 500 => panic!("a stranger got {status}"),
            (Ok(202), _) => {
                sent.accepted.fetch_add(1, Ordering::Relaxed);
                return;
            }
            // Whoever is asked to come again, or hears nothing, comes again.
            (Ok(500..) | Err(_), _) => {
                sent.again.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(200)).await;
            }
            (Ok(status), _) => panic!("{} got {status}", event.body),
        }
    }
}

/// Sends it, whole or in part, and goes away without waiting for the answer.
async fn abandon(gateway: &str, event: &Event) {
    let Ok(mut stream) = TcpStream::connect(gateway).await else {
        return;
    };
    let request = format!(
        "POST /hooks/{} HTTP/1.1\r\nhost: {gateway}\r\nauthorization: Bearer {SECRET}\r\ncontent-length: {}\r\n\r\n{}",
        event.source,
        event.body.len(),
        event.body
    );
    // Every other one goes in the middle of its body.
    let until = if event.body.len().is_multiple_of(2) {
        request.len()
    } else {
        request.len() - event.body.len() / 2
    };
    let _ = stream.write_all(&request.as_bytes()[..until]).await;
}
