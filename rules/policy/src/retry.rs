//! The next step of a rollout after an attempt.

use std::time::Duration;

use time::OffsetDateTime;

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The target has the images.
    Done,
    /// Another attempt cannot help; the cause is for people.
    Refused(String),
    /// Another attempt may succeed later.
    Failed {
        /// The cause, for people.
        error: String,
        /// The shortest pause that the target asked for.
        after: Option<Duration>,
    },
}

/// The next step of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The rollout has succeeded.
    Succeeded,
    /// The rollout has failed for good; the cause is for people.
    Failed(String),
    /// Another attempt follows.
    Retry {
        /// The time of the next attempt.
        at: OffsetDateTime,
        /// The cause of the last failure, for people.
        error: String,
    },
}

/// The pauses between attempts.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The pause after the first failed attempt; each further failure doubles the pause.
    pub first: Duration,
    /// The longest pause, also for pauses that a target asks for.
    pub longest: Duration,
    /// The time after the first attempt beyond which no attempt starts.
    pub give_up: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(5 * 60),
            give_up: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Returns the next step after attempt number `attempt` (1, 2, 3 …) of a rollout whose first
/// attempt began at `started`. `jitter` is from 0 to 1: it shortens the pause by up to one half, so
/// that rollouts that failed together do not retry together.
pub fn next(
    pace: Pace,
    outcome: Outcome,
    attempt: u32,
    started: OffsetDateTime,
    now: OffsetDateTime,
    jitter: f64,
) -> Next {
    let (error, after) = match outcome {
        Outcome::Done => return Next::Succeeded,
        Outcome::Refused(error) => return Next::Failed(error),
        Outcome::Failed { error, after } => (error, after),
    };
    let doubled = pace
        .first
        .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1).min(30)));
    let pause = doubled.min(pace.longest).mul_f64(0.5 + jitter / 2.0);
    let pause = pause.max(after.unwrap_or_default().min(pace.longest));
    let at = now + pause;
    if at > started + pace.give_up {
        return Next::Failed(format!(
            "given up after {attempt} attempts in {} h; the last one: {error}",
            pace.give_up.as_secs() / 3600
        ));
    }
    Next::Retry { at, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(attempt: u32, after: Option<u64>, jitter: f64) -> Duration {
        let now = OffsetDateTime::UNIX_EPOCH;
        let outcome = Outcome::Failed {
            error: "no".to_owned(),
            after: after.map(Duration::from_secs),
        };
        match next(Pace::default(), outcome, attempt, now, now, jitter) {
            Next::Retry { at, .. } => (at - now).try_into().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pauses_double_from_a_second_to_five_minutes() {
        for (attempt, seconds) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (9, 256),
            (10, 300),
            (1000, 300),
            (u32::MAX, 300),
        ] {
            assert_eq!(
                pause(attempt, None, 1.0),
                Duration::from_secs(seconds),
                "attempt {attempt}"
            );
            assert_eq!(
                pause(attempt, None, 0.0),
                Duration::from_secs(seconds) / 2,
                "attempt {attempt}"
            );
        }
    }

    #[test]
    fn the_target_may_ask_for_a_longer_pause_within_reason() {
        assert_eq!(pause(1, Some(30), 1.0), Duration::from_secs(30));
        assert_eq!(pause(1, Some(86_400), 1.0), Duration::from_secs(300));
        assert_eq!(pause(9, Some(1), 1.0), Duration::from_secs(256));
    }

    #[test]
    fn attempts_end_after_a_day() {
        let started = OffsetDateTime::UNIX_EPOCH;
        let failed = |hours| {
            next(
                Pace::default(),
                Outcome::Failed {
                    error: "no".to_owned(),
                    after: None,
                },
                300,
                started,
                started + time::Duration::hours(hours),
                1.0,
            )
        };
        assert!(matches!(failed(23), Next::Retry { .. }));
        assert_eq!(
            failed(24),
            Next::Failed("given up after 300 attempts in 24 h; the last one: no".to_owned())
        );
    }
}
