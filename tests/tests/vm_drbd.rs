//! DRBD 9 itself in three guests, driven by hand: what the project's own code stands on, and that the guests show it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use e2e::Sandbox;
use e2e::vm::{self, Guests, Machine, Shape, Writers, judge};
use e2e::wait;

/// The first generation of the volume on every replica: all are clones of one image.
const DAY_0: &str = "1D0C0DE5EED00002";
const DEVICE: &str = "/dev/drbd1";

/// Makes the replica of member `n` in two files, and what the kernel is told of all three.
fn set_up(guests: &Guests, n: u8) {
    let size = Writers::room(2);
    guests[n].sh(&format!(
        "set -e; cd /disks/a
        truncate -s {size} volume; truncate -s 1M metadata
        metadata=$(losetup --direct-io=on --show -f metadata)
        drbdmeta --force 1 v09 $metadata flex-external create-md 4 </dev/null
        drbdmeta --force 1 v09 $metadata flex-external set-gi --node-id {n} {DAY_0}:0:0:0:1:1 </dev/null
        losetup -d $metadata"
    ));
    bring_up(guests, n);
}

/// Tells the kernel of the volume, as after a start of the machine.
fn bring_up(guests: &Guests, n: u8) {
    let mine = guests[n].address();
    let others = || (1..=3u8).filter(move |peer| *peer != n);
    let connections: Vec<String> = others()
        .map(|peer| {
            let its = guests[peer].address();
            format!(
                "drbdsetup new-peer r {peer} --_name=node-{peer} --protocol=C --ping-int=2 --ping-timeout=10 \
                    --timeout=30 --connect-int=1 --csums-alg=crc32c --cram-hmac-alg=sha256 --shared-secret=secret \
                    --rr-conflict=retry-connect
                drbdsetup new-path r {peer} ipv4:{mine}:7789 ipv4:{its}:7789"
            )
        })
        .collect();
    let connections = connections.join("\n");
    let connect: Vec<String> = others()
        .map(|peer| format!("drbdsetup connect r {peer}"))
        .collect();
    let connect = connect.join("\n");
    guests[n].sh(&format!(
        "set -e; cd /disks/a
        drbdsetup new-resource r {n} --quorum=majority --on-no-quorum=suspend-io --on-no-data-accessible=suspend-io \
            --auto-promote=no --on-suspended-primary-outdated=force-secondary
        drbdsetup new-minor r 1 0
        {connections}
        data=$(losetup --direct-io=on --show -f volume); metadata=$(losetup --direct-io=on --show -f metadata)
        drbdmeta 1 v09 $metadata flex-external apply-al </dev/null
        drbdsetup attach 1 $data $metadata flexible --rs-discard-granularity=65536
        {connect}"
    ));
}

/// Waits until the machine sees this in what drbdsetup says of the volume.
#[track_caller]
fn wait_for(machine: &Machine, what: &str) {
    let name = machine.name();
    wait::until(&format!("{name}: {what}"), || {
        let said = machine.run("drbdsetup status r --verbose").output;
        said.contains(what).then_some(())
    });
}

/// All replicas are current and see each other.
#[track_caller]
fn wait_whole(guests: &Guests) {
    for machine in guests.iter() {
        wait::until(&format!("{}: all current", machine.name()), || {
            let said = machine.run("drbdsetup status r").output;
            (said.matches("disk:UpToDate").count() == 3).then_some(())
        });
    }
}

#[test]
fn what_is_acknowledged_outlives_a_machine_and_the_holder_s_cable() {
    if let Some(missing) = vm::missing() {
        return e2e::needs::skip(&missing);
    }
    let sandbox = Sandbox::new("vm-drbd");
    let mut guests = Guests::start(&sandbox, 3, &Shape::default());
    for n in 1..=3 {
        set_up(&guests, n);
    }
    wait_whole(&guests);
    guests[1].sh("drbdsetup primary r");
    let mut writers = Writers::start(&guests[1], DEVICE, 2);
    writers.wait_for(20);

    // One replica loses its power: writes wait for the timeout, then go on.
    guests.cut_power(3);
    writers.wait_for(50);
    assert!(writers.longest_stall() < Duration::from_secs(10));

    // The holder is cut off with its replica: nothing is acknowledged, and nothing fails.
    guests.pull(1);
    wait_for(&guests[1], "suspended:quorum");
    writers.assert_still(Duration::from_secs(3));
    assert!(writers.errors().is_empty());
    // One of three is no majority either.
    let refused = guests[2].run("drbdsetup primary r");
    assert!(refused.errors.contains("No quorum"), "{refused:?}");

    // With the third they are, and have everything.
    guests.switch_on(&sandbox, &[3]);
    bring_up(&guests, 3);
    wait_for(&guests[2], "quorum:yes");
    wait_for(&guests[2], "peer-disk:UpToDate");
    guests[2].sh("drbdsetup primary r");
    let acknowledged = writers.acknowledged().to_vec();
    judge(&guests[2], DEVICE, &acknowledged);
    let mut others = Writers::go_on(&guests[2], DEVICE, &acknowledged);
    others.wait_for(20);

    // The old holder's cable is back: its kernel lets it go, what waits there fails, and it has what the others have.
    guests.plug(1);
    wait_whole(&guests);
    wait::until("the writers of the old holder end", || {
        (writers.errors().len() == 2).then_some(())
    });
    assert_eq!(writers.acknowledged(), acknowledged);
    others.wait_for(20);
    let acknowledged = others.stop();
    judge(&guests[2], DEVICE, &acknowledged);
    guests[2].sh("drbdsetup secondary r");
    guests[1].sh("drbdsetup primary r");
    judge(&guests[1], DEVICE, &acknowledged);
}
