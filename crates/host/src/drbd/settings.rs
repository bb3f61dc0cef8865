//! The settings of every replicated volume, each with its reason. The kernel has them until the resource is taken
//! down; nothing is written to /etc.

/// What the names of our resources begin with: others on the node (LINSTOR's, somebody's by hand) are left alone.
pub(super) const PREFIX: &str = "longhorn-";
/// Peers that metadata has bitmaps for; the manager has made the file for as many (`volume`, replica.rs). It cannot be
/// changed later.
pub(super) const PEER_SLOTS: &str = "7";
/// The only device of a resource.
pub(super) const DEVICE: &str = "0";

/// Of a resource. A write needs the majority, and waits without one: what waits is not lost, and what fails is.
/// A device is opened for writing by the one who was made Primary, and by no look of udev at it. A holder that was cut
/// off and meets a majority that has gone on is made Secondary by its kernel: what waits there fails, and was never
/// acknowledged.
pub(super) const RESOURCE: &[&str] = &[
    "--quorum=majority",
    "--on-no-quorum=suspend-io",
    "--on-no-data-accessible=suspend-io",
    "--auto-promote=no",
    "--on-suspended-primary-outdated=force-secondary",
];

/// Whether I/O needs a majority of current replicas, or of connected ones with a current one among them.
pub(super) const fn redundancy(majority_is_current: bool) -> &'static str {
    if majority_is_current {
        "--quorum-minimum-redundancy=majority"
    } else {
        "--quorum-minimum-redundancy=off"
    }
}

/// Of a connection. Protocol C: a write is acknowledged when all connected replicas have it. A peer that says
/// nothing is lost after `timeout` (tenths of a second) under load, and after `ping-int` (seconds) and `ping-timeout`
/// (tenths) else; it is looked for every `connect-int` seconds. A resynchronisation of replicas that were cloned from
/// one image sends only what differs (`csums-alg`). Replicas that refuse each other's data for now try again
/// (`rr-conflict`).
pub(super) const CONNECTION: &[&str] = &[
    "--protocol=C",
    "--ping-int=2",
    "--ping-timeout=10",
    "--timeout=40",
    "--connect-int=1",
    "--csums-alg=crc32c",
    "--cram-hmac-alg=sha256",
    "--rr-conflict=retry-connect",
];

/// Of a replica. One that answers with an error is detached, and its node goes on with the others'. What is zero at
/// the source is discarded at the target, in pieces of 64 KiB, so that a new replica is as sparse as the others.
pub(super) const DISK: &[&str] = &["--on-io-error=detach", "--rs-discard-granularity=65536"];

/// A connection that the kernel encrypts; `tlshd` of ktls-utils does its handshake.
pub(super) const TLS: &str = "--tls=yes";
