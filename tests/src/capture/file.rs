//! The file that tcpdump writes (pcap-savefile(5)): its packets.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

/// Of a file of this machine's own byte order, with microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;
/// The longest packet that tcpdump keeps (its default `--snapshot-length`).
const LONGEST: u32 = 262_144;

/// What stands before the IP packet (LINKTYPE_ values of tcpdump.org/linktypes.html).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// One interface.
    Ethernet,
    /// `any`, by libpcap before 1.10.
    Cooked,
    /// `any`.
    Cooked2,
}

/// A packet, from its link layer on.
#[derive(Debug, Clone)]
pub struct Packet {
    /// When, in seconds since 1970.
    pub seconds: u32,
    /// What it begins with.
    pub link: Link,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The packets of a file. One that is cut off at its end, as by a kill of tcpdump, has ended there.
///
/// # Panics
/// When it cannot be read or is no such file, or tcpdump has kept a part of a packet only.
pub fn packets(path: &Path) -> impl Iterator<Item = Packet> {
    let shown = path.display().to_string();
    let file = File::open(path).unwrap_or_else(|error| panic!("cannot open {shown}: {error}"));
    let mut file = BufReader::new(file);
    let link = read::<24>(&mut file, &shown).map(|header| {
        let magic = word(&header, 0);
        assert_eq!(magic, MAGIC, "{shown} is no capture of this machine");
        match word(&header, 20) {
            1 => Link::Ethernet,
            113 => Link::Cooked,
            276 => Link::Cooked2,
            other => panic!("{shown} is a capture of link type {other}, which is not known here"),
        }
    });
    std::iter::from_fn(move || {
        let header = read::<16>(&mut file, &shown)?;
        let [seconds, kept, length] = [0, 8, 12].map(|at| word(&header, at));
        assert!(kept <= LONGEST, "{shown} has a packet of {kept} bytes");
        assert_eq!(kept, length, "{shown} has a part of a packet only");
        let mut bytes = vec![0; usize::try_from(kept).unwrap()];
        fill(&mut file, &mut bytes, &shown)?;
        Some(Packet {
            seconds,
            link: link?,
            bytes,
        })
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn read<const N: usize>(file: &mut impl Read, shown: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    fill(file, &mut bytes, shown)?;
    Some(bytes)
}

fn fill(file: &mut impl Read, bytes: &mut [u8], shown: &str) -> Option<()> {
    match file.read_exact(bytes) {
        Ok(()) => Some(()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
        Err(error) => panic!("cannot read {shown}: {error}"),
    }
}
