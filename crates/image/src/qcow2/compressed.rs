//! One compressed cluster: bounded in, bounded out, no byte read past either.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};
use zstd::zstd_safe::{self, DCtx};

use super::header::Compression;
use super::units::HostOffset;

/// Decompressors and their buffers, kept from cluster to cluster.
pub(super) struct Decompressor {
    kind: Kind,
    /// The compressed bytes of the cluster at hand.
    input: Vec<u8>,
    /// A whole cluster, for readers that want a part of one, and where its bytes come from.
    cluster: Vec<u8>,
    held: Option<HostOffset>,
}

enum Kind {
    Zlib(Decompress),
    Zstd(DCtx<'static>),
}

impl Decompressor {
    pub(super) fn new(compression: Compression) -> Self {
        let kind = match compression {
            // No zlib header; the window of 4 KiB that the format prescribes fits any inflater's.
            Compression::Zlib => Kind::Zlib(Decompress::new(false)),
            Compression::Zstd => Kind::Zstd(DCtx::create()),
        };
        Self {
            kind,
            input: Vec::new(),
            cluster: Vec::new(),
            held: None,
        }
    }

    /// A buffer of `len` bytes for the compressed bytes of the next cluster.
    pub(super) fn input(&mut self, len: usize) -> &mut [u8] {
        if self.input.len() < len {
            self.input.resize(len, 0);
        }
        &mut self.input[..len]
    }

    /// Whether the whole cluster at `at` is here already.
    pub(super) fn holds(&self, at: HostOffset) -> bool {
        self.held == Some(at)
    }

    /// The whole cluster at `at`, of `size` bytes, out of the `len` bytes of input unless it is here
    /// already. `None` when they do not make one.
    pub(super) fn cluster(&mut self, len: usize, at: HostOffset, size: usize) -> Option<&[u8]> {
        if !self.holds(at) {
            let mut cluster = std::mem::take(&mut self.cluster);
            cluster.resize(size, 0);
            let is_whole = self.run(len, &mut cluster);
            self.cluster = cluster;
            self.held = is_whole.then_some(at);
        }
        self.holds(at).then_some(&self.cluster)
    }

    /// Decompresses the `len` bytes of input into `output`, which has the cluster's size and is filled wholly.
    /// `false` when the bytes do not make a cluster. What follows the cluster's own bytes in `input`
    /// (the rest of a sector, the next cluster) is not looked at.
    pub(super) fn run(&mut self, len: usize, output: &mut [u8]) -> bool {
        let input = &self.input[..len];
        match &mut self.kind {
            Kind::Zlib(inflate) => {
                inflate.reset(false);
                let status = inflate.decompress(input, output, FlushDecompress::Finish);
                // Like QEMU, content with a stream that has filled the cluster without its end.
                matches!(
                    status,
                    Ok(Status::StreamEnd | Status::BufError | Status::Ok)
                ) && inflate.total_out() == output.len() as u64
            }
            Kind::Zstd(context) => unzstd(context, input, output),
        }
    }
}

/// Whole frames, one after the other, until the cluster is full.
fn unzstd(context: &mut DCtx<'_>, mut input: &[u8], mut output: &mut [u8]) -> bool {
    while !output.is_empty() {
        let Ok(len) = zstd_safe::find_frame_compressed_size(input) else {
            return false;
        };
        let Some((frame, rest)) = input.split_at_checked(len) else {
            return false;
        };
        let Ok(count) = context.decompress(output, frame) else {
            return false;
        };
        if len == 0 || count > output.len() {
            return false;
        }
        input = rest;
        output = &mut output[count..];
    }
    true
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}
