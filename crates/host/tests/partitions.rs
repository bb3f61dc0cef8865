//! One partition of a volume is used as if it were all of it, and nothing outside of it is touched.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may print and panic"
)]

mod rig;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use host::staging::{self, NodeVolume};
use host::{Error, FsType};
use rig::{MIB, Rig, make_image, patch, size_of};
use types::{Classify, ErrorKind};

const START: u64 = MIB;
const LEN: u64 = 32 * MIB;

/// A volume of 64 MiB with an ext4 of 32 MiB at 1 MiB and noise around it.
fn partitioned(rig: &Rig, name: &str) -> NodeVolume {
    let inner = rig.path("inner.img");
    make_image(&inner, "ext4", LEN);
    let mut volume = rig.volume(name, 64 * MIB);
    volume.has_source = true;
    volume.part = Some(START..START + LEN);
    patch(&volume.file, &vec![0xa5; 1 << 20], 0);
    patch(&volume.file, &fs::read(&inner).unwrap(), START);
    patch(&volume.file, &vec![0x5a; 1 << 20], START + LEN);
    volume
}

fn make_file(path: &std::path::Path) {
    use std::io::Write;

    let mut file = File::create(path).unwrap();
    file.write_all(&vec![7; 4 << 20]).unwrap();
    file.sync_all().unwrap();
}

/// Whether the bytes around the partition are as they were.
fn is_untouched(volume: &NodeVolume) -> bool {
    let file = File::open(&volume.file).unwrap();
    let read = |offset| {
        let mut bytes = vec![0; 1 << 20];
        file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    };
    read(0).iter().all(|byte| *byte == 0xa5) && read(START + LEN).iter().all(|byte| *byte == 0x5a)
}

#[test]
fn a_partition_is_mounted_by_its_place_and_grows_no_further() {
    let Some(rig) = Rig::new() else { return };
    let volume = partitioned(&rig, "part");
    let request = rig.mount_request(&volume, None);
    let staged = rig.stage(&request);
    assert_eq!(staged.fs_type, Some(FsType::Ext4));
    assert!(size_of(&request.staging_path) <= LEN);
    make_file(&request.staging_path.join("x"));
    // The same again is the same; another place is not.
    assert_eq!(rig.stage(&request), staged);
    for part in [None, Some(START..START + LEN - 4096)] {
        let mut other = request.clone();
        other.volume.part = part;
        let error = staging::stage(&other).unwrap_err();
        assert!(matches!(error, Error::Incompatible { .. }), "{error}");
    }
    assert_eq!(
        staging::expand(&volume.name, &request.staging_path)
            .unwrap()
            .bytes(),
        LEN
    );
    rig.unstage(&request);
    assert!(is_untouched(&volume));
    rig.stage(&request);
    assert!(request.staging_path.join("x").exists());
    rig.unstage(&request);
    // As a block device it is that partition too.
    let block = rig.block_request(&volume);
    let device = rig.stage(&block).device;
    assert_eq!(
        probe::Disk::size(&probe::FileDisk::open(&device).unwrap()),
        LEN
    );
    rig.unstage(&block);
    rig.assert_clean();
}

#[test]
fn row_74_a_partition_is_never_formatted_and_lies_inside_its_volume() {
    let Some(rig) = Rig::new() else { return };
    let mut volume = rig.volume("empty", 64 * MIB);
    volume.part = Some(START..START + LEN);
    for has_source in [false, true] {
        volume.has_source = has_source;
        let error = staging::stage(&rig.mount_request(&volume, None)).unwrap_err();
        assert!(matches!(error, Error::Blank { .. }), "{error}");
    }
    volume.part = Some(START..65 * MIB);
    let error = staging::stage(&rig.mount_request(&volume, None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
    rig.assert_clean();
}
