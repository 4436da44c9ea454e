//! What the resolver counts.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tagtrail_daemon::metrics::seconds;
use tagtrail_proto::Origin;
use tagtrail_registry::{AskError, Descriptor};

/// Its metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    questions: Family<Question, Counter>,
    seconds: Histogram,
    comparisons: Family<Question, Counter>,
    found: Family<Found, Counter>,
    walk: Family<Walk, Gauge<f64, AtomicU64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Found {
    registry: String,
    origin: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Walk {
    registry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Question {
    /// A configured one; empty: it may not be asked.
    registry: String,
    outcome: &'static str,
}

impl Metrics {
    pub(crate) fn new(metrics: &tagtrail_daemon::Metrics) -> Metrics {
        Metrics {
            questions: metrics.add(
                "resolver_questions",
                "Questions to registries (empty: not configured, not asked), by how they ended",
                Family::default(),
            ),
            seconds: metrics.add_seconds(
                "resolver_question",
                "Time that a registry takes to answer, tokens included",
                seconds(),
            ),
            comparisons: metrics.add(
                "resolver_comparisons",
                "Questions to registries when they are compared with history, by how they ended",
                Family::default(),
            ),
            found: metrics.add(
                "resolver_found",
                "Changes that no event told, found by comparing, by origin",
                Family::default(),
            ),
            walk: metrics.add(
                "resolver_walk_seconds",
                "Time that the last comparison of the whole registry took",
                Family::default(),
            ),
        }
    }

    /// A registry was asked.
    pub(crate) fn asked(
        &self,
        registry: &str,
        answer: &Result<Option<Descriptor>, AskError>,
        seconds: f64,
    ) {
        let outcome = match answer {
            Ok(None) => "absent",
            answer => outcome(answer),
        };
        self.count(registry, outcome);
        self.seconds.observe(seconds);
    }

    /// A registry will be compared: what is counted of it is there from the start, so that alerts see it rise.
    pub(crate) fn compares(&self, registry: &str) {
        let registry = registry.to_owned();
        for origin in [Origin::Reconciled, Origin::Imported] {
            let (registry, origin) = (registry.clone(), origin.as_str());
            drop(self.found.get_or_create(&Found { registry, origin }));
        }
        for outcome in ["answered", "failed", "refused"] {
            let registry = registry.clone();
            let question = Question { registry, outcome };
            drop(self.comparisons.get_or_create(&question));
        }
    }

    /// A registry was asked while it is compared.
    pub(crate) fn compared<T>(&self, registry: &str, answer: &Result<T, AskError>) {
        let (registry, outcome) = (registry.to_owned(), outcome(answer));
        self.comparisons
            .get_or_create(&Question { registry, outcome })
            .inc();
    }

    /// Something that no event told became a fact.
    pub(crate) fn found(&self, registry: &str, origin: Origin) {
        let (registry, origin) = (registry.to_owned(), origin.as_str());
        self.found.get_or_create(&Found { registry, origin }).inc();
    }

    /// A whole registry was compared.
    pub(crate) fn walked(&self, registry: &str, took: Duration) {
        let registry = registry.to_owned();
        self.walk
            .get_or_create(&Walk { registry })
            .set(took.as_secs_f64());
    }

    /// A question could not be asked at all.
    pub(crate) fn count(&self, registry: &str, outcome: &'static str) {
        let registry = registry.to_owned();
        self.questions
            .get_or_create(&Question { registry, outcome })
            .inc();
    }
}

fn outcome<T>(answer: &Result<T, AskError>) -> &'static str {
    match answer {
        Ok(_) => "answered",
        Err(AskError::Failed(_)) => "failed",
        Err(AskError::Busy { .. }) => "busy",
        Err(AskError::Resting { .. }) => "resting",
        Err(AskError::Refused(_)) => "refused",
    }
}
