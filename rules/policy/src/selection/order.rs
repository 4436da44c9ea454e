//! The order of a rule: which tags it takes by their names and times, and which one it prefers.

use std::borrow::Cow;

use regex::bytes::Captures;
use tagtrail_proto::Tag;
use time::OffsetDateTime;

use super::calver::Calver;
use super::key::{Number, Values};
use super::pattern::group;
use super::range::{Prereleases, Range};
use super::reason::Reason;
use super::semver::{Parse, Version};
use super::spec::Within;

/// The times of a tag, for rules with `newest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The effective time of the push that gave the tag its digest.
    pub pushed: OffsetDateTime,
    /// The time of the build that the manifest of the digest names, if it is read and names one.
    pub created: Option<OffsetDateTime>,
}

/// A tag that passed the filters.
pub(super) struct Subject<'a> {
    pub(super) tag: &'a Tag,
    /// The tag, or the text that `extract` made of it.
    pub(super) text: Cow<'a, str>,
    /// The groups of `match`.
    pub(super) groups: Option<Captures<'a>>,
    pub(super) times: Times,
}

#[derive(Debug, Clone)]
pub(super) enum Order {
    Exact(Tag),
    Semver(SemverOrder),
    Calver(Calver),
    Numeric { lowest: bool },
    Alphabetical { first: bool },
    Groups(Vec<Group>),
    Pushed,
    Created,
}

/// A named group of `match`.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) name: String,
    /// The number of the group in the expression.
    pub(super) number: usize,
    pub(super) kind: GroupKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupKind {
    Int,
    Text,
    Semver,
}

impl Order {
    /// Returns the values that order the tag. `bounds`: true to refuse a version outside of the
    /// bounds of the rule.
    pub(super) fn values(&self, subject: &Subject<'_>, bounds: bool) -> Result<Values, Reason> {
        let text = subject.text.as_ref();
        let mut values = Values::with_room(40 + text.len() + subject.tag.as_ref().len());
        match self {
            Order::Exact(tag) if subject.tag != tag => return Err(Reason::OtherTag),
            Order::Exact(_) => {}
            Order::Semver(order) => {
                let version = order.parse.version_of_tag(text);
                let version = version.ok_or_else(|| Reason::NoVersion(text.to_owned()))?;
                if bounds {
                    order.takes(&version)?;
                }
                values.version(&version);
            }
            Order::Calver(calver) => {
                let key = calver.key(text, &mut values);
                key.ok_or_else(|| Reason::NoCalver(text.to_owned()))?;
            }
            Order::Numeric { lowest } => {
                let number = Number::parse(text);
                values.number(number.ok_or_else(|| Reason::NoNumber(text.to_owned()))?);
                if *lowest {
                    values = values.reversed();
                }
            }
            Order::Alphabetical { first } => {
                values.text(text);
                if *first {
                    values = values.reversed();
                }
            }
            Order::Groups(groups) => {
                for part in groups {
                    let text = subject
                        .groups
                        .as_ref()
                        .and_then(|all| group(all, part.number));
                    let value = text.and_then(|text| part.kind.value(text, &mut values));
                    value.ok_or_else(|| Reason::Group(part.name.clone()))?;
                }
            }
            Order::Pushed => values.time(subject.times.pushed),
            Order::Created => {
                let created = subject.times.created.filter(|time| is_usable(*time));
                values.time(created.ok_or(Reason::NoCreated)?);
                values.time(subject.times.pushed);
            }
        }
        Ok(values)
    }
}

impl GroupKind {
    /// Adds the value of a group to a key. Returns none if the text is no such value.
    fn value(self, text: &str, values: &mut Values) -> Option<()> {
        match self {
            GroupKind::Int => values.number(Number::whole(text)?),
            GroupKind::Text => values.text(text),
            GroupKind::Semver => values.version(&Parse::StrictV.version_of_tag(text)?),
        }
        Some(())
    }
}

/// Returns false for the times that builders write in place of a real one: Go's zero time, the
/// begin of Unix time, and the first time of ZIP.
pub(super) fn is_usable(created: OffsetDateTime) -> bool {
    let date = created.to_offset(time::UtcOffset::UTC).date();
    let (year, month, day) = date.to_calendar_date();
    year > 1 && !([1970, 1980].contains(&year) && month == time::Month::January && day == 1)
}

/// Semantic versions within bounds.
#[derive(Debug, Clone)]
pub(super) struct SemverOrder {
    pub(super) parse: Parse,
    pub(super) range: Range,
    pub(super) prereleases: Prereleases,
    pub(super) relative: Option<Relative>,
}

impl SemverOrder {
    fn takes(&self, version: &Version<'_>) -> Result<(), Reason> {
        if !self.range.has(version, self.prereleases) {
            let excluded = !version.is_release() && self.range.has(version, Prereleases::All);
            return Err(if excluded {
                Reason::Prerelease
            } else {
                Reason::OutOfRange
            });
        }
        self.relative
            .as_ref()
            .map_or(Ok(()), |relative| relative.takes(version))
    }
}

/// Bounds relative to the selected version.
#[derive(Debug, Clone)]
pub(super) struct Relative {
    pub(super) within: Within,
    pub(super) same_suffix: bool,
    /// The version that ran before the first selection.
    pub(super) from: Version<'static>,
    pub(super) selected: Option<Version<'static>>,
}

impl Relative {
    fn takes(&self, version: &Version<'_>) -> Result<(), Reason> {
        let too_low = match self.selected {
            // The running version is not rolled out again, but may be the next best one later.
            Some(_) => *version < self.from,
            None => *version <= self.from,
        };
        if too_low {
            return Err(Reason::NotNewer);
        }
        let reference = self.selected.as_ref().unwrap_or(&self.from);
        let fixed = match self.within {
            Within::Major | Within::All => 0,
            Within::Minor => 1,
            Within::Patch => 2,
        };
        if version.parts[..fixed] != reference.parts[..fixed] {
            return Err(Reason::Within);
        }
        if self.same_suffix && version.prerelease != reference.prerelease {
            return Err(Reason::Suffix);
        }
        Ok(())
    }
}
