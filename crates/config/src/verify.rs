//! `verify` of a trigger: the steps that a rollout must pass after its target is healthy.

use std::time::Duration;

use serde::Deserialize;

use crate::duration;

/// Most steps of a trigger, and most passes of a step.
const STEPS: usize = 20;
const TIMES: u32 = 1000;
/// Bounds of the pause between two tries.
const EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// A step of `verify`.
#[derive(Debug, Clone, Deserialize)]
pub struct VerifyStep {
    /// The number of passes in a row that the step needs.
    #[serde(default = "once")]
    pub times: u32,
    /// The pause between two tries.
    #[serde(default = "ten_seconds", deserialize_with = "duration::deserialize")]
    pub every: Duration,
    /// The time for all passes; without the key, `timeout` of the trigger.
    #[serde(default, with = "duration::option")]
    pub within: Option<Duration>,
    /// `http` or `command`, with their settings, which the trigger service reads.
    #[serde(flatten)]
    pub check: toml::Table,
}

fn once() -> u32 {
    1
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

impl VerifyStep {
    /// Checks the times. An error names the cure.
    pub(crate) fn check(&self, timeout: Duration) -> Result<(), String> {
        if !(1..=TIMES).contains(&self.times) {
            return Err(format!("times must be 1 to {TIMES}"));
        }
        if !(EVERY.0..=EVERY.1).contains(&self.every) {
            return Err("every must be 100ms to 1h".to_owned());
        }
        let within = self.within.unwrap_or(timeout);
        let needed = self.every.saturating_mul(self.times.saturating_sub(1));
        if needed >= within {
            let key = if self.within.is_some() {
                "within"
            } else {
                "timeout"
            };
            return Err(format!(
                "{} passes every {:?} take {needed:?}, and {key} is {within:?}, so no rollout can succeed; raise {key}, or lower times or every",
                self.times, self.every
            ));
        }
        Ok(())
    }
}

/// Checks the number of steps.
pub(crate) fn check_count(steps: usize) -> Result<(), String> {
    match steps <= STEPS {
        true => Ok(()),
        false => Err(format!("has more than {STEPS} steps")),
    }
}
