//! A stream of the async world as a blocking reader.

use std::future::{Future, pending};
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
/// [`crate::Error::in_chain`]. A reader that ended without one was whole and verified: a transfer that
/// was ended from outside, by the runtime or by `until`, is an error too, never a short file.
#[derive(Debug)]
pub struct BlockingReader {
    /// `None` is the end, said by a stream that came to it.
    chunks: mpsc::Receiver<Result<Option<Bytes>>>,
    current: Bytes,
    ended: bool,
}

impl BlockingReader {
    /// Starts to pull `stream` on the runtime behind `handle`. It must be read outside of that
    /// runtime's async threads, for example in `spawn_blocking`.
    pub fn spawn(
        handle: &Handle,
        stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        Self::spawn_until(handle, stream, pending())
    }

    /// The same; when `until` is done, the reader fails at once, also one that waits for a network
    /// that is silent.
    pub fn spawn_until(
        handle: &Handle,
        stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_READY);
        handle.spawn(async move {
            let (mut stream, mut until) = (std::pin::pin!(stream), std::pin::pin!(until));
            loop {
                // A reader that is gone ends the wait for the network too.
                let item = tokio::select! {
                    item = stream.next() => item.transpose(),
                    () = sender.closed() => return,
                    () = &mut until => return,
                };
                let is_last = !matches!(item, Ok(Some(_)));
                if sender.send(item).await.is_err() || is_last {
                    return;
                }
            }
        });
        let (current, ended) = (Bytes::new(), false);
        Self {
            chunks,
            current,
            ended,
        }
    }
}

impl Read for BlockingReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Ok(Some(chunk))) => self.current = chunk,
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(error.into()),
                None => {
                    let kind = io::ErrorKind::ConnectionAborted;
                    return Err(io::Error::new(
                        kind,
                        "the transfer was ended before its end",
                    ));
                }
            }
        }
        let n = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use futures_util::stream;

    use super::*;

    fn chunks() -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        stream::iter([
            Ok(Bytes::from_static(b"ab")),
            Ok(Bytes::new()),
            Ok(Bytes::from_static(b"c")),
        ])
    }

    #[test]
    fn a_stream_is_read_to_its_end() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut text = String::new();
        BlockingReader::spawn(runtime.handle(), chunks())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn a_transfer_that_is_ended_from_outside_is_no_short_file() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let silent = || chunks().chain(stream::pending());
        let mut reader = BlockingReader::spawn(runtime.handle(), silent());
        let ended = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
        std::thread::sleep(Duration::from_millis(50));
        runtime.shutdown_background();
        assert!(ended.join().unwrap().is_err());

        let runtime = tokio::runtime::Runtime::new().unwrap();
        let start = Instant::now();
        let mut reader = BlockingReader::spawn_until(runtime.handle(), silent(), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
        });
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
