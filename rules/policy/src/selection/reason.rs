//! The reasons for which a tag is not selected.

use std::fmt;

use tagtrail_proto::Tag;
use time::OffsetDateTime;

/// The reason for which a tag is not selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The policy names another tag.
    OtherTag,
    /// The tag holds a signature or other content about a digest.
    Signature,
    /// `glob` does not match.
    Glob,
    /// This glob of `ignore` matches.
    Ignored(String),
    /// This expression of `ignore_match` matches.
    IgnoredMatch(String),
    /// `match` is not found in the tag.
    NoMatch,
    /// The tag, or the extracted text, is no version of this spelling.
    NoVersion(String),
    /// The version is a prerelease, and the rule takes none.
    Prerelease,
    /// The range does not take the version.
    OutOfRange,
    /// The version is not above `from`.
    NotNewer,
    /// `within` does not reach the version.
    Within,
    /// The version has another suffix.
    Suffix,
    /// The tag, or the extracted text, is no calendar version of the form.
    NoCalver(String),
    /// The tag, or the extracted text, is no number.
    NoNumber(String),
    /// This group of `order` is missing, or has another type.
    Group(String),
    /// The tag is deleted.
    Deleted,
    /// A client made the image up in order to delete the tag.
    Tombstone,
    /// The image lacks this platform, or all of these.
    Platform(String),
    /// This label is missing or has another value.
    Label(String),
    /// This annotation is missing or has another value.
    Annotation(String),
    /// The manifest is not read yet.
    Unread {
        /// The time until which the tag is waited for, unless that time is over.
        until: Option<OffsetDateTime>,
    },
    /// The manifest has no usable time of the build, or is not read yet.
    NoCreated,
    /// Another tag has the same time of the build, so neither is the newest.
    SharedCreated(Tag),
    /// The tag has its digest for less than `min_age`.
    TooYoung {
        /// The time at which the digest was recorded.
        since: OffsetDateTime,
        /// The time at which the tag is old enough.
        opens_at: OffsetDateTime,
    },
    /// This tag is the better one.
    Lower(Tag),
    /// The tag is below this selected tag, and automation never goes down.
    BelowSelection(Tag),
    /// A better tag is waited for.
    Waiting(Tag),
    /// The trigger is held, because the selected tag was removed or has moved.
    Held,
}

impl Reason {
    /// Returns the name of the reason, for the API.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Reason::OtherTag => "other_tag",
            Reason::Signature => "signature",
            Reason::Glob => "glob",
            Reason::Ignored(_) => "ignore",
            Reason::IgnoredMatch(_) => "ignore_match",
            Reason::NoMatch => "match",
            Reason::NoVersion(_) => "no_version",
            Reason::Prerelease => "prerelease",
            Reason::OutOfRange => "range",
            Reason::NotNewer => "from",
            Reason::Within => "within",
            Reason::Suffix => "suffix",
            Reason::NoCalver(_) => "calver",
            Reason::NoNumber(_) => "numeric",
            Reason::Group(_) => "order",
            Reason::Deleted => "deleted",
            Reason::Tombstone => "tombstone",
            Reason::Platform(_) => "platforms",
            Reason::Label(_) => "labels",
            Reason::Annotation(_) => "annotations",
            Reason::Unread { .. } => "metadata_wait",
            Reason::NoCreated => "no_created",
            Reason::SharedCreated(_) => "shared_created",
            Reason::TooYoung { .. } => "min_age",
            Reason::Lower(_) => "lower",
            Reason::BelowSelection(_) => "below_selection",
            Reason::Waiting(_) => "waiting",
            Reason::Held => "held",
        }
    }
}

impl std::error::Error for Reason {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::OtherTag => f.write_str("the policy names another tag"),
            Reason::Signature => f.write_str("the tag holds a signature, not an image"),
            Reason::Glob => f.write_str("`glob` does not match"),
            Reason::Ignored(glob) => write!(f, "{glob:?} of `ignore` matches"),
            Reason::IgnoredMatch(pattern) => write!(f, "{pattern:?} of `ignore_match` matches"),
            Reason::NoMatch => f.write_str("`match` is not found in the tag"),
            Reason::NoVersion(text) => write!(f, "{text:?} is no version"),
            Reason::Prerelease => f.write_str("the rule takes no prereleases"),
            Reason::OutOfRange => f.write_str("the version is outside of the range"),
            Reason::NotNewer => f.write_str("the version is not above `from`"),
            Reason::Within => f.write_str("the version is beyond `within`"),
            Reason::Suffix => f.write_str("the version has another suffix than the selected one"),
            Reason::NoCalver(text) => write!(f, "{text:?} is no calendar version of this form"),
            Reason::NoNumber(text) => write!(f, "{text:?} is no number"),
            Reason::Group(name) => write!(f, "the group {name:?} of `match` has no such value"),
            Reason::Deleted => f.write_str("the tag is deleted"),
            Reason::Tombstone => {
                f.write_str("a client made this image up in order to delete the tag")
            }
            Reason::Platform(missing) => write!(f, "the image has no platform {missing}"),
            Reason::Label(key) => write!(f, "the label {key:?} is missing or has another value"),
            Reason::Annotation(key) => {
                write!(f, "the annotation {key:?} is missing or has another value")
            }
            Reason::Unread { until: Some(_) } => f.write_str("the manifest is being read"),
            Reason::Unread { until: None } => {
                f.write_str("the manifest could not be read within `metadata_wait`")
            }
            Reason::NoCreated => f.write_str("the manifest has no usable time of the build"),
            Reason::SharedCreated(tag) => write!(
                f,
                "{tag} has the same time of the build (a reproducible build); use newest = \"pushed\""
            ),
            Reason::TooYoung { .. } => {
                f.write_str("the tag has its digest for less than `min_age`")
            }
            Reason::Lower(tag) => write!(f, "{tag} is preferred"),
            Reason::BelowSelection(tag) => write!(
                f,
                "the tag is below the selected {tag}, and automation never selects a lower one"
            ),
            Reason::Waiting(tag) => write!(f, "{tag} is preferred, and its manifest is being read"),
            Reason::Held => f.write_str("the trigger is held until it is released"),
        }
    }
}
