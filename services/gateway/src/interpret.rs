//! From a body to messages for the bus: what its source means, and whether it may say it. Pure.

use axum::http::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use crate::config::SourceRules;
use crate::publish::Outbound;
use crate::source::{Context, Meaning};

/// Most reasons that an answer, or a quarantined body, lists.
const REASONS: usize = 10;

/// What became of the events of a body.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Facts that are stored.
    pub accepted: usize,
    /// Pushes whose digest will be asked for.
    pub unresolved: usize,
    /// Of no interest, or not for this source to say.
    pub ignored: usize,
    /// Not understood; the body is in QUARANTINE.
    pub quarantined: usize,
    /// What was wrong, for whoever wrote the sender.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl Receipt {
    /// Adds reasons, up to what anybody reads.
    pub(crate) fn add(&mut self, reasons: Vec<String>) {
        self.reasons.extend(reasons);
        self.reasons.truncate(REASONS);
    }
}

/// What a body means.
pub(crate) struct Interpretation {
    pub(crate) messages: Vec<Outbound>,
    /// Its reasons are about what the source may not say.
    pub(crate) receipt: Receipt,
    /// What was wrong with events that were not understood.
    pub(crate) malformed: Vec<String>,
    /// What the sender wants to hear before it sends anything.
    pub(crate) handshake: Option<Value>,
}

impl Interpretation {
    /// Reads a body that `rules` sent. What is wrong with it is among the results.
    pub(crate) fn new(
        rules: &SourceRules,
        headers: &HeaderMap,
        body: &[u8],
        received_at: OffsetDateTime,
        partitions: u16,
    ) -> Interpretation {
        let ctx = Context {
            source: &rules.name,
            registry: rules.registry.as_ref(),
            received_at,
        };
        let events = (rules.options.decode)(headers, body, &ctx)
            .unwrap_or_else(|malformed| vec![Meaning::Malformed(malformed)]);
        let mut receipt = Receipt::default();
        let (mut messages, mut malformed, mut handshake) = (Vec::new(), Vec::new(), None);
        for event in events {
            match event {
                Meaning::Push(push) | Meaning::Unresolved(push)
                    if !rules.speaks_for(&push.repository) =>
                {
                    receipt.ignored += 1;
                    receipt.reasons.push(format!(
                        "{} is not one of the `repositories` of this source",
                        push.repository
                    ));
                }
                Meaning::Push(push) => {
                    receipt.accepted += 1;
                    messages.push(Outbound::push(*push, partitions));
                }
                Meaning::Unresolved(push) => {
                    receipt.unresolved += 1;
                    messages.push(Outbound::push(*push, partitions));
                }
                Meaning::Ignored => receipt.ignored += 1,
                Meaning::Handshake(answer) => handshake = Some(answer),
                Meaning::Malformed(reason) => {
                    receipt.quarantined += 1;
                    malformed.push(reason.to_string());
                }
            }
        }
        malformed.truncate(REASONS);
        Interpretation {
            messages,
            receipt,
            malformed,
            handshake,
        }
    }
}
