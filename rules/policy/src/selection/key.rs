//! Keys: bytes whose order is the order of the candidates of a rule.
//!
//! A key is a series of values and ends with the name of the tag. The bytes of no value are the
//! begin of another value's bytes, so the first value that differs decides. Postgres compares
//! `bytea` in the same way.

use time::OffsetDateTime;

use super::semver::{Identifier, Version};

/// The place of a tag in the order of a rule: of two tags, the one with the greater key is
/// preferred. No two tags have the same key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// Returns the bytes, for a column of type `bytea`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns a key that was stored.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Key {
        Key(bytes)
    }
}

/// The mark of a missing value, below all others.
const MISSING: u8 = 0;
const NEGATIVE: u8 = 1;
const NUMBER: u8 = 2;
/// The end of a text or of a list, below all its bytes.
const END: u8 = 0;
/// The marks of the identifiers of a prerelease, and of a release.
const NUMERIC: u8 = 1;
const WORD: u8 = 2;
const RELEASE: u8 = 3;

/// Builds a key, value by value.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<u8>);

impl Values {
    pub(super) fn with_room(bytes: usize) -> Values {
        Values(Vec::with_capacity(bytes))
    }

    /// Ends the key.
    pub(super) fn of(mut self, tag: &str) -> Key {
        self.0.extend(tag.as_bytes());
        Key(self.0)
    }

    /// Turns the order of all values so far round.
    pub(super) fn reversed(mut self) -> Values {
        self.0.iter_mut().for_each(|byte| *byte = !*byte);
        self
    }

    /// Adds a text without NUL.
    pub(super) fn text(&mut self, text: &str) {
        self.0.extend(text.as_bytes());
        self.0.push(END);
    }

    pub(super) fn time(&mut self, time: OffsetDateTime) {
        // Microseconds fit 64 bits for any year that the type has.
        let micros = i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or_default();
        self.0.extend((micros ^ i64::MIN).to_be_bytes());
    }

    pub(super) fn version(&mut self, version: &Version<'_>) {
        for part in version.parts {
            self.0.extend(part.to_be_bytes());
        }
        self.prerelease(&version.prerelease);
    }

    /// Adds a prerelease; an empty one is a release, which is above all others.
    pub(super) fn prerelease(&mut self, prerelease: &str) {
        if prerelease.is_empty() {
            self.0.push(RELEASE);
            return;
        }
        for identifier in prerelease.split('.').map(Identifier::of) {
            match identifier {
                Identifier::Number(number) => {
                    self.0.push(NUMERIC);
                    self.0.extend(number.to_be_bytes());
                }
                Identifier::Word(word) => {
                    self.0.push(WORD);
                    self.text(word);
                }
            }
        }
        self.0.push(END);
    }

    pub(super) fn missing(&mut self) {
        self.0.push(MISSING);
    }

    pub(super) fn number(&mut self, number: Number<'_>) {
        let start = self.0.len();
        self.0.push(NUMBER);
        // A text has less than 2^32 bytes: see the bounds of `Template`.
        let length = u32::try_from(number.whole.len()).unwrap_or(u32::MAX);
        self.0.extend(length.to_be_bytes());
        self.0.extend(number.whole.as_bytes());
        self.text(number.fraction);
        if number.negative {
            self.0[start..].iter_mut().for_each(|byte| *byte = !*byte);
            self.0[start] = NEGATIVE;
        }
    }
}

/// A decimal number of any length, exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number<'a> {
    negative: bool,
    /// Without leading zeros.
    whole: &'a str,
    /// Without trailing zeros.
    fraction: &'a str,
}

impl Number<'_> {
    /// Parses `-?digits[.digits]`.
    pub(super) fn parse(text: &str) -> Option<Number<'_>> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return None,
            Some((whole, fraction)) => (whole, fraction),
            None => (digits, ""),
        };
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        Some(Number {
            // -0 is 0.
            negative: digits.len() < text.len() && !(whole.is_empty() && fraction.is_empty()),
            whole,
            fraction,
        })
    }

    /// Parses `-?digits`.
    pub(super) fn whole(text: &str) -> Option<Number<'_>> {
        Number::parse(text).filter(|_| !text.contains('.'))
    }
}
