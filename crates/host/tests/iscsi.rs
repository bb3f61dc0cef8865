//! Volumes as iSCSI targets, with Debian's tgtd and with initiators of others.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod iscsi_parts;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use host::Error;
use host::target::Chap;
use iscsi_parts::{HOST, MIB, SECRET, Site, Writer, io, log_in, run, until};
use types::{Classify as _, ErrorKind, VolumeName};

#[test]
fn row_440_who_cannot_prove_it_gets_nothing() {
    let Some(site) = Site::new() else { return };
    let a = site.wanted("a", 64 * MIB);
    site.targets.put(&a).unwrap();
    // The door is opened last.
    assert!(!site.targets.is_open().unwrap());
    assert!(
        !run(
            "iscsi-ls",
            &["-i", HOST, &format!("iscsi://{}", site.portal)]
        )
        .0
    );
    site.targets.open().unwrap();
    assert!(site.targets.is_open().unwrap());

    io(&site.right(&a), &["read 0 4k"]).unwrap();
    let stranger = "iqn.2026-01.org.example:stranger";
    for refused in [
        site.options(&a, HOST, Some(("a", "wrong-secret"))),
        site.options(&a, HOST, Some(("b", SECRET))),
        site.options(&a, HOST, None),
        site.options(&a, stranger, Some(("a", SECRET))),
    ] {
        assert!(io(&refused, &["read 0 4k"]).is_err(), "{refused}");
    }
    assert!(site.seen_by(HOST).contains("iqn.2019-10.io.longhorn:a"));
    assert!(!site.seen_by(stranger).contains("longhorn"));

    // Without a secret only because it is wanted so.
    let mut open = site.wanted("b", 64 * MIB);
    open.chap = None;
    site.targets.put(&open).unwrap();
    io(&site.options(&open, HOST, None), &["read 0 4k"]).unwrap();
    assert!(io(&site.options(&open, stranger, None), &["read 0 4k"]).is_err());
}

#[test]
fn an_initiator_has_the_very_bytes_and_gives_space_back() {
    let Some(site) = Site::new() else { return };
    let (a, mut b) = (site.wanted("a", 64 * MIB), site.wanted("b", 64 * MIB));
    b.read_only = true;
    let before = fs::read(&b.file).unwrap();
    site.targets.put(&a).unwrap();
    site.targets.put(&b).unwrap();
    site.targets.open().unwrap();

    let (here, there) = (a.file.to_str().unwrap(), site.right(&a));
    let raw = format!("driver=file,filename={here}");
    let same = || run("qemu-img", &["compare", "--image-opts", &raw, &there]);
    assert!(same().0, "{}", same().1);
    io(
        &there,
        &["write -P 0x77 1M 2M", "flush", "read -P 0x77 1M 2M"],
    )
    .unwrap();
    assert_eq!(
        fs::read(&a.file).unwrap()[1 << 20..3 << 20],
        vec![0x77; 2 << 20]
    );
    assert!(same().0, "{}", same().1);
    // The other one is another one, and for reading.
    assert_eq!(fs::read(&b.file).unwrap(), before);
    assert!(io(&site.right(&b), &["write -P 0x11 0 4k"]).is_err());
    assert_eq!(fs::read(&b.file).unwrap(), before);

    let blocks = fs::metadata(&a.file).unwrap().blocks();
    io(&there, &["discard 0 4M", "flush"]).unwrap();
    let left = fs::metadata(&a.file).unwrap().blocks();
    assert!(
        left + 8 * 1024 <= blocks,
        "{left} of {blocks} blocks are left"
    );

    // What the disk says of itself is of the volume, and not of what tgtd has numbered it.
    let url = |name: &str| site.url(name);
    let said = run("iscsi-inq", &["-i", HOST, &url("a")]).1;
    assert!(
        said.contains("LONGHORN") && said.contains("base-image"),
        "{said}"
    );
    let serial = |name: &str| {
        run(
            "iscsi-inq",
            &["-i", HOST, "-e", "1", "-c", "128", &url(name)],
        )
        .1
    };
    let identity = |name: &str| {
        run(
            "iscsi-inq",
            &["-i", HOST, "-e", "1", "-c", "131", &url(name)],
        )
        .1
    };
    let (first, names) = (serial("b"), identity("b"));
    assert_ne!(first, serial("a"));
    for volume in [&a.volume, &b.volume] {
        site.targets.remove(volume, true).unwrap();
    }
    site.targets.put(&b).unwrap();
    assert_eq!(serial("b"), first);
    // But for the one designator that tgtd makes of its own number.
    let stable = |text: &str| {
        let designators: Vec<_> = text
            .lines()
            .filter(|line| line.contains("Designator:["))
            .collect();
        [designators[0].to_owned(), designators[2].to_owned()]
    };
    assert_eq!(stable(&identity("b")), stable(&names));
    assert_eq!(site.size("b"), 64 * MIB);
}

