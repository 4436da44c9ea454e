//! A TCP proxy between a client and a server, which imitates faults of a network.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The state of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// All data passes.
    Whole,
    /// All connections close; new connections close at once.
    Cut,
    /// All connections are reset; new connections are reset at once.
    Reset,
    /// Connections stay open, and no data passes.
    Silent,
    /// Data of the client is held and passes later; data of the server passes.
    Muted,
    /// Data of the client is lost, and the server sees the end of the stream.
    HalfClosed,
    /// All data passes after this pause, in each direction.
    Slow(Duration),
}

/// A running proxy. Without other orders all data passes.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    link: watch::Sender<Link>,
    _server: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy in front of an address.
    pub async fn start(target: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (link, seen) = watch::channel(Link::Whole);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                // Accepting fails at most for a moment, while file descriptors are short.
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                while connections.try_join_next().is_some() {}
                connections.spawn(carry(client, target.clone(), seen.clone()));
            }
        });
        Proxy {
            address,
            link,
            _server: server,
        }
    }

    /// Returns the address for clients.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sets the state of the network, also for open connections.
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn carry(client: TcpStream, target: String, mut link: watch::Receiver<Link>) {
    if ended(*link.borrow_and_update(), &client) {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // A reset is sent when both halves of a connection are dropped, so this function owns both
    // futures.
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut there = Box::pin(pump(from_client, to_server, link.clone(), true));
    let mut back = Box::pin(pump(from_server, to_client, link.clone(), false));
    let mut open = true;
    while open {
        tokio::select! {
            () = &mut there => open = false,
            () = &mut back => open = false,
            changed = link.changed() => {
                open = changed.is_ok() && !matches!(*link.borrow_and_update(), Link::Cut | Link::Reset);
            }
        }
    }
}

/// Ends a new connection at once if the network is cut or resets. Returns whether it did.
fn ended(link: Link, client: &TcpStream) -> bool {
    if link == Link::Reset {
        let _ = client.set_zero_linger();
    }
    matches!(link, Link::Cut | Link::Reset)
}

/// Copies one direction until the connection ends.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut link: watch::Receiver<Link>,
    of_client: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let now = *link.borrow_and_update();
        if now == Link::Reset {
            let _ = from.as_ref().set_zero_linger();
            return;
        }
        if now == Link::HalfClosed && of_client {
            let _ = to.shutdown().await;
            let _ = link.wait_for(|now| *now != Link::HalfClosed).await;
            return; // The held data and the connection are lost.
        }
        let held = |now: Link| now == Link::Silent || (now == Link::Muted && of_client);
        if held(now) {
            if link.changed().await.is_err() {
                return;
            }
            continue;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = link.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
        };
        let Ok(count @ 1..) = read else {
            let _ = to.shutdown().await;
            return;
        };
        if let Link::Slow(pause) = now {
            tokio::time::sleep(pause).await;
        }
        // The network may have fallen silent since the read.
        let _ = link.wait_for(|now| !held(*now)).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
