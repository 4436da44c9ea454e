//! The metrics of reading manifests.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// All values of the label `outcome`.
const OUTCOMES: [&str; 9] = [
    "read",
    "known",
    "not_configured",
    "absent",
    "busy",
    "resting",
    "failed",
    "refused",
    "given_up",
];

/// The metrics of reading manifests.
#[derive(Debug)]
pub(crate) struct ManifestMetrics(Family<ManifestLabels, Counter>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ManifestLabels {
    outcome: &'static str,
}

impl ManifestMetrics {
    pub(crate) fn new(metrics: &tagtrail_daemon::Metrics) -> ManifestMetrics {
        let all: Family<ManifestLabels, Counter> = metrics.add(
            "resolver_manifests",
            "Attempts to read the manifest of a revision, by outcome",
            Family::default(),
        );
        // All series start at zero, so that alerts see the first increase.
        for outcome in OUTCOMES {
            drop(all.get_or_create(&ManifestLabels { outcome }));
        }
        ManifestMetrics(all)
    }

    pub(crate) fn count(&self, outcome: &'static str) {
        debug_assert!(OUTCOMES.contains(&outcome), "{outcome}");
        self.0.get_or_create(&ManifestLabels { outcome }).inc();
    }
}
