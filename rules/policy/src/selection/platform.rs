//! The manifest that a candidate must have: platforms, labels and annotations.

use std::collections::BTreeMap;

use tagtrail_proto::{Manifest, Platform};

use super::reason::Reason;

/// A platform that an image must have: `linux/arm64` or `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformRule {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl PlatformRule {
    /// Parses `os/architecture` or `os/architecture/variant`.
    ///
    /// # Errors
    /// For text of another form.
    pub fn parse(text: &str) -> Result<PlatformRule, String> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let is_word = |word: &&str| !word.is_empty() && word.bytes().all(allowed);
        let words: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match words[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => ("", "", None),
        };
        if text.len() > 128 || os.is_empty() || !words.iter().all(is_word) {
            return Err(format!(
                "{text:?} is no platform; write os/architecture in lower case, such as \"linux/amd64\" or \"linux/arm/v7\""
            ));
        }
        Ok(PlatformRule {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant,
        })
    }

    /// Returns true if an image of the platform is one of this rule. A rule without a variant takes
    /// every variant.
    #[must_use]
    pub fn takes(&self, platform: &Platform) -> bool {
        let named = platform
            .variant
            .as_deref()
            .filter(|variant| !variant.is_empty());
        // The OCI image specification: arm64 without a variant is arm64/v8.
        let variant = named.or((platform.architecture == "arm64").then_some("v8"));
        self.os == platform.os
            && self.architecture == platform.architecture
            && (self.variant.is_none() || self.variant.as_deref() == variant)
    }
}

impl std::fmt::Display for PlatformRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// The rules about the manifest of a candidate.
#[derive(Debug, Clone, Default)]
pub(super) struct ManifestRules {
    /// Platforms, and whether one of them is enough.
    pub(super) platforms: Vec<PlatformRule>,
    pub(super) any_platform: bool,
    /// By each label, the values of which it must have one.
    pub(super) labels: BTreeMap<String, Vec<String>>,
    pub(super) annotations: BTreeMap<String, Vec<String>>,
}

impl ManifestRules {
    pub(super) fn is_empty(&self) -> bool {
        self.platforms.is_empty() && self.labels.is_empty() && self.annotations.is_empty()
    }

    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), Reason> {
        let has = |rule: &PlatformRule| {
            manifest
                .platforms
                .iter()
                .any(|platform| rule.takes(platform))
        };
        if self.any_platform {
            if !self.platforms.iter().any(has) {
                let all: Vec<String> = self.platforms.iter().map(ToString::to_string).collect();
                return Err(Reason::Platform(all.join(", ")));
            }
        } else if let Some(missing) = self.platforms.iter().find(|rule| !has(rule)) {
            return Err(Reason::Platform(missing.to_string()));
        }
        if let Some(key) = differs(&self.labels, &manifest.labels) {
            return Err(Reason::Label(key.to_owned()));
        }
        match differs(&self.annotations, &manifest.annotations) {
            Some(key) => Err(Reason::Annotation(key.to_owned())),
            None => Ok(()),
        }
    }
}

/// Returns the first key whose value is not among the wanted ones.
fn differs<'a>(
    wanted: &'a BTreeMap<String, Vec<String>>,
    found: &BTreeMap<String, String>,
) -> Option<&'a str> {
    let is_wanted = |(key, values): &(&String, &Vec<String>)| {
        found.get(*key).is_some_and(|value| values.contains(value))
    };
    wanted
        .iter()
        .find(|entry| !is_wanted(entry))
        .map(|(key, _)| key.as_str())
}
