//! What a privileged process gives up for good before it serves anybody, for itself and for the tools it runs.
//!
//! Kubernetes gives a container with `mountPropagation: Bidirectional` everything (docs/architecture.md). Here the
//! process keeps of that what this crate uses: four capabilities, a fifth for replicated volumes, and the system calls that some part of it makes.
//! Somebody who takes it over, or one of its tools by a crafted file system, still may mount and write as root; he
//! loads no module, replaces no kernel, looks into no other process, and gains nothing by a set-user-ID program.
//!
//! The calls are a list of what is denied, not of what is allowed: mkfs, fsck and the tools of btrfs are those of
//! the node's distribution, and a new version that makes a new harmless call must not fail at three in the morning.

use std::collections::BTreeMap;
use std::fmt;

use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::{Error, Result};

/// What a process goes on doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Attaching, mounting, making and growing file systems.
    Node {
        /// And DRBD.
        drbd: bool,
        /// And shares of CIFS.
        cifs: bool,
    },
    /// Nothing that needs a privilege.
    Unprivileged,
}

impl Work {
    /// The capabilities that it needs; `tests/tests/confined.rs` has the life of a volume with no more than these:
    /// `CAP_SYS_ADMIN` mounts, and configures loop devices; `CAP_DAC_OVERRIDE` opens files of managers that run as
    /// another user, and `CAP_CHOWN` gives them a formatted one; `CAP_SYS_RESOURCE` grows an ext4 in use (`EXT4_IOC_RESIZE_FS`).
    /// `CAP_NET_ADMIN` is what the kernel wants of those who configure DRBD, by generic netlink. `CAP_DAC_READ_SEARCH`
    /// lets nobody read more than `CAP_DAC_OVERRIDE` does; mount.cifs does not start without it.
    fn capabilities(self) -> CapabilitySet {
        match self {
            Self::Node { drbd, cifs } => {
                let mut kept = CapabilitySet::SYS_ADMIN
                    | CapabilitySet::CHOWN
                    | CapabilitySet::DAC_OVERRIDE
                    | CapabilitySet::SYS_RESOURCE;
                kept.set(CapabilitySet::NET_ADMIN, drbd);
                kept.set(CapabilitySet::DAC_READ_SEARCH, cifs);
                kept
            }
            Self::Unprivileged => CapabilitySet::empty(),
        }
    }
}

/// What is left, and what of it could not be given up.
#[derive(Debug)]
pub struct Confined {
    kept: CapabilitySet,
    denied: usize,
    /// What this kernel or this container refused.
    pub missing: Vec<String>,
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept: Vec<_> = (self.kept.iter_names())
            .map(|(name, _)| format!("CAP_{name}"))
            .collect();
        let kept = if kept.is_empty() {
            "none".to_owned()
        } else {
            kept.join(",")
        };
        write!(
            f,
            "capabilities {kept}, {} system calls denied",
            self.denied
        )
    }
}

