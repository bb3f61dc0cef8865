//! The metrics of the volumes of the disk. Their number is bounded: beyond it only the sums tell.

use std::collections::HashMap;

use types::ImageId;
use volume::Volume;

use super::metrics::Writer;

/// Volumes that have series of their own, the first by name. More would cost a Prometheus server more than they tell.
const SERIES_MAX: usize = 1000;

/// How many volumes were made from each image.
pub(super) fn users(volumes: &[Volume]) -> HashMap<ImageId, u32> {
    let mut users = HashMap::new();
    for image in volumes.iter().filter_map(|one| one.record.image.as_ref()) {
        *users.entry(image.id.clone()).or_default() += 1;
    }
    users
}

impl Writer {
    /// `volumes`: all of the disk, by name.
    pub(super) fn volumes(&mut self, volumes: &[Volume]) {
        let sum = |of: fn(&Volume) -> u64| {
            let sizes = volumes.iter().map(of);
            sizes.fold(0_u64, u64::saturating_add)
        };
        let is_degraded = |one: &&Volume| !one.is_replica && one.record.degraded().is_some();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        for (name, help, value) in [
            ("volumes", "Volumes of the disk", count(volumes.len())),
            (
                "volumes_size_bytes",
                "Sizes of all volumes of the disk",
                sum(|one| one.record.size.bytes()),
            ),
            (
                "volumes_actual_size_bytes",
                "Disk space of all volumes, shared extents included",
                sum(|one| one.real_size),
            ),
            (
                "volumes_degraded",
                "Volumes with fewer replicas than they ask for, without replicated ones, which the controller counts",
                count(volumes.iter().filter(is_degraded).count()),
            ),
            (
                "volumes_without_series",
                "Volumes that have no series of their own, because they are too many",
                count(volumes.len().saturating_sub(SERIES_MAX)),
            ),
        ] {
            self.gauge(&format!("longhorn_base_image_{name}"), help, value);
        }
        let sizes = self.family("longhorn_base_image_volume_size_bytes", "Size of a volume");
        let actual = self.family(
            "longhorn_base_image_volume_actual_size_bytes",
            "Disk space of a volume, shared extents included",
        );
        for one in volumes.iter().take(SERIES_MAX) {
            let labels = [&[("volume", one.record.name.to_string())][..], self.place()].concat();
            let size = one.record.size.bytes();
            sizes.get_or_create(&labels).set(size);
            actual.get_or_create(&labels).set(one.real_size);
        }
    }
}
