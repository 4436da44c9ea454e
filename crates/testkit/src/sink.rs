//! A webhook target that records its requests.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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
    /// The status of the answer.
    pub answered: u16,
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
        Sink::serve(url, listener)
    }

    /// Starts a target behind TLS, with the certificate that [`crate::certificates`] made in this
    /// folder.
    pub async fn start_tls(folder: &Path) -> Sink {
        let certificates = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap();
        let certificates = certificates.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/hook", listener.local_addr().unwrap());
        let tls = TlsAcceptor::from(Arc::new(config));
        Sink::serve(url, TlsListener { listener, tls })
    }

    fn serve<L: Listener>(url: String, listener: L) -> Sink
    where
        L::Addr: std::fmt::Debug,
    {
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

/// Accepts connections whose client trusts the certificate.
struct TlsListener {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn record(
    State(recording): State<Arc<Mutex<Recording>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut delivery = Delivery {
        method,
        uri,
        headers,
        body,
        answered: 0,
    };
    let answer = {
        let mut recording = recording.lock().unwrap();
        let judged = |judge: Judge| judge(&delivery);
        let usual = recording.judge.map_or(Answer::Status(200), judged);
        let answer = recording.answers.pop_front().unwrap_or(usual);
        delivery.answered = match &answer {
            Answer::Status(code)
            | Answer::With(code, ..)
            | Answer::Said(code, _)
            | Answer::Late(_, code) => *code,
        };
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
