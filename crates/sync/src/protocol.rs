//! The vocabulary of the protocol: paths, headers, versions, sizes. docs/sync.md explains it for
//! implementers of other peers. No I/O here.

use std::fmt;
use std::ops::Range;

use types::ImageId;

use chunks::IMAGE_SIZE_MAX;

/// The version that this program speaks; it also understands the one before.
pub const VERSION: u32 = 1;

/// Both sides: the version of the protocol. A request says the highest that the receiver speaks, the
/// answer the one that is used. Every answer of a peer has it, errors too: it tells a peer from any
/// other HTTP server.
pub const PROTOCOL: &str = "sync-protocol";
/// Request: the port at which the asker serves what it has got so far.
pub const PORT: &str = "sync-port";
/// Answer: addresses of others that have, or are getting, the image.
pub const PEERS: &str = "sync-peers";
/// Answer: the address under which others are told of the asker.
pub const YOU: &str = "sync-you";
/// Answer: bytes in a chunk.
pub const CHUNK_SIZE: &str = "sync-chunk-size";
/// Answer: bytes of the image.
pub const IMAGE_SIZE: &str = "sync-image-size";
/// Answer to an error: which, in one word of [`Refusal`].
pub const ERROR: &str = "sync-error";
/// Request of data, and answer of 101 to it: after the head the connection carries the bytes of the range and
/// nothing else, and then HTTP/1.1 again (`Upgrade`, RFC 9110, section 7.8).
pub const BARE: &str = "sync-data";
/// Most addresses in one answer.
pub const PEERS_MAX: usize = 16;
/// Chunks are at least and at most so large, whatever a peer says.
const CHUNK_SIZES: std::ops::RangeInclusive<u32> = 1..=16 << 20;

/// What an answer that is an error means, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The image is not here, or not yet.
    NoImage,
    /// The chunk is not here yet.
    NoChunk,
    /// The image here is not the one that was meant.
    OtherImage,
    /// The versions are too far apart.
    Version,
    /// Too much to do: try again.
    Busy,
    /// The copy here is damaged.
    Damaged,
    /// The request makes no sense.
    Request,
    Disk,
}

/// Each refusal, its word and its HTTP status.
const REFUSALS: [(Refusal, &str, u16); 8] = [
    (Refusal::NoImage, "no-image", 404),
    (Refusal::NoChunk, "no-chunk", 409),
    (Refusal::OtherImage, "other-image", 412),
    (Refusal::Version, "version", 412),
    (Refusal::Busy, "busy", 503),
    (Refusal::Damaged, "damaged", 410),
    (Refusal::Request, "request", 400),
    (Refusal::Disk, "disk", 500),
];

impl Refusal {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        self.line().1
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        self.line().2
    }

    fn line(self) -> (Self, &'static str, u16) {
        *REFUSALS
            .iter()
            .find(|line| line.0 == self)
            .expect("every refusal has a line")
    }

    pub fn of(word: &str) -> Option<Self> {
        let line = REFUSALS.iter().find(|line| line.1 == word);
        line.map(|line| line.0)
    }
}

/// The version that two sides use, of which one speaks at most `ours` and the other at most `theirs`;
/// `None` when they are more than one apart.
pub fn negotiate(ours: u32, theirs: u32) -> Option<u32> {
    (ours.abs_diff(theirs) <= 1)
        .then_some(ours.min(theirs))
        .filter(|version| *version > 0)
}

/// What of an image is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Manifest,
    /// The set of chunks that the peer can send.
    Have,
    Data,
    /// Whether the peer's copy of a chunk is right.
    Check,
}

/// The path of a part of an image.
pub fn path(id: &ImageId, part: Part) -> String {
    let part = match part {
        Part::Manifest => "manifest",
        Part::Have => "have",
        Part::Data => "data",
        Part::Check => "check",
    };
    format!("/v2/images/{}/{}/{part}", id.name, id.uuid)
}

/// What identifies the exact bytes of an image and the digests of its chunks: the BLAKE3 that closes
/// its manifest. On the wire it is the entity tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seal(pub [u8; 32]);

impl Seal {
    /// As an entity tag (RFC 9110, section 8.8.3).
    pub fn etag(self) -> String {
        format!("\"{}\"", blake3::Hash::from_bytes(self.0).to_hex())
    }

    /// Reads an entity tag; a weak one identifies nothing.
    pub fn from_etag(text: &str) -> Option<Self> {
        let hex = text.trim().strip_prefix('"')?.strip_suffix('"')?;
        let hash = blake3::Hash::from_hex(hex).ok()?;
        Some(Self(*hash.as_bytes()))
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.etag())
    }
}

/// How an image is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of the image.
    pub size: u64,
    /// Bytes of each chunk; the last may be shorter.
    pub chunk: u32,
}

impl Geometry {
    /// `None` when no image of ours can be like that.
    pub fn new(size: u64, chunk: u32) -> Option<Self> {
        let valid = (1..=IMAGE_SIZE_MAX).contains(&size) && CHUNK_SIZES.contains(&chunk);
        let whole = Self { size, chunk };
        (valid && u32::try_from(whole.size.div_ceil(u64::from(chunk))).is_ok()).then_some(whole)
    }

