//! The gateway's metrics.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tagtrail_bus::publish::PublishError;
use tagtrail_bus::topology::Stream;
use tagtrail_daemon::metrics::seconds;

use crate::config::Sources;
use crate::error::NotStored;
use crate::interpret::Receipt;

/// The statuses of answers to requests of a source.
const STATUSES: [u16; 8] = [202, 400, 401, 408, 413, 415, 429, 503];

/// The metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    events: Family<Events, Counter>,
    unread_times: Family<SourceLabels, Counter>,
    observations: Family<SourceLabels, Counter>,
    requests: Family<Requests, Counter>,
    broken: Family<SourceLabels, Gauge>,
    full: Family<FullStream, Counter>,
    groups: Family<Groups, Counter>,
    group_pushes: Histogram,
    /// Seconds from the head of a request to the answer.
    pub(crate) seconds: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Events {
    source: String,
    outcome: EventOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "as they are written in the metric")]
enum EventOutcome {
    accepted,
    unresolved,
    ignored,
    quarantined,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requests {
    /// Empty for a path that belongs to no source.
    source: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FullStream {
    stream: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Groups {
    outcome: GroupOutcome,
}

/// The fate of a group of pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "as they are written in the metric")]
pub(crate) enum GroupOutcome {
    stored,
    /// Refused, or not acknowledged in time: each push was published again by itself.
    failed,
}

impl Metrics {
    pub(crate) fn new(metrics: &tagtrail_daemon::Metrics) -> Metrics {
        let full: Family<FullStream, Counter> = metrics.add(
            "gateway_full_streams",
            "Bodies that were not stored because a stream is full, by stream",
            Family::default(),
        );
        // The series exist from the start, so that the first refusal shows as an increase.
        for stream in [Stream::Pushes, Stream::Unresolved, Stream::Quarantine] {
            let stream = stream.name();
            drop(full.get_or_create(&FullStream { stream }));
        }
        let requests: Family<Requests, Counter> = metrics.add(
            "gateway_requests",
            "Requests, by source (empty: no source has the path) and HTTP status",
            Family::default(),
        );
        let nowhere = Requests {
            source: String::new(),
            status: 404,
        };
        drop(requests.get_or_create(&nowhere));
        let groups: Family<Groups, Counter> = metrics.add(
            "gateway_groups",
            "Groups of pushes published as one, by outcome (failed: each push was published again by itself)",
            Family::default(),
        );
        for outcome in [GroupOutcome::stored, GroupOutcome::failed] {
            drop(groups.get_or_create(&Groups { outcome }));
        }
        Metrics {
            broken: metrics.add(
                "gateway_broken_sources",
                "1 for a source that can't be used as configured, so that its senders get 503, by source",
                Family::default(),
            ),
            events: metrics.add(
                "gateway_events",
                "Events in authentic bodies, by source and outcome",
                Family::default(),
            ),
            unread_times: metrics.add(
                "gateway_unread_times",
                "Events whose time could not be read, so that the time of receipt counts, by source",
                Family::default(),
            ),
            observations: metrics.add(
                "gateway_observations",
                "Pulls of another digest than the last reported one, sent to the resolver, by source",
                Family::default(),
            ),
            requests,
            full,
            groups,
            group_pushes: metrics.add(
                "gateway_group_pushes",
                "Pushes in a group",
                Histogram::new(exponential_buckets(8.0, 2.0, 7)),
            ),
            seconds: metrics.add_seconds(
                "gateway_request",
                "Time from the head of a request to its answer",
                seconds(),
            ),
        }
    }

    /// Creates the series of a source with the value zero, so that alerts see the first increase.
    pub(crate) fn expect_source(&self, source: &str) {
        self.count_events(source, &Receipt::default());
        for status in STATUSES {
            let source = source.to_owned();
            drop(self.requests.get_or_create(&Requests { source, status }));
        }
    }

    /// Creates the series of the sources, and shows the broken ones.
    pub(crate) fn sources(&self, sources: &Sources) {
        sources
            .good
            .keys()
            .for_each(|name| self.expect_source(name));
        self.broken.clear();
        for (names, broken) in [
            (sources.good.keys().collect::<Vec<_>>(), 0),
            (sources.broken.iter().collect(), 1),
        ] {
            for source in names {
                let source = source.clone();
                self.broken
                    .get_or_create(&SourceLabels { source })
                    .set(broken);
            }
        }
    }

    /// Counts the events of a body.
    pub(crate) fn count_events(&self, source: &str, receipt: &Receipt) {
        for (outcome, count) in [
            (EventOutcome::accepted, receipt.accepted),
            (EventOutcome::unresolved, receipt.unresolved),
            (EventOutcome::ignored, receipt.ignored),
            (EventOutcome::quarantined, receipt.quarantined),
        ] {
            let source = source.to_owned();
            let events = Events { source, outcome };
            self.events.get_or_create(&events).inc_by(count as u64);
        }
        let source = source.to_owned();
        let source = SourceLabels { source };
        let unread = self.unread_times.get_or_create(&source);
        unread.inc_by(receipt.unread_times as u64);
        drop(self.observations.get_or_create(&source));
    }

    /// Counts a body that was not stored, if a full stream is the reason.
    pub(crate) fn count_not_stored(&self, cause: &NotStored) {
        if let NotStored::Refused(PublishError::Full { stream, .. }) = cause {
            let stream = stream.kind().name();
            self.full.get_or_create(&FullStream { stream }).inc();
        }
    }

    /// Counts a group of pushes.
    pub(crate) fn count_group(&self, pushes: usize, outcome: GroupOutcome) {
        self.groups.get_or_create(&Groups { outcome }).inc();
        self.group_pushes.observe(pushes as f64);
    }

    /// Counts pulls that became observations.
    pub(crate) fn count_observations(&self, source: &str, observed: usize) {
        let source = source.to_owned();
        let observations = self.observations.get_or_create(&SourceLabels { source });
        observations.inc_by(observed as u64);
    }

    /// Counts an answered request.
    pub(crate) fn count_request(&self, source: &str, status: u16) {
        let source = source.to_owned();
        self.requests
            .get_or_create(&Requests { source, status })
            .inc();
    }
}
