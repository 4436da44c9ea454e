//! A webhook target that records its requests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A recorded request.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The method of the request.
    pub method: Method,
    /// The path and query of the request; the whole URL if the target acts as a proxy.
    pub uri: Uri,
    /// The headers of the request.
    pub headers: HeaderMap,
    /// The body of the request.
    pub body: Bytes,
}

impl Delivery {
    /// Returns the text of a header; empty if the header is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Parses the body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a delivery is not JSON")
    }
}

/// An answer of the target.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A status without headers.
    Status(u16),
    /// A status with one header.
    With(u16, &'static str, String),
    /// A status with a body.
    Said(u16, String),
    /// A status after a pause.
    Late(Duration, u16),
}

/// Answers a request as a certain product does.
pub type Judge = fn(&Delivery) -> Answer;

/// The requests so far, and the answers to the next ones.
#[derive(Debug, Default)]
struct Recording {
    deliveries: Vec<Delivery>,
    answers: VecDeque<Answer>,
    judge: Option<Judge>,
}

/// A running target. Without other orders it answers 200.
#[derive(Debug)]
pub struct Sink {
    url: String,
    recording: Arc<Mutex<Recording>>,
    _server: JoinSet<()>,
}

impl Sink {
    /// Starts a target.
    pub async fn start() -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let recording = Arc::new(Mutex::new(Recording::default()));
        let router = Router::new()
            .fallback(record)
            .with_state(Arc::clone(&recording));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Sink {
            url,
            recording,
            _server: server,
        }
    }

    /// Lets `judge` answer the requests for which no answer is set.
    pub fn judge(&self, judge: Judge) {
        self.recording.lock().unwrap().judge = Some(judge);
    }

    /// Returns the URL of the target.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sets the answers to the next requests, in this order.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.recording.lock().unwrap().answers.extend(answers);
    }

    /// Drops the remaining answers: all later requests are answered with 200.
    pub fn calm(&self) {
        self.recording.lock().unwrap().answers.clear();
    }

    /// Returns all requests so far.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.recording.lock().unwrap().deliveries.clone()
    }

    /// Waits for at least `count` requests.
    pub async fn wait(&self, count: usize) -> Vec<Delivery> {
        crate::eventually(&format!("{count} deliveries"), crate::SOON, async || {
            Some(self.deliveries()).filter(|deliveries| deliveries.len() >= count)
        })
        .await
    }
}

async fn record(
    State(recording): State<Arc<Mutex<Recording>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let delivery = Delivery {
        method,
        uri,
        headers,
        body,
    };
    let answer = {
        let mut recording = recording.lock().unwrap();
        let judged = |judge: Judge| judge(&delivery);
        let usual = recording.judge.map_or(Answer::Status(200), judged);
        let answer = recording.answers.pop_front().unwrap_or(usual);
        recording.deliveries.push(delivery);
        answer
    };
    let status = |code| StatusCode::from_u16(code).unwrap();
    match answer {
        Answer::Status(code) => status(code).into_response(),
        Answer::With(code, name, value) => (status(code), [(name, value)]).into_response(),
        Answer::Said(code, text) => (status(code), text).into_response(),
        Answer::Late(pause, code) => {
            tokio::time::sleep(pause).await;
            status(code).into_response()
        }
    }
}
