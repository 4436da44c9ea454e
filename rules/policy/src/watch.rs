//! The result of a rollout that its target took: observed again and again, and verified by steps.
//!
//! A look asks the target first. Once the target is healthy, the same look tries the step of
//! `verify` whose turn it is. A rollout that has failed this way is still observed, less often,
//! and succeeds if its target recovers.

use std::time::Duration;

/// The pauses between looks.
#[derive(Debug, Clone, Copy)]
pub struct LookPace {
    /// The pause after the first look; each further look doubles the pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// The pause between looks at a rollout that has failed.
    pub slow: Duration,
    /// The pause between looks at rollouts that have succeeded, for changes by others.
    pub others: Duration,
}

impl Default for LookPace {
    fn default() -> LookPace {
        LookPace {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            slow: Duration::from_secs(30),
            others: Duration::from_secs(60),
        }
    }
}

/// The times of a step of `verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTimes {
    /// The number of passes in a row that the step needs, at least 1.
    pub times: u32,
    /// The pause between two tries.
    pub every: Duration,
    /// The time for all passes; `None`: `timeout` of the trigger.
    pub within: Option<Duration>,
}

/// The progress of a rollout before a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// 0: the target is not known to be healthy; 1, 2, …: the step of `verify` whose turn it is.
    pub stage: u32,
    /// Passes of this step in a row.
    pub passes: u32,
    /// Looks since the target took the rollout.
    pub looks: u32,
    /// The time that is left to this stage.
    pub left: Duration,
    /// True if the rollout has failed, and may still recover.
    pub failed: bool,
}

/// The finding of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The target has not finished; the text is for people.
    Progressing(String),
    /// The target reports a failure; the text is for people.
    Failed(String),
    /// The target is healthy, and no step is left.
    Healthy,
    /// The target is healthy, and the step passed.
    Passed,
    /// The target is healthy, and the step did not pass; the text is for people.
    Missed(String),
}

/// The next step of a rollout after a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterLook {
    /// The rollout has succeeded.
    Succeeded,
    /// The rollout is observed again.
    Again {
        /// The pause before the next look.
        pause: Duration,
        /// The stage of the next look, and the passes of its step so far.
        stage: u32,
        /// Passes of this step in a row.
        passes: u32,
        /// The time for the stage, if it begins now.
        within: Option<Duration>,
        /// The finding, for people.
        seen: String,
    },
    /// The rollout has failed for now. It is observed again after `pause`, from the first stage on.
    Failed {
        /// The pause before the next look.
        pause: Duration,
        /// The cause of the failure, for people.
        error: String,
    },
}

/// Returns the stage of the step that a look tries if the target is healthy, from 1 on. `None`: no
/// step is left.
#[must_use]
pub fn step_of(progress: &Progress, steps: usize) -> Option<u32> {
    let stage = progress.stage.max(1);
    usize::try_from(stage)
        .is_ok_and(|stage| stage <= steps)
        .then_some(stage)
}

