//! The life of a volume on the DRBD of this kernel, with one replica: everything that one node does by itself. Runs where
//! the kernel has DRBD 9, as in the guests of `make vm-test`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use host::drbd::{Drbd, device_path};
use host::staging::{self, Access, Check, NodeVolume, StageRequest, Usage};
use host::{Disks, loopdev};
use replication::{
    DiskState, Engine as _, Generation, Layout, Member, MemberId, Part, Role, Secret, converge,
};
use types::{ByteSize, DiskUuid, NodeId, VolumeName};

const MIB: u64 = 1 << 20;
const MINOR: u32 = 1900;

struct Rig {
    root: tempfile::TempDir,
    drbd: Drbd,
    node: NodeId,
    secret: Secret,
    layout: Layout,
}

impl Rig {
    /// `None`: this kernel has no DRBD 9.
    fn new() -> Option<Self> {
        let node = NodeId::new("a").unwrap();
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("disk");
        let drbd = Drbd::new(Disks::new(vec![disk.clone()]), node.clone());
        if let Err(error) = drbd.version() {
            println!("skipped: needs DRBD 9: {error}");
            return None;
        }
        fs::create_dir_all(disk.join("volumes/real")).unwrap();
        let mut config = File::create(disk.join("longhorn-disk.cfg")).unwrap();
        config.write_all(br#"{"diskUUID":"disk-a"}"#).unwrap();
        for (name, size) in [("volume", 64 * MIB), ("drbd", 9 * MIB)] {
            let file = File::create(disk.join("volumes/real").join(name)).unwrap();
            file.set_len(size).unwrap();
        }
        let layout = Layout {
            volume: VolumeName::new("real").unwrap(),
            generation: 1,
            size: ByteSize(64 * MIB),
            minor: MINOR,
            port: 17000,
            members: vec![Member {
                id: MemberId(0),
                node: node.clone(),
                address: "127.0.0.1".parse().unwrap(),
                disk: Some(DiskUuid::new("disk-a").unwrap()),
                create: true,
                as_first: true,
                apart: false,
            }],
            holder: None,
            readers: Vec::new(),
            tls: false,
            day_zero: Some(Generation::random(0x0123_4567_89ab_cdef)),
            initialized: false,
        };
        Some(Self {
            root,
            drbd,
            node,
            secret: Secret::new("geheim".to_owned()).unwrap(),
            layout,
        })
    }

    /// Tells the node something else, and looks that nothing more is to be done then.
    #[track_caller]
    fn apply(&mut self, change: impl FnOnce(&mut Layout)) -> Part {
        change(&mut self.layout);
        self.layout.generation += 1;
        for _ in 0..2 {
            self.drbd
                .apply(&self.layout, &self.node, &self.secret)
                .unwrap();
        }
        let part = self.part();
        assert_eq!(
            converge(&self.layout, &self.node, Some(&part)),
            [],
            "{part:?}"
        );
        part
    }

    fn part(&self) -> Part {
        let known = std::slice::from_ref(&self.layout);
        let mut parts = self.drbd.observe(known, &self.node).unwrap();
        parts.retain(|part| part.volume == self.layout.volume);
        parts.pop().unwrap()
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("disk/volumes/real/volume")
    }

    fn place(&self) -> PathBuf {
        self.root.path().join("staged")
    }

    fn stage(&self, access: Access, read_only: bool) -> host::Result<staging::Staged> {
        let request = StageRequest {
            volume: NodeVolume {
                name: self.layout.volume.clone(),
                file: device_path(MINOR),
                size: self.layout.size,
                has_source: false,
                part: None,
            },
            staging_path: self.place(),
            access,
            read_only,
            mkfs_options: String::new(),
            check: Check::default(),
        };
        staging::stage_replicated(&request, &self.drbd, &self.layout)
    }

    fn unstage(&self) {
        staging::unstage(&self.layout.volume, &self.place()).unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = staging::unstage(&self.layout.volume, &self.place());
        let _ = self.drbd.remove(&self.layout.volume);
    }
}

fn mounted() -> Access {
    Access::Mount {
        fs_type: None,
        flags: Vec::new(),
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[test]
fn the_life_of_a_replicated_volume_on_one_node() {
    let Some(mut rig) = Rig::new() else {
        return;
    };
    let me = rig.node.clone();
    // Nobody was admitted yet.
    let part = rig.apply(|_| {});
    assert_eq!(
        (part.disk, part.role),
        (DiskState::UpToDate, Role::Secondary),
        "{part:?}"
    );
    assert!(
        part.quorum && !part.open && part.troubles.is_empty(),
        "{part:?}"
    );
    assert_eq!(
        (part.size, part.backing),
        (ByteSize(64 * MIB), ByteSize(64 * MIB))
    );
    let refused = rig.stage(mounted(), false).unwrap_err();
    assert!(refused.to_string().contains("does not admit"), "{refused}");
    assert_eq!(rig.drbd.on_disks()[0].id, Some(0));

    // Blank, and formatted once.
    rig.apply(|layout| {
        layout.holder = Some(me.clone());
        layout.initialized = true;
        layout.members[0].create = false;
    });
    for _ in 0..2 {
        let staged = rig.stage(mounted(), false).unwrap();
        assert_eq!(staged.device, device_path(MINOR));
        assert_eq!(staged.fs_type, Some(host::FsType::Ext4));
    }
    let kept = rig.place().join("kept");
    write(&kept, b"acknowledged").unwrap();
    let part = rig.part();
    assert!(part.role == Role::Primary && part.open, "{part:?}");
    let stats = staging::stats(&rig.layout.volume, &rig.place()).unwrap();
    assert!(!stats.condition.abnormal, "{stats:?}");
    assert!(matches!(stats.usage, Some(Usage::FileSystem { .. })));

    // It grows while it is used.
    let file = OpenOptions::new().write(true).open(rig.file()).unwrap();
    file.set_len(96 * MIB).unwrap();
    file.sync_all().unwrap();
    let part = rig.apply(|layout| layout.size = ByteSize(96 * MIB));
    assert_eq!(part.backing, ByteSize(96 * MIB));
    rig.drbd.grow(&rig.layout).unwrap();
    let size = staging::expand(&rig.layout.volume, &rig.place()).unwrap();
    assert_eq!(size, ByteSize(96 * MIB));

    // Its writes are stopped and go on.
    rig.drbd.suspend(&rig.layout).unwrap();
    assert_eq!(rig.drbd.suspended().unwrap(), [rig.layout.volume.clone()]);
    for _ in 0..2 {
        rig.drbd.resume(&rig.layout).unwrap();
    }
    assert!(rig.drbd.suspended().unwrap().is_empty());

    for _ in 0..2 {
        rig.unstage();
    }
    let part = rig.part();
    assert!(part.role == Role::Secondary && !part.open, "{part:?}");
    readers_write_nothing(&mut rig);
    a_holder_lets_go(&mut rig);

    // Down and up again: everything is as it was.
    rig.drbd.remove(&rig.layout.volume).unwrap();
    let ours = loopdev::find(|status| status.mark.text().starts_with("longhorn-drbd")).unwrap();
    assert!(ours.is_empty(), "{ours:?}");
    rig.apply(|layout| layout.holder = Some(me));
    rig.stage(mounted(), false).unwrap();
    assert_eq!(fs::read(kept).unwrap(), b"acknowledged");
    rig.unstage();
    let staged = rig.stage(Access::Block, false).unwrap();
    assert_eq!(staged.fs_type, None);
    rig.unstage();
}

/// Reading needs no holder, and makes none.
fn readers_write_nothing(rig: &mut Rig) {
    let me = rig.node.clone();
    rig.apply(|layout| {
        layout.holder = None;
        layout.readers = vec![me];
    });
    rig.stage(mounted(), true).unwrap();
    assert_eq!(fs::read(rig.place().join("kept")).unwrap(), b"acknowledged");
    assert!(write(&rig.place().join("new"), b"").is_err());
    let device = OpenOptions::new().write(true).open(device_path(MINOR));
    assert!(device.is_err(), "it would promote this node");
    assert_eq!(rig.part().role, Role::Secondary);
    rig.unstage();
    rig.apply(|layout| layout.readers.clear());
}

/// What is mounted when the volume is somebody else's fails, and is cleaned up.
fn a_holder_lets_go(rig: &mut Rig) {
    let me = rig.node.clone();
    rig.apply(|layout| layout.holder = Some(me.clone()));
    rig.stage(mounted(), false).unwrap();
    let part = rig.apply(|layout| layout.holder = None);
    assert!(part.role == Role::Secondary && part.open, "{part:?}");
    assert!(write(&rig.place().join("late"), b"late").is_err());
    let stats = staging::stats(&rig.layout.volume, &rig.place()).unwrap();
    assert!(stats.condition.abnormal, "{stats:?}");
    rig.unstage();
    assert!(!rig.part().open);
    assert!(File::open(device_path(MINOR)).is_err(), "nobody may read");
}
