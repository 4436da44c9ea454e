//! What reading manifests counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Everything that is counted.
const OUTCOMES: [&str; 8] = [
    "read",
    "known",
    "not_configured",
    "absent",
    "busy",
    "failed",
    "refused",
    "given_up",
];

/// Its metrics.
#[derive(Debug)]
pub(crate) struct Metrics(Family<ManifestLabels, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ManifestLabels {
    outcome: &'static str,
}

impl Metrics {
    pub(crate) fn new(metrics: &tagtrail_daemon::Metrics) -> Metrics {
        let all: Family<ManifestLabels, Counter> = metrics.add(
            "resolver_manifests",
            "Manifests of revisions, by what came of each attempt to have one read",
            Family::default(),
        );
        // There from the start, so that the first one is an increase.
        for outcome in OUTCOMES {
            drop(all.get_or_create(&ManifestLabels { outcome }));
        }
        Metrics(all)
    }

    pub(crate) fn count(&self, outcome: &'static str) {
        debug_assert!(OUTCOMES.contains(&outcome), "{outcome}");
        self.0.get_or_create(&ManifestLabels { outcome }).inc();
    }
}
