//! The next step of a rollout after an attempt.
//!
//! A rollout is never given up: after the fast phase, in which the pauses grow, it has failed for
//! now, and the slow phase goes on with long pauses until the rollout succeeds, a newer one begins,
//! or the target ends the relation.

use std::time::Duration;

use time::OffsetDateTime;

/// The time that counts for which something may be lacking before the rollout has failed: it may
/// be on its way, as a Deployment that is applied after its `ImageTrigger`.
const LACKING: Duration = Duration::from_secs(60);

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The target has the images.
    Done,
    /// The target took the images; whether they run well is seen later.
    Applied,
    /// Another attempt may succeed soon.
    Failed {
        /// The cause, for people.
        error: String,
        /// The shortest pause that the target asked for.
        after: Option<Duration>,
    },
    /// Another attempt cannot help soon; the cause is for people.
    Refused(String),
    /// Something is missing that people make without a word to Tagtrail, such as an object or a
    /// right, so that any later attempt may succeed; the cause is for people.
    Lacking(String),
    /// Somebody else has changed the images, so a person decides.
    Foreign {
        /// The cause, for people.
        error: String,
        /// Time of the change, if known.
        since: Option<OffsetDateTime>,
    },
    /// The target ended the relation; the cause is for people.
    Gone(String),
}

impl Outcome {
    /// Returns the word of the outcome: `done`, `applied`, `failed`, `refused` or `gone`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Applied => "applied",
            Outcome::Failed { .. } => "failed",
            Outcome::Refused(_) | Outcome::Lacking(_) | Outcome::Foreign { .. } => "refused",
            Outcome::Gone(_) => "gone",
        }
    }

    /// Returns the cause of the failure, if the attempt failed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match self {
            Outcome::Done | Outcome::Applied => None,
            Outcome::Failed { error, .. }
            | Outcome::Refused(error)
            | Outcome::Lacking(error)
            | Outcome::Foreign { error, .. }
            | Outcome::Gone(error) => Some(error),
        }
    }
}

/// The attempts at a rollout since the fast phase began. An attempt that was cut off, by the end of
/// the process for example, does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phase {
    /// Attempts that ended.
    pub attempts: u32,
    /// The time that counts: that of the attempts, and the pauses as planned. Time in which no
    /// attempt could begin (a paused trigger, no running process) does not count.
    pub counted: Duration,
    /// True in the slow phase.
    pub slow: bool,
}

/// The next step of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The rollout has succeeded.
    Succeeded,
    /// The rollout is observed until its result is known.
    Watching,
    /// Another attempt follows in the fast phase.
    Retry {
        /// The pause before the next attempt.
        pause: Duration,
        /// The time that counts, with this attempt and the pause.
        counted: Duration,
        /// The cause of the failure, for people.
        error: String,
    },
    /// The rollout has failed for now: another attempt follows in the slow phase.
    Failed {
        /// The pause before the next attempt.
        pause: Duration,
        /// The cause of the failure, for people.
        error: String,
    },
    /// The rollout has failed for good; the cause is for people.
    Ended(String),
    /// A newer rollout follows; the cause of the last failure is for people.
    Superseded(String),
}

impl Next {
    /// Returns the cause of the failure, if the attempt failed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match self {
            Next::Succeeded | Next::Watching => None,
            Next::Retry { error, .. }
            | Next::Failed { error, .. }
            | Next::Ended(error)
            | Next::Superseded(error) => Some(error),
        }
    }

    /// Returns the pause before the next attempt, if one follows.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        match self {
            Next::Retry { pause, .. } | Next::Failed { pause, .. } => Some(*pause),
            Next::Succeeded | Next::Watching | Next::Ended(_) | Next::Superseded(_) => None,
        }
    }

    /// Returns the step of a rollout below a newer one: no further attempt follows.
    #[must_use]
    pub fn below_a_newer_one(self) -> Next {
        match self {
            Next::Retry { error, .. } | Next::Failed { error, .. } => Next::Superseded(error),
            ended => ended,
        }
    }
}

/// The pauses between attempts.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The pause after the first failed attempt; each further failure doubles the pause.
    pub first: Duration,
    /// The longest pause of the fast phase, also for pauses that a target asks for.
    pub longest: Duration,
    /// The time that counts after which the slow phase begins.
    pub patience: Duration,
    /// The pause between attempts of the slow phase.
    pub slow: Duration,
    /// The attempts after which the slow phase begins; 0: any number.
    pub attempts: u32,
    /// True if no slow phase follows the fast phase: the rollout has failed for good.
    pub ends: bool,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(5 * 60),
            patience: Duration::from_secs(24 * 60 * 60),
            slow: Duration::from_secs(60 * 60),
            attempts: 0,
            ends: false,
        }
    }
}

