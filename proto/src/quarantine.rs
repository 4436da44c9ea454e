//! An authentic body that could not be understood, kept whole for people.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::Digest;

/// A body as it came, with the reason why it was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantined {
    /// Name of the source that it came by.
    pub source: String,
    /// Kind of that source.
    pub kind: String,
    /// What was wrong with it.
    pub reason: String,
    /// When it came.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub received_at: OffsetDateTime,
    /// Its `Content-Type`.
    pub content_type: Option<String>,
    /// Those of its headers that say what the body does not, by their names in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Length of the whole body in bytes.
    pub length: u64,
    /// SHA-256 of the whole body.
    pub sha256: Digest,
    /// Whether `body` holds less than the whole.
    pub truncated: bool,
    /// The first 512 KiB of the body, in Base64.
    pub body: String,
}

impl Quarantined {
    /// `kind` of a message of the bus itself: the body is a push event.
    pub const PUSH: &'static str = "push";

    /// Bytes of a body that are kept: with Base64 and the rest it stays below what NATS accepts by default (1 MiB).
    pub const KEPT: usize = 512 * 1024;

    /// Keeps a body.
    #[must_use]
    pub fn new(
        source: &str,
        kind: &str,
        reason: String,
        received_at: OffsetDateTime,
        content_type: Option<String>,
        body: &[u8],
    ) -> Quarantined {
        let kept = body.get(..Self::KEPT).unwrap_or(body);
        Quarantined {
            source: source.to_owned(),
            kind: kind.to_owned(),
            reason,
            received_at,
            content_type,
            headers: BTreeMap::new(),
            length: body.len() as u64,
            sha256: Digest::sha256_of(body),
            truncated: kept.len() < body.len(),
            body: STANDARD.encode(kept),
        }
    }
}
