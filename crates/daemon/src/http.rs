//! An HTTP/1.1 server that limits the time and the connections of its clients.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

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

/// Serves `router` until `shutdown` fires, then waits for requests in progress. Requests carry the
/// address of their client as `ConnectInfo<SocketAddr>`.
///
/// # Errors
/// None so far: a failed connection concerns its client alone, and a failed accept is retried.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    limits: Limits,
) -> anyhow::Result<()> {
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
        let router = router.clone();
        let service = hyper::service::service_fn(
            move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ConnectInfo(remote));
                router.clone().call(request)
            },
        );
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
        task.spawn(serve(listener, router, shutdown.clone(), limits));
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

    const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

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
            .write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
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
