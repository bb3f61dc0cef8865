//! What a guest runs: an initramfs that loads modules, and a read-only image of this machine's programs and ours, below a
//! layer in memory that a power cut takes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use super::kernel::Kernel;
use crate::command::{find, output, run};
use crate::{Sandbox, programs};

/// Programs of this machine that ours call, or that a test looks with. Those in the second list need not be here.
const NEEDED: &[&str] = &[
    "mount",
    "umount",
    "losetup",
    "blkid",
    "mkfs.xfs",
    "mkfs.ext4",
    "xfs_io",
    "xfs_growfs",
    "xfs_repair",
    "resize2fs",
    "e2fsck",
    "fsfreeze",
    "blockdev",
    "drbdsetup",
    "drbdmeta",
    "ip",
    "dmsetup",
];
const WELCOME: &[&str] = &[
    "mkfs.btrfs",
    "btrfs",
    "xfs_db",
    "xfs_admin",
    "dumpe2fs",
    "tune2fs",
    "findmnt",
    "modinfo",
    "cp",
    "strace",
    "filefrag",
    "fsck.ext4",
    "fsck.xfs",
    "fallocate",
    "flock",
    "ss",
    "tcpdump",
];

/// What every guest of a test boots.
#[derive(Debug)]
pub(super) struct System {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    /// squashfs.
    pub(super) programs: PathBuf,
}

impl System {
    /// Makes both below the sandbox.
    pub(super) fn make(sandbox: &Sandbox, kernel: &Kernel) -> Self {
        let directory = sandbox.make_dir("vm");
        let (initramfs, programs) = (
            directory.join("initramfs"),
            directory.join("programs.squashfs"),
        );
        make_initramfs(&initramfs, kernel).expect("write the initramfs");
        let tree = directory.join("tree");
        make_tree(&tree);
        // Without compression: it is read by an emulated processor, and lies in this machine's memory.
        let plain = [
            "-noappend",
            "-quiet",
            "-no-progress",
            "-all-root",
            "-no-xattrs",
            "-noI",
            "-noD",
            "-noF",
            "-noX",
        ];
        let paths = [tree.as_os_str(), programs.as_os_str()];
        let plain = plain.map(std::ffi::OsStr::new);
        run("mksquashfs", paths.into_iter().chain(plain));
        fs::remove_dir_all(&tree).expect("remove the tree of programs");
        Self {
            kernel: kernel.image.clone(),
            initramfs,
            programs,
        }
    }
}

/// The first process: modules, then the programs with a layer in memory over them.
const FIRST: &str = "#!/busybox sh
b() { /busybox \"$@\"; }
b mkdir -p /proc /sys /dev /ro /rw /root
b mount -t devtmpfs dev /dev
b mount -t proc proc /proc
b mount -t sysfs sys /sys
while read -r module options; do
    # Those that the processor has no use for are refused; without DRBD nothing can be shown.
    b insmod /modules/$module $options 2>/dev/null || case $module in drbd*) echo \"VM: no $module\" >/dev/ttyS0 ;; esac
done </modules/order
b mount -t squashfs -o ro /dev/vda /ro
b mount -t tmpfs -o mode=755 rw /rw
b mkdir /rw/up /rw/work
b mount -t overlay -o lowerdir=/ro,upperdir=/rw/up,workdir=/rw/work root /root
b umount /sys
b umount /proc
b mount --move /dev /root/dev
exec /busybox switch_root /root /sbin/init
";

/// The second: what an operating system has when the kubelet starts, the disks, and who answers to the harness.
const SECOND: &str = "#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount --make-rshared /
mkdir -p /run/lock /run/drbd /var/lib/drbd /var/lib/kubelet
ln -s /run/lock /var/lock
for word in $(cat /proc/cmdline); do
    case $word in vm.*) eval \"${word#vm.}\" ;; esac
done
hostname \"$name\"
echo \"127.0.0.1 localhost $name\" >/etc/hosts
ip link set lo up
ip addr add \"$storage\" dev eth0
ip addr add \"$control\" dev eth1
ip link set eth0 up
ip link set eth1 up
letter=b
for disk in $disks; do
    mkdir -p \"/disks/$disk\"
    mount -t xfs -o noatime /dev/vd$letter \"/disks/$disk\" || echo \"VM: no disk $disk\" >/dev/ttyS0
    letter=$(echo $letter | tr b-y c-z)
