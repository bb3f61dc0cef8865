//! The store: the contents of a disk, and how they become durable.
//!
//! # The durability recipe
//!
//! An image becomes ready in these steps; code that performs one carries its number.
//!
//! 1. create the image's directory, sync its parent
//! 2. create `backing.tmp`
//! 3. write and hash in one pass; the SHA-512 may be left for later (`prove.rs`)
//! 4. compare size, checksum and format
//! 5. sync the file
//! 6. write `backing.chunks` (temp, sync, rename)
//! 7. write `backing.cfg` likewise: from here on a crash does not lose what only the request knew
//! 8. rename `backing.tmp` to `backing`
//! 9. sync the directory
//! 10. write `backing.cfg` again, with what stat says of the file under its name
//! 11. only now: announce `ready`
//!
//! What a crash leaves, and how the next start handles it:
//!
//! | leftover | then |
//! |---|---|
//! | `*.tmp` | void: removed |
//! | `backing.part` with `backing.part.chunks` | kept for the next attempt to assemble the image, which believes its digests alone |
//! | `backing.upload.cfg`, with or without `backing.upload` | the upload goes on from where the record says; beside `backing` both are void |
//! | directory without `backing` | removed, the sidecar with it |
//! | `backing` without (readable) `backing.cfg` | its bytes are read once: against `backing.chunks` if that is whole, else hashed; then it is sealed again |
//! | both, and stat agrees with the seal | ready, nothing is read |
//! | both, without a seal, and Longhorn's sidecar has the file's size and time | ready; read once, later (`unproven.rs`) |
//! | both, and stat disagrees | read once; the same bytes: sealed again; other bytes: set aside |
//! | `raw` without an agreeing `raw.cfg` | removed: it can be made again |
//! | `.deleting-*` (of earlier versions), `.creating-*` | removed |
//! | `.quarantine-*` | kept and said |
//! | a sidecar of a newer version | nothing is touched |
//! | any other name | left alone and logged |
//!
//! Deletion first removes everything that could be trusted or resumed (the part, the raw form),
//! then `backing`: from here on the image is gone. The rest of the directory follows. Nothing is
//! renamed or written, because a full disk has no space for it.
//!
//! # Work files
//!
//! A data source prepares images in the same way in `tmp/`, where an image is a file
//! `<name>-<uuid>` with others beside it (`.tmp`, `.part`, `.part.chunks`, `.cfg`, `.chunks`)
//! instead of a directory. Data sources are separate processes, so a start leaves all of this
//! alone; the process that works on one holds the lock `<name>-<uuid>.lock`. Data is removed or
//! quarantined before its description: a description without data is void, but data without a
//! description would be trusted.

pub mod adopt;
pub mod assembly;
pub mod content;
pub mod counters;
pub mod disk;
pub mod durable;
mod error;
mod hash;
pub mod health;
pub mod held;
pub mod images;
pub mod ingest;
pub mod layout;
mod manifest;
pub mod node_state;
pub mod orphans;
pub mod owner;
mod padding;
mod proofs;
mod prove;
mod provenance;
pub mod raw_form;
mod reading;
mod received;
pub mod recovery;
mod removal;
pub mod roster;
mod salvage;
pub mod scrub;
mod sealed;
pub mod sidecar;
pub mod space;
pub mod spare_maker;
pub mod spares;
mod unproven;
pub mod upload;
mod whole_file;
mod work_file;
mod work_lock;

pub use adopt::Asked;
pub use assembly::Assembly;
pub use chunks::Manifest;
pub use content::{Content, ContentKind};
pub use disk::Disk;
pub use error::{Error, IoContext, Result};
pub use images::ImageStore;
pub use ingest::Ingest;
pub use layout::Place;
pub use manifest::{ManifestFile, Mismatch};
pub use proofs::Proofs;
pub use provenance::{Encryption, LocalImage, Provenance, Snapshot};
pub use reading::Reading;
pub use received::Received;
pub use sealed::{Facts, SealedImage};
pub use upload::{Upload, UploadRecord};

use ring::rand::SecureRandom;

/// A random version 4 UUID (RFC 9562) as text.
pub fn random_uuid() -> String {
    let mut bytes = random::<16>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// A random uuid of an image: 8 hexadecimal digits, as Longhorn makes them.
pub fn random_image_uuid() -> types::ImageUuid {
    let hex = format!("{:08x}", u32::from_be_bytes(random()));
    types::ImageUuid::new(&hex).expect("hexadecimal digits are a valid uuid")
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("getrandom(2) fails only before the kernel's pool is ready, at boot");
    bytes
}

#[cfg(test)]
mod tests;
