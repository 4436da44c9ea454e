//! A value in YAML, as it is written.

use std::ops::Range;

use serde::Deserialize;
use tagtrail_proto::Digest;

/// The part of a pinned image that is written to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Part {
    /// `registry.example.com/shop/web@sha256:…`
    #[default]
    Pinned,
    /// `sha256:…`
    Digest,
    /// The tag that the image was known by.
    Tag,
    /// `1.4.2@sha256:…`, for a reader that joins name and tag.
    #[serde(rename = "tag@digest")]
    TagAndDigest,
    /// `registry.example.com/shop/web`
    Name,
}

impl Part {
    /// Returns whether a value of this part has a digest.
    pub(super) fn pins(self) -> bool {
        !matches!(self, Part::Tag | Part::Name)
    }

    /// Returns the digest in a value of this part.
    pub(super) fn digest(self, value: &str) -> Option<Digest> {
        match self {
            Part::Pinned | Part::TagAndDigest => value.split_once('@')?.1.parse().ok(),
            Part::Digest => value.parse().ok(),
            Part::Tag | Part::Name => None,
        }
    }
}

/// A value of one line in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// The bytes of the value, without quotes.
    pub(super) range: Range<usize>,
    pub(super) quoting: Quoting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Without quotes.
    Plain,
    /// Between quotes, which stay.
    Quoted,
    /// Nothing is written yet. A space separates the value from its key.
    Absent,
}

impl Written {
    /// Returns the text that stands for a value at this place.
    pub(super) fn text(&self, value: &str) -> String {
        let quoted = if is_text(value) {
            value.to_owned()
        } else {
            format!("\"{value}\"")
        };
        match self.quoting {
            Quoting::Quoted => value.to_owned(),
            Quoting::Plain => quoted,
            Quoting::Absent => format!(" {quoted}"),
        }
    }
}

/// Returns whether YAML reads a plain value as text: a tag such as `1.10`, `1e3`, `no` or
/// `2026-01-31` would be a number, a boolean or a date.
fn is_text(value: &str) -> bool {
    const WORDS: [&str; 10] = [
        "true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan",
    ];
    if WORDS.iter().any(|word| value.eq_ignore_ascii_case(word)) {
        return false;
    }
    let begins = value.starts_with(|first: char| first.is_ascii_alphabetic());
    // No number has two points.
    begins || value.matches('.').count() >= 2 || value.contains('@')
}
