//! A peer that speaks the sync protocol and lies in one way.

use std::net::SocketAddr;

use e2e::server::{HttpServer, Reply, Request};
use e2e::web;

const CHUNK: usize = 1 << 20;

/// The lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// It speaks a version from the future.
    Version,
    /// Its manifest is followed by more.
    LongManifest,
    /// A byte of its manifest is another one.
    BrokenSeal,
    /// The image is larger than any can be.
    HugeImage,
    /// It has chunks behind the end.
    ChunksBehindTheEnd,
    /// It sends another range than it was asked for.
    WrongRange,
    /// It says that the answer is larger.
    Oversized,
    /// It sends the whole image, always.
    Whole,
    /// Its bytes are of another image.
    OtherBytes,
    /// Another image from the beginning: chunk digests that belong to the bytes, and not to the SHA-512.
    OtherImage,
}

impl Lie {
    pub(crate) const ALL: [Self; 9] = [
        Self::LongManifest,
        Self::BrokenSeal,
        Self::HugeImage,
        Self::ChunksBehindTheEnd,
        Self::WrongRange,
        Self::Oversized,
        Self::Whole,
        Self::OtherBytes,
        Self::OtherImage,
    ];

    /// What the receiver must say of it.
    pub(crate) fn said(self) -> &'static str {
        match self {
            Self::Version => "speaks version",
            Self::OtherBytes => "were damaged",
            Self::OtherImage => "checksum mismatch",
            Self::LongManifest
            | Self::BrokenSeal
            | Self::HugeImage
            | Self::ChunksBehindTheEnd
            | Self::WrongRange
            | Self::Oversized
            | Self::Whole => "violates the protocol",
        }
    }
}

/// A running liar.
pub(crate) struct Evil {
    server: HttpServer,
}

impl Evil {
    /// A liar about the image that an honest manager has, whose bytes these are.
    pub(crate) fn start(
        honest: SocketAddr,
        name: &str,
        uuid: &str,
        bytes: &[u8],
        lie: Lie,
    ) -> Self {
        let url = format!("http://{honest}/v2/images/{name}/{uuid}/manifest");
        let (status, mut manifest) = web::get(&url).unwrap();
        assert_eq!(status, 200);
        let mut bytes = bytes.to_vec();
        if lie == Lie::OtherBytes || lie == Lie::OtherImage {
            for byte in bytes.iter_mut().step_by(1000) {
                *byte ^= 1;
            }
        }
        if lie == Lie::OtherImage {
            for (chunk, digest) in bytes.chunks(CHUNK).zip(manifest[80..].chunks_mut(32)) {
                digest.copy_from_slice(blake3::hash(chunk).as_bytes());
            }
            let body = manifest.len() - 32;
            let seal = blake3::hash(&manifest[..body]);
            manifest[body..].copy_from_slice(seal.as_bytes());
        }
        let server = HttpServer::start(move |request| answer(request, &manifest, &bytes, lie));
        Self { server }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let url = self.server.url("");
        url.trim_start_matches("http://").parse().unwrap()
    }
}

fn answer(request: &Request, manifest: &[u8], bytes: &[u8], lie: Lie) -> Reply {
    let seal = manifest.last_chunk::<32>().unwrap();
    let size = match lie {
        Lie::HugeImage => u64::MAX,
        _ => u64::from_le_bytes(manifest[8..16].try_into().unwrap()),
    };
    let version = if lie == Lie::Version { "3" } else { "1" };
    let mut reply = Reply::ok(Vec::new());
    let mut header = |name: &str, value: String| reply.headers.push((name.to_owned(), value));
    header("Sync-Protocol", version.to_owned());
    header("Sync-Image-Size", size.to_string());
    header("Sync-Chunk-Size", CHUNK.to_string());
    header(
        "ETag",
        format!("\"{}\"", blake3::Hash::from_bytes(*seal).to_hex()),
    );
    if request.path.ends_with("/manifest") {
        reply.body = manifest.to_vec();
        match lie {
            Lie::LongManifest => reply.body.extend([0; 32]),
            Lie::BrokenSeal => reply.body[100] ^= 1,
            _ => {}
        }
    } else if request.path.ends_with("/have") {
        let count = bytes.len().div_ceil(CHUNK);
        let mut have = vec![0; count.div_ceil(8)];
        for chunk in 0..count {
            have[chunk / 8] |= 1 << (chunk % 8);
        }
        if lie == Lie::ChunksBehindTheEnd {
            have.fill(0xff);
        }
        reply.body = have;
    } else if request.path.ends_with("/data") {
        let range = request.header("range").unwrap();
        let (start, end) = range
            .strip_prefix("bytes=")
            .unwrap()
            .split_once('-')
            .unwrap();
        let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
        let told = match lie {
            Lie::WrongRange => start + CHUNK,
            _ => start,
        };
        reply.status = 206;
        reply.body = bytes[start..=end].to_vec();
        match lie {
            Lie::Oversized => reply.claimed_length = Some(1 << 40),
            Lie::Whole => {
                reply.status = 200;
                reply.body = bytes.to_vec();
            }
            _ => {}
        }
        let value = format!("bytes {told}-{end}/{}", bytes.len());
        reply.headers.push(("Content-Range".to_owned(), value));
    }
    // It finds nothing wrong with its chunks, whoever asks.
    reply
}
