//! A limit on log lines about requests that anybody can send.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two lines.
const INTERVAL: Duration = Duration::from_secs(1);

/// Permits one line a second.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// Counts an event. If a line may be written now, returns the number of events since the last
    /// line, this one included.
    #[must_use]
    pub fn line(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.left_out += 1;
        if state.last.is_some_and(|last| now < last + INTERVAL) {
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }

    /// Returns whether a line might be written now.
    #[must_use]
    pub fn is_quiet(&self, now: Instant) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.is_none_or(|last| now >= last + INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_one_line_a_second_with_a_count() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let lines = |at: Duration| throttle.line(start + at);
        assert_eq!(lines(Duration::ZERO), Some(1));
        for millis in 1..1000 {
            assert_eq!(lines(Duration::from_millis(millis)), None);
        }
        assert_eq!(lines(Duration::from_secs(1)), Some(1000));
        assert_eq!(lines(Duration::from_secs(9)), Some(1));
    }
}
