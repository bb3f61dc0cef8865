//! Volumes as iSCSI targets of this node: Debian's tgtd serves them, and this tells it what.
//!
//! tgtd is a process of its own, an ordinary user in a pod of its own ([`daemon`]), and opens the volume's file by its path. It
//! keeps nothing: after its end it knows no target, and the caller's records are the truth. It has no portal before
//! [`Targets::open`] is called. To an initiator that comes back too early, a connection that is refused means "try
//! again", and a target that is not found means an I/O error: hence first every target, and then the door.
//!
//! | module | owns |
//! |---|---|
//! | [`wanted`] | names, secrets and paths, checked |
//! | [`put`] | makes a target what is wanted, whatever it is now |
//! | [`control`] | the questions that tgtd answers |
//! | [`wire`] | the bytes of question and answer |
//! | [`shown`] | the text that tgtd shows |
//! | [`session`] | who is connected |
//! | [`daemon`] | starts tgtd, ends it in order |
//! | [`relay`] | lets root, as which the node plugin runs, speak with a tgtd of another user |
//!
//! The data path is a process here, and no longer the kernel alone: see docs/iscsi.md.

mod control;
pub mod daemon;
mod put;
mod relay;
mod session;
mod shown;
mod wanted;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use types::VolumeName;

use self::control::Control;
use self::put::Told;
use crate::Result;

pub use self::session::Session;
pub use self::wanted::{Chap, Initiator, Wanted, portal};

/// Where this node's tgtd is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The socket at which it is told: that of [`daemon::Daemon`].
    pub socket: PathBuf,
    /// Where initiators come in.
    pub portal: SocketAddr,
}

/// A target that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    pub volume: VolumeName,
    /// Who is connected.
    pub sessions: Vec<Session>,
}

/// The targets of this node. Blocking; one change at a time.
#[derive(Debug, Clone)]
pub struct Targets {
    control: Control,
    portal: SocketAddr,
    /// What tgtd was told and does not show: see [`put`]. Its lock is the turn of who changes something.
    told: Arc<Mutex<HashMap<VolumeName, Told>>>,
}

impl Targets {
    pub fn new(settings: &Settings) -> Self {
        Self {
            control: Control::new(&settings.socket),
            portal: settings.portal,
            told: Arc::default(),
        }
    }

    /// The name of a volume's target. That of a volume whose name has capital letters or `_` is not valid, and
    /// [`Targets::put`] says so.
    pub fn name(volume: &VolumeName) -> String {
        wanted::target_name(volume)
    }

    /// Where initiators come in.
    pub fn portal(&self) -> SocketAddr {
        self.portal
    }

    /// Whether tgtd lets initiators in. If not, it was started anew and knows nothing, or a change was interrupted:
    /// [`Targets::put`] all targets, then [`Targets::open`].
    ///
    /// # Errors
    /// [`crate::Error::TargetSilent`] if no tgtd answers.
    pub fn is_open(&self) -> Result<bool> {
        let _turn = self.turn();
        self.is_open_now()
    }

    /// Lets initiators in. To be called after every target was put, and as often as one likes.
    ///
    /// # Errors
    /// [`crate::Error::TargetPortal`] if the address is not one of this node, or somebody else has the port;
    /// [`crate::Error::TargetSilent`].
    pub fn open(&self) -> Result<()> {
        let _turn = self.turn();
        if !self.control.portals()?.contains(&self.portal) {
            self.control.open_portal(self.portal)?;
        }
        self.control.set_ready(true)
    }

    /// Makes the target what is wanted: a new one, one that a crash left unfinished, one that has other parameters, one
    /// whose file has grown. Does nothing to one that is right. Initiators whose disk changes are disconnected for a
    /// moment and come back by themselves, without an I/O error.
    ///
    /// # Errors
    /// [`crate::Error::InvalidTarget`], [`crate::Error::TargetUser`], [`crate::Error::VolumeMissing`] and [`crate::Error::VolumeDamaged`] for a
    /// file that is not there or shorter than `wanted` says, [`crate::Error::TargetSilent`], [`crate::Error::TargetRefused`].
    /// After an error nobody can log in to this target; the others are as they were.
    pub fn put(&self, wanted: &Wanted) -> Result<Present> {
        let mut told = self.turn();
        let sessions = put::put(&self.control, wanted, &mut told)?;
        Ok(Present {
            volume: wanted.volume.clone(),
            sessions,
        })
    }

    /// Takes the target away. Fine if there is none, or if nobody listens at the socket: targets end with their tgtd.
    ///
    /// # Errors
    /// [`crate::Error::TargetInUse`] while initiators are connected, unless `disconnect`; [`crate::Error::TargetSilent`] if
    /// somebody listens and does not answer.
    pub fn remove(&self, volume: &VolumeName, disconnect: bool) -> Result<()> {
        let mut told = self.turn();
        if self.control.is_absent() {
            told.remove(volume);
            return Ok(());
        }
        put::remove(&self.control, volume, disconnect)?;
        told.remove(volume);
        Ok(())
    }

    /// The targets of volumes that are there.
    ///
    /// # Errors
    /// [`crate::Error::TargetSilent`].
    pub fn list(&self) -> Result<Vec<Present>> {
        let _turn = self.turn();
        let mut list = Vec::new();
        for (tid, name) in self.control.names()? {
            let Some(volume) = wanted::volume_of(&name) else {
                continue;
            };
            let connections = self.control.connections(tid)?;
            let sessions = connections.into_iter().map(|it| it.who).collect();
            list.push(Present { volume, sessions });
        }
        Ok(list)
    }

    fn is_open_now(&self) -> Result<bool> {
        Ok(self.control.is_ready()? && self.control.portals()?.contains(&self.portal))
    }

    fn turn(&self) -> MutexGuard<'_, HashMap<VolumeName, Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
