//! The HTTP client of the measurements, and the plain handlers for comparison.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get as get_route, post};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::report::percentile;

/// Connections that send requests for a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clients {
    pub(crate) connections: usize,
    pub(crate) during: Duration,
}

impl Clients {
    /// Returns the usual 32 connections.
    pub(crate) fn during(seconds: u64) -> Clients {
        Clients {
            connections: 32,
            during: Duration::from_secs(seconds),
        }
    }
}

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The task that drives the connection.
    _connection: JoinSet<hyper::Result<()>>,
}

impl Connection {
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut carrying = JoinSet::new();
        carrying.spawn(connection);
        Ok(Connection {
            sender,
            _connection: carrying,
        })
    }

    /// Sends a request. Returns status and body of the answer.
    pub(crate) async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<(u16, Bytes)> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}

/// Returns the status of a GET request.
pub(crate) async fn get(address: &str, path: &str) -> anyhow::Result<u16> {
    let request = Request::get(path)
        .header("host", address)
        .body(Full::default())?;
    Ok(Connection::connect(address).await?.ask(request).await?.0)
}

/// The measurements of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Milliseconds at the 99th percentile.
    pub(crate) p99: f64,
}

/// Sends requests over all connections. Each connection sends its next request as soon
/// as the previous answer arrives. An answer with another status than `status` is an error.
pub(crate) async fn load(
    address: &str,
    clients: Clients,
    status: u16,
    request: impl Fn(usize) -> anyhow::Result<Request<Full<Bytes>>> + Send + Sync + 'static,
) -> anyhow::Result<Load> {
    let Clients {
        connections,
        during,
    } = clients;
    let request = Arc::new(request);
    let mut clients = JoinSet::new();
    let begun = Instant::now();
    for first in 0..connections {
        let mut client = Connection::connect(address).await?;
        let request = Arc::clone(&request);
        clients.spawn(async move {
            let mut times = Vec::new();
            let mut number = first;
            while begun.elapsed() < during {
                let sent = Instant::now();
                let (got, body) = client.ask(request(number)?).await?;
                anyhow::ensure!(
                    got == status,
                    "answered {got}: {}",
                    String::from_utf8_lossy(&body)
                );
                times.push(sent.elapsed().as_secs_f64() * 1000.0);
                number += connections;
            }
            Ok::<_, anyhow::Error>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = clients.join_next().await {
        times.extend(done??);
    }
    Ok(Load {
        rate: times.len() as f64 / begun.elapsed().as_secs_f64(),
        p99: percentile(&times, 0.99),
    })
}

/// Serves the plain handlers until the process is killed, and prints the address. `Plain` runs this
/// in a second process, because the services of the product have a process of their own, too.
pub(crate) async fn plain(database: &str) -> anyhow::Result<Infallible> {
    // The api's number of connections, without the round trip that sqlx adds to each acquire by
    // default.
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .test_before_acquire(false)
        .connect(database)
        .await?;
    let router = axum::Router::new()
        .route(
            "/parse",
            post(async |Json(_): Json<Value>| StatusCode::ACCEPTED),
        )
        .route("/one", get_route(one))
        .with_state(pool);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut out = std::io::stdout();
    std::io::Write::write_all(&mut out, format!("{}\n", listener.local_addr()?).as_bytes())?;
    axum::serve(listener, router).await?;
    anyhow::bail!("the plain server ended")
}

async fn one(State(pool): State<sqlx::PgPool>) -> Result<Json<Value>, StatusCode> {
    let one: i32 = sqlx::query_scalar("select 1")
        .fetch_one(&pool)
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(serde_json::json!({ "one": one })))
}

/// The plain handlers in a process of their own.
#[derive(Debug)]
pub(crate) struct Plain {
    child: std::process::Child,
    pub(crate) address: String,
}

impl Plain {
    pub(crate) fn start(database: &str) -> anyhow::Result<Plain> {
        let mut child = std::process::Command::new(std::env::current_exe()?)
            .args(["plain", "--database", database])
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("no output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
        anyhow::ensure!(!line.is_empty(), "the plain server did not start");
        Ok(Plain {
            child,
            address: line.trim().to_owned(),
        })
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
