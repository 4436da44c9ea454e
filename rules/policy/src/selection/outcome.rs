//! The facts that a selection depends on, and its result.

use tagtrail_proto::{Digest, Tag};
use time::OffsetDateTime;

use super::key::Key;
use super::order::Times;
use super::reason::Reason;
use super::rule::Fit;

/// The present state of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagHead {
    /// The tag.
    pub tag: Tag,
    /// The digest of the tag; `None` if the tag is deleted.
    pub digest: Option<Digest>,
    /// The times that rules with `newest` compare.
    pub times: Times,
    /// The time at which the indexer recorded the revision.
    pub recorded_at: OffsetDateTime,
    /// True if a client made the image up in order to delete the tag.
    pub tombstone: bool,
    /// The answer of [`Rule::fit`](super::Rule::fit) about the manifest of the digest.
    pub fit: Fit,
}

/// The selection before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// The selected tag.
    pub tag: Tag,
    /// Its key at that time.
    pub key: Key,
    /// Its digest at that time.
    pub digest: Digest,
    /// True if the rule that made the selection has another
    /// [`Rule::canonical`](super::Rule::canonical).
    pub rule_changed: bool,
    /// True if a person released the trigger after the fault that [`Outcome::Hold`] names: then the
    /// new digest of a moved tag is followed, and a removed tag is kept.
    pub released: bool,
}

/// The selection, and the reasons against all other tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection<'a> {
    /// The result.
    pub outcome: Outcome<'a>,
    /// All other tags with their reasons: those that the rule takes first, the best one first.
    pub passed_over: Vec<PassedOver<'a>>,
    /// The time at which the outcome may change although nothing happens.
    pub again: Option<OffsetDateTime>,
}

/// A tag that is not selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver<'a> {
    /// The tag.
    pub tag: &'a Tag,
    /// The reason.
    pub reason: Reason,
}

/// The result of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// No tag can be selected, and none was selected by this rule.
    Nothing,
    /// The last selection stays. It is stored as a selection by the present rule.
    Keep(Kept<'a>),
    /// This tag is selected. It is stored with the present rule.
    Select {
        /// The tag with its digest.
        head: &'a TagHead,
        /// The key of the tag.
        key: Key,
        /// The difference from the last selection.
        change: Change,
    },
    /// The best tag waits for its manifest. Until then the last selection stays.
    Wait {
        /// The tag.
        tag: &'a Tag,
        /// The end of the wait.
        until: OffsetDateTime,
    },
    /// The trigger must be held until a person releases it.
    Hold(Fault),
}

/// The reason for which the last selection stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept<'a> {
    /// No selectable tag is above it.
    Best,
    /// The tag is removed, and no selectable tag is above it.
    Removed {
        /// The best of the tags below.
        next: Option<&'a Tag>,
    },
    /// The tag has another digest, which is not followed: by `on_moved`, or because it does not
    /// fit.
    Moved,
}

/// The difference between two selections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing was selected before.
    First,
    /// A higher tag.
    Higher,
    /// The same tag with another digest.
    Moved,
    /// A lower tag, because the selected one is removed.
    FallBack,
    /// Another tag, because a person changed the rule.
    Configuration {
        /// True if the new tag is below the old one in the order of the new rule.
        downgrade: bool,
    },
}

/// A change that a person must look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The selected tag is removed, and `on_removed` is `hold`.
    Removed,
    /// The selected tag has another digest, and `on_moved` is `hold`.
    Moved,
}
