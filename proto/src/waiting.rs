//! The gates of triggers: conditions that keep a rollout from starting.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
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
        /// No set of the triggers before has lasted long enough.
        Upstream = "upstream",
        /// The heads changed less than `settle` ago.
        Settle = "settle",
        /// A client made the image up in order to delete the tag: the last rollout stays.
        Tombstone = "tombstone",
        /// A freeze is in force.
        Freeze = "freeze",
        /// The trigger is pinned to other images.
        Pin = "pin",
        /// Something unexpected happened, and a person must look at it.
        Fault = "fault",
        /// Outside the window of the trigger.
        Window = "window",
        /// The last rollout began less than `gap` ago.
        Gap = "gap",
        /// Another trigger of the group is rolled out.
        Group = "group",
        /// Too few people have approved the images.
        Approval = "approval",
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

/// A closed gate of a recorded rollout, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedGate {
    /// The gate.
    pub gate: Gate,
    /// The reason, for people.
    pub why: String,
    /// Time since which the gate is closed for this rollout.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: OffsetDateTime,
    /// Time at which the gate opens by itself, if known.
    #[serde(with = "crate::instant::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub opens_at: Option<OffsetDateTime>,
}

impl ClosedGate {
    /// Reads a list of closed gates. A planner of a later version may know other gates, which are
    /// left out.
    #[must_use]
    pub fn known(list: Value) -> Vec<ClosedGate> {
        let Value::Array(list) = list else {
            return Vec::new();
        };
        let known = |gate| serde_json::from_value(gate).ok();
        list.into_iter().filter_map(known).collect()
    }

    /// Reads a list as [`ClosedGate::known`].
    pub(crate) fn deserialize_known<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<ClosedGate>, D::Error> {
        Value::deserialize(deserializer).map(ClosedGate::known)
    }
}
