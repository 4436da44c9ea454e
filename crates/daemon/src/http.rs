//! An HTTP/1.1 server that limits the time and the connections of its clients, and refuses requests
//! that a foreign web page made a browser send.

mod discard;
mod forgery;
mod places;

use std::convert::Infallible;
use std::io::ErrorKind;
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
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use crate::throttle::Throttle;
pub use discard::{discard, discard_rest};
use forgery::{Forgery, Hosts};
pub use places::keep;
use places::{Place, Places, Served};

/// Most bytes of the head of a request. The buffer of a connection grows to twice this size.
const HEAD: usize = 16 << 10;

/// The limits on clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time-out for the headers of a request, and of an idle connection.
    pub headers: Duration,
    /// The longest time for which a client may read nothing of a response.
    pub writing: Duration,
    /// Most connections open at once. A further connection replaces one that serves no request, or
    /// else waits to be accepted.
    pub connections: usize,
    /// Whether requests of strangers take time. If so, a connection may also be replaced while it
    /// serves a request, until the handler calls [`keep`].
    pub strangers: bool,
    /// The time that requests in progress have to finish when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            headers: Duration::from_secs(10),
            writing: Duration::from_secs(60),
            connections: 1024,
            strangers: false,
            drain: Duration::from_secs(5),
        }
    }
}

/// Answers the requests of all connections.
#[derive(Debug)]
struct Service {
    router: Router,
    hosts: Hosts,
    strangers: bool,
    refusals: Throttle,
}

impl Service {
    async fn answer(
        &self,
        remote: SocketAddr,
        place: Place,
        request: Request,
    ) -> Result<Response, Infallible> {
        let (mut head, body) = request.into_parts();
        let checked = self
            .hosts
            .check(&head.method, &head.uri, head.version, &head.headers);
        if let Err(forgery) = checked {
            self.log(forgery, remote, &head.headers);
            discard(&head.headers, body);
            return Ok(forgery.response());
        }
        if !self.strangers {
            place.keep();
        }
        head.extensions.insert(ConnectInfo(remote));
        head.extensions.insert(place.clone());
        let request = Request::from_parts(head, body);
        let mut response = self.router.clone().call(request).await?;
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let no_store = HeaderValue::from_static("no-store");
        headers.entry(CACHE_CONTROL).or_insert(no_store);
        Ok(response.map(|body| Served::body(body, place)))
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

/// Binds the address of a server. An error names the cause, and the flags that set the address.
///
/// # Errors
/// The address can't be bound.
pub async fn listen(
    address: SocketAddr,
    purpose: &str,
    flags: &str,
) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let cause = match error.kind() {
            ErrorKind::AddrInUse => {
                "another program has this address, perhaps another `tagtrail up`; stop that program, or".to_owned()
            }
            _ => format!("{error};"),
        };
        anyhow::anyhow!(
            "can't listen on {address} for {purpose}: {cause} choose another address with {flags}"
        )
    })
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
        strangers: limits.strangers,
        refusals: Throttle::default(),
    });
    let places = Places::new(limits.connections);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut failures = 0;
    loop {
        let accept = async {
            places.free().await;
            listener.accept().await
        };
        let accepted = tokio::select! {
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
        let place = places.take(remote);
        let (service, served) = (Arc::clone(&service), place.clone());
        let service =
            hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let (service, place) = (Arc::clone(&service), served.clone());
                async move {
                    let request = request.map(Body::new);
                    service.answer(remote, place, request).await
                }
            });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.headers)
            .max_headers(100)
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let watched = graceful.watch(connection);
        connections.spawn(async move {
            tokio::select! {
                biased;
                () = place.closed().cancelled() => {}
                ended = watched => if let Err(err) = ended {
                    tracing::debug!("a connection failed: {err}");
                },
            }
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
mod tests;
