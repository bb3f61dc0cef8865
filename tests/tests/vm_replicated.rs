//! Replicated volumes as Kubernetes uses them, on real DRBD 9: three guests with our programs lose power and cables while
//! somebody writes, and nothing that was acknowledged is lost.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use e2e::vm::{Cluster, Volume, Writers, judge};
use e2e::wait;

const MIB: u64 = 1 << 20;
/// Emulated machines are slow.
const SOON: Duration = Duration::from_mins(1);

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

/// The numbers of the guests with a replica, and of the first one without.
fn places(cluster: &Cluster, volume: &Volume) -> (Vec<u8>, u8) {
    let record = cluster.record(volume.id()).unwrap();
    let members = record["spec"]["members"].as_array().unwrap().clone();
    let has = |n: &u8| {
        let name = format!("node-{n}");
        let mut members = members.iter();
        members.any(|member| member["node"] == name.as_str() && !member["disk"].is_null())
    };
    let (with, without): (Vec<u8>, Vec<u8>) = cluster.all().into_iter().partition(has);
    (with, without[0])
}

#[test]
fn row_341_a_holder_without_a_replica_is_cut_off_let_go_and_comes_back() {
    let Some(mut cluster) = Cluster::start("vm-diskless", 4) else {
        return;
    };
    let begun = std::time::Instant::now();
    let mut volume = volume(&cluster, "pvc-2");
    cluster.wait_healthy(&volume, SOON);
    let (with, diskless) = places(&cluster, &volume);
    let device = cluster.attach(&mut volume, diskless);
    let mut writers = Writers::start(&cluster.guests[diskless], &device, 2);
    writers.wait_for(20);
    println!("{:?}: written to without a replica", begun.elapsed());
    // A replica's power, while a node without one writes.
    cluster.cut_power(with[0]);
    writers.wait_for(40);
    cluster.switch_on(&[with[0]]);
    cluster.wait_healthy(&volume, SOON);

    println!("{:?}: a replica lost and back", begun.elapsed());
    // The holder's cable: nothing is acknowledged, and nothing fails.
    cluster.guests.pull(diskless);
    wait::until("the writers stand still", || {
        let before = writers.acknowledged().to_vec();
        std::thread::sleep(Duration::from_secs(3));
        (before == writers.acknowledged()).then_some(())
    });
    assert!(writers.errors().is_empty(), "{:?}", writers.errors());
    let acknowledged = writers.acknowledged().to_vec();
    // Kubernetes gives the node up, and the pod starts elsewhere.
    cluster.release(&volume, diskless);
    let mut elsewhere = volume.clone();
    let device = cluster.attach(&mut elsewhere, with[1]);
    judge(&cluster.guests[with[1]], &device, &acknowledged);
    let mut others = Writers::go_on(&cluster.guests[with[1]], &device, &acknowledged);
    others.wait_for(20);
    println!("{:?}: elsewhere", begun.elapsed());
    // The node is back: what hangs there ends, and the kubelet can clean up.
    cluster.guests.plug(diskless);
    wait::until("the writers of the old holder end", || {
        (writers.errors().len() == 2).then_some(())
    });
    assert_eq!(writers.acknowledged(), acknowledged);
    cluster.unstage_soon(&volume, diskless);
    others.wait_for(20);
    cluster.wait_healthy(&volume, SOON);

    println!("{:?}: the old holder is clean", begun.elapsed());
    // Grown while it is written to.
    cluster.expand(&volume, 96 * MIB);
    wait::until("the device has grown", || {
        let size = cluster.guests[with[1]].sh(&format!("blockdev --getsize64 {device}"));
        (size.trim() == (96 * MIB).to_string()).then_some(())
    });
    others.wait_for(20);

    println!("{:?}: grown", begun.elapsed());
    // The record is lost, while it is written to.
    let before = cluster.record(volume.id()).unwrap();
    cluster.api.kubectl(&["delete", "rv", volume.id()], "");
    let again = wait::until("the record is made again", || cluster.record(volume.id()));
    assert_eq!(again["spec"]["address"], before["spec"]["address"]);
    assert_eq!(again["spec"]["holder"], before["spec"]["holder"]);
    others.wait_for(20);
    cluster.wait_healthy(&volume, SOON);

    println!("{:?}: the record is there again", begun.elapsed());
    // A node is emptied for good: a new replica elsewhere first.
    let leaving = with[2];
    cluster.evacuate(&volume, leaving);
    wait::until("the node has no part of it", || {
        let record = cluster.record(volume.id())?;
        let members = record["spec"]["members"].to_string();
        let gone = !members.contains(&format!("node-{leaving}\""));
        (gone && record["status"]["health"] == "Healthy").then_some(())
    });
    others.wait_for(20);

    println!("{:?}: evacuated", begun.elapsed());
    let nodes = (with[1], with[0]);
    all_lose_their_power(&mut cluster, &volume, elsewhere, others, nodes);
}

/// All at once, while the first of these nodes writes; the second goes on.
fn all_lose_their_power(
    cluster: &mut Cluster,
    volume: &Volume,
    mut elsewhere: Volume,
    mut others: Writers,
    (holder, next): (u8, u8),
) {
    // All lose their power at once.
    let acknowledged = others.acknowledged().to_vec();
    for n in cluster.all() {
        cluster.cut_power(n);
    }
    let acknowledged = {
        let last = others.acknowledged().to_vec();
        assert!(
            last.iter()
                .zip(&acknowledged)
                .all(|(last, before)| last >= before)
        );
        last
    };
    cluster.release(volume, holder);
    cluster.switch_on(&cluster.all());
    let device = cluster.attach(&mut elsewhere, next);
    judge(&cluster.guests[next], &device, &acknowledged);
    cluster.wait_healthy(volume, SOON);
    cluster.detach(&elsewhere, next);
    cluster.delete(volume);
}