/// Gives up everything but what `work` needs. To be called before a thread is started: each would keep its own.
///
/// Of what the kernel refuses here, the rest is given up all the same, and [`Confined::missing`] says it.
///
/// # Errors
/// When it is not even known what this process has.
pub fn restrict(work: Work) -> Result<Confined> {
    let have = thread::capabilities(None)
        .map_err(Error::io("read the capabilities of", "this process"))?;
    let kept = have.permitted & work.capabilities();
    let mut missing = Vec::new();
    let mut note = |what: &str, error: &dyn fmt::Display| missing.push(format!("{what}: {error}"));
    // First the bounding set, which needs CAP_SETPCAP: it is what a root process gets that this one starts.
    if let Err(errno) = narrow_bounding_set(work.capabilities()) {
        note("the tools keep the capabilities of the container", &errno);
    }
    if let Err(errno) = thread::clear_ambient_capability_set() {
        note("ambient capabilities stay", &errno);
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    if let Err(errno) = thread::set_capabilities(None, sets) {
        note("capabilities stay", &errno);
    }
    if let Err(errno) = thread::set_no_new_privs(true) {
        note("new privileges may come by set-user-ID programs", &errno);
    }
    let mut denied = 0;
    match filters() {
        Ok(filters) => {
            for (filter, calls) in filters {
                match seccompiler::apply_filter(&filter) {
                    Ok(()) => denied += calls,
                    Err(error) => note("system calls are not filtered", &error),
                }
            }
        }
        Err(error) => note("system calls are not filtered", &error),
    }
    Ok(Confined {
        kept,
        denied,
        missing,
    })
}

/// Takes all others out of the bounding set, also those that this program has no name for.
fn narrow_bounding_set(keep: CapabilitySet) -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if keep.contains(capability) {
            continue;
        }
        match thread::capability_is_in_bounding_set(capability) {
            Ok(true) => thread::remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // The kernel has no more of them.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Denied with `EPERM`, whatever the arguments are. The table of docs/operations.md has them with the reasons.
const DENIED: &[libc::c_long] = &[
    // The kernel: its modules, its successor, programs in it, its clock and its names.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_nfsservctl,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Files by other ways than their paths, and other views of them.
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_unshare,
    // Keys of the kernel, and parts of it with a history of holes that nothing here uses.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_vhangup,
    libc::SYS_personality,
    libc::SYS_lookup_dcookie,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
];

/// Those that only this kind of machine has.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[libc::c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];

/// The kernel takes a call with this bit in its number as one of the x32 interface, and does the same (`__X32_SYSCALL_BIT`).
const X32: i64 = 0x4000_0000;

/// The flags of clone(2) that make a namespace; a new user namespace would have all capabilities anew.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// The filters, each with the number of calls that it denies.
fn filters() -> Result<Vec<(BpfProgram, usize)>, seccompiler::Error> {
    let mut rules = BTreeMap::new();
    for call in DENIED.iter().chain(DENIED_HERE) {
        rules.insert(*call, Vec::new());
    }
    let mut namespaces = Vec::new();
    for bit in 0..31 {
        let flag = NAMESPACES & (1 << bit);
        if flag != 0 {
            let flag = u64::from(flag.unsigned_abs());
            let set = SeccompCmpOp::MaskedEq(flag);
            let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, set, flag)?;
            namespaces.push(SeccompRule::new(vec![condition])?);
        }
    }
    rules.insert(libc::SYS_clone, namespaces);
    // Its flags are behind a pointer, where no filter can look: the C library then takes clone(2).
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    [(rules, libc::EPERM), (clone3, libc::ENOSYS)]
        .into_iter()
        .map(|(rules, errno)| {
            let calls = rules.len();
            Ok((program(rules, errno)?, calls))
        })
        .collect()
}

fn program(
    mut rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::Error> {
    if cfg!(target_arch = "x86_64") {
        let again: Vec<_> = rules
            .iter()
            .map(|(call, rules)| (call | X32, rules.clone()))
            .collect();
        rules.extend(again);
    }
    let target: TargetArch = std::env::consts::ARCH.try_into()?;
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, target)?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_no_call_is_named_twice() {
        let filters = filters().unwrap();
        let named: std::collections::BTreeSet<_> = DENIED.iter().chain(DENIED_HERE).collect();
        assert_eq!(named.len(), DENIED.len() + DENIED_HERE.len());
        // And clone for namespaces.
        assert_eq!(filters[0].1, named.len() + 1);
        assert_eq!(filters[1].1, 1);
        // The kernel takes 4096 instructions (BPF_MAXINSNS).
        assert!(filters.iter().all(|(program, _)| program.len() < 4096));
    }

    /// Makes a system call without arguments that could do anything, and says how it ended.
    #[expect(unsafe_code, reason = "no wrapper makes calls that are to be refused")]
    fn call(number: libc::c_long, first: libc::c_long) -> Option<i32> {
        // SAFETY: a call that is not refused gets null pointers and zeros, which it refuses or ignores.
        let result = unsafe { libc::syscall(number, first, 0, 0, 0, 0, 0) };
        let error = std::io::Error::last_os_error();
        (result == -1).then(|| error.raw_os_error().unwrap())
    }

    /// In a process of its own: what is given up does not come back.
    #[test]
    fn row_247_calls_that_nothing_makes_are_refused_here_and_in_children() {
        const CHILD: &str = "CONFINED_CHILD";
        if std::env::var_os(CHILD).is_none() {
            let test =
                "confine::tests::row_247_calls_that_nothing_makes_are_refused_here_and_in_children";
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let output = child
                .args(["--exact", test])
                .env(CHILD, "1")
                .output()
                .unwrap();
            let words = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && words.contains("1 passed"),
                "{words}"
            );
            return;
        }
        let before = call(libc::SYS_personality, 0xffff_ffff);
        assert_eq!(before, None, "a call that needs no right works");
        let confined = restrict(Work::Unprivileged).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(confined.missing, Vec::<String>::new());
        }
        assert!(
            confined.to_string().starts_with("capabilities none, "),
            "{confined}"
        );
        for denied in DENIED.iter().chain(DENIED_HERE) {
            assert_eq!(call(*denied, 0), Some(libc::EPERM), "call {denied}");
            if cfg!(target_arch = "x86_64") {
                assert_eq!(
                    call(*denied | X32, 0),
                    Some(libc::EPERM),
                    "call {denied} of x32"
                );
            }
        }
        let user = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
        assert_eq!(call(libc::SYS_clone, user), Some(libc::EPERM));
        assert_eq!(call(libc::SYS_clone3, 0), Some(libc::ENOSYS));
        // Threads and programs start as ever.
        std::thread::spawn(|| ()).join().unwrap();
        let read = std::process::Command::new("/bin/cat")
            .arg("/proc/self/status")
            .output()
            .unwrap();
        let status = String::from_utf8_lossy(&read.stdout);
        for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{line} is not in {status}");
        }
    }
}
