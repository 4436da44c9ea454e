//! `[[trigger]]`: images, and the target of their rollouts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tagtrail_policy::agree::Agree;
use tagtrail_policy::begin::{Approvals, Settings};
use tagtrail_policy::decide::{Settle, Start};
use tagtrail_policy::follow::FollowSettings;
use tagtrail_policy::selection::WatchedImage;
use tagtrail_policy::watched::Watched;
use tagtrail_policy::window::WindowSettings;
use tagtrail_proto::{Name, Registry};
use toml::Spanned;

use crate::document::{ConfigError, Document};
use crate::file::Mistake;
use crate::verify::VerifyStep;
use crate::{Door, Names, duration, images, verify};

/// The shortest pause between attempts of the slow phase.
const SHORTEST_SLOW: Duration = Duration::from_secs(60);
/// The time until a target that took a rollout must be healthy, without the key `timeout`.
const TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The default of `settle` where images may belong together, or nobody reads manifests.
const SETTLE: Duration = Duration::from_secs(2);
/// That of a single image after the first revision of a tag. A client that deletes by a tombstone
/// does so within 30 ms.
const FIRST: Duration = Duration::from_millis(500);

/// A trigger: these images, this target.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The trigger's name.
    pub name: Spanned<Name>,
    /// The images as written, each under a short name.
    #[serde(rename = "images", default)]
    pub(crate) written: BTreeMap<Spanned<String>, Spanned<WatchedImage>>,
    /// The images, under the names of their registries.
    #[serde(skip)]
    pub images: BTreeMap<Spanned<String>, Watched>,
    /// The triggers whose sets the trigger takes over, in place of images.
    #[serde(default)]
    pub(crate) follow: Option<Spanned<FollowSettings>>,
    /// The images of the triggers that this one follows, also through others.
    #[serde(skip)]
    pub(crate) taken_over: BTreeMap<String, Watched>,
    /// The value that all images must share, so that no rollout has half of a build.
    #[serde(default)]
    pub agree: Option<Agree>,
    /// The quiet time before a rollout, if written: the heads must not change for this long.
    #[serde(default, with = "duration::option")]
    pub settle: Option<Duration>,
    /// The longest time for which `settle` delays a rollout of images that change all the time.
    #[serde(default, with = "duration::option")]
    settle_max: Option<Duration>,
    /// The name that the trigger had before: rollouts, numbers, holds and pause go on.
    #[serde(default)]
    pub renamed_from: Option<Name>,
    /// How the trigger begins when all of its images are known for the first time.
    #[serde(default)]
    pub start: Start,
    /// The images that stand for a digest are rolled out while others stand for none; those stay at
    /// the target as they are.
    #[serde(default)]
    pub partial: bool,
    /// The effect of another place of the target.
    #[serde(default)]
    pub on_target_change: OnTargetChange,
    /// The time until a target that took a rollout must be healthy.
    #[serde(default, with = "duration::option")]
    timeout: Option<Duration>,
    /// The steps that a rollout must pass after its target is healthy, in order.
    #[serde(default)]
    pub verify: Vec<Spanned<VerifyStep>>,
    /// The times at which rollouts may begin.
    #[serde(default)]
    pub(crate) window: Option<Spanned<WindowSettings>>,
    /// The least time between the begins of two rollouts.
    #[serde(default, with = "duration::option")]
    pub(crate) gap: Option<Duration>,
    /// The group of triggers of which one is rolled out at a time.
    #[serde(default)]
    pub(crate) group: Option<Name>,
    /// The approvals that a set of images needs.
    #[serde(default)]
    pub(crate) approvals: Option<Spanned<Approvals>>,
    /// The settings of the gates.
    #[serde(skip)]
    pub gates: Settings,
    /// The effect of a rollout that has failed.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// The effect of a newer rollout on one that is watched.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// The pauses between attempts.
    #[serde(default)]
    pub retry: RetrySettings,
    /// The kind of target and the settings. Exactly one.
    target: Spanned<BTreeMap<Spanned<String>, toml::Value>>,
    /// Labels of the trigger, such as the team.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The file that has the entry.
    #[serde(skip)]
    pub(crate) document: Arc<Document>,
    /// The entry as written.
    #[serde(skip)]
    pub(crate) raw: Arc<serde_json::Value>,
    #[serde(skip)]
    pub(crate) door: Door,
}

