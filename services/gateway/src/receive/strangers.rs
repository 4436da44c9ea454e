//! Memory for the bodies of strangers: senders whose signature can be checked only after the whole
//! body has arrived. Their bodies are counted as they arrive.
//!
//! When the memory is used up, the largest body makes room for one that is not larger, and of
//! equal ones the oldest: an event has some KiB and arrives at once, and strangers must not keep it
//! out by bodies that they send slowly.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::error::Error;

/// Memory for the bodies of strangers, of all together.
const MOST: usize = 32 << 20;
/// Memory for the first bytes of a body.
const FIRST: usize = 16 << 10;
/// The buffer of the connection, which counts from the first byte of the body on.
const BUFFER: usize = 32 << 10;
/// Fewest bytes that must arrive in each period, unless the body ends before.
const LEAST_RATE: (usize, Duration) = (32 << 10, Duration::from_secs(2));

/// The bodies of strangers that are being received.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<Bodies>);

#[derive(Debug, Default)]
struct Bodies {
    used: usize,
    next: u64,
    bodies: HashMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    bytes: usize,
    displaced: Arc<Notify>,
}

/// The memory of one body.
#[derive(Debug)]
pub(crate) struct Share {
    strangers: Arc<Strangers>,
    id: u64,
    displaced: Arc<Notify>,
    /// Bytes that arrived in this period.
    arrived: AtomicUsize,
}

impl Strangers {
    fn lock(&self) -> MutexGuard<'_, Bodies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a body.
    pub(crate) fn share(self: &Arc<Strangers>) -> Share {
        let displaced = Arc::new(Notify::new());
        let mut bodies = self.lock();
        bodies.next += 1;
        let id = bodies.next;
        let held = Held {
            bytes: 0,
            displaced: Arc::clone(&displaced),
        };
        bodies.bodies.insert(id, held);
        Share {
            strangers: Arc::clone(self),
            id,
            displaced,
            arrived: AtomicUsize::new(0),
        }
    }
}

impl Bodies {
    /// Gives a body `more` memory, if need be that of larger bodies.
    fn grow(&mut self, id: u64, more: usize) -> Result<(), Error> {
        let bytes = self.bodies.get(&id).ok_or(Error::Busy)?.bytes + more;
        while self.used + more > MOST {
            let others = self.bodies.iter().filter(|(other, _)| **other != id);
            let largest = others.max_by_key(|(id, held)| (held.bytes, Reverse(**id)));
            let largest = largest.filter(|(_, held)| held.bytes >= bytes);
            let largest = largest.map(|(id, _)| *id).ok_or(Error::Busy)?;
            if let Some(held) = self.remove(largest) {
                held.displaced.notify_one();
            }
        }
        if let Some(held) = self.bodies.get_mut(&id) {
            held.bytes = bytes;
            self.used += more;
        }
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.bodies.remove(&id)?;
        self.used -= held.bytes;
        Some(held)
    }
}

impl Share {
    /// Makes room in `whole` for a body that has `size` bytes so far, and at most `most`.
    ///
    /// # Errors
    /// [`Error::Busy`] if smaller bodies use up the memory, or a smaller one has taken this
    /// memory.
    pub(crate) fn grow(&self, whole: &mut Vec<u8>, size: usize, most: usize) -> Result<(), Error> {
        let had = whole.capacity();
        if size > had {
            let capacity = (2 * had).max(FIRST).min(most).max(size);
            let buffer = if had == 0 { BUFFER } else { 0 };
            let more = capacity - had + buffer;
            self.strangers.lock().grow(self.id, more)?;
            whole.reserve_exact(capacity - whole.len());
        }
        Ok(())
    }

    /// Counts bytes that arrived.
    pub(crate) fn arrived(&self, bytes: usize) {
        self.arrived.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits until the body arrives too slowly, or a smaller body has taken its memory.
    pub(crate) async fn forfeited(&self) -> Error {
        let (least, period) = LEAST_RATE;
        let too_slow = async {
            loop {
                sleep(period).await;
                if self.arrived.swap(0, Ordering::Relaxed) < least {
                    return Error::BelowRate;
                }
            }
        };
        tokio::select! {
            error = too_slow => error,
            error = self.displaced() => error,
        }
    }

    /// Waits until a smaller body has taken the memory.
    pub(crate) async fn displaced(&self) -> Error {
        self.displaced.notified().await;
        Error::Busy
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.strangers.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn grown(share: &Share, size: usize) -> bool {
        let mut bodies = share.strangers.lock();
        let had = bodies.bodies.get(&share.id).map_or(0, |held| held.bytes);
        bodies.grow(share.id, size - had).is_ok()
    }

    async fn is_displaced(share: &Share) -> bool {
        let now = Duration::from_millis(1);
        tokio::time::timeout(now, share.displaced()).await.is_ok()
    }

    #[tokio::test]
    async fn the_largest_body_makes_room_for_a_smaller_one() {
        let strangers = Arc::new(Strangers::default());
        let shares: Vec<Share> = (0..4).map(|_| strangers.share()).collect();
        for (share, size) in shares.iter().zip([12, 13, 7]) {
            assert!(grown(share, size * MIB));
        }
        // Larger than each other body.
        assert!(!grown(&shares[3], 14 * MIB));
        assert!(grown(&shares[3], MIB));
        assert!(is_displaced(&shares[1]).await && !grown(&shares[1], 20 * MIB));
        assert!(!is_displaced(&shares[0]).await);
        assert_eq!(strangers.lock().used, 20 * MIB);
        drop(shares);
        assert_eq!(strangers.lock().used, 0);
        assert!(strangers.lock().bodies.is_empty());
    }

    #[tokio::test]
    async fn of_equal_bodies_the_oldest_makes_room() {
        let strangers = Arc::new(Strangers::default());
        let shares: Vec<Share> = (0..6).map(|_| strangers.share()).collect();
        for share in &shares[..4] {
            assert!(grown(share, 8 * MIB));
        }
        for (share, oldest) in shares[4..].iter().zip(&shares) {
            assert!(grown(share, 8 * MIB) && is_displaced(oldest).await);
        }
        assert!(!is_displaced(&shares[2]).await && !is_displaced(&shares[4]).await);
    }

    #[test]
    fn memory_is_counted_as_it_is_reserved() {
        let strangers = Arc::new(Strangers::default());
        let (share, mut whole) = (strangers.share(), Vec::new());
        for size in (1..4 * MIB).step_by(10_000) {
            share.grow(&mut whole, size, 4 * MIB).unwrap();
            whole.resize(size, b' ');
            assert_eq!(strangers.lock().used, whole.capacity() + BUFFER);
            assert!(whole.capacity() <= (2 * size).clamp(FIRST, 4 * MIB));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_keep_its_rate() {
        let strangers = Arc::new(Strangers::default());
        let (share, started) = (strangers.share(), tokio::time::Instant::now());
        let sender = async {
            sleep(Duration::from_secs(1)).await;
            for _ in 0..5 {
                share.arrived(32 << 10);
                sleep(Duration::from_secs(2)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            error = share.forfeited() => assert!(matches!(error, Error::BelowRate)),
            () = sender => {}
        }
        let took = started.elapsed().as_secs();
        assert!((10..=12).contains(&took), "{took} s");
    }
}
