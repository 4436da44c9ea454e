//! A circuit breaker: a registry that fails is left alone for a while, and then tried by one question first. No I/O.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which it opens.
const FAILURES: u32 = 5;
/// How long it stays open the first time; it doubles from there.
const FIRST: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// A probe that has not reported its end after this time was dropped: four times the time-out of a request.
const DROPPED: Duration = Duration::from_secs(60);

/// What is known of a registry's health.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// In a row.
    failures: u32,
    /// Nothing is asked until then.
    open_until: Option<Instant>,
    /// Whether one asks on behalf of all, and since when.
    probe_since: Option<Instant>,
}

impl Breaker {
    /// Whether something may be asked now; else for how long not.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(until) = self.open_until else {
            return Ok(());
        };
        if now < until {
            return Err(until - now);
        }
        // One that was dropped meanwhile must not close the way for ever.
        if self.probe_since.is_some_and(|since| now - since < DROPPED) {
            return Err(FIRST);
        }
        self.probe_since = Some(now);
        Ok(())
    }

    /// For how long it is left alone, if it is now. For those who do not tell how their question ended.
    pub(crate) fn resting(&self, now: Instant) -> Option<Duration> {
        let until = self.open_until?;
        (now < until).then(|| until - now)
    }

    /// It answered, whatever it said.
    pub(crate) fn answered(&mut self) {
        *self = Breaker::default();
    }

    /// It did not answer, or failed. Gives for how long it is left alone from now on, if it was not before.
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

    /// It asked for a pause.
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
    fn it_opens_after_failures_in_a_row_and_lets_one_through_when_it_is_time() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES {
            assert_eq!(breaker.failed(start), None);
            assert_eq!(breaker.admit(start), Ok(()));
        }
        assert_eq!(breaker.failed(start), Some(seconds(5)));
        assert_eq!(breaker.admit(start + seconds(1)), Err(seconds(4)));
        assert_eq!(breaker.resting(start + seconds(1)), Some(seconds(4)));
        assert_eq!(breaker.resting(start + seconds(5)), None);
        // One tries, the others wait.
        let then = start + seconds(5);
        assert_eq!(breaker.admit(then), Ok(()));
        assert!(breaker.admit(then).is_err());
        assert_eq!(breaker.failed(then), Some(seconds(10)));
        assert_eq!(breaker.admit(then + seconds(9)), Err(seconds(1)));
        assert_eq!(breaker.admit(then + seconds(10)), Ok(()));
        breaker.answered();
        assert_eq!(breaker.admit(then + seconds(10)), Ok(()));
        assert_eq!(breaker.failed(then), None, "it begins anew");
    }

    #[test]
    fn one_that_tries_and_is_never_heard_of_is_replaced() {
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