/// The effect of another place of the target, such as another URL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTargetChange {
    /// The wanted images are rolled out again.
    #[default]
    Rollout,
    /// Nothing is rolled out before an image changes, or a person orders so.
    Ignore,
}

/// The effect of a rollout that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Attempts go on, and a newer rollout takes over.
    #[default]
    Retry,
    /// Nothing begins until a person releases the trigger.
    Hold,
    /// The last known set is rolled out and pinned.
    RollBack,
}

/// The effect of a newer rollout on one whose result is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concurrency {
    /// The newer one begins at once, and supersedes it.
    #[default]
    Supersede,
    /// The newer one waits until the result is known.
    Finish,
}

/// The pauses between attempts. A missing key means the usual value.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrySettings {
    /// The longest pause of the fast phase.
    #[serde(default, with = "duration::option")]
    pub longest: Option<Duration>,
    /// The time that counts after which the slow phase begins.
    #[serde(default, with = "duration::option")]
    pub patience: Option<Duration>,
    /// The attempts after which the slow phase begins; 0: any number.
    #[serde(default)]
    pub attempts: u32,
    /// The pause between attempts of the slow phase, or none at all.
    #[serde(default)]
    pub then: Option<Then>,
}

/// The attempts after the fast phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Then {
    /// One after each pause of this length.
    Every(Duration),
    /// None: the rollout has failed for good.
    Never,
}

impl TryFrom<String> for Then {
    type Error = String;

    fn try_from(text: String) -> Result<Then, String> {
        match (text.as_str(), duration::parse(&text)) {
            ("never", _) => Ok(Then::Never),
            (_, Some(pause)) if pause >= SHORTEST_SLOW => Ok(Then::Every(pause)),
            _ => Err(format!(
                "{text:?} is no pause between later attempts; write a duration from \"1m\" on, such as \"1h\", or \"never\""
            )),
        }
    }
}

