//! `[[trigger]]`: images, and the target of their rollouts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tagtrail_proto::{Image, Name};
use toml::Spanned;

use crate::duration;

/// A trigger: these images, this target.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The trigger's name.
    pub name: Spanned<Name>,
    /// The images as written, each under a short name.
    #[serde(rename = "images")]
    pub(crate) written: BTreeMap<Spanned<String>, Spanned<String>>,
    /// The images, under the names of their registries.
    #[serde(skip)]
    pub images: BTreeMap<Spanned<String>, Image>,
    /// The quiet time before a rollout: the heads must not change for this long. Without this
    /// setting a new digest waits for its manifest instead.
    #[serde(default, with = "duration::option")]
    pub settle: Option<Duration>,
    /// The kind of target and the settings. Exactly one.
    pub(crate) target: Spanned<BTreeMap<Spanned<String>, toml::Value>>,
}

/// The target of a trigger, not parsed by the kind yet.
#[derive(Debug, Clone)]
pub struct TargetEntry<'a> {
    /// `webhook`, `command`, …: the trigger service has the table of kinds.
    pub kind: &'a str,
    /// The settings, for the kind to parse.
    pub value: &'a toml::Value,
    /// The place in the file, for [`File::error_at`].
    pub at: usize,
}

impl Trigger {
    /// Returns the target.
    #[must_use]
    pub fn target(&self) -> TargetEntry<'_> {
        const NONE: &toml::Value = &toml::Value::Boolean(false);
        // `File::check` made sure of exactly one target.
        self.target.get_ref().iter().next().map_or(
            TargetEntry {
                kind: "",
                value: NONE,
                at: 0,
            },
            |(kind, value)| TargetEntry {
                kind: kind.get_ref(),
                value,
                at: kind.span().start,
            },
        )
    }
}

pub(crate) fn valid_image_name(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    (1..=63).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['-', '_'])
}