/// Returns the next step after an attempt that took the time `took`. `jitter` is from 0 to 1: it
/// shortens a pause of the fast phase by up to one half, and one of the slow phase by up to a
/// tenth, so that rollouts that failed together do not retry together.
pub fn next(pace: Pace, outcome: Outcome, phase: Phase, took: Duration, jitter: f64) -> Next {
    match step(pace, outcome, phase, took, jitter) {
        Next::Failed { error, .. } if pace.ends => Next::Ended(error),
        next => next,
    }
}

fn step(pace: Pace, outcome: Outcome, phase: Phase, took: Duration, jitter: f64) -> Next {
    let long = pace.slow.mul_f64(0.9 + jitter / 10.0);
    let (error, after) = match outcome {
        Outcome::Done => return Next::Succeeded,
        Outcome::Applied => return Next::Watching,
        Outcome::Gone(error) => return Next::Ended(error),
        Outcome::Refused(error) | Outcome::Foreign { error, .. } => {
            return Next::Failed { pause: long, error };
        }
        Outcome::Failed { error, .. } if phase.slow => {
            return Next::Failed { pause: long, error };
        }
        // People are told, and a look for it costs little.
        Outcome::Lacking(error) if phase.slow || phase.counted >= LACKING => {
            let pause = pace.longest.mul_f64(0.5 + jitter / 2.0).min(long);
            return Next::Failed { pause, error };
        }
        Outcome::Failed { error, after } => (error, after),
        Outcome::Lacking(error) => (error, None),
    };
    let made = phase.attempts.saturating_add(1);
    if pace.attempts > 0 && made >= pace.attempts {
        let error = format!("no success in {made} attempts: {error}");
        return Next::Failed { pause: long, error };
    }
    let factor = 2_u32.saturating_pow(phase.attempts.min(30));
    let doubled = pace.first.saturating_mul(factor).min(pace.longest);
    let pause = doubled.mul_f64(0.5 + jitter / 2.0);
    let pause = pause.max(after.unwrap_or_default().min(pace.longest));
    let counted = phase.counted.saturating_add(took).saturating_add(pause);
    if counted > pace.patience {
        let patience = match pace.patience.as_secs() {
            seconds @ 3600.. => format!("{} h", seconds / 3600),
            seconds => format!("{seconds} s"),
        };
        let error = format!("no success in {patience}; the last of {made} attempts: {error}");
        return Next::Failed { pause: long, error };
    }
    Next::Retry {
        pause,
        counted,
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn failed(after: Option<u64>) -> Outcome {
        Outcome::Failed {
            error: "no".to_owned(),
            after: after.map(Duration::from_secs),
        }
    }

    /// The step after so many attempts of the fast phase that took no time.
    fn after(outcome: Outcome, attempts: u32, counted: Duration, jitter: f64) -> Next {
        let phase = Phase {
            attempts,
            counted,
            slow: false,
        };
        next(Pace::default(), outcome, phase, Duration::ZERO, jitter)
    }

    fn pause(attempts: u32, asked: Option<u64>, jitter: f64) -> Duration {
        match after(failed(asked), attempts, Duration::ZERO, jitter) {
            Next::Retry { pause, .. } => pause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pauses_double_from_a_second_to_five_minutes() {
        for (attempts, seconds) in [
            (0, 1),
            (1, 2),
            (2, 4),
            (8, 256),
            (9, 300),
            (1000, 300),
            (u32::MAX, 300),
        ] {
            let longest = Duration::from_secs(seconds);
            assert_eq!(pause(attempts, None, 1.0), longest, "{attempts} attempts");
            let shortest = longest / 2;
            assert_eq!(pause(attempts, None, 0.0), shortest, "{attempts} attempts");
        }
    }

    #[test]
    fn the_target_may_ask_for_a_longer_pause_within_reason() {
        assert_eq!(pause(0, Some(30), 1.0), Duration::from_secs(30));
        assert_eq!(pause(0, Some(86_400), 1.0), Duration::from_secs(300));
        assert_eq!(pause(8, Some(1), 1.0), Duration::from_secs(256));
    }

    #[test]
    fn a_day_of_counted_time_ends_the_fast_phase_and_never_the_rollout() {
        let still = after(failed(None), 300, 23 * HOUR, 1.0);
        let counted = 23 * HOUR + Duration::from_secs(300);
        let expected = Next::Retry {
            pause: Duration::from_secs(300),
            counted,
            error: "no".to_owned(),
        };
        assert_eq!(still, expected);
        // An attempt that takes hours counts in full.
        let phase = Phase {
            attempts: 300,
            counted,
            slow: false,
        };
        let over = next(Pace::default(), failed(None), phase, HOUR, 1.0);
        let error = "no success in 24 h; the last of 301 attempts: no".to_owned();
        assert_eq!(over, Next::Failed { pause: HOUR, error });
    }

    #[test]
    fn the_slow_phase_goes_on_until_a_success_or_the_end() {
        let step = |outcome, jitter| {
            let phase = Phase {
                attempts: 9,
                counted: 500 * HOUR,
                slow: true,
            };
            next(Pace::default(), outcome, phase, HOUR, jitter)
        };
        for outcome in [failed(Some(1)), Outcome::Refused("no".to_owned())] {
            let error = "no".to_owned();
            assert_eq!(step(outcome, 1.0), Next::Failed { pause: HOUR, error });
        }
        let pause = Duration::from_secs(54 * 60);
        let error = "no".to_owned();
        assert_eq!(step(failed(None), 0.0), Next::Failed { pause, error });
        assert_eq!(step(Outcome::Done, 0.0), Next::Succeeded);
        assert_eq!(step(Outcome::Applied, 0.0), Next::Watching);
        let gone = Outcome::Gone("no".to_owned());
        assert_eq!(step(gone, 0.0), Next::Ended("no".to_owned()));
    }

    #[test]
    fn a_lack_is_looked_for_again_soon_and_is_a_failure_after_a_minute() {
        let lacking = || Outcome::Lacking("no object".to_owned());
        assert_eq!(lacking().as_str(), "refused");
        let error = "no object".to_owned();
        let expected = Next::Retry {
            pause: Duration::from_secs(4),
            counted: Duration::from_secs(7),
            error: error.clone(),
        };
        let counted = Duration::from_secs(3);
        assert_eq!(after(lacking(), 2, counted, 1.0), expected);
        let minutes = |pause: u64| Next::Failed {
            pause: Duration::from_secs(pause * 60),
            error: error.clone(),
        };
        assert_eq!(after(lacking(), 6, LACKING, 1.0), minutes(5));
        let phase = Phase {
            slow: true,
            ..Phase::default()
        };
        let pace = Pace {
            slow: Duration::from_secs(120),
            ..Pace::default()
        };
        for (pace, expected) in [(Pace::default(), 5), (pace, 2)] {
            let next = next(pace, lacking(), phase, HOUR, 1.0);
            assert_eq!(next, minutes(expected));
        }
    }

    #[test]
    fn a_failed_attempt_below_a_newer_rollout_is_the_last() {
        let below = |outcome| after(outcome, 0, Duration::ZERO, 1.0).below_a_newer_one();
        let superseded = Next::Superseded("no".to_owned());
        assert_eq!(below(failed(None)), superseded);
        assert_eq!(below(Outcome::Refused("no".to_owned())), superseded);
        let ended = Next::Ended("no".to_owned());
        assert_eq!(below(Outcome::Gone("no".to_owned())), ended);
        assert_eq!(below(Outcome::Done), Next::Succeeded);
    }

    #[test]
    fn a_number_of_attempts_ends_the_fast_phase() {
        let pace = Pace {
            attempts: 3,
            ..Pace::default()
        };
        let step = |pace, attempts, outcome| {
            let phase = Phase {
                attempts,
                ..Phase::default()
            };
            next(pace, outcome, phase, Duration::ZERO, 1.0)
        };
        assert!(matches!(step(pace, 1, failed(None)), Next::Retry { .. }));
        let error = "no success in 3 attempts: no".to_owned();
        let over = step(pace, 2, failed(None));
        assert_eq!(
            over,
            Next::Failed {
                pause: HOUR,
                error: error.clone()
            }
        );
        // A person may decide that no slow phase follows.
        let pace = Pace { ends: true, ..pace };
        assert_eq!(step(pace, 2, failed(None)), Next::Ended(error));
        let refused = Outcome::Refused("no".to_owned());
        assert_eq!(step(pace, 0, refused), Next::Ended("no".to_owned()));
        assert!(matches!(step(pace, 0, failed(None)), Next::Retry { .. }));
    }

    #[test]
    fn a_refusal_ends_the_fast_phase_at_once() {
        let refused = after(Outcome::Refused("no".to_owned()), 0, Duration::ZERO, 1.0);
        let error = "no".to_owned();
        assert_eq!(refused, Next::Failed { pause: HOUR, error });
    }
}
