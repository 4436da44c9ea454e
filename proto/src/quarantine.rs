//! The quarantine: authentic bodies that Tagtrail could not interpret, kept for people.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::Digest;

/// A body as received, with the reason for its quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantined {
    /// Name of the source that sent the body.
    pub source: String,
    /// Kind of the source.
    pub kind: String,
    /// Reason for the quarantine.
    pub reason: String,
    /// Time of receipt.
    #[serde(with = "crate::instant")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub received_at: OffsetDateTime,
    /// `Content-Type` of the body.
    pub content_type: Option<String>,
    /// Headers that complete the body, by their names in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Length of the whole body in bytes.
    pub length: u64,
    /// SHA-256 of the whole body.
    pub sha256: Digest,
    /// True if `body` holds only the start of the body.
    pub truncated: bool,
    /// The first 512 KiB of the body, in Base64.
    pub body: String,
}

impl Quarantined {
    /// The `kind` of a message from the bus, whose body is a push event.
    pub const PUSH: &'static str = "push";

    /// Most bytes kept of a body: in Base64 and with the other fields, the message stays below the
    /// default limit of NATS (1 MiB).
    pub const KEPT: usize = 512 * 1024;

    /// Returns the message that keeps a body, cut to [`Quarantined::KEPT`] bytes.
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
