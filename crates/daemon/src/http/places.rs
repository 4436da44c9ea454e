//! The places of connections. When all are taken, a connection that serves no authentic request
//! gives up its place to a new one, so that idle and slow clients keep nobody out.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Extensions;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The places of a server.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
    /// A place was given up, or may be given up now.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    places: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    /// The start of the connection, or the end of its last request.
    since: Instant,
    /// Whether the connection serves an authentic request.
    kept: bool,
    closed: CancellationToken,
}

/// The place of a connection. The last drop gives up the place.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Taking>);

#[derive(Debug)]
struct Taking {
    id: u64,
    places: Arc<Places>,
    closed: CancellationToken,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Places> {
        Arc::new(Places {
            most,
            taken: Mutex::default(),
            freed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a connection can have a place.
    pub(super) async fn free(&self) {
        loop {
            let freed = self.freed.notified();
            if self.lock().has_room(self.most) {
                return;
            }
            freed.await;
        }
    }

    /// Takes a place, from another connection if there is no other.
    pub(super) fn take(self: &Arc<Places>, remote: SocketAddr) -> Place {
        let closed = CancellationToken::new();
        let mut taken = self.lock();
        if taken.places.len() >= self.most {
            taken.close_one();
        }
        taken.next += 1;
        let id = taken.next;
        let entry = Entry {
            address: remote.ip(),
            since: Instant::now(),
            kept: false,
            closed: closed.clone(),
        };
        taken.places.insert(id, entry);
        drop(taken);
        let places = Arc::clone(self);
        Place(Arc::new(Taking { id, places, closed }))
    }
}

impl Taken {
    fn has_room(&self, most: usize) -> bool {
        self.places.len() < most || self.places.values().any(|entry| !entry.kept)
    }

    /// Closes the connection that has been idle for the longest time, of the address with most
    /// idle connections.
    fn close_one(&mut self) {
        let idle = || self.places.iter().filter(|(_, entry)| !entry.kept);
        let mut of_address: HashMap<IpAddr, usize> = HashMap::new();
        for (_, entry) in idle() {
            *of_address.entry(entry.address).or_default() += 1;
        }
        let crowd = |entry: &Entry| of_address.get(&entry.address).copied();
        let chosen = idle().max_by_key(|(_, entry)| (crowd(entry), std::cmp::Reverse(entry.since)));
        let chosen = chosen.map(|(id, _)| *id);
        if let Some(entry) = chosen.and_then(|id| self.places.remove(&id)) {
            entry.closed.cancel();
        }
    }
}

impl Place {
    /// Fires when another connection has taken the place.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.0.closed
    }

    /// Keeps the place until [`Place::release`].
    pub(super) fn keep(&self) {
        self.set(true);
    }

    fn release(&self) {
        self.set(false);
        self.0.places.freed.notify_one();
    }

    fn set(&self, kept: bool) {
        if let Some(entry) = self.0.places.lock().places.get_mut(&self.0.id) {
            entry.kept = kept;
            entry.since = Instant::now();
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.places.lock().places.remove(&self.id);
        self.places.freed.notify_one();
    }
}

/// Keeps the connection of this request until the end of the response, because the sender is
/// authentic. For servers with [`Limits::strangers`](super::Limits::strangers).
pub fn keep(extensions: &Extensions) {
    if let Some(place) = extensions.get::<Place>() {
        place.keep();
    }
}

/// A response's body, whose end releases the place.
pub(super) struct Served {
    body: Body,
    place: Place,
}

impl Served {
    pub(super) fn body(body: Body, place: Place) -> Body {
        Body::new(Served { body, place })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.place.release();
    }
}

impl HttpBody for Served {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 1).into()
    }

    fn closed(places: &[Place]) -> Vec<usize> {
        let closed = places.iter().enumerate();
        let closed = closed.filter(|(_, place)| place.closed().is_cancelled());
        closed.map(|(index, _)| index).collect()
    }

    #[tokio::test]
    async fn the_oldest_idle_connection_of_the_largest_crowd_is_closed() {
        let places = Places::new(5);
        let mut taken: Vec<Place> = [1, 2, 2, 2, 3].map(|last| places.take(remote(last))).into();
        taken[1].keep();
        taken.push(places.take(remote(4)));
        assert_eq!(closed(&taken), [2]);
        taken.push(places.take(remote(4)));
        assert_eq!(closed(&taken), [0, 2]);
        // A request on the oldest connection of the crowd makes another one the oldest.
        taken[5].keep();
        taken[5].release();
        taken.push(places.take(remote(5)));
        assert_eq!(closed(&taken), [0, 2, 6]);
    }

    #[tokio::test]
    async fn a_place_is_waited_for_while_all_are_kept() {
        let places = Places::new(2);
        let taken = [places.take(remote(1)), places.take(remote(2))];
        taken.iter().for_each(Place::keep);
        let waits = async |places: &Arc<Places>| {
            let soon = std::time::Duration::from_millis(20);
            tokio::time::timeout(soon, places.free()).await.is_err()
        };
        assert!(waits(&places).await);
        taken[1].release();
        assert!(!waits(&places).await);
        taken[1].keep();
        assert!(waits(&places).await);
        drop(taken);
        assert!(!waits(&places).await);
    }
}
