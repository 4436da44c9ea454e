//! The settings of the gates of a trigger.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::follow::{Follow, FollowSettings};
use crate::glob::within_part;
use crate::selection::duration;
use crate::window::{Window, WindowSettings};

/// Most approvals that a trigger may need.
const MOST: u16 = 20;
/// Longest pattern over names of tokens, in bytes: that of a name.
const LONGEST: usize = 63;

/// The settings of the gates of a trigger. Without a setting its gate is open.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The times at which rollouts may begin.
    pub window: Option<Window>,
    /// The least time between the begins of two rollouts.
    pub gap: Option<Duration>,
    /// The group of which one trigger is rolled out at a time.
    pub group: Option<String>,
    /// The approvals that a set of images needs.
    pub approvals: Option<Approvals>,
    /// The triggers whose sets the trigger takes over, in place of images of its own.
    pub follow: Option<Follow>,
}

/// The settings of the gates of a trigger as they are written. As JSON, those that are not written
/// are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Written {
    /// As `window` of [`Settings`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowSettings>,
    /// As `gap` of [`Settings`].
    #[serde(
        serialize_with = "duration::written",
        skip_serializing_if = "Option::is_none"
    )]
    pub gap: Option<Duration>,
    /// As `group` of [`Settings`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// As `approvals` of [`Settings`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Approvals>,
    /// As `follow` of [`Settings`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<FollowSettings>,
}

/// The approvals that a set of images needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    /// The number of people, from 1 to 20.
    #[serde(default = "one")]
    pub needs: u16,
    /// Patterns over the names of the tokens that may approve; without one, all of role `approve`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    /// The time for which an approval counts; without it, without end.
    #[serde(
        default,
        deserialize_with = "duration::days::<365, _>",
        serialize_with = "duration::written",
        skip_serializing_if = "Option::is_none"
    )]
    pub within: Option<Duration>,
}

fn one() -> u16 {
    1
}

impl Approvals {
    /// Checks the settings.
    ///
    /// # Errors
    /// The key, and the mistake with its cure.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=MOST).contains(&self.needs) {
            let message = format!("{} is not from 1 to {MOST}", self.needs);
            return Err(("needs", message));
        }
        let of_a_name =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*".contains(&byte);
        let valid = |pattern: &&String| {
            (1..=LONGEST).contains(&pattern.len()) && pattern.bytes().all(of_a_name)
        };
        match self.by.iter().find(|pattern| !valid(pattern)) {
            Some(pattern) => Err((
                "by",
                format!(
                    "{pattern:?} is not a pattern over names of tokens; write 1 to {LONGEST} of a-z 0-9 - and *, such as \"release-*\""
                ),
            )),
            None => Ok(()),
        }
    }

    /// Returns whether the approval of the token with this name counts.
    #[must_use]
    pub fn may_give(&self, actor: &str) -> bool {
        let matches = |pattern: &String| within_part(pattern.as_bytes(), actor.as_bytes());
        self.by.is_empty() || self.by.iter().any(matches)
    }
}
