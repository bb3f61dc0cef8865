//! What TLS between the programs costs, beside the same without it in the same run.

use std::path::Path;
use std::time::Instant;

use e2e::certificates::Authority;
use e2e::manager::{Options, init_disk};
use e2e::{Disk, FileSystem, Manager, Sandbox, block_on};
use proto::storage::v1 as pb;
use proto::storage::v1::disks_client::DisksClient;
use tonic::transport::Channel;

use crate::report::{Budget, Report, Runs};
use crate::sync::{self, MIB};

/// What a control call may take longer with TLS (issue 15).
const CALL_MORE_MS: f64 = 1.5;

/// Managers with certificates, of the nodes n1 and n2.
fn proven(authority: &Authority) -> impl Fn(&str, &Path) -> Options + '_ {
    |node, disk| Options::new(disk).trusting(authority, node)
}

/// 2 GiB of noise from manager to manager, with TLS beside plain.
pub(crate) fn copy(report: &mut Report) {
    let sandbox = Sandbox::new("bench-trust");
    let authority = Authority::new(&sandbox, "authority");
    let plain = sync::site(|_, disk| Options::new(disk));
    let tls = sync::site(proven(&authority));
    for site in [&plain, &tls] {
        let imported = site.file("dense", 2048 * MIB, sync::dense(2048));
        // Two of each image are enough for a disk.
        std::fs::remove_file(imported).unwrap();
    }
    let runs = Runs::interleaved(5, || tls.copy("dense"), || plain.copy("dense"));
    let budget = Budget::AtMost(1.25);
    report.add("trust-copy", &runs, "the same without TLS", "s", budget);
}

/// The smallest call, on a connection that is there and on a new one.
pub(crate) fn call(report: &mut Report) {
    let sandbox = Sandbox::new("bench-trust");
    let authority = Authority::new(&sandbox, "authority");
    let start = |name: &str| {
        let disk = Disk::new(&sandbox, name, FileSystem::Xfs, 1 << 30);
        init_disk(disk.dir());
        let mut options = Options::new(disk.dir());
        if name == "n1" {
            options = options.trusting(&authority, name);
        }
        name.clone_into(&mut options.name);
        (Manager::start(&sandbox, &options), disk)
    };
    let ((tls, _tls_disk), (plain, _plain_disk)) = (start("n1"), start("plain"));
    let (over_tls, without) = (tls.channel(), plain.channel());
    let reused = differences(|| ask(&over_tls), || ask(&without));
    let beside = "1.5 ms";
    let budget = Budget::AtMost(1.0);
    report.add("trust-call-more", &reused, beside, "ms", budget);
    let fresh = differences(|| ask(&tls.new_channel()), || ask(&plain.new_channel()));
    report.add("trust-first-call-more", &fresh, beside, "ms", budget);
}

/// Milliseconds of a call.
fn ask(channel: &Channel) -> f64 {
    let mut disks = DisksClient::new(channel.clone());
    let begun = Instant::now();
    block_on(disks.get_disk(pb::GetDiskRequest::default())).unwrap();
    begun.elapsed().as_secs_f64() * 1e3
}

/// How much more the first takes than the second, beside the bound.
fn differences(mut ours: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> Runs {
    let mut runs = Runs::default();
    // The first calls find cold caches.
    for _ in 0..20 {
        ours();
        other();
    }
    for _ in 0..301 {
        runs.add(ours() - other(), CALL_MORE_MS);
    }
    runs
}
