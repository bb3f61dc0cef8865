//! Replicated volumes as Kubernetes uses them, on real DRBD 9: three guests with our programs lose power and cables while
//! somebody writes, and nothing that was acknowledged is lost.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use e2e::vm::{Cluster, Volume, Writers, judge};
use e2e::wait;

const MIB: u64 = 1 << 20;
/// Emulated machines are slow.
const SOON: Duration = Duration::from_secs(60);

fn of_image<'a>(image: &'a [(&'static str, String); 3]) -> Vec<(&'a str, &'a str)> {
    image
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect()
}

/// A volume with three replicas of an image that only the web has.
fn volume(cluster: &Cluster, name: &str) -> Volume {
    cluster.image("disk.raw", 48 * MIB);
    let image = Cluster::of_image("disk.raw");
    cluster.provision(name, 64 * MIB, &of_image(&image))
}

#[test]
fn row_340_a_volume_outlives_any_node_and_is_whole_again_by_itself() {
    let Some(mut cluster) = Cluster::start("vm-replicated", 3) else {
        return;
    };
    let begun = std::time::Instant::now();
    let mut volume = volume(&cluster, "pvc-1");
    println!("created in {:?}", begun.elapsed());
    cluster.wait_healthy(&volume, SOON);
    let device = cluster.attach(&mut volume, 1);
    println!("attached in {:?}", begun.elapsed());
    let mut writers = Writers::start(&cluster.guests[1], &device, 2);
    writers.wait_for(20);

    // A replica's node loses its power, and comes back: nobody does anything.
    cluster.cut_power(3);
    writers.wait_for(40);
    cluster.switch_on(&[3]);
    cluster.wait_healthy(&volume, SOON);
    writers.wait_for(20);

    // The holder's node does.
    let acknowledged = writers.acknowledged().to_vec();
    cluster.cut_power(1);
    let acknowledged = {
        let last = writers.acknowledged().to_vec();
        assert!(last >= acknowledged);
        last
    };
    cluster.release(&volume, 1);
    let device = cluster.attach(&mut volume, 2);
    judge(&cluster.guests[2], &device, &acknowledged);
    let mut writers = Writers::go_on(&cluster.guests[2], &device, &acknowledged);
    writers.wait_for(20);
    cluster.switch_on(&[1]);
    cluster.wait_healthy(&volume, SOON);
    let acknowledged = writers.stop();
    judge(&cluster.guests[2], &device, &acknowledged);
    cluster.detach(&volume, 2);
    let device = cluster.attach(&mut volume, 1);
    judge(&cluster.guests[1], &device, &acknowledged);
    cluster.detach(&volume, 1);
    cluster.delete(&volume);
    wait::until("nothing is left of it", || {
        (cluster.record(volume.id()).is_none() && cluster.files(volume.id()) == 0).then_some(())
    });
}
