//! Executes the verbs of a node's part, one command of DRBD for each step. Each may be repeated: what a crash left half
//! done is found in the kernel and finished.

use std::net::IpAddr;

use replication::{DiskState, Layout, Member, MemberId, Secret, Verb};
use types::{NodeId, crash_point};

use super::settings::{CONNECTION, DEVICE, RESOURCE, TLS, redundancy};
use super::status::{Peer, Resource};
use super::{force, replica, resource_name, tools};
use crate::disks::Disks;
use crate::{Error, Result};

/// `ERR_NET_CONFIGURED`: it is connected, or tries.
const IS_CONNECTED: u16 = 125;
/// The path is there.
const HAS_PATH: u16 = 173;

/// One adaptation of this node's part to its layout.
pub(super) struct Adapt<'a> {
    pub(super) disks: &'a Disks,
    pub(super) layout: &'a Layout,
    pub(super) node: &'a NodeId,
    pub(super) secret: &'a Secret,
    /// What the kernel had before the first verb.
    pub(super) seen: Option<&'a Resource>,
}

impl Adapt<'_> {
    /// Executes one verb.
    pub(super) fn execute(&self, verb: &Verb) -> Result<()> {
        let volume = &self.layout.volume;
        tracing::info!(%volume, ?verb, "replicated volume");
        match verb {
            Verb::LetGo => force::let_go(self.layout, self.node)?,
            Verb::Create => self.create()?,
            Verb::AddPeer(member) => self.add_peer(member)?,
            Verb::SetQuorum => {
                let redundancy = redundancy(self.layout.majority_is_current());
                let arguments = ["resource-options", &self.name(), redundancy];
                self.change("change the quorum of", &arguments)?;
            }
            Verb::AttachDisk { create } => {
                let me = self.me()?;
                let disk = me
                    .disk
                    .as_ref()
                    .ok_or_else(|| self.refuse("the layout gives this node no disk"))?;
                replica::attach(self.disks, self.layout, me, disk, *create)?;
            }
            Verb::GrowDisk => {
                let me = self.me()?;
                if let Some(disk) = &me.disk {
                    replica::refresh(self.disks, self.layout, disk)?;
                }
            }
            Verb::Connect(peer) => self.connect(*peer)?,
            Verb::Disconnect(peer) => {
                let arguments = ["disconnect", &self.name(), &peer.to_string()];
                self.change("disconnect", &arguments)?;
            }
            Verb::RemovePeer(peer) => self.remove_peer(*peer)?,
            // It has none from now on because that is wanted, and its vote goes with it.
            Verb::DetachDisk => {
                let minor = self.layout.minor.to_string();
                self.change("detach the replica of", &["detach", &minor, "--diskless"])?;
            }
            Verb::Down => self.change("take down", &["down", &self.name()])?,
        }
        crash_point!("host.drbd.executed");
        Ok(())
    }

    /// What no verb is about: the addresses of peers that are known already.
    pub(super) fn move_peers(&self) -> Result<()> {
        let Some(seen) = self.seen.filter(|_| self.me().is_ok()) else {
            return Ok(());
        };
        for member in &self.layout.members {
            if let Some(peer) = seen.peer(member.id)
                && !peer.paths.is_empty()
                && peer.paths != [self.path(member)?]
            {
                self.move_peer(member, peer)?;
            }
        }
        Ok(())
    }

    /// Peers that were removed and not forgotten, because a crash came between.
    pub(super) fn forget_strangers(&self) -> Result<()> {
        let (Some(seen), Some(me)) = (self.seen, self.layout.member(self.node)) else {
            return Ok(());
        };
        let is_attached = seen
            .device
            .as_ref()
            .is_some_and(|device| device.disk > DiskState::Negotiating);
        let Some(disk) = me.disk.as_ref().filter(|_| is_attached) else {
            return Ok(());
        };
        let superblock = replica::superblock(self.disks, &self.layout.volume, disk)?;
        let known = superblock.map_or_else(Vec::new, |superblock| superblock.peers);
        for id in known.into_iter().map(MemberId) {
            if self.member(id).is_none() && seen.peer(id).is_none() {
                let (name, id) = (self.name(), id.to_string());
                self.change("forget a peer of", &["forget-peer", &name, &id])?;
            }
        }
        Ok(())
    }

    fn create(&self) -> Result<()> {
        let (name, me) = (self.name(), self.me()?);
        if self.seen.is_none() {
            let id = me.id.to_string();
            let arguments = ["new-resource", &name, &id];
            let redundancy = [redundancy(self.layout.majority_is_current())];
            let arguments = [&arguments, RESOURCE, &redundancy].concat();
            self.change("make known", &arguments)?;
            crash_point!("host.drbd.named");
        }
        if self.seen.is_none_or(|seen| seen.device.is_none()) {
            let minor = self.layout.minor.to_string();
            // A node without a replica has no vote, and is no replica that is missing.
            let diskless = ["--diskless=yes"];
            let diskless: &[&str] = if me.disk.is_none() { &diskless } else { &[] };
            let arguments = ["new-minor", &name, &minor, DEVICE];
            self.change("make the device of", &[&arguments, diskless].concat())?;
        }
        Ok(())
    }

    fn add_peer(&self, member: &Member) -> Result<()> {
        let (name, id) = (self.name(), member.id.to_string());
        let (named, secret) = (
            format!("--_name={}", member.node),
            format!("--shared-secret={}", self.secret.expose()),
        );
        let arguments = ["new-peer", &name, &id, &named, &secret];
        let tls: &[&str] = if self.layout.tls { &[TLS] } else { &[] };
        let arguments = [&arguments, CONNECTION, tls].concat();
        tools::change_with(
            &self.layout.volume,
            "add a peer to",
            &arguments,
            self.secret,
        )?;
        crash_point!("host.drbd.peered");
        if member.disk.is_none() {
            // It needs no bitmap here, and has no vote.
            let arguments = ["peer-device-options", &name, &id, DEVICE, "--bitmap=no"];
            self.change("tell that a peer has no replica of", &arguments)?;
        }
        self.add_path(member)
    }

    fn add_path(&self, member: &Member) -> Result<()> {
        let (local, remote) = self.path(member)?;
        let (name, id) = (self.name(), member.id.to_string());
        let arguments = ["new-path", &name, &id, &local, &remote];
        tools::change_once(&self.layout.volume, "add a path to", &arguments, HAS_PATH)
    }

    fn connect(&self, peer: MemberId) -> Result<()> {
        let known = self.seen.and_then(|seen| seen.peer(peer));
        if let (Some(known), Some(member)) = (known, self.member(peer))
            && known.paths.is_empty()
        {
            self.add_path(member)?;
        }
        let (name, id) = (self.name(), peer.to_string());
        let arguments = ["connect", &name, &id];
        tools::change_once(&self.layout.volume, "connect", &arguments, IS_CONNECTED)
    }

    /// A peer has another address than the kernel knows.
    fn move_peer(&self, member: &Member, peer: &Peer) -> Result<()> {
        let (name, id) = (self.name(), member.id.to_string());
        self.change("disconnect", &["disconnect", &name, &id])?;
        for (local, remote) in &peer.paths {
            self.change("remove a path of", &["del-path", &name, &id, local, remote])?;
        }
        // It is connected again by the next look, if it is to be.
        self.add_path(member)
    }

    fn remove_peer(&self, peer: MemberId) -> Result<()> {
        let (name, id) = (self.name(), peer.to_string());
        self.change("remove a peer of", &["del-peer", &name, &id])?;
        crash_point!("host.drbd.unpeered");
        // Without this its number would still count as a replica that is missing.
        if self
            .seen
            .and_then(|seen| seen.device.as_ref())
            .is_some_and(|device| device.disk > DiskState::Failed)
        {
            self.change("forget a peer of", &["forget-peer", &name, &id])?;
        }
        Ok(())
    }

    /// Both ends of the connection to a member.
    fn path(&self, member: &Member) -> Result<(String, String)> {
        let end = |address: IpAddr| match address {
            IpAddr::V4(address) => format!("ipv4:{address}:{}", self.layout.port),
            IpAddr::V6(address) => format!("ipv6:[{address}]:{}", self.layout.port),
        };
        Ok((end(self.me()?.address), end(member.address)))
    }

    fn me(&self) -> Result<&Member> {
        let me = self.layout.member(self.node);
        me.ok_or_else(|| self.refuse("this node has no part in its layout"))
    }

    fn member(&self, id: MemberId) -> Option<&Member> {
        self.layout.members.iter().find(|member| member.id == id)
    }

    fn name(&self) -> String {
        resource_name(&self.layout.volume)
    }

    fn change(&self, what: &'static str, arguments: &[&str]) -> Result<()> {
        tools::change(&self.layout.volume, what, arguments)
    }

    fn refuse(&self, said: &str) -> Error {
        Error::Drbd {
            volume: self.layout.volume.clone(),
            what: "adapt",
            said: said.to_owned(),
        }
    }
}
