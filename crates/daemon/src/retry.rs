//! Retrying a task that failed, with a pause that grows from failure to failure.

use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chain;

/// Work that lasts this long before it fails had started well: its failure counts as the first one.
const STARTED_WELL: Duration = Duration::from_secs(30);

/// Returns the pause before attempt number `attempt` (1, 2, 3 …): 100 ms, doubled up to 5 s, plus
/// or minus a quarter at random, so that many tasks that failed together do not retry together.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    let doubled = Duration::from_millis(100) * 2_u32.pow(attempt.saturating_sub(1).min(10));
    doubled
        .min(Duration::from_secs(5))
        .mul_f64(rand::random_range(0.75..1.25))
}

/// The failures in a row of one task: counts them, logs each, and makes the pause before the next
/// attempt.
#[derive(Debug)]
pub struct Retry {
    task: String,
    longest: Duration,
    failures: u32,
    /// The start of the present attempt.
    started: Instant,
}

impl Retry {
    /// Starts to count for a task. The log names it: "`task` failed; retrying in 200ms: …".
    #[must_use]
    pub fn new(task: impl Into<String>) -> Retry {
        Retry {
            task: task.into(),
            longest: Duration::MAX,
            failures: 0,
            started: Instant::now(),
        }
    }

    /// Limits the pause, which otherwise grows to 5 s as [`backoff`] says.
    #[must_use]
    pub fn at_most(self, longest: Duration) -> Retry {
        Retry { longest, ..self }
    }

    /// Records a failure, logs it with its causes as a warning, and returns the pause before the
    /// next attempt.
    pub fn failed(&mut self, error: &dyn Error) -> Duration {
        let pause = self.pause();
        tracing::warn!(
            "{} failed; retrying in {pause:.1?}: {}",
            self.task,
            chain(error)
        );
        pause
    }

    /// Records a failure that the caller has logged, and returns the pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        if self.started.elapsed() > STARTED_WELL {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let pause = backoff(self.failures).min(self.longest);
        self.started = Instant::now() + pause;
        pause
    }

    /// As [`Retry::failed`], and sleeps for the pause. Returns whether to try again: `false` once
    /// `shutdown` has fired.
    pub fn wait<'a>(
        &mut self,
        error: &dyn Error,
        shutdown: &'a CancellationToken,
    ) -> impl Future<Output = bool> + Send + use<'a> {
        // The future does not hold the error, which need not be `Sync`.
        let pause = self.failed(error);
        async move {
            tokio::select! {
                () = shutdown.cancelled() => false,
                () = tokio::time::sleep(pause) => true,
            }
        }
    }

    /// Records that the task works: its next failure counts as the first one.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// Sleeps until `deadline`; never returns if there is none.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        for (attempt, least, most) in [(1, 75, 125), (4, 600, 1000), (40, 3750, 6250)] {
            let pause = backoff(attempt).as_millis();
            assert!(
                (least..=most).contains(&pause),
                "attempt {attempt}: {pause} ms"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_count_until_success_or_long_work() {
        let error = std::io::Error::other("down");
        let mut retry = Retry::new("the test").at_most(Duration::from_secs(1));
        for _ in 0..6 {
            retry.failed(&error);
        }
        assert_eq!(retry.failed(&error), Duration::from_secs(1), "at most");
        retry.succeeded();
        assert!(retry.failed(&error) < Duration::from_millis(200), "success");
        for _ in 0..6 {
            retry.failed(&error);
        }
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(retry.failed(&error), Duration::from_secs(1), "short work");
        tokio::time::advance(Duration::from_secs(32)).await;
        assert!(
            retry.failed(&error) < Duration::from_millis(200),
            "long work"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_requested_stop_ends_the_wait() {
        let error = std::io::Error::other("down");
        let shutdown = CancellationToken::new();
        let mut retry = Retry::new("the test");
        assert!(retry.wait(&error, &shutdown).await);
        shutdown.cancel();
        assert!(!retry.wait(&error, &shutdown).await);
    }
}
