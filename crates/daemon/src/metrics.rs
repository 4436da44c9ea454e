//! The metrics of a process, for Prometheus: `/metrics`, in the text format that the client
//! accepts.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::Health;

/// The metrics of a process. Cheap to clone; all clones share one registry. Every name begins with
/// `tagtrail_`.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    config_errors: ConfigErrors,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let registry = Registry::with_prefix("tagtrail");
        let metrics = Metrics {
            registry: Arc::new(Mutex::new(registry)),
            config_errors: ConfigErrors::default(),
        };
        metrics.add(
            "config_error",
            "Mistakes of a file of the configuration as a service finds them, by service and file",
            metrics.config_errors.family.clone(),
        );
        metrics
    }
}

/// The mistakes in the files of the configuration. The services of a process share the family.
#[derive(Clone, Default)]
struct ConfigErrors {
    family: Family<ConfigErrorLabels, Gauge>,
    shown: Arc<Mutex<HashSet<ConfigErrorLabels>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConfigErrorLabels {
    service: &'static str,
    file: String,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Registers a metric and returns it. Clones of a metric share its value.
    pub fn add<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.with(|registry| registry.register(name, help, metric.clone()));
        metric
    }

    /// Registers a metric in seconds and returns it. Its name ends in `_seconds`, added here.
    pub fn add_seconds<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.with(|registry| {
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        });
        metric
    }

    /// Shows the number of mistakes in each file of the configuration, as a service finds them. A
    /// file without a mistake has the value zero; a file that is gone has none.
    pub fn config_errors(
        &self,
        service: &'static str,
        files: impl IntoIterator<Item = (String, usize)>,
    ) {
        let ConfigErrors { family, shown } = &self.config_errors;
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.into_iter();
        let files: HashMap<_, _> = files
            .map(|(file, mistakes)| (ConfigErrorLabels { service, file }, mistakes))
            .collect();
        shown.retain(|labels| {
            let stays = labels.service != service || files.contains_key(labels);
            if !stays {
                family.remove(labels);
            }
            stays
        });
        for (labels, mistakes) in files {
            let mistakes = i64::try_from(mistakes).unwrap_or(i64::MAX);
            family.get_or_create(&labels).set(mistakes);
            shown.insert(labels);
        }
    }

    /// Returns all metrics as OpenMetrics.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.with(|registry| prometheus_client::encoding::text::encode(&mut text, registry))?;
        Ok(text)
    }

    /// Returns all metrics in a format.
    ///
    /// # Errors
    /// As [`Metrics::text`].
    pub fn text_in(&self, format: Format) -> Result<String, fmt::Error> {
        let text = self.text()?;
        Ok(match format {
            Format::OpenMetrics => text,
            Format::Prometheus => prometheus_text(&text),
        })
    }

    /// Registers the metrics that every process has.
    pub(crate) fn add_process(&self, service: &'static str, health: Health) {
        self.with(|registry| registry.register_collector(Box::new(Process { service, health })));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Registry) -> T) -> T {
        // Metrics are only ever added, so a panic while the lock was held did no harm.
        act(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4, which every reader of metrics knows.
    Prometheus,
}

impl Format {
    /// Returns OpenMetrics if the header `Accept` names it, and prefers no plain text to it.
    #[must_use]
    pub fn accepted(headers: &HeaderMap) -> Format {
        let ranges = headers.get_all(ACCEPT).iter();
        let ranges = ranges.filter_map(|value| value.to_str().ok());
        // Weights of OpenMetrics and of plain text. `*/*` does not ask for OpenMetrics.
        let (mut open, mut plain) = (0.0_f32, 0.0_f32);
        for range in ranges.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            let (mut weight, mut known_version) = (1.0_f32, true);
            for parameter in parts {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                let (name, value) = (name.trim(), value.trim().trim_matches('"'));
                if name.eq_ignore_ascii_case("q") {
                    weight = value.parse().unwrap_or(0.0);
                } else if name.eq_ignore_ascii_case("version") {
                    known_version = ["0.0.1", "1.0.0"].contains(&value);
                }
            }
            if media_type.eq_ignore_ascii_case("application/openmetrics-text") && known_version {
                open = open.max(weight);
            } else if media_type.eq_ignore_ascii_case("text/plain") {
                plain = plain.max(weight);
            }
        }
        if open > 0.0 && open >= plain {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }

    /// Returns the media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Rewrites OpenMetrics in the text format of Prometheus: the name of a counter ends in `_total` in
/// its metadata too, and there are no units and no end mark.
fn prometheus_text(open: &str) -> String {
    let types = open.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let counters: HashSet<&str> = types
        .filter_map(|line| line.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("#"), Some("UNIT" | "EOF"), _) => continue,
            (Some("#"), Some(word), Some(name)) if counters.contains(name) => {
                let rest = words.next().unwrap_or_default();
                text.extend(["# ", word, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// Returns a histogram for durations from a quarter of a millisecond to half a minute.
#[must_use]
pub fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
}

/// The metrics that every process has: its build, readiness, memory and open files.
#[derive(Debug)]
struct Process {
    service: &'static str,
    health: Health,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, labels: &[(&str, &str)], value: f64| {
            let metric = ConstGauge::new(value);
            let mut family = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(family.encode_family(&labels)?)
        };
        let build = [
            ("service", self.service),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        gauge(
            "build",
            "Service and version of the process; always 1",
            &build,
            1.0,
        )?;
        let ready = f64::from(u8::from(self.health.ready()));
        gauge("ready", "1 if the process is ready, else 0", &[], ready)?;
        if let Some(bytes) = resident_bytes() {
            gauge("resident_memory_bytes", "Memory in use", &[], bytes)?;
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            // A number of descriptors fits into 32 bits, and so into an `f64` exactly.
            let open = u32::try_from(files.count()).unwrap_or(u32::MAX);
            gauge(
                "open_files",
                "File descriptors in use",
                &[],
                f64::from(open),
            )?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kib) * 1024.0)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn metrics_are_written_with_their_help() {
        let metrics = Metrics::default();
        let counter: Counter = metrics.add("things", "Things that were done", Counter::default());
        counter.inc();
        metrics
            .add_seconds("wait", "Time that things took", seconds())
            .observe(0.5);
        metrics.add_process("test", Health::default());
        let text = metrics.text().unwrap();
        for line in [
            "# HELP tagtrail_things Things that were done.",
            "# TYPE tagtrail_things counter",
            "tagtrail_things_total 1",
            "tagtrail_wait_seconds_count 1",
            "tagtrail_ready 0.0",
            "# EOF",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line:?} is not in\n{text}"
            );
        }
        assert!(
            text.contains("tagtrail_build{service=\"test\",version="),
            "{text}"
        );
        assert!(text.contains("tagtrail_resident_memory_bytes"), "{text}");
        let plain = metrics.text_in(Format::Prometheus).unwrap();
        for line in [
            "# HELP tagtrail_things_total Things that were done.",
            "# TYPE tagtrail_things_total counter",
            "tagtrail_things_total 1",
            "# TYPE tagtrail_wait_seconds histogram",
            "tagtrail_wait_seconds_count 1",
            "# TYPE tagtrail_ready gauge",
        ] {
            assert!(
                plain.lines().any(|found| found == line),
                "{line:?} is not in\n{plain}"
            );
        }
        assert!(
            !plain.contains("# EOF") && !plain.contains("# UNIT"),
            "{plain}"
        );
        assert!(plain.ends_with('\n'), "{plain}");
    }

    #[test]
    fn open_metrics_is_for_those_that_accept_it() {
        for (accept, expected) in [
            // Prometheus 3 and 2, as they ask by default.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            (
                "text/html, application/openmetrics-text; q=0.2",
                Format::OpenMetrics,
            ),
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            (
                "text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.1",
                Format::Prometheus,
            ),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            (
                "application/openmetrics-text;version=2.0.0",
                Format::Prometheus,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(Format::accepted(&headers), expected, "{accept}");
        }
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Prometheus);
    }
}
