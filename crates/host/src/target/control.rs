//! What can be asked of tgtd, one method for each question.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::shown::{self, Connection, Shown};
use super::wanted::{Chap, Initiator, path_text};
use super::wire::{self, Fault, Mode, Op, Request};
use crate::{Error, Result};

/// How long commands that are under way may take to end after their connection is cut: a write to a disk.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// The LUN of every volume. LUN 0 is the controller.
const LUN: u64 = 1;

/// tgtd, by its control socket.
#[derive(Debug, Clone)]
pub(super) struct Control {
    socket: PathBuf,
}

impl Control {
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Whether nobody at all listens at the socket.
    pub(super) fn is_absent(&self) -> bool {
        matches!(
            wire::connect(&self.socket, wire::LIMIT).map_err(|error| error.kind()),
            Err(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        )
    }

    fn ask(&self, what: &'static str, request: &Request<'_>) -> Result<String> {
        wire::ask(&self.socket, request).map_err(|fault| self.error(what, fault))
    }

    /// The same for what may be so already: these codes are as good as success.
    fn ask_unless(&self, what: &'static str, request: &Request<'_>, fine: &[u32]) -> Result<()> {
        match wire::ask(&self.socket, request) {
            Err(Fault::Refused(code)) if fine.contains(&code) => Ok(()),
            answer => answer.map(drop).map_err(|fault| self.error(what, fault)),
        }
    }

    fn error(&self, what: &'static str, fault: Fault) -> Error {
        match fault {
            Fault::Silent(source) => Error::TargetSilent {
                socket: self.socket.clone(),
                source,
            },
            Fault::Refused(code) => Error::TargetRefused {
                what,
                why: wire::meaning(code),
            },
        }
    }

    fn unreadable(what: &'static str) -> Error {
        Error::TargetRefused {
            what,
            why: "its answer is not what tgtd 1.0.85 writes",
        }
    }

    /// Whether new connections are taken.
    pub(super) fn is_ready(&self) -> Result<bool> {
        let what = "show its state";
        let text = self.ask(what, &Request::new(Mode::System, Op::Show, ""))?;
        shown::is_ready(&text).ok_or_else(|| Self::unreadable(what))
    }

    /// Takes new connections, or closes each at once. Those that are there stay.
    pub(super) fn set_ready(&self, ready: bool) -> Result<()> {
        let state = if ready {
            "State=ready"
        } else {
            "State=offline"
        };
        let request = Request::new(Mode::System, Op::Update, state);
        self.ask("change its state", &request).map(drop)
    }

    /// Ends tgtd, which has no target any more.
    pub(super) fn end(&self) -> Result<()> {
        self.ask("end", &Request::new(Mode::System, Op::Delete, ""))
            .map(drop)
    }

    pub(super) fn portals(&self) -> Result<Vec<SocketAddr>> {
        let text = self.ask(
            "show where it listens",
            &Request::new(Mode::Portal, Op::Show, ""),
        )?;
        Ok(shown::portals(&text))
    }

    pub(super) fn open_portal(&self, portal: SocketAddr) -> Result<()> {
        let text = format!("portal={portal}");
        let request = Request::new(Mode::Portal, Op::New, &text);
        match wire::ask(&self.socket, &request) {
            Err(Fault::Refused(_)) => Err(Error::TargetPortal { portal }),
            answer => answer
                .map(drop)
                .map_err(|fault| self.error("listen", fault)),
        }
    }

    pub(super) fn close_portal(&self, portal: SocketAddr) -> Result<()> {
        let text = format!("portal={portal}");
        self.ask(
            "stop listening",
            &Request::new(Mode::Portal, Op::Delete, &text),
        )
        .map(drop)
    }

    /// Numbers and names of all targets. Nothing in it comes from an initiator.
    pub(super) fn names(&self) -> Result<Vec<(i32, String)>> {
        let text = self.ask(
            "list its targets",
            &Request::new(Mode::Driver, Op::Show, ""),
        )?;
        Ok(shown::names(&text))
    }

    /// All targets; `None` if an initiator has made the list unreadable by its alias.
    pub(super) fn targets(&self) -> Result<Option<Vec<Shown>>> {
        let named = self.names()?;
        let request = Request {
            tid: -1,
            ..Request::new(Mode::Target, Op::Show, "")
        };
        let text = match wire::ask(&self.socket, &request) {
            // An alias that is no UTF-8.
            Err(Fault::Silent(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok(None);
            }
            answer => answer.map_err(|fault| self.error("show its targets", fault))?,
        };
        Ok(shown::targets(&text, &named))
    }

    pub(super) fn connections(&self, tid: i32) -> Result<Vec<Connection>> {
        let what = "show who is connected";
        let request = Request {
            tid,
            ..Request::new(Mode::Connection, Op::Show, "")
        };
        let text = self.ask(what, &request)?;
        shown::connections(&text).ok_or_else(|| Self::unreadable(what))
    }

    /// Cuts connections, and waits until what they had under way has ended. While new ones are not taken.
    pub(super) fn disconnect(&self, tid: i32, whom: impl Fn(&Connection) -> bool) -> Result<()> {
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let mut left = self.connections(tid)?;
            left.retain(&whom);
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Error::TargetRefused {
                    what: "end the connections of an initiator",
                    why: "commands are under way for 20 seconds: does the disk answer?",
                });
            }
            for connection in left {
                let request = Request {
                    tid,
                    session: connection.session,
                    connection: connection.number,
                    ..Request::new(Mode::Connection, Op::Delete, "")
                };
                let gone = [wire::NO_SESSION, wire::NO_CONNECTION];
                self.ask_unless("cut a connection", &request, &gone)?;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn add_target(&self, tid: i32, name: &str) -> Result<()> {
        let text = format!("targetname={name}");
        let request = Request {
            tid,
            ..Request::new(Mode::Target, Op::New, &text)
        };
        self.ask("make a target", &request).map(drop)
    }

    /// Removes a target to which nobody is connected. `false`: somebody is.
    pub(super) fn remove_target(&self, tid: i32) -> Result<bool> {
        let request = Request {
            tid,
            ..Request::new(Mode::Target, Op::Delete, "")
        };
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            match wire::ask(&self.socket, &request) {
                Ok(_) | Err(Fault::Refused(wire::NO_TARGET)) => return Ok(true),
                Err(Fault::Refused(wire::TARGET_ACTIVE)) => return Ok(false),
                Err(Fault::Refused(wire::UNIT_ACTIVE)) if Instant::now() < until => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(fault) => return Err(self.error("remove a target", fault)),
            }
        }
    }

    /// Makes the disk of a target. Its parameters belong to it: they are told again each time.
    pub(super) fn add_unit(
        &self,
        tid: i32,
        file: &Path,
        serial: &str,
        read_only: bool,
    ) -> Result<()> {
        let text = format!("path={},bstype=rdwr", path_text(file));
        let request = Request {
            tid,
            lun: LUN,
            ..Request::new(Mode::Device, Op::New, &text)
        };
        self.ask("open the volume's file", &request)?;
        let read_only = u8::from(read_only);
        // Without thin provisioning a discard gives nothing back, silently.
        let text = format!(
            "vendor_id=LONGHORN,product_id=base-image,scsi_sn={serial},scsi_id={serial},\
             readonly={read_only},thin_provisioning=1"
        );
        let request = Request {
            tid,
            lun: LUN,
            ..Request::new(Mode::Device, Op::Update, &text)
        };
        self.ask("describe the disk", &request).map(drop)
    }

    pub(super) fn remove_unit(&self, tid: i32) -> Result<()> {
        let request = Request {
            tid,
            lun: LUN,
            ..Request::new(Mode::Device, Op::Delete, "")
        };
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            match wire::ask(&self.socket, &request) {
                Ok(_) => return Ok(()),
                Err(Fault::Refused(wire::UNIT_ACTIVE)) if Instant::now() < until => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(fault) => return Err(self.error("close the volume's file", fault)),
            }
        }
    }

