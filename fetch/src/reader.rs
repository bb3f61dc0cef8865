//! A stream of the async world as a blocking reader.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::Result;

/// Chunks that lie ready between the network and the reader. The HTTP client's chunks have at most
/// some hundred KiB.
const CHUNKS_READY: usize = 8;

/// What a stream yields, for code that blocks. Dropping it ends the transfer.
///
/// A failed transfer ends in an [`io::Error`] that holds the [`crate::Error`]: see
/// [`crate::Error::in_chain`]. A reader that ended without one was whole and verified.
#[derive(Debug)]
pub struct BlockingReader {
    chunks: mpsc::Receiver<Result<Bytes>>,
    current: Bytes,
}

impl BlockingReader {
    /// Starts to pull `stream` on the runtime behind `handle`. It must be read outside of that
    /// runtime's async threads, for example in `spawn_blocking`.
    pub fn spawn(
        handle: &Handle,
        stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_READY);
        handle.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            loop {
                // A reader that is gone ends the wait for the network too.
                let item = tokio::select! {
                    item = stream.next() => item,
                    () = sender.closed() => return,
                };
                let Some(item) = item else { return };
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        });
        Self {
            chunks,
            current: Bytes::new(),
        }
    }
}

impl Read for BlockingReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let n = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
