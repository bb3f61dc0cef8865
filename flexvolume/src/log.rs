//! The log: a file or systemd's journal, never standard output or error.
//!
//! A log that cannot be written to is no reason to fail a call.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;
use types::{Classify as _, ErrorKind};

use crate::config::{Log, LogLevel};
use crate::error::{Error, Result};
use crate::reply::Reply;

/// How large the file may grow before it is put aside as `.1`, which it replaces.
const FILE_BYTES_MAX: u64 = 10 << 20;
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Starts to log. Called once, before anything is worth telling.
pub(crate) fn start(log: &Log, level: LogLevel) {
    let sink = match log {
        Log::File(path) => open(path).map(|file| Sink::File(Arc::new(file))),
        Log::Journal => connect().map(|socket| Sink::Journal(Arc::new(socket))),
        Log::Off => return,
    };
    let Ok(sink) = sink else {
        return;
    };
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    let in_journal = matches!(sink, Sink::Journal(_));
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .with_writer(sink);
    // The journal keeps the time and the level by itself.
    let _ = if in_journal {
        tracing::subscriber::set_global_default(lines.without_time().with_level(false).finish())
    } else {
        tracing::subscriber::set_global_default(lines.finish())
    };
}

/// Says how a call ended: the one place where its error is logged.
pub(crate) fn answered(call: &str, answer: &Result<Reply>) {
    let pid = std::process::id();
    match answer {
        Ok(reply) => tracing::info!(pid, call, message = reply.message, "done"),
        Err(Error::NotSupported) => tracing::debug!(pid, call, "left to the kubelet"),
        Err(error) => match error.kind() {
            ErrorKind::DataLoss | ErrorKind::Internal => {
                tracing::error!(pid, call, "{}", types::report(error));
            }
            _ => tracing::warn!(pid, call, "{}", types::report(error)),
        },
    }
}

fn open(path: &Path) -> io::Result<File> {
    let append = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
    };
    let file = append()?;
    if file.metadata()?.len() < FILE_BYTES_MAX {
        return Ok(file);
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".1");
    std::fs::rename(path, aside)?;
    append()
}

fn connect() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(JOURNAL)?;
    Ok(socket)
}

#[derive(Debug, Clone)]
enum Sink {
    File(Arc<File>),
    Journal(Arc<UnixDatagram>),
}

/// One line on its way.
#[derive(Debug)]
struct Line {
    sink: Sink,
    priority: u8,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            sink: self.clone(),
            priority: 6,
        }
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Line {
        // As syslog(3) numbers them.
        let priority = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        Line {
            sink: self.clone(),
            priority,
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.sink {
            Sink::File(file) => (&**file).write(bytes),
            Sink::Journal(socket) => {
                socket.send(&journal_entry(self.priority, bytes))?;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An entry in the journal's own form, in which a message may hold anything: a name, then the length
/// in 8 little-endian bytes, then the bytes (systemd, "Native Journal Protocol").
fn journal_entry(priority: u8, message: &[u8]) -> Vec<u8> {
    let message = message.strip_suffix(b"\n").unwrap_or(message);
    let mut entry =
        format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=longhorn-flexvolume\nMESSAGE\n")
            .into_bytes();
    entry.extend((message.len() as u64).to_le_bytes());
    entry.extend(message);
    entry.push(b'\n');
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_is_put_aside_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        open(&path).unwrap().set_len(FILE_BYTES_MAX).unwrap();
        assert_eq!(open(&path).unwrap().metadata().unwrap().len(), 0);
        let aside = std::fs::metadata(dir.path().join("log.1")).unwrap();
        assert_eq!(aside.len(), FILE_BYTES_MAX);
        assert!(open(&dir.path().join("missing/log")).is_err());
    }

    #[test]
    fn a_message_in_the_journal_may_hold_anything() {
        let entry = journal_entry(4, b"a\nPRIORITY=0\n");
        let head = b"PRIORITY=4\nSYSLOG_IDENTIFIER=longhorn-flexvolume\nMESSAGE\n";
        let expected = [&head[..], &12u64.to_le_bytes(), b"a\nPRIORITY=0\n"].concat();
        assert_eq!(entry, expected);
    }
}
