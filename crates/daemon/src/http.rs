//! An HTTP/1.1 server that limits the time and the connections of its clients, and refuses requests
//! that a foreign web page made a browser send.

mod discard;
mod forgery;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::{CACHE_CONTROL, HOST, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tagtrail_proto::clean_text;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use crate::throttle::Throttle;
pub use discard::{discard, discard_rest};
use forgery::{Forgery, Hosts};

/// The limits on clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time-out for the headers of a request, and of an idle connection.
    pub headers: Duration,
    /// The longest time for which a client may read nothing of a response.
    pub writing: Duration,
    /// Most connections open at once; further connections wait to be accepted.
    pub connections: usize,
    /// The time that requests in progress have to finish when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            headers: Duration::from_secs(10),
            writing: Duration::from_secs(60),
            connections: 1024,
            drain: Duration::from_secs(5),
        }
    }
}

/// Answers the requests of all connections.
#[derive(Debug)]
struct Service {
    router: Router,
    hosts: Hosts,
    refusals: Throttle,
}

impl Service {
    async fn answer(&self, remote: SocketAddr, request: Request) -> Result<Response, Infallible> {
        let (mut head, body) = request.into_parts();
        let checked = self
            .hosts
            .check(&head.method, &head.uri, head.version, &head.headers);
        if let Err(forgery) = checked {
            self.log(forgery, remote, &head.headers);
            discard(&head.headers, body);
            return Ok(forgery.response());
        }
        head.extensions.insert(ConnectInfo(remote));
        let request = Request::from_parts(head, body);
        let mut response = self.router.clone().call(request).await?;
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let no_store = HeaderValue::from_static("no-store");
        headers.entry(CACHE_CONTROL).or_insert(no_store);
        Ok(response)
    }

    fn log(&self, forgery: Forgery, remote: SocketAddr, headers: &HeaderMap) {
        let Some(count) = self.refusals.line(Instant::now()) else {
            return;
        };
        let host = headers.get(HOST).map(HeaderValue::as_bytes);
        let host = String::from_utf8_lossy(host.unwrap_or_default());
        let host = clean_text(&host, 255);
        tracing::warn!(%remote, host, count, "refused a request: {forgery}");
    }
}

/// Serves `router` until `shutdown` fires, then waits for requests in progress. Requests carry the
/// address of their client as `ConnectInfo<SocketAddr>`. `hosts` are further names of the server.
///
/// # Errors
/// If the listener has no address. A failed connection concerns its client alone, and a failed
/// accept is retried.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    limits: Limits,
    hosts: Vec<String>,
) -> anyhow::Result<()> {
    let service = Arc::new(Service {
        router,
        hosts: Hosts::new(listener.local_addr()?, hosts),
        refusals: Throttle::default(),
    });
    let permits = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut failures = 0;
    loop {
        let accept = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(err) => {
                // Mostly the process is out of descriptors, and connections that end free some.
                failures += 1;
                tracing::warn!("can't accept a connection: {err}");
                tokio::time::sleep(crate::backoff(failures)).await;
                continue;
            }
        };
        failures = 0;
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.writing));
        let service = Arc::clone(&service);
        let service =
            hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let service = Arc::clone(&service);
                async move { service.answer(remote, request.map(Body::new)).await }
            });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.headers)
            .max_headers(100)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let watched = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(err) = watched.await {
                tracing::debug!("a connection failed: {err}");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            "requests were still in progress {:?} after the request to stop",
            limits.drain
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    struct Server {
        address: std::net::SocketAddr,
        shutdown: CancellationToken,
        task: JoinSet<anyhow::Result<()>>,
        /// Fires when the server drops the body of the endless response.
        gone: CancellationToken,
    }

    async fn start(limits: Limits) -> Server {
        let gone = CancellationToken::new();
        let guard = Arc::new(std::sync::Mutex::new(Some(gone.clone().drop_guard())));
        let endless = move || {
            let guard = guard.lock().unwrap().take();
            let chunks = futures_util::stream::repeat_with(move || {
                let _kept = &guard;
                Ok::<_, std::convert::Infallible>(vec![b'x'; 65_536])
            });
            std::future::ready(axum::body::Body::from_stream(chunks))
        };
        let router = Router::new()
            .route("/endless", axum::routing::get(endless))
            .route(
                "/slow",
                axum::routing::get(async || {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    "done"
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown, mut task) = (
            listener.local_addr().unwrap(),
            CancellationToken::new(),
            JoinSet::new(),
        );
        task.spawn(serve(
            listener,
            router,
            shutdown.clone(),
            limits,
            Vec::new(),
        ));
        Server {
            address,
            shutdown,
            task,
            gone,
        }
    }

    async fn read_all(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(5), read)
            .await
            .expect("the server neither answers nor closes");
        answer
    }

    const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(stream).await
    }

    #[tokio::test]
    async fn a_foreign_page_gets_no_answer_of_the_router() {
        let server = start(Limits::default()).await;
        for (request, status, code) in [
            (
                "GET /slow HTTP/1.1\r\nhost: evil.example",
                421,
                "host_unknown",
            ),
            ("GET /slow HTTP/1.1\r\nx: y", 400, "host_invalid"),
            (
                "POST /slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\norigin: https://evil.example",
                403,
                "origin_forbidden",
            ),
            // The body is discarded, so that the sender receives the answer.
            (
                "POST /slow HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 9",
                421,
                "host_unknown",
            ),
        ] {
            let request = format!("{request}\r\nconnection: close\r\n\r\n");
            let answer = ask(server.address, &request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(answer.contains(code), "{answer}");
        }
        let answer = ask(server.address, std::str::from_utf8(SLOW).unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        for header in ["x-content-type-options: nosniff", "cache-control: no-store"] {
            assert!(answer.contains(header), "{answer}");
        }
    }

    #[tokio::test]
    async fn headers_that_never_end_time_out() {
        let server = start(Limits {
            headers: Duration::from_millis(100),
            ..Limits::default()
        })
        .await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream
            .write_all(b"GET /slow HTTP/1.1\r\nx: ")
            .await
            .unwrap();
        assert!(!read_all(stream).await.contains("200 OK"));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_response_is_disconnected() {
        let server = start(Limits {
            writing: Duration::from_millis(200),
            ..Limits::default()
        })
        .await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream
            .write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(10), server.gone.cancelled())
            .await
            .expect("the response is still being written");
    }

    #[tokio::test]
    async fn requests_in_progress_are_finished_when_the_server_stops() {
        let mut server = start(Limits::default()).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(SLOW).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await; // until the request is in progress
        server.shutdown.cancel();
        assert!(read_all(stream).await.ends_with("done"));
        server.task.join_next().await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_their_turn() {
        let server = start(Limits {
            connections: 1,
            headers: Duration::from_millis(300),
            ..Limits::default()
        })
        .await;
        let idle = TcpStream::connect(server.address).await.unwrap();
        let mut second = TcpStream::connect(server.address).await.unwrap();
        second.write_all(SLOW).await.unwrap();
        // The time-out for headers closes the idle connection; then the second one is served.
        assert!(read_all(second).await.ends_with("done"));
        drop(idle);
    }
}
