//! The senders: like registries, senders repeat each request until it is accepted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::events::{Expected, Request};
use crate::world::SECRET;

/// Number of concurrent senders.
const SENDERS: usize = 8;

/// Number of requests by their outcome.
#[derive(Debug, Default)]
pub(crate) struct SendCounts {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) again: AtomicU64,
}

/// Spreads some requests evenly between others.
pub(crate) fn merge(requests: Vec<Request>, others: Vec<Request>) -> Vec<Request> {
    let (all, some) = (requests.len(), others.len());
    let mut merged: Vec<(usize, Request)> = requests.into_iter().enumerate().collect();
    let others = others.into_iter().enumerate();
    merged.extend(others.map(|(place, request)| (place * all / some, request)));
    merged.sort_by_key(|(place, _)| *place);
    merged.into_iter().map(|(_, request)| request).collect()
}

/// Sends all requests, spread evenly over a time, and repeats each until the gateway has answered
/// as expected.
pub(crate) async fn send(
    requests: Vec<Request>,
    gateways: Vec<String>,
    over: Duration,
) -> Arc<SendCounts> {
    let sent = Arc::new(SendCounts::default());
    let pace = over / u32::try_from(requests.len()).unwrap();
    let start = Instant::now();
    let queue: VecDeque<(Instant, Request)> = requests
        .into_iter()
        .zip(0..)
        .map(|(request, n)| (start + pace * n, request))
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
                let Some((at, request)) = queue.lock().await.pop_front() else {
                    return;
                };
                tokio::time::sleep_until(at).await;
                deliver(&client, &gateways, &mut turn, &request, &sent).await;
            }
        });
    }
    while let Some(done) = senders.join_next().await {
        done.unwrap();
    }
    sent
}

pub(crate) async fn deliver(
    client: &reqwest::Client,
    gateways: &[String],
    turn: &mut usize,
    request: &Request,
    sent: &SendCounts,
) {
    loop {
        *turn += 1;
        let gateway = &gateways[*turn % gateways.len()];
        if request.expected == Expected::Unread {
            abandon(gateway, request).await;
            return;
        }
        let secret = if request.expected == Expected::Refused {
            "guessed"
        } else {
            SECRET
        };
        let answer = client
            .post(format!("http://{gateway}/hooks/{}", request.source))
            .bearer_auth(secret)
            .body(request.body.clone())
            .send()
            .await;
        let status = answer.map(|answer| answer.status().as_u16());
        match (status, &request.expected) {
            (Ok(401), Expected::Refused) => {
                sent.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            (Ok(status), Expected::Refused) if status < 500 => {
                panic!("a request with a wrong secret got {status}")
            }
            (Ok(202), _) => {
                sent.accepted.fetch_add(1, Ordering::Relaxed);
                return;
            }
            // A sender retries after 5xx, and without an answer.
            (Ok(500..) | Err(_), _) => {
                sent.again.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(200)).await;
            }
            (Ok(status), _) => panic!("{} got {status}", request.body),
        }
    }
}

/// Sends a request, whole or in part, and closes the connection without reading the answer.
async fn abandon(gateway: &str, request: &Request) {
    let Ok(mut stream) = TcpStream::connect(gateway).await else {
        return;
    };
    let bytes = format!(
        "POST /hooks/{} HTTP/1.1\r\nhost: {gateway}\r\nauthorization: Bearer {SECRET}\r\ncontent-length: {}\r\n\r\n{}",
        request.source,
        request.body.len(),
        request.body
    );
    // About half of the requests end in the middle of their body.
    let until = if request.body.len().is_multiple_of(2) {
        bytes.len()
    } else {
        bytes.len() - request.body.len() / 2
    };
    let _ = stream.write_all(&bytes.as_bytes()[..until]).await;
}