    pub(super) fn allow(&self, tid: i32, initiator: &Initiator) -> Result<()> {
        let text = format!("initiator-name={initiator}");
        let request = Request {
            tid,
            ..Request::new(Mode::Target, Op::Bind, &text)
        };
        self.ask_unless("allow an initiator", &request, &[wire::ACL_EXISTS])
    }

    /// Takes an entry off the list of a target, as tgtd shows it: a name, or an address that somebody else put there.
    pub(super) fn disallow(&self, tid: i32, entry: &str) -> Result<()> {
        for kind in ["name", "address"] {
            let text = format!("initiator-{kind}={entry}");
            let request = Request {
                tid,
                ..Request::new(Mode::Target, Op::Unbind, &text)
            };
            self.ask_unless("disallow an initiator", &request, &[wire::ACL_MISSING])?;
        }
        Ok(())
    }

    /// Has initiators of a target prove themselves. To be called while none is allowed: between this and the removal
    /// of another user, no proof is asked.
    pub(super) fn add_user(&self, tid: i32, chap: &Chap) -> Result<()> {
        let text = format!("user={},password={}", chap.user(), chap.secret());
        self.ask(
            "take a CHAP user",
            &Request::new(Mode::Account, Op::New, &text),
        )?;
        let text = format!("user={}", chap.user());
        let request = Request {
            tid,
            ..Request::new(Mode::Account, Op::Bind, &text)
        };
        self.ask("ask for a CHAP user", &request).map(drop)
    }

    pub(super) fn remove_user(&self, user: &str) -> Result<()> {
        let text = format!("user={user}");
        let request = Request::new(Mode::Account, Op::Delete, &text);
        self.ask_unless("forget a CHAP user", &request, &[wire::NO_USER])
    }
}
