//! The metrics of the resolver.

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
use time::OffsetDateTime;

use crate::postponed::Work;

/// All outcomes of a request to a registry.
const OUTCOMES: [&str; 5] = ["answered", "failed", "busy", "resting", "refused"];

/// The metrics of asking and reconciling.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    questions: Family<QuestionLabels, Counter>,
    seconds: Histogram,
    observations: Family<OutcomeLabels, Counter>,
    reconcile_requests: Family<QuestionLabels, Counter>,
    reconcile_changes: Family<ReconcileLabels, Counter>,
    reconcile_seconds: Family<RegistryLabels, Gauge<f64, AtomicU64>>,
    reconciled_at: Family<RegistryLabels, Gauge>,
    postponed: Family<PostponedLabels, Gauge>,
    unacked: Family<WorkLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    registry: String,
    origin: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegistryLabels {
    registry: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PostponedLabels {
    registry: String,
    work: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkLabels {
    work: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuestionLabels {
    /// A configured registry, or empty.
    registry: String,
    outcome: &'static str,
}

impl Metrics {
    pub(crate) fn new(metrics: &tagtrail_daemon::Metrics) -> Metrics {
        let observations: Family<OutcomeLabels, Counter> = metrics.add(
            "resolver_observations",
            "Digests that pulls reported: as_known in history, asked at the registry, or dropped (not_configured, no_database)",
            Family::default(),
        );
        // The series exist from the start, so that the first observation shows as an increase.
        for outcome in ["as_known", "asked", "not_configured", "no_database"] {
            drop(observations.get_or_create(&OutcomeLabels { outcome }));
        }
        let all = Metrics {
            questions: metrics.add(
                "resolver_questions",
                "Questions to registries (empty: not configured, so not asked), by outcome",
                Family::default(),
            ),
            seconds: metrics.add_seconds(
                "resolver_question",
                "Time that a registry takes to answer, tokens included",
                seconds(),
            ),
            observations,
            reconcile_requests: metrics.add(
                "resolver_reconcile_requests",
                "Requests to registries while they are compared with history, by outcome",
                Family::default(),
            ),
            reconcile_changes: metrics.add(
                "resolver_reconcile_changes",
                "Changes without an event, found by comparing a registry with history, by origin",
                Family::default(),
            ),
            reconcile_seconds: metrics.add(
                "resolver_reconcile_seconds",
                "Duration of the last comparison of the whole registry with history",
                Family::default(),
            ),
            reconciled_at: metrics.add(
                "resolver_reconciled_timestamp_seconds",
                "End of the last comparison of the whole registry with history, also if requests failed, in seconds since 1970",
                Family::default(),
            ),
            postponed: metrics.add(
                "resolver_postponed",
                "Questions and manifests that wait in Postgres for their registry",
                Family::default(),
            ),
            unacked: metrics.add(
                "resolver_unacked",
                "Messages delivered without an ack yet, to all instances; NATS delivers at most 20000",
                Family::default(),
            ),
        };
        drop(all.question("", "not_configured"));
        all
    }

    /// Counts a question to a registry, with the time of the answer.
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

    /// Creates the series of a registry with the value zero, so that alerts see the first increase.
    pub(crate) fn expect_registry(&self, registry: &str) {
        for outcome in OUTCOMES.into_iter().chain(["absent"]) {
            drop(self.question(registry, outcome));
        }
    }

    /// As [`Metrics::expect_registry`], for a registry that is compared with history.
    pub(crate) fn expect_reconciling(&self, registry: &str) {
        let registry = registry.to_owned();
        for origin in [Origin::Reconciled, Origin::Imported] {
            let (registry, origin) = (registry.clone(), origin.as_str());
            drop(
                self.reconcile_changes
                    .get_or_create(&ReconcileLabels { registry, origin }),
            );
        }
        for outcome in OUTCOMES {
            let registry = registry.clone();
            let question = QuestionLabels { registry, outcome };
            drop(self.reconcile_requests.get_or_create(&question));
        }
    }

    /// Counts a request of the reconciler.
    pub(crate) fn reconcile_request<T>(&self, registry: &str, answer: &Result<T, AskError>) {
        let (registry, outcome) = (registry.to_owned(), outcome(answer));
        self.reconcile_requests
            .get_or_create(&QuestionLabels { registry, outcome })
            .inc();
    }

    /// Counts a change without an event.
    pub(crate) fn reconcile_change(&self, registry: &str, origin: Origin) {
        let (registry, origin) = (registry.to_owned(), origin.as_str());
        self.reconcile_changes
            .get_or_create(&ReconcileLabels { registry, origin })
            .inc();
    }

    /// Records the end of a pass over a whole registry, now, and its duration.
    pub(crate) fn reconciled(&self, registry: &str, took: Duration) {
        let registry = registry.to_owned();
        let labels = RegistryLabels { registry };
        self.reconcile_seconds
            .get_or_create(&labels)
            .set(took.as_secs_f64());
        let now = OffsetDateTime::now_utc().unix_timestamp();
        self.reconciled_at.get_or_create(&labels).set(now);
    }

    /// Records the number of rows that wait for a registry.
    pub(crate) fn postponed(&self, registry: &str, work: Work, rows: usize) {
        let (registry, work) = (registry.to_owned(), work.as_str());
        self.postponed
            .get_or_create(&PostponedLabels { registry, work })
            .set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    /// Records the number of messages without an ack.
    pub(crate) fn unacked(&self, work: Work, messages: usize) {
        let work = work.as_str();
        self.unacked
            .get_or_create(&WorkLabels { work })
            .set(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// Counts observations with this outcome.
    pub(crate) fn observed(&self, outcome: &'static str, count: usize) {
        self.observations
            .get_or_create(&OutcomeLabels { outcome })
            .inc_by(count as u64);
    }

    /// Counts a question with this outcome.
    pub(crate) fn count(&self, registry: &str, outcome: &'static str) {
        self.question(registry, outcome).inc();
    }

    fn question(&self, registry: &str, outcome: &'static str) -> Counter {
        let registry = registry.to_owned();
        let question = QuestionLabels { registry, outcome };
        self.questions.get_or_create_owned(&question)
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