    /// Chunks of the image.
    pub fn count(self) -> u32 {
        u32::try_from(self.size.div_ceil(u64::from(self.chunk))).expect("checked when it was made")
    }

    /// Where a chunk begins.
    pub fn offset(self, index: u32) -> u64 {
        u64::from(index) * u64::from(self.chunk)
    }

    /// Bytes of a chunk below [`Geometry::count`].
    pub fn length(self, index: u32) -> usize {
        let rest = self.size.saturating_sub(self.offset(index));
        usize::try_from(rest.min(u64::from(self.chunk))).expect("a chunk fits in memory")
    }

    /// The bytes of some consecutive chunks.
    pub fn bytes(self, chunks: &Range<u32>) -> Range<u64> {
        self.offset(chunks.start)..self.offset(chunks.end).min(self.size)
    }

    /// The chunks that a range of bytes is made of; `None` when it cuts one, is empty or is outside.
    pub fn chunks(self, bytes: &Range<u64>) -> Option<Range<u32>> {
        let chunk = u64::from(self.chunk);
        let whole = |at: u64| at.is_multiple_of(chunk) || at == self.size;
        let inside = bytes.start < bytes.end && bytes.end <= self.size;
        if !inside || !bytes.start.is_multiple_of(chunk) || !whole(bytes.end) {
            return None;
        }
        let first = u32::try_from(bytes.start / chunk).ok()?;
        Some(first..u32::try_from(bytes.end.div_ceil(chunk)).ok()?)
    }
}

/// Reads `Range: bytes=a-b` or `bytes=a-` (RFC 9110, section 14.2) of something of `size` bytes: one
/// range, and no counting from the end.
pub fn parse_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let start = number(first)?;
    let end = if last.is_empty() {
        size
    } else {
        number(last)?.checked_add(1)?.min(size)
    };
    (start < end).then_some(start..end)
}

/// `Range` of some bytes; they are not empty.
pub fn range_header(bytes: &Range<u64>) -> String {
    format!("bytes={}-{}", bytes.start, bytes.end - 1)
}

/// `Content-Range` of some bytes; they are not empty.
pub fn content_range(bytes: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1)
}

/// A number of digits alone: `+5` is none.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Which bytes an image has, and in which pieces they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    pub geometry: Geometry,
    /// Which image it is, exactly.
    pub seal: Seal,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 55: one version apart is understood, two are not.
    #[test]
    fn row_55_versions_one_apart_agree_on_the_lower() {
        assert_eq!(negotiate(1, 1), Some(1));
        assert_eq!(negotiate(1, 2), Some(1));
        assert_eq!(negotiate(2, 1), Some(1));
        assert_eq!(negotiate(7, 6), Some(6));
        assert_eq!(negotiate(1, 3), None);
        assert_eq!(negotiate(5, 3), None);
        assert_eq!(negotiate(1, 0), None);
    }

    #[test]
    fn ranges_are_whole_chunks_inside_the_image() {
        let geometry = Geometry::new(2500, 1000).unwrap();
        assert_eq!(geometry.count(), 3);
        assert_eq!(geometry.length(2), 500);
        assert_eq!(geometry.bytes(&(1..3)), 1000..2500);
        let chunks = |bytes| geometry.chunks(&bytes);
        assert_eq!(chunks(0..1000), Some(0..1));
        assert_eq!(chunks(1000..2500), Some(1..3));
        for bad in [
            0..999,
            1..1000,
            2000..2499,
            2000..3000,
            3000..4000,
            1000..1000,
        ] {
            assert_eq!(chunks(bad.clone()), None, "{bad:?}");
        }
        for (size, chunk) in [
            (0, 1000),
            (IMAGE_SIZE_MAX + 1, 1 << 20),
            (10, 0),
            (10, u32::MAX),
        ] {
            assert_eq!(Geometry::new(size, chunk), None, "{size} {chunk}");
        }
        assert_eq!(
            Geometry::new(IMAGE_SIZE_MAX, 1),
            None,
            "more chunks than numbers"
        );
    }

    #[test]
    fn range_headers_of_all_kinds() {
        let parse = |text| parse_range(text, 100);
        assert_eq!(parse("bytes=0-9"), Some(0..10));
        assert_eq!(parse("bytes=10-"), Some(10..100));
        assert_eq!(parse("bytes=10-1000"), Some(10..100));
        for bad in [
            "",
            "bytes=-5",
            "bytes=9-3",
            "bytes=100-",
            "bytes=0-1,3-4",
            "bytes=+1-2",
            "bytes=0-18446744073709551615",
            "items=0-1",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse_range(&range_header(&(7..9)), 100), Some(7..9));
    }

    #[test]
    fn a_seal_is_a_strong_entity_tag() {
        let seal = Seal([7; 32]);
        assert_eq!(Seal::from_etag(&seal.etag()), Some(seal));
        assert_eq!(Seal::from_etag(&format!("W/{}", seal.etag())), None);
        assert_eq!(Seal::from_etag("\"07\""), None);
    }
}
