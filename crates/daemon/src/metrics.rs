//! The metrics of a process, for Prometheus: `/metrics`, in the OpenMetrics text format.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::Health;

/// The metrics of a process. Cheap to clone; all clones share one registry. Every name begins with
/// `tagtrail_`.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics(Arc::new(Mutex::new(Registry::with_prefix("tagtrail"))))
    }
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

    /// Returns all metrics as text.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.with(|registry| prometheus_client::encoding::text::encode(&mut text, registry))?;
        Ok(text)
    }

    /// Registers the metrics that every process has.
    pub(crate) fn add_process(&self, service: &'static str, health: Health) {
        self.with(|registry| registry.register_collector(Box::new(Process { service, health })));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Registry) -> T) -> T {
        // Metrics are only ever added, so a panic while the lock was held did no harm.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
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
    }
}
