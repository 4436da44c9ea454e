//! `[[trigger]]`: images, and the target of their rollouts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tagtrail_proto::{Image, Name};
use toml::Spanned;

use crate::document::{ConfigError, Document};
use crate::file::Mistake;
use crate::{Names, duration};

/// A trigger: these images, this target.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The trigger's name.
    pub name: Spanned<Name>,
    /// The images as written, each under a short name.
    #[serde(rename = "images")]
    written: BTreeMap<Spanned<String>, Spanned<String>>,
    /// The images, under the names of their registries.
    #[serde(skip)]
    pub images: BTreeMap<Spanned<String>, Image>,
    /// The quiet time before a rollout: the heads must not change for this long. Without this
    /// setting a new digest waits for its manifest instead.
    #[serde(default, with = "duration::option")]
    pub settle: Option<Duration>,
    /// The kind of target and the settings. Exactly one.
    target: Spanned<BTreeMap<Spanned<String>, toml::Value>>,
    /// The file that has the entry.
    #[serde(skip)]
    pub(crate) document: Arc<Document>,
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
        if self.written.is_empty() {
            let message = "watches nothing; add images.<name> = \"registry/repository:tag\"";
            let at = self.name.span().start;
            return Err(Mistake::new(at, "trigger.images", message));
        }
        for (name, text) in &self.written {
            let short = name.get_ref();
            if !valid_image_name(short) {
                let message = format!(
                    "{short:?} is not a name for an image: 1 to 63 of a-z 0-9 - _, starting with a letter or digit"
                );
                return Err(Mistake::new(name.span().start, "trigger.images", message));
            }
            let image = names.image(text.get_ref()).map_err(|error| {
                let key = format!("trigger.images.{short}");
                Mistake::new(text.span().start, key, error.to_string())
            })?;
            self.images.insert(name.clone(), image);
        }
        if self.target.get_ref().len() != 1 {
            let message = "needs exactly one target, such as target.webhook = { url = \"https://…\", secret = { file = \"…\" } }";
            let at = self.target.span().start;
            return Err(Mistake::new(at, "trigger.target", message));
        }
        Ok(())
    }

    /// Returns a warning for each tag that is read in another spelling.
    pub(crate) fn folded_tags(&self) -> impl Iterator<Item = String> {
        let images = self.written.iter();
        let images = images.filter_map(|(name, text)| Some((name, text, self.images.get(name)?)));
        let folded = images.filter(|(_, text, image)| {
            let tag = text.get_ref().rsplit_once(':').map(|(_, tag)| tag);
            tag.is_some_and(|tag| {
                tag != image.tag.as_ref() && tag.eq_ignore_ascii_case(image.tag.as_ref())
            })
        });
        folded.map(|(name, text, image)| {
            let message = format!(
                "{} writes tags in lower case, so {} is read as {image}",
                image.registry,
                text.get_ref()
            );
            let key = format!("trigger.images.{}", name.get_ref());
            self.error_at(text.span().start, &key, message).to_string()
        })
    }
}

fn valid_image_name(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    (1..=63).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['-', '_'])
}
