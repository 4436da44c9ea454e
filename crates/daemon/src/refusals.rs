//! Refusals of requests without a proof of identity: a bounded number of log lines, and a bounded
//! rate of guesses.
//!
//! A right proof is never refused because of wrong ones: behind a proxy all senders have one
//! address, and a stranger must not keep the others out. So a wrong proof beyond the rate waits
//! before its answer, which bounds the guesses of a connection to one a second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Throttle;

/// Most addresses whose log lines are counted apart. Further addresses share one count.
const LINES: usize = 256;
/// Refusals of one address that are answered at once.
const BURST: u32 = 20;
/// The time after which one more is.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most addresses that are remembered. Further addresses share one bucket.
const ADDRESSES: usize = 4096;
/// The wait before the answer to a refused request beyond the rate.
const WAIT: Duration = Duration::from_secs(1);

/// The refusals of a source, or of the API.
#[derive(Debug, Default)]
pub struct Refusals {
    /// The log lines about each address.
    lines: Mutex<HashMap<IpAddr, Throttle>>,
    /// The time at which the bucket of an address is full again.
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Refusals {
    /// Counts a refusal of this address for the log. If a line may be written now, returns the
    /// number of its refusals since its last line.
    #[must_use]
    pub fn line(&self, address: Option<IpAddr>) -> Option<u64> {
        self.line_at(address, Instant::now())
    }

    fn line_at(&self, address: Option<IpAddr>, now: Instant) -> Option<u64> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), network);
        if lines.len() >= LINES && !lines.contains_key(&key) {
            lines.retain(|_, throttle| !throttle.is_quiet(now));
            if lines.len() >= LINES {
                key = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            }
        }
        lines.entry(key).or_default().line(now)
    }

    /// Counts a wrong or missing proof from this address. Returns whether the address exceeds its
    /// rate; then a moment has passed.
    pub async fn exceeded(&self, address: Option<IpAddr>) -> bool {
        let exceeded = !self.take(address, Instant::now());
        if exceeded {
            tokio::time::sleep(WAIT).await;
        }
        exceeded
    }

    /// Takes a token out of the bucket of an address.
    fn take(&self, address: Option<IpAddr>, now: Instant) -> bool {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), network);
        if full_at.len() >= ADDRESSES && !full_at.contains_key(&key) {
            full_at.retain(|_, at| *at > now);
            if full_at.len() >= ADDRESSES {
                key = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            }
        }
        let at = full_at.entry(key).or_insert(now);
        let next = (*at).max(now) + INTERVAL;
        let taken = next <= now + INTERVAL * BURST;
        if taken {
            *at = next;
        }
        taken
    }
}

/// Returns the address, or of IPv6 the network: a host has all addresses of a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(refusals: &Refusals, address: &str, now: Instant, of: u32) -> u32 {
        let address = Some(address.parse().unwrap());
        let taken = (0..of).filter(|_| refusals.take(address, now));
        u32::try_from(taken.count()).unwrap()
    }

    #[test]
    fn each_address_has_a_bucket() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!(taken(&refusals, "192.0.2.1", now, 100), BURST);
        assert_eq!(taken(&refusals, "192.0.2.2", now, 3), 3);
        assert_eq!(taken(&refusals, "192.0.2.1", now + INTERVAL * 3, 100), 3);
        assert_eq!(
            taken(&refusals, "192.0.2.2", now + INTERVAL * 60, 100),
            BURST
        );
        // One host, one bucket.
        assert_eq!(taken(&refusals, "2001:db8::1", now, 12), 12);
        assert_eq!(taken(&refusals, "2001:db8::ffff:1", now, 12), 8);
        assert_eq!(taken(&refusals, "2001:db8:0:1::1", now, 6), 6);
        assert_eq!(taken(&refusals, "::ffff:192.0.2.9", now, 12), 12);
        assert_eq!(taken(&refusals, "192.0.2.9", now, 12), 8);
    }

    #[test]
    fn each_address_has_its_log_lines_within_a_bound() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let line = |number: u32, now| refusals.line_at(Some(IpAddr::V4(number.into())), now);
        assert_eq!(
            (line(1, now), line(1, now), line(2, now)),
            (Some(1), None, Some(1))
        );
        let many = u32::try_from(LINES).unwrap();
        let lines = (1..=10 * many).filter(|number| line(*number, now).is_some());
        assert!(lines.count() <= LINES);
        assert!(refusals.lines.lock().unwrap().len() <= LINES + 1);
        // Quiet addresses make room.
        assert_eq!(line(10 * many + 1, now + INTERVAL), Some(1));
        assert!(refusals.lines.lock().unwrap().len() < 10);
    }

    #[test]
    fn many_addresses_take_bounded_memory() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let take = |number: u32, now| refusals.take(Some(IpAddr::V4(number.into())), now);
        let many = u32::try_from(ADDRESSES).unwrap();
        assert!((1..=many).all(|number| take(number, now)));
        // Further addresses share a bucket.
        let shared = (1..=100).filter(|number| take(many + number, now)).count();
        assert_eq!(shared, 20);
        assert!(refusals.full_at.lock().unwrap().len() <= ADDRESSES + 1);
        // Full buckets are forgotten.
        assert!(take(many + 200, now + INTERVAL * 60));
        assert!(take(many + 201, now + INTERVAL * 60));
        assert!(refusals.full_at.lock().unwrap().len() < 10);
    }
}
