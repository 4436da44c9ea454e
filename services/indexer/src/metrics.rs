//! The metrics of the indexer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tagtrail_bus::topology::Stream;
use tagtrail_daemon::metrics::seconds;
use tagtrail_history::recorded::Recorded;
use tagtrail_proto::Kind;
use time::OffsetDateTime;

use crate::received::ReceivedPush;

/// The metrics of the indexer.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pushes: Counter,
    revisions: Family<KindLabels, Counter>,
    published: Counter,
    /// Revisions that REVISIONS had lost.
    pub(crate) forgotten: Counter,
    /// Revisions that Postgres had lost.
    pub(crate) adopted: Counter,
    /// New manifests.
    pub(crate) manifests: Counter,
    /// Messages that the sweeper found missing.
    swept: Family<StreamLabels, Counter>,
    /// Duration of applying a batch.
    pub(crate) applying: Histogram,
    push_to_revision: Histogram,
    lag_messages: Family<PartitionLabels, Gauge>,
    lag_seconds: Family<PartitionLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    /// Partitions that this instance holds.
    pub(crate) held: Gauge,
    /// The values of `lag_messages`, which a family cannot list.
    waiting: Arc<Mutex<BTreeMap<u16, u64>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    stream: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    partition: u16,
}

impl Metrics {
    pub(crate) fn new(metrics: &tagtrail_daemon::Metrics) -> Metrics {
        let swept: Family<StreamLabels, Counter> = metrics.add(
            "indexer_swept",
            "Messages that the sweeper found missing and had processed again: pushes missing from Postgres, revisions missing from REVISIONS",
            Family::default(),
        );
        // All series exist from the start, so that the first finding shows as an increase.
        for stream in [Stream::Pushes, Stream::Revisions] {
            let stream = stream.name();
            drop(swept.get_or_create(&StreamLabels { stream }));
        }
        let revisions: Family<KindLabels, Counter> = metrics.add(
            "indexer_revisions",
            "Revisions recorded, by kind of change",
            Family::default(),
        );
        for kind in Kind::ALL {
            let kind = kind.as_str();
            drop(revisions.get_or_create(&KindLabels { kind }));
        }
        Metrics {
            pushes: metrics.add(
                "indexer_pushes",
                "Pushes applied from PUSHES, repeats included",
                Counter::default(),
            ),
            revisions,
            published: metrics.add(
                "indexer_published",
                "Revisions acknowledged by REVISIONS, repeats included",
                Counter::default(),
            ),
            forgotten: metrics.add(
                "indexer_forgotten",
                "Revisions that REVISIONS had acknowledged and then lost, and that were published again",
                Counter::default(),
            ),
            adopted: metrics.add(
                "indexer_adopted",
                "Revisions that Postgres had lost, and that were inserted again from REVISIONS",
                Counter::default(),
            ),
            manifests: metrics.add(
                "indexer_manifests",
                "Manifests stored, each digest once",
                Counter::default(),
            ),
            swept,
            applying: metrics.add_seconds(
                "indexer_batch",
                "Duration of applying a batch of pushes in one transaction",
                seconds(),
            ),
            push_to_revision: metrics.add_seconds(
                "indexer_push_to_revision",
                "Time from the acknowledgement of a push by PUSHES to the acknowledgement of its revision by REVISIONS",
                seconds(),
            ),
            lag_messages: metrics.add(
                "indexer_lag_messages",
                "Pushes of a partition that wait to be applied",
                Family::default(),
            ),
            lag_seconds: metrics.add_seconds(
                "indexer_lag",
                "Age of the last applied push of a partition while others wait, else 0",
                Family::default(),
            ),
            held: metrics.add(
                "indexer_partitions",
                "Partitions that this instance holds",
                Gauge::default(),
            ),
            waiting: Arc::default(),
        }
    }

    /// Records an applied batch; `ahead` more pushes are already in memory.
    pub(crate) fn applied<'a>(
        &self,
        partition: u16,
        batch: &[ReceivedPush],
        ahead: usize,
        revisions: impl Iterator<Item = &'a Recorded>,
    ) {
        self.pushes.inc_by(batch.len() as u64);
        for revision in revisions {
            let kind = revision.event.kind.as_str();
            self.revisions.get_or_create(&KindLabels { kind }).inc();
        }
        if let Some(last) = batch.last() {
            // `pending` is the count as of the delivery, and includes the pushes in memory.
            let waiting = last.pending.max(ahead as u64);
            self.lag(partition, waiting, last.received_at);
        }
    }

    fn lag(&self, partition: u16, waiting: u64, received_at: OffsetDateTime) {
        let age = match waiting {
            0 => 0.0,
            _ => (OffsetDateTime::now_utc() - received_at)
                .as_seconds_f64()
                .max(0.0),
        };
        self.waiting().insert(partition, waiting);
        let label = PartitionLabels { partition };
        self.lag_messages
            .get_or_create(&label)
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.lag_seconds.get_or_create(&label).set(age);
    }

    /// Returns the number of pushes applied since the start, and of those that wait in the
    /// partitions of this instance.
    pub(crate) fn backlog(&self) -> (u64, u64) {
        (self.pushes.get(), self.waiting().values().sum())
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u16, u64>> {
        // No code panics while holding this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an acknowledged revision.
    pub(crate) fn published(&self, received_at: Option<OffsetDateTime>) {
        self.published.inc();
        if let Some(received_at) = received_at {
            let took = OffsetDateTime::now_utc() - received_at;
            self.push_to_revision
                .observe(took.as_seconds_f64().max(0.0));
        }
    }

    /// Records messages that the sweeper found missing.
    pub(crate) fn swept(&self, stream: Stream, count: u64) {
        let stream = stream.name();
        self.swept
            .get_or_create(&StreamLabels { stream })
            .inc_by(count);
    }

    /// Removes the lag of a partition that another instance holds from now on.
    pub(crate) fn gave_up(&self, partition: u16) {
        self.waiting().remove(&partition);
        let label = PartitionLabels { partition };
        self.lag_messages.remove(&label);
        self.lag_seconds.remove(&label);
    }
}
