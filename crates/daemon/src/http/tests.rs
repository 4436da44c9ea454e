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
        )
        .route(
            "/kept",
            axum::routing::get(async |request: Request| {
                keep(request.extensions());
                tokio::time::sleep(Duration::from_millis(200)).await;
                "kept"
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

const KEPT: &str = "GET /kept HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
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
async fn a_new_connection_replaces_an_idle_one_and_no_request() {
    let server = start(Limits {
        connections: 2,
        ..Limits::default()
    })
    .await;
    let mut busy = TcpStream::connect(server.address).await.unwrap();
    busy.write_all(SLOW).await.unwrap();
    let idle = TcpStream::connect(server.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await; // until the request is in progress
    let mut third = TcpStream::connect(server.address).await.unwrap();
    third.write_all(SLOW).await.unwrap();
    assert!(read_all(third).await.ends_with("done"));
    assert!(read_all(busy).await.ends_with("done"));
    assert_eq!(read_all(idle).await, "");
}

#[tokio::test]
async fn a_request_of_a_stranger_keeps_no_place() {
    let server = start(Limits {
        connections: 1,
        strangers: true,
        ..Limits::default()
    })
    .await;
    let mut stranger = TcpStream::connect(server.address).await.unwrap();
    stranger.write_all(SLOW).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await; // until the request is in progress
    let kept = KEPT.as_bytes();
    let mut authentic = TcpStream::connect(server.address).await.unwrap();
    authentic.write_all(kept).await.unwrap();
    assert_eq!(read_all(stranger).await, "");
    // A third connection waits for the authentic request.
    let answer = ask(server.address, KEPT);
    assert!(read_all(authentic).await.ends_with("kept"));
    assert!(answer.await.ends_with("kept"));
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let server = start(Limits::default()).await;
    for size in [1, 2, 12] {
        let head = format!(
            "GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {}",
            "a".repeat(size * HEAD)
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server may answer, and close, before it has read everything.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut start = [0; 12];
        if stream.read_exact(&mut start).await.is_ok() {
            assert_eq!(&start, b"HTTP/1.1 431");
        }
    }
    let most = "a".repeat(HEAD - 1000);
    let head =
        format!("GET /slow HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {most}\r\n\r\n");
    assert!(ask(server.address, &head).await.ends_with("done"));
}
