//! What is said over tgtd's control socket: one request and one answer for each connection.
//!
//! A request is a header of 120 bytes in the machine's byte order, and after it a text of parameters with a NUL at
//! its end; an answer is an error code, its own length, and a text. tgtd looks for its parameters anywhere in the
//! text (`user=`, `initiator-name=`), so nothing may get into one that [`super::wanted`] has not checked.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The header of a request, in bytes.
pub(super) const HEADER: usize = 120;
/// The most that tgtd takes as parameters, in bytes.
pub(super) const PARAMETERS_MAX: usize = 8 * 1024;
/// The most that is read of an answer, in bytes: some thousand targets.
pub(super) const ANSWER_MAX: usize = 16 << 20;
/// How long one question may take. tgtd answers between two events, and waits for no disk.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// All that is served here goes over this.
const DRIVER: &[u8] = b"iscsi";

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    System = 0,
    Target = 1,
    Device = 2,
    Portal = 3,
    Driver = 4,
    Connection = 6,
    Account = 7,
}

/// What is to be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    New = 0,
    Delete = 1,
    Show = 2,
    Bind = 3,
    Unbind = 4,
    Update = 5,
}

/// One request. Numbers that it has no use for are 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) mode: Mode,
    pub(super) op: Op,
    /// The number of the target; -1 for all.
    pub(super) tid: i32,
    pub(super) session: u64,
    pub(super) lun: u64,
    pub(super) connection: u32,
    pub(super) parameters: &'a str,
}

impl<'a> Request<'a> {
    pub(super) fn new(mode: Mode, op: Op, parameters: &'a str) -> Self {
        Self {
            mode,
            op,
            tid: 0,
            session: 0,
            lun: 0,
            connection: 0,
            parameters,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let text = self.parameters.as_bytes();
        let text_len = if text.is_empty() { 0 } else { text.len() + 1 };
        let mut bytes = vec![0; HEADER + text_len];
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(0, &(self.mode as u32).to_ne_bytes());
        put(4, &(self.op as u32).to_ne_bytes());
        put(8, DRIVER);
        let len = u32::try_from(HEADER + text_len).unwrap_or(u32::MAX);
        put(72, &len.to_ne_bytes());
        put(76, &self.tid.to_ne_bytes());
        put(80, &self.session.to_ne_bytes());
        put(88, &self.lun.to_ne_bytes());
        put(96, &self.connection.to_ne_bytes());
        put(HEADER, text);
        bytes
    }
}

/// The length of the parameters that follow a header; `None` if it is longer than tgtd takes.
pub(super) fn parameters_len(header: &[u8; HEADER]) -> Option<usize> {
    let len = u32::from_ne_bytes(header[72..76].try_into().ok()?) as usize;
    len.checked_sub(HEADER).filter(|len| *len <= PARAMETERS_MAX)
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nobody answers, or not as tgtd does.
    Silent(io::Error),
    /// tgtd refused: its code.
    Refused(u32),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Silent(error)
    }
}

/// Connects within the time; also a listener whose queue is full must not hold anybody up.
pub(super) fn connect(socket: &Path, limit: Duration) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The kernel goes by this time when it connects, too (unix(7)).
    set_socket_timeout(&fd, Timeout::Send, Some(limit))?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(socket)?)?;
    Ok(UnixStream::from(fd))
}

/// Asks tgtd, or who passes it on, at `socket`.
pub(super) fn ask(socket: &Path, request: &Request<'_>) -> Result<String, Fault> {
    let until = Instant::now() + LIMIT;
    let mut stream = connect(socket, LIMIT)?;
    let question = request.encode();
    if question.len() > HEADER + PARAMETERS_MAX {
        return Err(io::Error::from(io::ErrorKind::ArgumentListTooLong).into());
    }
    stream.write_all(&question)?;
    let mut head = [0; 8];
    read_until(&mut stream, &mut head, until)?;
    let [code, len] = [&head[..4], &head[4..]]
        .map(|number| number.try_into().map_or(u32::MAX, u32::from_ne_bytes));
    if code != 0 {
        return Err(Fault::Refused(code));
    }
    let len = (len as usize)
        .checked_sub(head.len())
        .filter(|len| *len <= ANSWER_MAX)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut text = vec![0; len];
    read_until(&mut stream, &mut text, until)?;
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(len);
    text.truncate(end);
    String::from_utf8(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidData).into())
}

/// Fills the buffer, and does not start anew with the time at each byte.
pub(super) fn read_until(
    stream: &mut UnixStream,
    mut buffer: &mut [u8],
    until: Instant,
) -> io::Result<()> {
    while !buffer.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => buffer = &mut buffer[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a code of tgtd's means.
pub(super) fn meaning(code: u32) -> &'static str {
    match code {
        2 => "it is out of memory",
        3 => "it has no iSCSI",
        NO_TARGET => "there is no such target",
        5 => "there is no such disk",
        NO_SESSION => "there is no such session",
        NO_CONNECTION => "there is no such connection",
        9 => "the target exists",
        10 => "the disk exists",
        ACL_EXISTS => "it is on the list",
        ACL_MISSING => "it is not on the list",
        14 => "the user exists",
        NO_USER => "there is no such user",
        16 => "there are too many users",
        17 => "the request is not valid",
        TARGET_ACTIVE => "initiators are connected",
        UNIT_ACTIVE => "commands are under way",
        22 => "it does not do that",
        _ => "it did not say why (its log may); can it open the file?",
    }
}

pub(super) const NO_TARGET: u32 = 4;
pub(super) const NO_SESSION: u32 = 6;
pub(super) const NO_CONNECTION: u32 = 7;
pub(super) const ACL_EXISTS: u32 = 12;
pub(super) const ACL_MISSING: u32 = 13;
pub(super) const NO_USER: u32 = 15;
pub(super) const TARGET_ACTIVE: u32 = 19;
pub(super) const UNIT_ACTIVE: u32 = 20;
