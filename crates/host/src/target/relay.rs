//! Passes questions on to a tgtd of this user from a caller that is another one.
//!
//! tgtd answers only callers of its own user and group (their credentials, unix(7)). The node plugin is root without
//! the capability to become somebody else, and gets none for this. So the daemon, which is tgtd's user, has a socket
//! of its own, lets root and itself in, and passes on bytes: it understands of a question no more than its length.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use rustix::process::geteuid;

use super::wire::{self, ANSWER_MAX, HEADER};
use crate::{Error, Result};

/// How many may ask at once; the node plugin asks one thing at a time.
const CALLERS_MAX: usize = 16;

/// Listens at `socket`, for as long as this process lives.
pub(super) fn start(socket: &Path, tgtd: PathBuf) -> Result<()> {
    let listener = UnixListener::bind(socket).map_err(Error::io("listen at", socket))?;
    let callers = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors, say: not a reason to spin.
                thread::sleep(wire::LIMIT / 100);
                continue;
            };
            let place = Place(Arc::clone(&callers));
            if place.0.fetch_add(1, Ordering::Relaxed) >= CALLERS_MAX || !may_ask(&stream) {
                continue;
            }
            let tgtd = tgtd.clone();
            // If there is no thread, the caller sees the end of the stream.
            let _ = thread::Builder::new()
                .name("relay".to_owned())
                .spawn(move || {
                    let _place = place;
                    if let Err(error) = pass_on(stream, &tgtd) {
                        tracing::debug!("a question to tgtd was not passed on: {error}");
                    }
                });
        }
    };
    thread::Builder::new()
        .name("relay".to_owned())
        .spawn(accept)
        .map_err(Error::io("start a thread for", socket))?;
    Ok(())
}

/// Gives its place back when it is dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The user at the other end, as unix(7) has it (`SO_PEERCRED`). rustix's own call cannot tell it here: the other end is
/// in another pod, so it has no number of a process that would mean anything to us, and the kernel says 0.
fn caller(stream: &UnixStream) -> Option<libc::uid_t> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: libc::uid_t::MAX,
        gid: libc::gid_t::MAX,
    };
    let size = size_of::<libc::ucred>();
    let mut length = libc::socklen_t::try_from(size).ok()?;
    #[expect(
        unsafe_code,
        reason = "no library has this call for a caller without a pid"
    )]
    // SAFETY: both pointers are to values of ours that outlive the call, and `length` is the size of the first.
    let told = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    (told == 0 && usize::try_from(length) == Ok(size)).then_some(peer.uid)
}

fn may_ask(stream: &UnixStream) -> bool {
    let may = caller(stream).is_some_and(|uid| uid == 0 || uid == geteuid().as_raw());
    if !may {
        tracing::warn!("a caller that is neither root nor this user was refused");
    }
    may
}

fn pass_on(mut caller: UnixStream, tgtd: &Path) -> io::Result<()> {
    let until = Instant::now() + wire::LIMIT;
    let mut header = [0; HEADER];
    wire::read_until(&mut caller, &mut header, until)?;
    let len = wire::parameters_len(&header).ok_or(io::ErrorKind::InvalidData)?;
    let mut question = header.to_vec();
    question.resize(HEADER + len, 0);
    wire::read_until(&mut caller, &mut question[HEADER..], until)?;
    let mut stream = wire::connect(tgtd, wire::LIMIT)?;
    stream.write_all(&question)?;
    stream.set_read_timeout(Some(wire::LIMIT))?;
    caller.set_write_timeout(Some(wire::LIMIT))?;
    // tgtd closes the connection after its answer.
    io::copy(&mut stream.take(ANSWER_MAX as u64 + 8), &mut caller)?;
    Ok(())
}
