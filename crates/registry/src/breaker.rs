//! A circuit breaker: after repeated failures it stops requests to a registry for a while, then
//! lets one probe through first. No I/O.

use std::time::Duration;

use tokio::time::Instant;

/// Consecutive failures after which the breaker opens.
const FAILURES: u32 = 5;
/// The first time for which the breaker stays open; doubles with each further failure.
const FIRST: Duration = Duration::from_secs(5);
/// The longest time for which the breaker stays open after a failure.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// After this time a probe without a result counts as dropped: four times the time-out of a
/// request.
const DROPPED: Duration = Duration::from_secs(60);

/// The health of a registry.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// Consecutive failures.
    failures: u32,
    /// No request may be sent before this time.
    open_until: Option<Instant>,
    /// The start of the probe that is under way.
    probe_since: Option<Instant>,
}

impl Breaker {
    /// Admits a request, or returns the time until the next attempt.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(until) = self.open_until else {
            return Ok(());
        };
        if now < until {
            return Err(until - now);
        }
        // A probe may be dropped before the result is known, and must not block requests for ever.
        if self.probe_since.is_some_and(|since| now - since < DROPPED) {
            return Err(FIRST);
        }
        self.probe_since = Some(now);
        Ok(())
    }

    /// Returns the time for which the breaker stays open. For requests that do not report a result.
    pub(crate) fn resting(&self, now: Instant) -> Option<Duration> {
        let until = self.open_until?;
        (now < until).then(|| until - now)
    }

    /// Records an answer, with any content: the breaker closes.
    pub(crate) fn answered(&mut self) {
        *self = Breaker::default();
    }

    /// Records a failure. Returns the pause, if the breaker opens.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        self.probe_since = None;
        let beyond = self.failures.checked_sub(FAILURES)?;
        let pause = FIRST
            .saturating_mul(2_u32.saturating_pow(beyond.min(16)))
            .min(LONGEST);
        self.open_until = Some(now + pause);
        Some(pause)
    }

    /// Opens the breaker for the pause that the registry asked for.
    pub(crate) fn rest(&mut self, now: Instant, pause: Duration) {
        self.probe_since = None;
        self.open_until = Some(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn the_breaker_opens_after_consecutive_failures_and_then_admits_one_probe() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES {
            assert_eq!(breaker.failed(start), None);
            assert_eq!(breaker.admit(start), Ok(()));
        }
        assert_eq!(breaker.failed(start), Some(seconds(5)));
        assert_eq!(breaker.admit(start + seconds(1)), Err(seconds(4)));
        assert_eq!(breaker.resting(start + seconds(1)), Some(seconds(4)));
        assert_eq!(breaker.resting(start + seconds(5)), None);
        // One request is the probe, the others wait.
        let then = start + seconds(5);
        assert_eq!(breaker.admit(then), Ok(()));
        assert!(breaker.admit(then).is_err());
        assert_eq!(breaker.failed(then), Some(seconds(10)));
        assert_eq!(breaker.admit(then + seconds(9)), Err(seconds(1)));
        assert_eq!(breaker.admit(then + seconds(10)), Ok(()));
        breaker.answered();
        assert_eq!(breaker.admit(then + seconds(10)), Ok(()));
        assert_eq!(
            breaker.failed(then),
            None,
            "the count of failures starts over"
        );
    }

    #[test]
    fn a_probe_without_a_result_is_replaced() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        breaker.rest(start, seconds(1));
        assert_eq!(breaker.admit(start + seconds(1)), Ok(()));
        assert!(breaker.admit(start + seconds(2)).is_err());
        assert_eq!(breaker.admit(start + seconds(75)), Ok(()));
    }

    #[test]
    fn the_pause_is_bounded() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            breaker.failed(start);
        }
        assert_eq!(breaker.failed(start), Some(LONGEST));
    }
}