#[test]
fn row_441_a_volume_grows_under_writes() {
    let Some(site) = Site::new() else { return };
    // 512 bytes more than whole megabytes: tgtd does not show that it is more.
    let (a, b) = (site.wanted("a", 64 * MIB), site.wanted("b", 64 * MIB));
    site.targets.put(&a).unwrap();
    site.targets.put(&b).unwrap();
    site.targets.open().unwrap();
    let (mut writer, mut other) = (
        Writer::start(&site.right(&a)),
        Writer::start(&site.right(&b)),
    );
    for size in [64 * MIB + 512, 65 * MIB, 256 * MIB] {
        (0..50).for_each(|_| writer.write());
        other.write();
        let held = site.tgtadm("--mode conn --op show --tid 2");
        File::options()
            .write(true)
            .open(&a.file)
            .unwrap()
            .set_len(size)
            .unwrap();
        site.targets.put(&a).unwrap();
        (0..50).for_each(|_| writer.write());
        assert_eq!(site.size("a"), size);
        // Nobody else's connection was cut.
        assert_eq!(site.tgtadm("--mode conn --op show --tid 2"), held);
        other.write();
    }
    writer.end();
    other.end();
    // What is right is left alone, also by a node service that has just started.
    let mut writer = Writer::start(&site.right(&a));
    writer.write();
    let held = site.tgtadm("--mode conn --op show --tid 1");
    site.targets.put(&a).unwrap();
    site.restarted().put(&a).unwrap();
    assert_eq!(site.tgtadm("--mode conn --op show --tid 1"), held);
    writer.end();
}

#[test]
fn row_442_a_tgtd_that_is_killed_comes_back_under_writes() {
    let Some(mut site) = Site::new() else { return };
    let all = ["a", "b", "c"].map(|name| site.wanted(name, 64 * MIB));
    for wanted in &all {
        site.targets.put(wanted).unwrap();
    }
    site.targets.open().unwrap();
    let mut writers = all
        .each_ref()
        .map(|wanted| Writer::start(&site.right(wanted)));
    for round in 0..2 {
        for writer in &mut writers {
            (0..20).for_each(|_| writer.write());
        }
        site.kill_9();
        let error = site.targets.is_open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        site.start();
        assert!(!site.targets.is_open().unwrap());
        // The node service may have been started anew as well.
        let targets = if round == 0 {
            site.targets.clone()
        } else {
            site.restarted()
        };
        for wanted in &all {
            targets.put(wanted).unwrap();
        }
        targets.open().unwrap();
        for writer in &mut writers {
            (0..20).for_each(|_| writer.write());
        }
    }
    writers.into_iter().for_each(Writer::end);
}

