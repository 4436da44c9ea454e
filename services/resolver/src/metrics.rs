//! What the resolver counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tagtrail_daemon::metrics::seconds;
use tagtrail_registry::{AskError, Descriptor};

/// Its metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    questions: Family<Question, Counter>,
    seconds: Histogram,
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
            Ok(Some(_)) => "answered",
            Ok(None) => "absent",
            Err(AskError::Failed(_)) => "failed",
            Err(AskError::Busy { .. }) => "busy",
            Err(AskError::Refused(_)) => "refused",
        };
        self.count(registry, outcome);
        self.seconds.observe(seconds);
    }

    /// A question could not be asked at all.
    pub(crate) fn count(&self, registry: &str, outcome: &'static str) {
        let registry = registry.to_owned();
        self.questions
            .get_or_create(&Question { registry, outcome })
            .inc();
    }
}
