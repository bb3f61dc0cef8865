//! What the process must do to answer whatever happens to it: signals, panics, its own output.

use std::ffi::OsString;
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::reply::Reply;

/// How long a call that is told to end may take to undo what it has done.
const GRACE: Duration = Duration::from_secs(10);

/// The signals that ask a process to end.
const TERMINATION: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Overwrites the options among this process's arguments, which every account of the node can read in
/// `/proc/PID/cmdline` while a call waits for its image: they hold the pod's secret. The protocol puts
/// them there; `arguments` is a copy of them. A system without `/proc` shows them to nobody.
pub(crate) fn hide_options(arguments: &[OsString]) {
    // There is no log yet, and the call is not refused for what the kubelet has done already.
    let _ = overwrite_options(arguments);
}

fn overwrite_options(arguments: &[OsString]) -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name, in parentheses, may hold anything. After it comes the third field of proc(5).
    let (_, fields) = stat.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
    let field = |number: usize| -> io::Result<u64> {
        let field = fields.split_ascii_whitespace().nth(number - 3);
        let value = field.and_then(|text| text.parse().ok());
        value.ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    let (mut at, end) = (field(48)?, field(49)?);
    let all: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
    if end.checked_sub(at) != Some(all as u64) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let memory = fs::OpenOptions::new().write(true).open("/proc/self/mem")?;
    for argument in arguments {
        if argument.as_bytes().iter().any(|byte| b"{\"".contains(byte)) {
            memory.write_all_at(&vec![b'*'; argument.len()], at)?;
        }
        at += argument.len() as u64 + 1;
    }
    Ok(())
}

/// Sets the process up; called first.
pub(crate) fn prepare() {
    // A signal waits until somebody can answer it. Children get an empty mask from the standard
    // library.
    mask(libc::SIG_BLOCK);
    types::crash::init();
    // The kubelet reads standard error as part of the answer.
    silence_stderr();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

fn silence_stderr() {
    let flags = rustix::fs::OFlags::WRONLY;
    if let Ok(null) = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()) {
        replace_stderr(&null);
    }
}

#[expect(
    unsafe_code,
    reason = "dup2 onto standard error has no safe wrapper here"
)]
fn replace_stderr(with: &OwnedFd) {
    // SAFETY: both numbers are open files, or dup2 fails; nobody here owns number 2.
    unsafe { libc::dup2(with.as_raw_fd(), libc::STDERR_FILENO) };
}

fn termination_set() -> libc::sigset_t {
    #[expect(unsafe_code, reason = "signal sets are made by libc")]
    // SAFETY: all zeros is a valid sigset_t, and the calls get a pointer to it and valid numbers.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for number in TERMINATION {
            libc::sigaddset(&raw mut set, number);
        }
        set
    }
}

fn mask(how: i32) {
    let set = termination_set();
    #[expect(unsafe_code, reason = "the signal mask has no safe wrapper here")]
    // SAFETY: the set is a valid one and no old set is asked for.
    unsafe {
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}

/// Waits until the process is told to end; for `install --stay`.
pub(crate) fn wait_for_termination() {
    let set = termination_set();
    let mut number = 0;
    #[expect(unsafe_code, reason = "sigwait has no safe wrapper here")]
    // SAFETY: both pointers are to live values; the signals are blocked since `prepare`.
    unsafe {
        libc::sigwait(&raw const set, &raw mut number);
    }
}

/// Tells the parts of a call that wait for something that the time is up.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Does `work`, unless the process is told to end first.
    pub(crate) async fn unless<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let mut told = self.0.clone();
        tokio::select! {
            biased;
            Ok(_) = told.wait_for(|told| *told) => Err(Error::Terminated),
            done = work => Ok(done),
        }
    }
}

/// Runs a call to its end, and ends it when a signal says so: first by asking, so that it undoes what
/// it has done, then without it.
pub(crate) fn run<W, F>(work: W) -> Result<Reply>
where
    W: FnOnce(Stop) -> F,
    F: Future<Output = Result<Reply>>,
{
    types::crash_point!("flexvolume.call.started");
    let failed = |source| Error::io("start", Path::new("the runtime"))(source);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new().map_err(failed)?;
        let (tell, told) = watch::channel(false);
        let mut work = pin!(work(Stop(told)));
        tokio::select! {
            result = &mut work => result,
            () = signals.next() => {
                tracing::warn!("told to end");
                tell.send_replace(true);
                let ended = tokio::time::timeout(GRACE, work).await;
                ended.unwrap_or(Err(Error::Terminated))
            }
        }
    });
    // A thread that hangs in the kernel is not waited for.
    runtime.shutdown_background();
    result
}

struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let listen = |number| signal(SignalKind::from_raw(number));
        let [term, int, hup] = TERMINATION;
        let signals = Self([listen(term)?, listen(int)?, listen(hup)?]);
        mask(libc::SIG_UNBLOCK);
        Ok(signals)
    }

    async fn next(&mut self) {
        let [term, int, hup] = &mut self.0;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
        }
    }
}

/// Runs work that blocks its thread: everything of this node.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let work = || {
        types::crash_point!("flexvolume.call.blocking");
        work()
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::Panicked)?
}
