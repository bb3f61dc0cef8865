//! The metrics, in the OpenMetrics text format. Docs: docs/operations.md, which lists each of them.
//!
//! Names and labels are Longhorn's where it has them (`longhorn_backing_image_actual_size_bytes`,
//! `longhorn_backing_image_state`, with `backing_image`, `disk` and `node`). Gauges are read on
//! request; only events since the start are counted as they happen.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use trust::Held;

use super::process::Process;
use super::{Observed, volumes};
use catalog::counters;
use catalog::{Catalog, Lifecycle, Status};
use store::Disk;
use store::layout::EntryName;
use store::space::Shortage;

/// What `/metrics` says of its own form.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every state of an image, as the wire spells it.
const STATES: [&str; 6] = [
    "pending",
    "starting",
    "in-progress",
    "ready",
    "failed",
    "unknown",
];

pub(super) type Labels = Vec<(&'static str, String)>;
pub(super) type Gauges = Family<Labels, Gauge<u64, AtomicU64>>;

pub(super) struct Writer {
    registry: Registry,
    /// Where all of it is.
    place: Labels,
}

/// All metrics as text.
pub(super) fn text(observed: &Observed, is_ready: bool) -> Result<String, fmt::Error> {
    let place = vec![
        ("disk", observed.disk.uuid().to_string()),
        ("node", observed.node.to_string()),
    ];
    let mut writer = Writer {
        registry: Registry::default(),
        place,
    };
    writer.gauge(
        "longhorn_backing_image_manager_ready",
        "1 while the disk can be used and new work is accepted",
        u64::from(is_ready),
    );
    writer.certificate(observed.held.as_ref());
    writer.build();
    let images = observed.catalog.list();
    // Their records are read once for all that is told of them.
    if let Ok((volumes, _)) = observed.volumes.list("", usize::MAX) {
        observed.catalog.note_users(&volumes::users(&volumes));
        writer.volumes(&volumes);
    }
    writer.images(&images, &observed.catalog);
    writer.counts(observed.swarm.metrics());
    for (name, help, value) in observed.swarm.metrics().all() {
        let name = format!("longhorn_backing_image_{name}");
        writer.counter(&name, help.trim_end_matches('.'), &[(Labels::new(), value)]);
    }
    writer.disk(observed);
    writer.upkeep(&observed.disk);
    writer.backups(&observed.backups);
    writer.process();
    let mut text = String::new();
    encode(&mut text, &writer.registry)?;
    Ok(text)
}

impl Writer {
    /// The labels of all metrics of this disk.
    pub(super) fn place(&self) -> &[(&'static str, String)] {
        &self.place
    }

    pub(super) fn family(&mut self, name: &str, help: &str) -> Gauges {
        let family = Gauges::default();
        self.registry.register(name, help, family.clone());
        family
    }

    /// Which version this is.
    fn build(&mut self) {
        let family = self.family(
            "longhorn_backing_image_manager_build_info",
            "1; the labels say which version this is",
        );
        let version = ("version", env!("CARGO_PKG_VERSION").to_owned());
        let labels = [&[version][..], &self.place].concat();
        family.get_or_create(&labels).set(1);
    }

    /// When others stop to believe this program.
    fn certificate(&mut self, held: Option<&Held>) {
        let Some(credential) = held.and_then(Held::credential) else {
            return;
        };
        let end = credential.not_after().duration_since(UNIX_EPOCH);
        self.gauge(
            "longhorn_certificate_expiration_timestamp_seconds",
            "When the certificate of this program expires, in seconds since 1970",
            end.unwrap_or_default().as_secs(),
        );
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let family = self.family(name, help);
        family.get_or_create(&self.place).set(value);
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, values: &[(Labels, u64)]) {
        let family = Family::<Labels, Counter>::default();
        self.registry.register(name, help, family.clone());
        for (labels, value) in values {
            let labels = [&labels[..], &self.place].concat();
            family.get_or_create(&labels).inc_by(*value);
        }
    }

    fn images(&mut self, images: &[Status], catalog: &Catalog) {
        let by_state = self.family("longhorn_backing_images", "Images by state");
        for state in STATES {
            let count = images.iter().filter(|image| image.state.name() == state);
            let labels = [&[("state", state.to_owned())][..], &self.place].concat();
            by_state.get_or_create(&labels).set(count.count() as u64);
        }
        let sizes = self.family(
            "longhorn_backing_image_actual_size_bytes",
            "Disk space used by an image",
        );
        let states = self.family(
            "longhorn_backing_image_state",
            "1 for the current state of an image",
        );
        let sending = self.family(
            "longhorn_backing_image_sending",
            "Copies of an image that are being sent",
        );
        let used = self.family(
            "longhorn_backing_image_volumes",
            "Volumes on this disk that were created from an image",
        );
        let unused = self.family(
            "longhorn_backing_image_unused_since_seconds",
            "Time since which a ready image has no volume, in seconds since 1970",
        );
        let mut receiving = 0;
        for image in images {
            let which = [
                ("backing_image", image.id.name.to_string()),
                ("uuid", image.id.uuid.to_string()),
            ];
            let labels = [&which[..], &self.place].concat();
            let size = image.sidecar().map_or(0, |sidecar| sidecar.real_size);
            sizes.get_or_create(&labels).set(size);
            let sent = image.sending;
            sending.get_or_create(&labels).set(sent.into());
            if let Some(usage) = catalog.usage(&image.id) {
                used.get_or_create(&labels).set(usage.volumes.into());
                if let Some(since) = usage.unused_since {
                    let seconds = u64::try_from(since.as_second()).unwrap_or_default();
                    unused.get_or_create(&labels).set(seconds);
                }
            }
            let state = [("state", image.state.name().to_owned())];
            let labels = [&which[..], &state, &self.place].concat();
            states.get_or_create(&labels).set(1);
            let comes = matches!(image.state, Lifecycle::Starting | Lifecycle::InProgress(_));
            receiving += u64::from(comes);
        }
        self.gauge(
            "longhorn_backing_image_receiving",
            "Images that are being received",
            receiving,
        );
    }

    fn counts(&mut self, sync: &sync::metrics::Metrics) {
        let counts = counters::now();
        for (name, help, value) in [
            (
                "received_bytes",
                "Bytes received from sources and peers",
                counts.received,
            ),
            (
                "sent_bytes",
                "Bytes sent to peers and clients",
                counts.sent + sync.sent_bytes.get(),
            ),
            ("made", "Images that became ready", counts.made),
            (
                "damaged",
                "Ready images that were found to be damaged",
                counts.damaged,
            ),
        ] {
            let name = format!("longhorn_backing_image_{name}");
            self.counter(&name, help, &[(Labels::new(), value)]);
        }
        let failures = counts.failures.into_iter();
        let failures = failures.map(|(kind, count)| (vec![("reason", kind.to_string())], count));
        let failures: Vec<_> = failures.collect();
        self.counter(
            "longhorn_backing_image_failures",
            "Images that failed, by the kind of error",
            &failures,
        );
    }

    fn disk(&mut self, observed: &Observed) {
        // A disk that cannot be asked has no sizes: they are left out, not 0.
        if let Ok(space) = observed.disk.space() {
            for (name, help, value) in [
                ("size_bytes", "Size of the disk", space.size),
                ("available_bytes", "Free bytes of the disk", space.available),
                (
                    "reserved_bytes",
                    "Free bytes that images leave to volumes and records",
                    store::space::floor(space.size),
                ),
            ] {
                let name = format!("longhorn_backing_image_disk_{name}");
                self.gauge(&name, help, value);
            }
        }
        if let Ok(promise) = observed.volumes.promise() {
            for (name, help, value) in [
                (
                    "promised_bytes",
                    "Sizes of all volumes, which are thin, and disk space of the images, in \
                     bytes",
                    promise.promised,
                ),
                (
                    "creatable_bytes",
                    "Bytes that new volumes may be promised",
                    promise.creatable,
                ),
            ] {
                let name = format!("longhorn_backing_image_disk_{name}");
                self.gauge(&name, help, value);
            }
        }
        let short = observed
            .disk
            .space()
            .ok()
            .and_then(|space| space.shortage());
        self.gauge(
            "longhorn_backing_image_disk_short",
            "1 while the disk is nearly full, 2 while it is full",
            match short {
                None => 0,
                Some(Shortage::NearlyFull) => 1,
                Some(Shortage::Full) => 2,
            },
        );
        self.gauge(
            "longhorn_backing_image_disk_suspect",
            "1 while I/O errors keep occurring",
            u64::from(observed.disk.is_suspect()),
        );
        self.gauge(
            "longhorn_backing_image_disk_reflink",
            "1 if volumes share the extents of their image on this disk",
            u64::from(observed.disk.reflink()),
        );
        let names = std::fs::read_dir(observed.disk.layout().images());
        if let Ok(names) = names {
            let aside = names.flatten().filter(|entry| {
                let name = entry.file_name();
                let name = name.to_str().unwrap_or_default();
                matches!(EntryName::of(name), EntryName::Quarantined(_))
            });
            self.gauge(
                "longhorn_backing_image_quarantined",
                "Damaged images that are kept for inspection",
                aside.count() as u64,
            );
        }
    }

    /// What the scrubber has done, and what else happened on the disk since the start.
    fn upkeep(&mut self, disk: &Disk) {
        let counters = disk.counters();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, counter) in [
            (
                "scrubbed_bytes",
                "Bytes of ready images that were read again",
                &counters.scrubbed_bytes,
            ),
            (
                "scrub_passes",
                "Complete passes over all images",
                &counters.scrub_passes,
            ),
            (
                "scrub_damage",
                "Images and raw forms that the scrubber found to be damaged",
                &counters.scrub_damage,
            ),
            (
                "healed",
                "Damaged images that were repaired",
                &counters.healed,
            ),
            (
                "orphans_removed",
                "Expired leftovers that were removed",
                &counters.orphans_removed,
            ),
            (
                "tidy_panics",
                "Searches for leftovers that ended because of a bug in this program",
                &counters.tidy_panics,
            ),
            (
                "disk_io_errors",
                "I/O errors of the disk",
                &counters.io_errors,
            ),
        ] {
            let name = format!("longhorn_backing_image_{name}");
            self.counter(&name, help, &[(Labels::new(), read(counter))]);
        }
        for (name, help, counter) in [
            (
                "scrub_images",
                "Images in the scrubber's current pass",
                &counters.scrub_images,
            ),
            (
                "scrub_images_done",
                "Images that the scrubber's current pass has finished",
                &counters.scrub_images_done,
            ),
        ] {
            let name = format!("longhorn_backing_image_{name}");
            self.gauge(&name, help, read(counter));
        }
        // Before the first one there is no such time.
        let passed = read(&counters.scrub_passed_at);
        if passed > 0 {
            self.gauge(
                "longhorn_backing_image_scrub_last_pass_timestamp_seconds",
                "When the scrubber last completed a pass over all images, in seconds since 1970",
                passed,
            );
        }
    }

    fn process(&mut self) {
        let process = Process::this();
        for (name, help, value) in [
            ("process_threads", "Threads", process.threads),
            (
                "process_open_fds",
                "Open file descriptors",
                process.open_fds,
            ),
            (
                "process_max_fds",
                "Maximum number of open file descriptors",
                process.max_fds,
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory",
                process.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory",
                process.virtual_bytes,
            ),
        ] {
            let gauge = Gauge::<u64, AtomicU64>::default();
            gauge.set(value);
            self.registry.register(name, help, gauge);
        }
        let start = Gauge::<f64, AtomicU64>::default();
        start.set(process.start_seconds);
        let help = "When the process started, in seconds since 1970";
        self.registry
            .register("process_start_time_seconds", help, start);
        let cpu = Counter::<f64, AtomicU64>::default();
        cpu.inc_by(process.cpu_seconds);
        self.registry
            .register("process_cpu_seconds", "Processor time", cpu);
    }
}
