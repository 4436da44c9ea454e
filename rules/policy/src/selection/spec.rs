//! The settings of a policy, as they are written.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tagtrail_proto::Tag;

use super::duration::{days, written};
use super::range::Prereleases;
use super::semver::Parse;

/// An image of a trigger as written: a reference, or a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchedImage {
    /// An exact tag: `registry.example.com/shop/web:latest`.
    Reference(String),
    /// A policy over the tags of a repository.
    Policy(Box<ImagePolicy>),
}

impl From<String> for WatchedImage {
    fn from(text: String) -> WatchedImage {
        WatchedImage::Reference(text)
    }
}

impl<'de> Deserialize<'de> for WatchedImage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WatchedImage, D::Error> {
        deserializer.deserialize_any(TextOr(PhantomData::<(WatchedImage, ImagePolicy)>))
    }
}

impl From<ImagePolicy> for WatchedImage {
    fn from(policy: ImagePolicy) -> WatchedImage {
        WatchedImage::Policy(Box::new(policy))
    }
}

/// A rule that selects one tag of a repository. Exactly one key of `tag`, `semver`, `calver`,
/// `numeric`, `alphabetical`, `order` and `newest` orders the tags; the other keys are filters, and
/// the effect of a change of the selected tag.
///
/// As JSON, the settings that are not written are left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePolicy {
    /// The repository with its registry: `registry.example.com/shop/api`.
    pub repository: String,
    /// This tag alone; its digest is followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The highest version of a range.
    #[serde(
        default,
        deserialize_with = "text_or_table",
        skip_serializing_if = "Option::is_none"
    )]
    pub semver: Option<SemverRule>,
    /// The latest calendar version of a form of calver.org.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calver: Option<String>,
    /// The highest or the lowest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numeric: Option<Numeric>,
    /// The last or the first text by bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alphabetical: Option<Alphabetical>,
    /// Named groups of `match`, from the most important one on: `"n"`, `"v:semver"`, `"t:text"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Vec<String>>,
    /// The tag that was pushed or built last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<Newest>,
    /// A regular expression that is found in the tag (RE2 syntax).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#match: Option<String>,
    /// The text that is ordered in place of the tag: `$1` and `${name}` are groups of `match`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extract: Option<String>,
    /// A pattern over the whole tag: `* ? [] {}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub glob: Option<String>,
    /// Patterns over whole tags that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Regular expressions that are found in tags that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore_match: Vec<String>,
    /// Platforms that the image must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Platforms>,
    /// Labels that the image must have, each with one of these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, OneOrMany>,
    /// Annotations that the manifest must have, each with one of these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, OneOrMany>,
    /// The time that a tag must have had its digest, before it is selected. At most 365 days.
    #[serde(
        default,
        deserialize_with = "days::<365, _>",
        serialize_with = "written",
        skip_serializing_if = "Option::is_none"
    )]
    pub min_age: Option<Duration>,
    /// The consequence if the selected tag is deleted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_removed: OnRemoved,
    /// The consequence if the selected tag has another digest.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_moved: OnMoved,
    /// The time that a tag is waited for while its manifest is read. 5 minutes; at most a day.
    #[serde(
        default,
        deserialize_with = "days::<1, _>",
        serialize_with = "written",
        skip_serializing_if = "Option::is_none"
    )]
    pub metadata_wait: Option<Duration>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl ImagePolicy {
    /// Returns the tag of a policy that names a tag and nothing else.
    #[must_use]
    pub fn only_tag(&self) -> Option<Tag> {
        let tag = ImagePolicy {
            repository: self.repository.clone(),
            tag: self.tag.clone(),
            ..ImagePolicy::default()
        };
        (*self == tag).then(|| self.tag.as_ref()?.parse().ok())?
    }

    /// Returns the setting of the order, such as `semver`.
    #[must_use]
    pub fn order_word(&self) -> Option<&'static str> {
        let orders = [
            ("tag", self.tag.is_some()),
            ("semver", self.semver.is_some()),
            ("calver", self.calver.is_some()),
            ("numeric", self.numeric.is_some()),
            ("alphabetical", self.alphabetical.is_some()),
            ("order", self.order.is_some()),
            ("newest", self.newest.is_some()),
        ];
        let set = orders.into_iter().find(|(_, set)| *set);
        set.map(|(name, _)| name)
    }

    /// Returns the order in a few words, such as `semver ^1.4`.
    #[must_use]
    pub fn order_text(&self) -> String {
        let semver = self.semver.as_ref().map(SemverRule::text);
        let order = self.order.as_ref().map(|groups| groups.join(", "));
        let orders = [
            ("tag", self.tag.clone()),
            ("semver", semver),
            ("calver", self.calver.clone()),
            ("numeric", self.numeric.map(word)),
            ("alphabetical", self.alphabetical.map(word)),
            ("order", order),
            ("newest", self.newest.map(word)),
        ];
        let mut set = orders.into_iter();
        let first = set.find_map(|(name, value)| Some(format!("{name} {}", value?)));
        first.unwrap_or_default()
    }
}