#[test]
fn row_443_what_is_in_use_is_not_taken_away_by_accident() {
    let Some(mut site) = Site::new() else { return };
    let a = site.wanted("a", 64 * MIB);
    site.targets.put(&a).unwrap();
    site.targets.open().unwrap();
    let mut writer = Writer::start(&site.right(&a));
    writer.write();
    let error = site.targets.remove(&a.volume, false).unwrap_err();
    assert!(matches!(error, Error::TargetInUse { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&format!("{HOST} from 127.0.0.1")),
        "{error}"
    );
    writer.write();
    let list = site.targets.list().unwrap();
    assert_eq!((list.len(), list[0].sessions.len()), (1, 1));
    site.targets.remove(&a.volume, true).unwrap();
    assert!(site.targets.list().unwrap().is_empty());
    assert!(io(&site.right(&a), &["read 0 4k"]).is_err());
    drop(writer);
    // Twice, and of one that never was.
    site.targets.remove(&a.volume, false).unwrap();
    site.targets
        .remove(&VolumeName::new("A_b").unwrap(), false)
        .unwrap();
    // And where no tgtd is any more.
    site.targets.put(&a).unwrap();
    site.kill_9();
    site.targets.remove(&a.volume, false).unwrap();
    fs::remove_dir_all(site.socket().parent().unwrap()).unwrap();
    site.targets.remove(&a.volume, false).unwrap();
    let error = site.targets.put(&a).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[test]
fn row_444_what_a_crash_left_halfway_is_completed() {
    let Some(site) = Site::new() else { return };
    let a = site.wanted("a", 64 * MIB);
    let file = a.file.to_str().unwrap();
    let new = "--mode target --op new --tid 1 --targetname iqn.2019-10.io.longhorn:a";
    let disk =
        format!("--mode logicalunit --op new --tid 1 --lun 1 --backing-store {file} --bstype rdwr");
    let user = "--mode account --op new --user a --password another-horse";
    let bind = "--mode account --op bind --tid 1 --user a";
    let closed = "--mode sys --op update --name State -v offline";
    let stranger =
        "--mode target --op bind --tid 1 --initiator-name iqn.2026-01.org.example:stranger";
    let all = "--mode target --op bind --tid 1 --initiator-address ALL";
    let leftovers: [&[&str]; 7] = [
        &[new],
        &[new, &disk],
        &[user],
        &[new, &disk, user],
        &[new, &disk, user, bind],
        &[closed, new, &disk, user, bind],
        &[new, &disk, user, bind, stranger, all],
    ];
    for left in leftovers {
        for command in left {
            site.tgtadm(command);
        }
        let targets = site.restarted();
        targets.put(&a).unwrap();
        targets.open().unwrap();
        io(&site.right(&a), &["read 0 4k", "discard 8M 1M"]).unwrap();
        let other = site.options(&a, "iqn.2026-01.org.example:other", Some(("a", SECRET)));
        assert!(io(&other, &["read 0 4k"]).is_err(), "{left:?}");
        assert!(
            io(&site.options(&a, HOST, None), &["read 0 4k"]).is_err(),
            "{left:?}"
        );
        targets.remove(&a.volume, true).unwrap();
    }
}

#[test]
fn row_445_a_change_of_who_may_counts_at_once() {
    let Some(site) = Site::new() else { return };
    let mut a = site.wanted("a", 64 * MIB);
    site.targets.put(&a).unwrap();
    site.targets.open().unwrap();
    let old = site.right(&a);
    let mut writer = Writer::start(&old);
    writer.write();
    // A secret of another: who is there must prove himself anew.
    a.chap = Some(Chap::new("a", "another-horse").unwrap());
    let present = site.targets.put(&a).unwrap();
    assert!(present.sessions.is_empty(), "{present:?}");
    drop(writer);
    assert!(io(&old, &["read 0 4k"]).is_err());
    let new = site.options(&a, HOST, Some(("a", "another-horse")));
    io(&new, &["read 0 4k"]).unwrap();
    // Another initiator; the first one goes.
    let second = "iqn.2026-01.org.example:host2";
    let mut writer = Writer::start(&new);
    writer.write();
    a.initiators = vec![second.parse().unwrap()];
    assert!(site.targets.put(&a).unwrap().sessions.is_empty());
    drop(writer);
    assert!(io(&new, &["read 0 4k"]).is_err());
    io(
        &site.options(&a, second, Some(("a", "another-horse"))),
        &["read 0 4k"],
    )
    .unwrap();
    // No secret any more, and one again.
    a.chap = None;
    site.targets.put(&a).unwrap();
    io(&site.options(&a, second, None), &["read 0 4k"]).unwrap();
    a.chap = Some(Chap::new("a", SECRET).unwrap());
    site.targets.put(&a).unwrap();
    assert!(io(&site.options(&a, second, None), &["read 0 4k"]).is_err());
    // A user is one of the whole node.
    let mut b = site.wanted("b", 64 * MIB);
    b.chap = Some(Chap::new("a", "another-horse").unwrap());
    let error = site.targets.put(&b).unwrap_err();
    assert!(matches!(error, Error::TargetUser { .. }), "{error}");
    io(
        &site.options(&a, second, Some(("a", SECRET))),
        &["read 0 4k"],
    )
    .unwrap();
}

#[test]
fn row_446_an_initiator_cannot_lie_about_the_targets() {
    let Some(site) = Site::new() else { return };
    let mut open = site.wanted("open", 64 * MIB);
    open.chap = None;
    let mut a = site.wanted("a", 64 * MIB);
    for wanted in [&open, &a] {
        site.targets.put(wanted).unwrap();
    }
    site.targets.open().unwrap();
    let alias =
        b"x\n    LUN information:\n        LUN: 1\n            Backing store path: /etc/passwd\n\
                  Target 3: iqn.2019-10.io.longhorn:evil\xff";
    let session = log_in(site.portal, "iqn.2019-10.io.longhorn:open", alias);
    assert!(
        site.tgtadm("--mode target --op show")
            .contains("/etc/passwd")
    );
    let mut writer = Writer::start(&site.right(&a));
    writer.write();
    // Listing does not read it; a change has it leave first.
    assert_eq!(site.targets.list().unwrap().len(), 2);
    a.initiators
        .push("iqn.2026-01.org.example:host2".parse().unwrap());
    site.targets.put(&a).unwrap();
    assert!(
        !site
            .tgtadm("--mode target --op show")
            .contains("/etc/passwd")
    );
    (0..10).for_each(|_| writer.write());
    writer.end();
    drop(session);
}

#[test]
fn row_447_a_file_that_is_not_the_volume_is_not_served() {
    let Some(site) = Site::new() else { return };
    let a = site.wanted("a", 64 * MIB);
    File::options()
        .write(true)
        .open(&a.file)
        .unwrap()
        .set_len(32 * MIB)
        .unwrap();
    let error = site.targets.put(&a).unwrap_err();
    assert!(matches!(error, Error::VolumeDamaged { .. }), "{error}");
    fs::remove_file(&a.file).unwrap();
    let error = site.targets.put(&a).unwrap_err();
    assert!(matches!(error, Error::VolumeMissing { .. }), "{error}");
    let mut bad = site.wanted("b", 64 * MIB);
    bad.volume = VolumeName::new("Not_a_name").unwrap();
    let error = site.targets.put(&bad).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(site.targets.list().unwrap().is_empty());
    // One that fails holds up nobody: the door opens all the same.
    site.targets.put(&site.wanted("c", 64 * MIB)).unwrap();
    site.targets.open().unwrap();
    assert!(site.seen_by(HOST).contains("longhorn:c"));
}

#[test]
fn row_448_a_flush_of_the_initiator_reaches_the_disk() {
    let Some(site) = Site::new() else { return };
    let a = site.wanted("a", 64 * MIB);
    site.targets.put(&a).unwrap();
    site.targets.open().unwrap();
    let log = a.file.with_extension("strace");
    let mut strace = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fdatasync,pwrite64", "-p"])
        .arg(site.tgtd().to_string())
        .arg("-o")
        .arg(&log)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("strace is attached", || {
        let status = fs::read_to_string(format!("/proc/{}/status", site.tgtd())).unwrap();
        (!status.contains("TracerPid:\t0\n")).then_some(())
    });
    io(&site.right(&a), &["write -P 1 0 4k", "flush"]).unwrap();
    let file = a.file.to_str().unwrap();
    let traced = until("both are seen", || {
        let traced = fs::read_to_string(&log).unwrap_or_default();
        traced.contains("fdatasync").then_some(traced)
    });
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&strace),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    strace.wait().unwrap();
    let at = |call: &str| {
        traced
            .lines()
            .position(|line| line.contains(call) && line.contains(file))
            .unwrap_or_else(|| panic!("no {call} of {file}:\n{traced}"))
    };
    assert!(at("pwrite64") < at("fdatasync"), "{traced}");
}

#[test]
fn row_449_an_end_in_order_leaves_nothing() {
    let Some(mut site) = Site::new() else { return };
    let a = site.wanted("a", 64 * MIB);
    site.targets.put(&a).unwrap();
    site.targets.open().unwrap();
    let mut writer = Writer::start(&site.right(&a));
    writer.write();
    let id = site.tgtd();
    site.daemon.take().unwrap().stop().unwrap();
    assert!(!fs::exists(format!("/proc/{id}")).unwrap());
    let left: Vec<_> = fs::read_dir(site.socket().parent().unwrap())
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    drop(writer);
}