/// Returns the next step after a look. `timeout` bounds the time until the target is healthy, and
/// each step without a `within` of its own.
#[must_use]
pub fn after_look(
    pace: LookPace,
    timeout: Duration,
    steps: &[StepTimes],
    progress: &Progress,
    found: Found,
) -> AfterLook {
    let doubled = pace
        .first
        .saturating_mul(2_u32.saturating_pow(progress.looks.min(30)));
    let pause = match progress.failed {
        true => pace.slow,
        false => doubled.min(pace.longest),
    };
    let failed = |error: String| AfterLook::Failed {
        pause: pace.slow,
        error,
    };
    let over = progress.left.is_zero() && !progress.failed;
    let stage = progress.stage.max(1);
    let times = |stage: u32| {
        let place = usize::try_from(stage).unwrap_or(usize::MAX);
        steps.get(place.saturating_sub(1))
    };
    match found {
        Found::Healthy => AfterLook::Succeeded,
        Found::Failed(text) if progress.failed => again(pause, 0, 0, text),
        Found::Failed(text) => failed(text),
        // A target that is no longer healthy begins again: its time is that of the stage.
        Found::Progressing(text) if over => failed(format!(
            "no result within {}: {text}",
            in_words(match progress.stage {
                0 => timeout,
                stage => times(stage)
                    .and_then(|times| times.within)
                    .unwrap_or(timeout),
            })
        )),
        Found::Progressing(text) => again(within_rest(pause, progress), progress.stage, 0, text),
        Found::Passed | Found::Missed(_) => {
            let Some(times_now) = times(stage) else {
                return AfterLook::Succeeded;
            };
            let begins = progress.stage == 0;
            let limit = times_now.within.unwrap_or(timeout);
            let passes = match &found {
                Found::Passed => progress.passes.saturating_add(1),
                _ => 0,
            };
            if passes >= times_now.times.max(1) {
                return match times(stage.saturating_add(1)) {
                    None => AfterLook::Succeeded,
                    Some(next) => AfterLook::Again {
                        pause: Duration::ZERO,
                        stage: stage.saturating_add(1),
                        passes: 0,
                        within: Some(next.within.unwrap_or(timeout)),
                        seen: format!("step {stage} of verify passed"),
                    },
                };
            }
            let wanted = times_now.times;
            let seen = match found {
                Found::Missed(text) => format!("step {stage} of verify: {text}"),
                _ => format!("step {stage} of verify: passed {passes} of {wanted} times in a row"),
            };
            if over && !begins {
                let limit = in_words(limit);
                return failed(format!("not verified within {limit}: {seen}"));
            }
            let pause = match (progress.failed, passes) {
                (true, 0) => pace.slow.max(times_now.every),
                _ => times_now.every,
            };
            let left = if begins { limit } else { progress.left };
            let progress = Progress { left, ..*progress };
            AfterLook::Again {
                pause: within_rest(pause, &progress),
                stage,
                passes,
                within: begins.then_some(limit),
                seen,
            }
        }
    }
}

fn again(pause: Duration, stage: u32, passes: u32, seen: String) -> AfterLook {
    AfterLook::Again {
        pause,
        stage,
        passes,
        within: None,
        seen,
    }
}

/// Shortens a pause, so that the last look comes when the time is over.
fn within_rest(pause: Duration, progress: &Progress) -> Duration {
    match progress.failed {
        true => pause,
        false => pause.min(progress.left),
    }
}