done
vm-guest \"${control%/*}:1\" >/dev/ttyS0 2>&1 &
while :; do wait; sleep 1; done
";

fn make_initramfs(path: &Path, kernel: &Kernel) -> std::io::Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(path)?));
    let busybox = find("busybox").expect("busybox");
    archive.program("busybox", &fs::read(busybox)?)?;
    archive.program("init", FIRST.as_bytes())?;
    archive.directory("modules")?;
    let mut order = String::new();
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".xz");
        let bytes = if module
            .extension()
            .is_some_and(|extension| extension == "xz")
        {
            output("xz", ["-dc".as_ref(), module.as_os_str()]).stdout
        } else {
            fs::read(module)?
        };
        archive.program(&format!("modules/{name}"), &bytes)?;
        // No helper of DRBD's is called: there is none.
        let options = if name == "drbd.ko" {
            " usermode_helper=disabled"
        } else {
            ""
        };
        order.extend([name, options, "\n"]);
    }
    archive.program("modules/order", order.as_bytes())?;
    archive.finish()
}

/// The root of a guest: programs with the libraries that they are linked with, at the paths that they look for.
fn make_tree(tree: &Path) {
    for directory in [
        "bin", "sbin", "usr", "etc", "proc", "sys", "dev", "tmp", "run", "root", "disks", "var/lib",
    ] {
        fs::create_dir_all(tree.join(directory)).expect("make the tree of programs");
    }
    for name in ["bin", "sbin"] {
        symlink(format!("/{name}"), tree.join("usr").join(name)).expect("make a link");
    }
    place(tree, "sbin/init", SECOND);
    place(
        tree,
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    );
    place(tree, "etc/group", "root:x:0:\nnogroup:x:65534:\n");
    let mut put = BTreeSet::new();
    let busybox = find("busybox").expect("busybox");
    copy(tree, &busybox, "busybox", &mut put);
    // Busybox's own shell prefers its applets to the programs beside it.
    let shell = find("bash").expect("bash");
    copy(tree, &shell, "sh", &mut put);
    for name in NEEDED {
        let program =
            find(name).unwrap_or_else(|| panic!("{name} is not here: run scripts/deps vm"));
        copy(tree, &program, name, &mut put);
    }
    for name in WELCOME {
        if let Some(program) = find(name) {
            copy(tree, &program, name, &mut put);
        }
    }
    for program in [
        programs::manager(),
        programs::csi_plugin(),
        programs::flexvolume(),
    ] {
        copy_ours(tree, &program, &mut put);
    }
    for name in ["vm-guest", "vm-judge"] {
        copy_ours(tree, &programs::harness(name), &mut put);
    }
    for name in run("busybox", ["--list"]).lines() {
        if !["bin", "sbin"]
            .iter()
            .any(|place| tree.join(place).join(name).exists())
        {
            symlink("/bin/busybox", tree.join("bin").join(name)).expect("make a link");
        }
    }
}

fn place(tree: &Path, path: &str, text: &str) {
    use std::io::Write as _;
    let path = tree.join(path);
    let mut file = File::create(&path).expect("make a file");
    file.write_all(text.as_bytes()).expect("write a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
}

fn copy(tree: &Path, program: &Path, name: &str, put: &mut BTreeSet<PathBuf>) {
    fs::copy(program, tree.join("bin").join(name)).expect("copy a program");
    copy_libraries(tree, program, put);
}

/// Ours without what a debugger wants, which is most of them.
fn copy_ours(tree: &Path, program: &Path, put: &mut BTreeSet<PathBuf>) {
    let name = program.file_name().unwrap_or_default();
    let to = tree.join("bin").join(name);
    run(
        "strip",
        [
            "--strip-debug".as_ref(),
            "-o".as_ref(),
            to.as_os_str(),
            program.as_os_str(),
        ],
    );
    copy_libraries(tree, program, put);
}

fn copy_libraries(tree: &Path, program: &Path, put: &mut BTreeSet<PathBuf>) {
    // "name => /PATH (0x…)" or "/PATH (0x…)"; a script and a static program have none.
    let listed = output("ldd", [program]);
    for word in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
        let library = PathBuf::from(word);
        if !library.is_absolute() || !put.insert(library.clone()) {
            continue;
        }
        let to = tree.join(word.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a file is in a directory"))
            .expect("make a directory");
        fs::copy(&library, to).expect("copy a library");
    }
}
