//! What an engine does on one node. There is one engine, DRBD 9 (`host::drbd`); another would do the same.

use types::{NodeId, VolumeName};

use crate::{Layout, Member, MemberId, Part, Secret};

/// One step of a node towards its layout, in the order in which they are done. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Give up the right to write at once: what waits fails and is never acknowledged. Only of a node that the
    /// layout does not name as its holder.
    LetGo,
    /// Make the resource and its device known to the kernel.
    Create,
    /// Let the kernel ask for what [`Layout::majority_is_current`] says. [`Verb::Create`] does so from the start.
    SetQuorum,
    /// Make the peer and its path known. A member without a disk is made known as one (`--bitmap=no`): it would
    /// have a vote otherwise, and remembers nothing to vote with.
    AddPeer(Member),
    /// Attach the replica, and forget all peers in its metadata that are no members: each would count as one that
    /// is away.
    AttachDisk {
        /// Make the metadata if there are none. Else it is an error that there are none.
        create: bool,
    },
    /// Let the device of the file have the size of the file.
    GrowDisk,
    /// Connect to a peer, or try again.
    Connect(MemberId),
    /// Disconnect from a peer that goes on to count.
    Disconnect(MemberId),
    /// Disconnect a peer, and forget it and its bitmap.
    RemovePeer(MemberId),
    /// Detach a replica that the layout gives to no disk of this node.
    DetachDisk,
    /// Take everything down.
    Down,
}

/// What an engine does on a node. Calls block; each may be repeated, and works after any crash.
pub trait Engine: Send + Sync {
    /// What goes wrong.
    type Error;

    /// Whether this node has the engine, and which version.
    ///
    /// # Errors
    /// What it lacks, and how to get it.
    fn version(&self) -> Result<String, Self::Error>;

    /// Prepares and adapts this node's part of a volume: the replica's metadata and devices, peers that came or
    /// went, a file that has grown.
    ///
    /// # Errors
    /// The first step that failed. The next call goes on from there.
    fn apply(&self, layout: &Layout, node: &NodeId, secret: &Secret) -> Result<(), Self::Error>;

    /// All parts that the kernel has, and those of `known` that it has not.
    ///
    /// # Errors
    /// The kernel does not say.
    fn observe(&self, known: &[Layout], node: &NodeId) -> Result<Vec<Part>, Self::Error>;

    /// Declares that the connected replicas are equal. Only where this node's own is fresh: of one that is not
    /// connected the kernel takes it also when it is stale, so this is checked before.
    ///
    /// # Errors
    /// The replica is not fresh, or the kernel refuses.
    fn initialize(&self, layout: &Layout) -> Result<(), Self::Error>;

    /// Takes the right to write: there is one holder, whatever a record says.
    ///
    /// # Errors
    /// Another node has it, there is no majority, or no current replica.
    fn attach(&self, layout: &Layout) -> Result<(), Self::Error>;

    /// Gives the right to write back.
    ///
    /// # Errors
    /// Somebody has the device open.
    fn detach(&self, layout: &Layout) -> Result<(), Self::Error>;

    /// Lets the device have the size of its files, once all of them have grown; what is new is a hole in each.
    ///
    /// # Errors
    /// A peer is away.
    fn grow(&self, layout: &Layout) -> Result<(), Self::Error>;

    /// Stops all writes for a snapshot, until [`Engine::resume`].
    ///
    /// # Errors
    /// The kernel refuses.
    fn suspend(&self, layout: &Layout) -> Result<(), Self::Error>;

    /// Lets writes go on.
    ///
    /// # Errors
    /// The kernel refuses.
    fn resume(&self, layout: &Layout) -> Result<(), Self::Error>;

    /// Joins the others again, and gives up what only this node has: nobody was ever told that it was written.
    ///
    /// # Errors
    /// The kernel refuses.
    fn rejoin(&self, layout: &Layout, node: &NodeId) -> Result<(), Self::Error>;

    /// Takes this node's part down: the file and its metadata stay.
    ///
    /// # Errors
    /// Somebody has the device open.
    fn remove(&self, volume: &VolumeName) -> Result<(), Self::Error>;
}
