//! A TCP proxy between two that talk to each other: what networks do to them.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Carries everything.
    Whole,
    /// Closes all connections, and each new one at once.
    Cut,
    /// Resets all connections, and each new one at once.
    Reset,
    /// Connections stand, nothing is carried.
    Silent,
    /// What the client says is held back, and carried later; what the server says is carried.
    Muted,
    /// What the client says is carried no more, and the server is told that it has ended.
    HalfClosed,
    /// Everything takes this long, each way.
    Slow(Duration),
}

/// A running proxy; carries everything unless told otherwise.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    link: watch::Sender<Link>,
    _server: JoinSet<()>,
}

impl Proxy {
    /// Starts one in front of an address.
    pub async fn start(target: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (link, seen) = watch::channel(Link::Whole);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                // Out of descriptors for a moment at worst.
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

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on it does this, to connections that stand too.
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
    // For a reset both halves must be one again, so they are given back.
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

/// Whether a new connection is ended at once.
fn ended(link: Link, client: &TcpStream) -> bool {
    if link == Link::Reset {
        let _ = client.set_zero_linger();
    }
    matches!(link, Link::Cut | Link::Reset)
}

/// Carries one direction until it ends.
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
            return; // What was not carried is lost, and so is the connection.
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
        // Fallen silent while it was on its way.
        let _ = link.wait_for(|now| !held(*now)).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
