//! Counters of calls and gauges of this process. Metrics belong to the process, so they are the
//! only global here.

use std::fs;
use std::sync::LazyLock;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

/// From a look at memory to a pull that outlives the call, in seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0,
];

/// A call and how it ended: the labels that the sidecars of the Kubernetes project use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Operation {
    method_name: &'static str,
    code: i32,
}

impl EncodeLabelSet for Operation {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        let code = format!("{:?}", Code::from_i32(self.code));
        [
            ("method_name", self.method_name),
            ("grpc_status_code", code.as_str()),
        ]
        .encode(encoder)
    }
}

/// The state of replicated volumes, as their records have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    state: String,
}

impl EncodeLabelSet for State {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("state", self.state.as_str())].encode(encoder)
    }
}

/// A target of backups, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct BackupTarget {
    target: String,
}

impl EncodeLabelSet for BackupTarget {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("target", self.target.as_str())].encode(encoder)
    }
}

/// Which version this is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Build;

impl EncodeLabelSet for Build {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("version", env!("CARGO_PKG_VERSION"))].encode(encoder)
    }
}

/// Of a gauge that may be absent.
type NoLabels = [(&'static str, &'static str); 0];

struct Metrics {
    registry: Registry,
    operations: Family<Operation, Histogram>,
    ready: Gauge,
    certificate: Family<NoLabels, Gauge>,
    replicated: Family<State, Gauge>,
    backup_targets: Family<BackupTarget, Gauge>,
    memory: Gauge,
    descriptors: Gauge,
    threads: Gauge,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let mut registry = Registry::default();
    let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
    let operations = Family::new_with_constructor(histogram);
    registry.register_with_unit(
        "csi_plugin_operations",
        "Calls, by name and by how they ended",
        Unit::Seconds,
        operations.clone(),
    );
    let mut gauge = |name, help| {
        let gauge = Gauge::<i64, AtomicI64>::default();
        registry.register(name, help, gauge.clone());
        gauge
    };
    let ready = gauge("csi_plugin_ready", "1 if /readyz answers 200");
    let memory = gauge("process_resident_memory_bytes", "Resident memory");
    let descriptors = gauge("process_open_fds", "Open file descriptors");
    let threads = gauge(
        "process_threads",
        "Threads, including those that wait for a failed disk",
    );
    let certificate = Family::default();
    registry.register(
        "longhorn_certificate_expiration_timestamp_seconds",
        "When the certificate of this program expires, in seconds since 1970",
        certificate.clone(),
    );
    let build = Family::<Build, Gauge>::default();
    build.get_or_create(&Build).set(1);
    registry.register(
        "csi_plugin_build_info",
        "1; the label says which version this is",
        build,
    );
    let replicated = Family::default();
    registry.register(
        "longhorn_replicated_volumes",
        "Replicated volumes, by their state, where this controller leads",
        replicated.clone(),
    );
    let backup_targets = Family::default();
    registry.register(
        "longhorn_backup_target_mounted",
        "1 if the share of a target of backups is mounted on this node and answers",
        backup_targets.clone(),
    );
    Metrics {
        registry,
        operations,
        ready,
        certificate,
        replicated,
        backup_targets,
        memory,
        descriptors,
        threads,
    }
});

pub(crate) fn count(method_name: &'static str, code: Code, took: Duration) {
    let code = code as i32;
    let operation = Operation { method_name, code };
    METRICS
        .operations
        .get_or_create(&operation)
        .observe(took.as_secs_f64());
}

/// How many replicated volumes are in which state.
pub(crate) fn replicated<'a>(states: impl Iterator<Item = &'a str>) {
    METRICS.replicated.clear();
    for state in states {
        let state = state.to_owned();
        METRICS.replicated.get_or_create(&State { state }).inc();
    }
}

/// Whether the share of a target of backups is mounted and answers.
pub(crate) fn backup_target(target: &str, answers: bool) {
    let target = target.to_owned();
    let gauge = METRICS
        .backup_targets
        .get_or_create(&BackupTarget { target });
    gauge.set(answers.into());
}

/// Everything, in the text format of OpenMetrics. `until`: when the certificate of this program expires, where it
/// has one.
pub(crate) fn text(ready: bool, until: Option<SystemTime>) -> String {
    METRICS.ready.set(ready.into());
    if let Some(until) = until {
        let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX);
        METRICS.certificate.get_or_create(&[]).set(seconds);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> i64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_default()
    };
    METRICS.memory.set(field("VmRSS:") << 10);
    METRICS.threads.set(field("Threads:"));
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    METRICS
        .descriptors
        .set(i64::try_from(descriptors).unwrap_or(i64::MAX));
    let mut text = String::new();
    // Writing to memory does not fail; half a text would be better than none anyway.
    let _ = encode(&mut text, &METRICS.registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name_and_code() {
        count("TestCall", Code::Ok, Duration::from_millis(3));
        count("TestCall", Code::Aborted, Duration::from_secs(2));
        let until = UNIX_EPOCH + Duration::from_secs(7);
        let text = text(true, Some(until));
        for line in [
            "csi_plugin_operations_seconds_count{method_name=\"TestCall\",grpc_status_code=\"Ok\"} 1",
            "csi_plugin_operations_seconds_bucket{le=\"0.0025\",method_name=\"TestCall\",\
             grpc_status_code=\"Ok\"} 0",
            "csi_plugin_ready 1",
            "longhorn_certificate_expiration_timestamp_seconds{} 7",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let number = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.trim().parse::<i64>().unwrap()
        };
        assert!(number("process_resident_memory_bytes") > 0);
        assert!(number("process_open_fds") > 0);
    }
}
