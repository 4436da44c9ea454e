//! The metrics of messages about rollouts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// The metrics of the entries of `[[notify]]`.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    sent: Family<Labels, Counter>,
    dropped: Family<Labels, Counter>,
    failing: Family<Labels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    entry: String,
}

impl Labels {
    fn of(entry: &str) -> Labels {
        let entry = entry.to_owned();
        Labels { entry }
    }
}

impl Metrics {
    pub(crate) fn new(metrics: &tagtrail_daemon::Metrics) -> Metrics {
        Metrics {
            sent: metrics.add(
                "notify_sent",
                "Messages that a receiver of [[notify]] has accepted, by entry",
                Family::default(),
            ),
            dropped: metrics.add(
                "notify_dropped",
                "Messages that were dropped: too old, refused repeatedly or not readable, by entry",
                Family::default(),
            ),
            failing: metrics.add(
                "notify_failing",
                "1 while the receiver of an entry of [[notify]] does not accept messages, by entry",
                Family::default(),
            ),
        }
    }

    /// Creates the series of an entry, so that alerts see the first increase.
    pub(super) fn expect(&self, entry: &str) {
        let labels = Labels::of(entry);
        drop(self.sent.get_or_create(&labels));
        drop(self.dropped.get_or_create(&labels));
        self.failing.get_or_create(&labels).set(0);
    }

    /// Counts a message that its receiver accepted.
    pub(super) fn sent(&self, entry: &str) {
        self.sent.get_or_create(&Labels::of(entry)).inc();
    }

    /// Counts a message that was dropped.
    pub(super) fn dropped(&self, entry: &str) {
        self.dropped.get_or_create(&Labels::of(entry)).inc();
    }

    /// Records whether the receiver of an entry accepts messages.
    pub(super) fn failing(&self, entry: &str, failing: bool) {
        let labels = Labels::of(entry);
        self.failing.get_or_create(&labels).set(failing.into());
    }
}
