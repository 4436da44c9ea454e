//! The request of the api to a gateway to replay a quarantined body, and the answer.

use serde::{Deserialize, Serialize};

/// A request to replay a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// The number of the entry in QUARANTINE. The gateway reads the body there: a request can't
    /// bring one along.
    pub number: u64,
}

/// The answer to a [`ReplayRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayAnswer {
    /// The body was interpreted, and its pushes are stored.
    Replayed(Replayed),
    /// QUARANTINE holds no entry with this number.
    Unknown,
    /// The body can't be replayed: the reason, for people.
    Refused(String),
}

/// The result of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Replayed {
    /// Pushes that are stored with a digest. Those that were stored before are dropped as
    /// duplicates.
    pub accepted: u64,
    /// Pushes that are stored without a digest: the resolver asks the registry.
    pub unresolved: u64,
    /// Events that change no tag, or concern a repository that the source may not report.
    pub ignored: u64,
}

impl ReplayRequest {
    /// The subject of the request.
    pub const SUBJECT: &'static str = "tagtrail.replay";
}
