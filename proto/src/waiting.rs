//! The gates of triggers: conditions that keep a rollout from starting.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::event::words;
use crate::{Image, Registry};

words! {
    /// A condition that keeps a rollout from starting.
    Gate {
        /// A push without a time of its own returned the tag to an older digest: the registry is
        /// asked whether the tag has this digest.
        Recheck = "recheck",
        /// The tag never had this digest, and the manifest of the digest is not read yet.
        Manifest = "manifest",
        /// The heads changed less than `settle` ago.
        Settle = "settle",
        /// A client made the image up in order to delete the tag: the last rollout stays.
        Tombstone = "tombstone",
    }
}

/// A closed gate of a trigger, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// The gate.
    pub gate: Gate,
    /// The image that closes the gate.
    pub image: Image,
    /// The registry of the image.
    pub registry: Registry,
    /// The reason, for people.
    pub why: String,
    /// Time since which the gate is closed.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: OffsetDateTime,
    /// Time at which the gate opens by itself, if known.
    #[serde(with = "crate::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub opens_at: Option<OffsetDateTime>,
}