impl SemverRule {
    fn text(&self) -> String {
        let within = self.within.map(|within| format!("within {}", word(within)));
        let suffix = self.suffix.map(|_| "with the same suffix".to_owned());
        let parts = [self.range.clone(), within, suffix];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// Returns a word of the settings: each variant is one word.
fn word(variant: impl fmt::Debug) -> String {
    format!("{variant:?}").to_lowercase()
}

/// The highest semantic version. A string is the range alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SemverRule {
    /// A range as Masterminds/semver reads it. Without one, `within` or `suffix` decide.
    pub range: Option<String>,
    /// The spellings that count as a version.
    pub parse: Parse,
    /// The prereleases that count. Without the key, those of the range; without a range those of
    /// `suffix`, all with `within = "all"`, else none.
    pub prereleases: Option<Prereleases>,
    /// The part of the selected version that may rise.
    pub within: Option<Within>,
    /// The tag that stands for the selected one before the first selection: the one that runs.
    pub from: Option<String>,
    /// The prerelease that a version must have.
    pub suffix: Option<Suffix>,
}

impl From<String> for SemverRule {
    fn from(range: String) -> SemverRule {
        SemverRule {
            range: Some(range),
            ..SemverRule::default()
        }
    }
}

/// Declares words of the settings.
macro_rules! words {
    ($(#[$about:meta])* $name:ident $style:literal { $($(#[$word:meta])* $variant:ident,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
        #[serde(rename_all = $style)]
        pub enum $name { $($(#[$word])* $variant,)+ }
    };
}

words! {
    /// The part of the selected version that may rise.
    Within "lowercase" {
        /// Any.
        Major,
        /// Minor and patch.
        Minor,
        /// The patch.
        Patch,
        /// Any, prereleases included.
        All,
    }
}

words! {
    /// The prerelease that a version must have.
    Suffix "lowercase" {
        /// That of the selected version.
        Same,
    }
}

words! {
    /// The number that is selected.
    Numeric "lowercase" {
        /// The highest.
        Highest,
        /// The lowest.
        Lowest,
    }
}

words! {
    /// The text that is selected.
    Alphabetical "lowercase" {
        /// The last by bytes.
        Last,
        /// The first by bytes.
        First,
    }
}

words! {
    /// The time by which tags are ordered.
    Newest "lowercase" {
        /// The effective time of the push that gave the tag its digest.
        Pushed,
        /// The time of the build, by the author's clock.
        Created,
    }
}

words! {
    /// The consequence if the selected tag is deleted.
    #[derive(Default)]
    OnRemoved "kebab-case" {
        /// The running image stays until a higher tag comes.
        #[default]
        Keep,
        /// The next best tag is selected.
        FallBack,
        /// The trigger is held until a person releases it.
        Hold,
    }
}

words! {
    /// The consequence if the selected tag has another digest.
    #[derive(Default)]
    OnMoved "kebab-case" {
        /// The new digest is selected.
        #[default]
        Follow,
        /// The first digest stays.
        Keep,
        /// The trigger is held until a person releases it.
        Hold,
    }
}

/// Platforms that an image must have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "platforms are a list such as [\"linux/amd64\"], or { any = [..] } for one of them"
)]
pub enum Platforms {
    /// All of them.
    All(Vec<String>),
    /// One of them.
    Any(AnyPlatform),
}

/// Platforms of which an image must have one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AnyPlatform {
    /// The platforms.
    pub any: Vec<String>,
}

/// A value, or several of which one is needed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "a value is a string, or a list of strings for one of them"
)]
pub enum OneOrMany {
    /// This value.
    One(String),
    /// One of these values.
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn values(&self) -> &[String] {
        match self {
            OneOrMany::One(value) => std::slice::from_ref(value),
            OneOrMany::Many(values) => values,
        }
    }
}

/// Reads a string or a table. Unlike an untagged enum, an error within the table keeps its cause.
struct TextOr<T>(PhantomData<T>);

impl<'de, T: From<String> + From<M>, M: Deserialize<'de>> Visitor<'de> for TextOr<(T, M)> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a table")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok(T::from(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        M::deserialize(MapAccessDeserializer::new(map)).map(T::from)
    }
}

fn text_or_table<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SemverRule>, D::Error> {
    let visitor = TextOr(PhantomData::<(SemverRule, SemverRule)>);
    deserializer.deserialize_any(visitor).map(Some)
}