/// Formats a duration for people: `15 min`, `90 s`.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds, seconds % 60) {
        (0, _) => format!("{} ms", duration.as_millis()),
        (60.., 0) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(900);
    const TWICE: StepTimes = StepTimes {
        times: 2,
        every: Duration::from_secs(10),
        within: Some(Duration::from_secs(60)),
    };
    const ONCE: StepTimes = StepTimes {
        times: 1,
        every: Duration::from_secs(5),
        within: None,
    };
    const START: Progress = Progress {
        stage: 0,
        passes: 0,
        looks: 0,
        left: TIMEOUT,
        failed: false,
    };

    fn look(steps: &[StepTimes], progress: Progress, found: Found) -> AfterLook {
        after_look(LookPace::default(), TIMEOUT, steps, &progress, found)
    }

    fn slow() -> Found {
        Found::Progressing("1 of 2".to_owned())
    }

    fn missed() -> Found {
        Found::Missed("503".to_owned())
    }

    #[test]
    fn looks_are_a_second_apart_and_later_half_a_minute() {
        for (looks, seconds) in [(0, 1), (1, 2), (4, 16), (5, 30), (u32::MAX, 30)] {
            let progress = Progress { looks, ..START };
            let pause = Duration::from_secs(seconds);
            let expected = again(pause, 0, 0, "1 of 2".to_owned());
            assert_eq!(look(&[], progress, slow()), expected, "{looks}");
        }
    }

    #[test]
    fn a_target_without_steps_succeeds_when_it_is_healthy() {
        assert_eq!(look(&[], START, Found::Healthy), AfterLook::Succeeded);
        let late = Progress {
            left: Duration::ZERO,
            ..START
        };
        assert_eq!(look(&[], late, Found::Healthy), AfterLook::Succeeded);
        let error = "no result within 15 min: 1 of 2".to_owned();
        let pause = Duration::from_secs(30);
        assert_eq!(look(&[], late, slow()), AfterLook::Failed { pause, error });
        let error = "crashed".to_owned();
        let found = Found::Failed(error.clone());
        assert_eq!(look(&[], START, found), AfterLook::Failed { pause, error });
    }

    #[test]
    fn the_last_look_comes_when_the_time_is_over() {
        let progress = Progress {
            looks: 9,
            left: Duration::from_secs(4),
            ..START
        };
        let expected = again(progress.left, 0, 0, "1 of 2".to_owned());
        assert_eq!(look(&[], progress, slow()), expected);
    }

    /// Follows a rollout through these findings, with a second between looks.
    fn follow(steps: &[StepTimes], found: Vec<Found>) -> Vec<AfterLook> {
        let mut progress = START;
        let mut after = Vec::new();
        for one in found {
            let next = look(steps, progress, one);
            if let AfterLook::Again {
                pause,
                stage,
                passes,
                within,
                ..
            } = &next
            {
                let left = within.unwrap_or(progress.left).saturating_sub(*pause);
                progress = Progress {
                    stage: *stage,
                    passes: *passes,
                    looks: progress.looks + 1,
                    left,
                    ..progress
                };
            }
            after.push(next);
        }
        after
    }

    #[test]
    fn steps_pass_in_order_and_in_a_row() {
        let after = follow(
            &[TWICE, ONCE],
            vec![
                slow(),
                Found::Passed,
                missed(),
                Found::Passed,
                Found::Passed,
                Found::Passed,
            ],
        );
        let place = |one: &AfterLook| match one {
            AfterLook::Again {
                stage,
                passes,
                within,
                pause,
                ..
            } => (
                *stage,
                *passes,
                within.map(|one| one.as_secs()),
                pause.as_secs(),
            ),
            _ => (9, 9, None, 9),
        };
        let places: Vec<_> = after.iter().map(place).collect();
        let expected = [
            (0, 0, None, 1),
            (1, 1, Some(60), 10),
            (1, 0, None, 10),
            (1, 1, None, 10),
            (2, 0, Some(900), 0),
            (9, 9, None, 9),
        ];
        assert_eq!(places, expected);
        assert_eq!(after.last(), Some(&AfterLook::Succeeded));
    }

    #[test]
    fn a_step_that_does_not_pass_in_time_fails_the_rollout() {
        let found = std::iter::repeat_with(missed).take(8).collect();
        let after = follow(&[TWICE], found);
        let error = "not verified within 1 min: step 1 of verify: 503".to_owned();
        let pause = Duration::from_secs(30);
        // The tries after 0, 10, … 50 s, and the last one after 60 s.
        assert_eq!(after[6], AfterLook::Failed { pause, error });
        assert!(
            after[..6]
                .iter()
                .all(|one| matches!(one, AfterLook::Again { .. }))
        );
    }

    #[test]
    fn a_step_that_passes_too_rarely_fails_the_rollout() {
        let late = Progress {
            stage: 1,
            left: Duration::ZERO,
            ..START
        };
        let AfterLook::Failed { error, .. } = look(&[TWICE], late, Found::Passed) else {
            panic!("the step may still pass");
        };
        assert!(error.ends_with("passed 1 of 2 times in a row"), "{error}");
    }

    #[test]
    fn a_failed_rollout_is_observed_slowly_and_recovers() {
        let failed = Progress {
            left: Duration::ZERO,
            looks: 3,
            failed: true,
            ..START
        };
        let pause = Duration::from_secs(30);
        let expected = again(pause, 0, 0, "1 of 2".to_owned());
        assert_eq!(look(&[TWICE], failed, slow()), expected);
        let found = Found::Failed("still down".to_owned());
        let expected = again(pause, 0, 0, "still down".to_owned());
        assert_eq!(look(&[TWICE], failed, found), expected);
        let missed = look(&[TWICE], failed, missed());
        assert!(matches!(missed, AfterLook::Again { pause: p, .. } if p == pause));
        // After the first pass the usual pauses count.
        let passed = look(&[TWICE], failed, Found::Passed);
        assert!(matches!(passed, AfterLook::Again { pause: p, .. } if p == TWICE.every));
        let last = Progress {
            stage: 1,
            passes: 1,
            ..failed
        };
        assert_eq!(look(&[TWICE], last, Found::Passed), AfterLook::Succeeded);
    }

    #[test]
    fn a_step_that_was_removed_from_the_settings_is_passed_over() {
        let second = Progress { stage: 2, ..START };
        assert_eq!(step_of(&second, 2), Some(2));
        assert_eq!(step_of(&second, 1), None);
        assert_eq!(step_of(&START, 1), Some(1));
        assert_eq!(step_of(&START, 0), None);
    }
}
