//! From a body to messages for the bus: decodes the events of a source, and drops events outside
//! the source's repositories. Pure.

mod payload;

use std::cell::RefCell;

use crate::config::SourceRules;
use crate::publish::Outbound;
use crate::receive::attempts::Identity;
use crate::receive::pulls::Sighting;
use crate::source::{Context, Meaning};
use axum::http::HeaderMap;
use serde::Serialize;
use serde_json::Value;

/// Most reasons in the reply to a sender, or in a quarantined body.
const REASONS: usize = 10;

/// The outcome of the events of a body.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Pushes that are stored with a digest.
    pub accepted: usize,
    /// Pushes that are stored without a digest: the resolver asks the registry.
    pub unresolved: usize,
    /// Events that change no tag, or concern a repository outside the `repositories` of the source.
    pub ignored: usize,
    /// Malformed events; the body is in QUARANTINE.
    pub quarantined: usize,
    /// Accepted and unresolved events whose time could not be read, so that the time of receipt
    /// counts.
    #[serde(skip)]
    pub unread_times: usize,
    /// Reasons for the author of the sender.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl Receipt {
    /// Adds reasons, up to the limit.
    pub(crate) fn add(&mut self, reasons: Vec<String>) {
        self.reasons.extend(reasons);
        self.reasons.truncate(REASONS);
    }
}

/// The interpretation of a body.
pub(crate) struct Interpretation {
    pub(crate) messages: Vec<Outbound>,
    /// The reports of digests of tags, in the order of the body.
    pub(crate) sightings: Vec<Sighting>,
    /// The counts, and the reasons why events were ignored.
    pub(crate) receipt: Receipt,
    /// The reasons why events are malformed.
    pub(crate) malformed: Vec<String>,
    /// The reasons why times of events could not be read.
    pub(crate) unread_times: Vec<String>,
    /// The value that permits the sender to send here, if the body asked for permission.
    pub(crate) handshake: Option<Value>,
}

impl Interpretation {
    /// Interprets a body by the rules of the source. Mistakes in the body are part of the result.
    pub(crate) fn new(
        rules: &SourceRules,
        headers: &HeaderMap,
        body: &[u8],
        identity: Identity,
        partitions: u16,
    ) -> Interpretation {
        let ctx = Context {
            source: &rules.name,
            registry: rules.registry.as_ref(),
            names: &rules.names,
            received_at: identity.received_at,
            unread_times: RefCell::default(),
        };
        let decoded = payload::json(headers, body)
            .and_then(|json| (rules.options.decode)(headers, &json, &ctx));
        let events = decoded.unwrap_or_else(|malformed| {
            let explained = payload::explain(malformed, headers, body, rules.kind.name);
            vec![Meaning::Malformed(explained)]
        });
        let mut receipt = Receipt::default();
        let (mut messages, mut malformed, mut handshake) = (Vec::new(), Vec::new(), None);
        let mut sightings = Vec::new();
        for event in events {
            match event {
                Meaning::Push(push) | Meaning::Unresolved(push)
                    if !rules.may_report(&push.registry, &push.repository) =>
                {
                    receipt.ignored += 1;
                    receipt.reasons.push(format!(
                        "{} is not one of the `repositories` of this source",
                        push.repository
                    ));
                }
                Meaning::Push(push) => {
                    receipt.accepted += 1;
                    sightings.extend(rules.sighting(&push));
                    messages.push(Outbound::push(*push, partitions, identity.number));
                }
                Meaning::Unresolved(push) => {
                    receipt.unresolved += 1;
                    sightings.extend(rules.sighting(&push));
                    messages.push(Outbound::push(*push, partitions, identity.number));
                }
                Meaning::Observed(pull) => {
                    // A pull changes no tag, so it counts as ignored.
                    receipt.ignored += 1;
                    if rules.observes && rules.may_report(&pull.registry, &pull.repository) {
                        sightings.push(Sighting::Pulled(pull));
                    }
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
        let unread_times = ctx.unread_times.into_inner();
        receipt.unread_times = unread_times.len();
        Interpretation {
            unread_times: unread_times.iter().map(ToString::to_string).collect(),
            messages,
            sightings,
            receipt,
            malformed,
            handshake,
        }
    }
}
