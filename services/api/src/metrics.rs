//! Metrics of the api.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tagtrail_daemon::metrics::seconds;

/// Statuses that alerts ask for.
const STATUSES: [u16; 5] = [200, 401, 429, 500, 503];

/// Metrics of the api.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<OperationLabels, Histogram>,
    together: Family<QuestionLabels, Histogram>,
    /// Clients that follow the live feed now.
    pub(crate) followers: Gauge,
    /// Followers dropped because of not reading.
    pub(crate) dropped: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuestionLabels {
    question: &'static str,
}

impl Metrics {
    pub(crate) fn new(metrics: &tagtrail_daemon::Metrics) -> Metrics {
        Metrics {
            requests: metrics.add(
                "api_requests",
                "Requests, by operation and HTTP status",
                Family::default(),
            ),
            seconds: metrics.add_seconds(
                "api_request",
                "Time to answer, by operation; of the live feed, until it begins",
                Family::new_with_constructor(seconds),
            ),
            together: metrics.add(
                "api_asked_together",
                "Questions answered by one statement, by question",
                Family::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 2.0, 7))),
            ),
            followers: metrics.add(
                "api_followers",
                "Clients that follow the live feed now",
                Gauge::default(),
            ),
            dropped: metrics.add(
                "api_followers_dropped",
                "Followers of the live feed that were dropped because they did not read",
                Counter::default(),
            ),
        }
    }

    /// Creates the series of an operation with the value zero, so that alerts see the first
    /// increase.
    pub(crate) fn expect_operation(&self, operation: &'static str) {
        for status in STATUSES {
            let answered = RequestLabels { operation, status };
            drop(self.requests.get_or_create(&answered));
        }
        drop(self.seconds.get_or_create(&OperationLabels { operation }));
    }

    /// Creates the series of a kind of question, for the same reason.
    pub(crate) fn expect_question(&self, question: &'static str) {
        drop(self.together.get_or_create(&QuestionLabels { question }));
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, operation: &'static str, status: u16, seconds: f64) {
        self.requests
            .get_or_create(&RequestLabels { operation, status })
            .inc();
        self.seconds
            .get_or_create(&OperationLabels { operation })
            .observe(seconds);
    }

    /// Counts a statement that answers several questions of this kind.
    pub(crate) fn asked_together(&self, question: &'static str, questions: usize) {
        self.together
            .get_or_create(&QuestionLabels { question })
            .observe(questions as f64);
    }
}
