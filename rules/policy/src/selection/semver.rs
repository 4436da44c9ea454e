//! Semantic versions as Masterminds/semver reads and compares them (v3.4.0 and later), the library
//! of Flux, Argo CD Image Updater and Kargo.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// The spellings that count as a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parse {
    /// `SemVer` 2.0 with at most one leading `v`.
    #[default]
    StrictV,
    /// `SemVer` 2.0.
    Strict,
    /// As Flux: [`Parse::Loose`] with two dots or more, anywhere in the text.
    ThreePart,
    /// As Argo CD: one to three numbers, leading zeros and a leading `v` are fine. `1234567` is a
    /// version.
    Loose,
}

impl Parse {
    /// Returns the version that a text spells.
    #[must_use]
    pub fn version(self, text: &str) -> Option<Version<'_>> {
        let without_v = text.strip_prefix('v').unwrap_or(text);
        match self {
            Parse::Strict => read(text, true),
            Parse::StrictV => read(without_v, true),
            Parse::ThreePart if text.split('.').count() < 3 => None,
            Parse::ThreePart | Parse::Loose => read(without_v, false),
        }
    }

    /// Returns the version that a tag spells. A tag cannot contain `+`, so `helm push` writes `_`
    /// in its place (`1.2.3_build.5`). [`Parse::Strict`] refuses such a tag.
    #[must_use]
    pub fn version_of_tag(self, tag: &str) -> Option<Version<'_>> {
        match tag.split_once('_') {
            Some((version, build)) if self != Parse::Strict => {
                let text = format!("{version}+{build}");
                self.version(&text).map(Version::into_owned)
            }
            _ => self.version(tag),
        }
    }
}

/// A version without its build data, which has no precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version<'a> {
    /// Major, minor and patch.
    pub parts: [u64; 3],
    /// The part after the hyphen, without it; empty for a release.
    pub prerelease: Cow<'a, str>,
}

impl Version<'_> {
    /// Returns the version with a text of its own.
    #[must_use]
    pub fn into_owned(self) -> Version<'static> {
        Version {
            parts: self.parts,
            prerelease: Cow::Owned(self.prerelease.into_owned()),
        }
    }

    /// Returns true if the version has no prerelease.
    #[must_use]
    pub fn is_release(&self) -> bool {
        self.prerelease.is_empty()
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let prerelease = || compare_prereleases(&self.prerelease, &other.prerelease);
        self.parts.cmp(&other.parts).then_with(prerelease)
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, patch] = self.parts;
        write!(f, "{major}.{minor}.{patch}")?;
        if self.is_release() {
            return Ok(());
        }
        write!(f, "-{}", self.prerelease)
    }
}

/// Compares two prereleases by the precedence of `SemVer`. An empty one is a release, which is
/// above all prereleases.
pub(super) fn compare_prereleases(a: &str, b: &str) -> Ordering {
    match (a.is_empty(), b.is_empty()) {
        (false, false) => a
            .split('.')
            .map(Identifier::of)
            .cmp(b.split('.').map(Identifier::of)),
        (a, b) => a.cmp(&b),
    }
}

/// An identifier of a prerelease, in the order of precedence: a number is below every word.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Identifier<'a> {
    Number(u64),
    /// Compared by bytes. A number above 64 bits counts as a word, as in the Go library.
    Word(&'a str),
}

impl Identifier<'_> {
    pub(super) fn of(text: &str) -> Identifier<'_> {
        number(text).map_or(Identifier::Word(text), Identifier::Number)
    }
}

/// Splits `core-prerelease+build`, and checks the two latter. The prerelease may be missing.
pub(super) fn split(text: &str) -> Option<(&str, Option<&str>)> {
    let (version, build) = match text.split_once('+') {
        Some((version, build)) => (version, Some(build)),
        None => (text, None),
    };
    let (core, prerelease) = match version.split_once('-') {
        Some((core, prerelease)) => (core, Some(prerelease)),
        None => (version, None),
    };
    let valid = build.is_none_or(|build| build.split('.').all(is_identifier))
        && prerelease
            .is_none_or(|ids| ids.split('.').all(|id| is_identifier(id) && !is_padded(id)));
    valid.then_some((core, prerelease))
}

/// Returns the value of a text of digits, if it fits 64 bits.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn read(text: &str, strict: bool) -> Option<Version<'_>> {
    let (core, prerelease) = split(text)?;
    let (mut parts, mut count) = ([0; 3], 0);
    for part in core.split('.') {
        if strict && is_padded(part) {
            return None;
        }
        *parts.get_mut(count)? = number(part)?;
        count += 1;
    }
    (count == 3 || !strict).then(|| Version {
        parts,
        prerelease: Cow::Borrowed(prerelease.unwrap_or_default()),
    })
}

fn is_identifier(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed)
}

/// Returns true for a number with a leading zero.
fn is_padded(text: &str) -> bool {
    text.len() > 1 && text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit())
}