impl RetrySettings {
    fn check(&self) -> Result<(), &'static str> {
        let second = Duration::from_secs(1);
        if self.longest.is_some_and(|longest| longest < second) {
            return Err("longest must be 1s or more: a target that fails needs a pause");
        }
        if self.patience.is_some_and(|patience| patience < second) {
            return Err("patience must be 1s or more; attempts = 1 makes one attempt alone");
        }
        Ok(())
    }
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
    /// Returns the quiet time before a rollout. Without the key, a trigger of several images or of
    /// an image whose registry is not `asked` has 2 s; any other waits for manifests instead:
    /// `None`. A single image without the key waits 500 ms after the first revision of a tag: long
    /// enough for the delete of a tag of which only its tombstone is known.
    #[must_use]
    pub fn settle(&self, asked: &BTreeSet<Registry>) -> Option<Settle> {
        let first = match self.images.len() {
            1 => FIRST,
            _ => SETTLE,
        };
        let default = self.default_settle(asked).map(|_| Settle {
            quiet: SETTLE,
            first,
        });
        self.settle.map(Settle::always).or(default)
    }

    /// Returns the reason why the default of `settle` is 2 s and applies, if it does.
    #[must_use]
    pub fn default_settle(&self, asked: &BTreeSet<Registry>) -> Option<String> {
        if self.settle.is_some() {
            return None;
        }
        let mut registries = self.images.values().map(Watched::registry);
        let unasked = registries.find(|registry| !asked.contains(*registry));
        match unasked {
            _ if self.images.len() > 1 => Some("of several images".to_owned()),
            Some(registry) => Some(format!("{registry} has no [[registry]]")),
            None => None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.name.get_ref().as_ref()
    }

    /// Returns the longest time for which `settle` delays a rollout: without the key, ten times
    /// `settle`.
    #[must_use]
    pub fn settle_max(&self, settle: Option<Settle>) -> Duration {
        let settle = settle.map_or(Duration::ZERO, |settle| settle.quiet);
        self.settle_max.unwrap_or(settle.saturating_mul(10))
    }

    /// Returns the time until a target that took a rollout must be healthy.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// Returns whether the entry has the key `timeout`.
    #[must_use]
    pub fn has_timeout(&self) -> bool {
        self.timeout.is_some()
    }

    /// Returns the target.
    #[must_use]
    pub fn target(&self) -> TargetEntry<'_> {
        const NONE: &toml::Value = &toml::Value::Boolean(false);
        // `Trigger::check` made sure of exactly one target.
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

    /// Returns where the settings come from.
    #[must_use]
    pub fn door(&self) -> Door {
        self.door
    }

    /// Returns the error for a mistake that the kind of the target found, in the form of all other
    /// errors.
    #[must_use]
    pub fn error_at(&self, at: usize, key: &str, message: impl std::fmt::Display) -> ConfigError {
        self.document.error_at(at, key, message)
    }

    /// Returns the folder of the file that has the entry: relative paths begin here.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.document.folder()
    }

    /// Checks the entry, and reads its images by the names of the registries.
    pub(crate) fn check(&mut self, names: &Names) -> Result<(), Mistake> {
        if self.written.is_empty() && self.follow.is_none() {
            let message = "watches nothing; add images.<name> = \"registry/repository:tag\", or follow = { trigger = \"…\" }";
            let at = self.name.span().start;
            return Err(Mistake::new(at, "trigger.images", message));
        }
        self.check_follow()?;
        for (name, written) in &self.written {
            let short = name.get_ref();
            if !valid_image_name(short) {
                let message = format!(
                    "{short:?} is not a name for an image: 1 to 63 of a-z 0-9 - _, starting with a letter or digit"
                );
                return Err(Mistake::new(name.span().start, "trigger.images", message));
            }
            let at = written.span().start;
            let watched = images::read(written.get_ref(), names).map_err(|wrong| {
                let key = format!("trigger.images.{short}{}", wrong.key);
                Mistake::new(at, key, wrong.message)
            })?;
            let watched = match self.agree {
                Some(_) => watched.into_policy(),
                None => watched,
            };
            self.images.insert(name.clone(), watched);
        }
        let at = self.name.span().start;
        if self.partial && self.agree.is_some() {
            let message = "rolls half of a build out, which agree excludes; remove one of them";
            return Err(Mistake::new(at, "trigger.partial", message));
        }
        self.retry
            .check()
            .map_err(|message| Mistake::new(at, "trigger.retry", message))?;
        if self.timeout().is_zero() {
            let message = "must be more than 0s: no target could become healthy";
            return Err(Mistake::new(at, "trigger.timeout", message));
        }
        verify::check_count(self.verify.len())
            .map_err(|message| Mistake::new(self.name.span().start, "trigger.verify", message))?;
        for step in &self.verify {
            let checked = step.get_ref().check(self.timeout());
            checked
                .map_err(|message| Mistake::new(step.span().start, "trigger.verify", message))?;
        }
        self.gates = self.read_gates()?;
        self.check_labels()?;
        if self.target.get_ref().len() != 1 {
            let message = "needs exactly one target, such as target.webhook = { url = \"https://…\", secret = { file = \"…\" } }";
            let at = self.target.span().start;
            return Err(Mistake::new(at, "trigger.target", message));
        }
        Ok(())
    }
}

impl Trigger {
    /// Most labels of a trigger.
    const LABELS: usize = 32;
    /// Longest value of a label, in bytes.
    const LABEL: usize = 100;

    fn check_labels(&self) -> Result<(), Mistake> {
        let at = self.name.span().start;
        let wrong = |key: String, message: String| Err(Mistake::new(at, key, message));
        if self.labels.len() > Trigger::LABELS {
            let message = format!("a trigger has at most {} labels", Trigger::LABELS);
            return wrong("trigger.labels".to_owned(), message);
        }
        for (name, value) in &self.labels {
            if !valid_image_name(name) {
                let message = format!(
                    "{name:?} is not a name for a label: 1 to 63 of a-z 0-9 - _, starting with a letter or digit"
                );
                return wrong("trigger.labels".to_owned(), message);
            }
            if value.is_empty() || value.len() > Trigger::LABEL || value.contains(char::is_control)
            {
                let message = format!(
                    "must have 1 to {} bytes without control characters",
                    Trigger::LABEL
                );
                return wrong(format!("trigger.labels.{name}"), message);
            }
        }
        Ok(())
    }
}

fn valid_image_name(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    (1..=63).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['-', '_'])
}
