//! Unpacks a layer on a thread of its own, so that unpacking and storing use two cores.
//!
//! The thread reads, decodes, limits and hashes. Unpacked data passes through a short queue of
//! reused buffers, so that memory is limited and nothing is allocated in the steady state.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use flate2::bufread::MultiGzDecoder;

use super::Packing;
use super::tar::Skip;
use super::{Error, Input, Limits};
use crate::digest::{Digest, Hasher};

/// Unpacked bytes that are handed over at a time.
const BUFFER: usize = 256 << 10;
/// Buffers that lie ready; as many again are in use or on their way back.
const BUFFERS: usize = 4;

/// The unpacked bytes of a layer, and the thread that makes them.
pub(super) struct Unpacked {
    ready: Option<Receiver<Result<Vec<u8>, Error>>>,
    back: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    /// Why the thread stopped early: the reader must carry an `io::Error` past the tar code.
    failed: Option<Error>,
    thread: Option<JoinHandle<()>>,
}

impl Unpacked {
    /// Starts to unpack `input`; `before` bytes of other layers count against the limit.
    pub(super) fn start(input: Input, limits: Limits, before: u64) -> Result<Self, Error> {
        let (sender, ready) = sync_channel(BUFFERS);
        let (back, free) = sync_channel(2 * BUFFERS);
        let name = input.name.clone();
        let run = move || {
            let mut worker = Worker {
                sender,
                free,
                limits,
                unpacked: before,
            };
            if let Err(error) = worker.run(input) {
                // Nobody may be listening any more: then nobody wants to know.
                let _gone = worker.sender.send(Err(error));
            }
        };
        let thread = Builder::new().name("unpack".to_owned()).spawn(run);
        let thread = thread.map_err(|source| Error::Read {
            layer: name,
            source,
        })?;
        let (current, at, failed) = (Vec::new(), 0, None);
        Ok(Self {
            ready: Some(ready),
            back,
            current,
            at,
            failed,
            thread: Some(thread),
        })
    }

    /// The error of the thread, in place of the one that its reader was shown.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failed.take()
    }
}

impl Drop for Unpacked {
    /// Ends the thread: its next hand-over fails.
    fn drop(&mut self) {
        drop(self.ready.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was printed by the runtime and ended the stream with an error here.
            let _ended = thread.join();
        }
    }
}

impl Read for Unpacked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let n = ready.len().min(buf.len());
        buf[..n].copy_from_slice(&ready[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Unpacked {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len()
            && let Some(ready) = &self.ready
        {
            match ready.recv() {
                // An empty buffer is the end, said by a thread that found everything right.
                Ok(Ok(next)) => {
                    self.at = 0;
                    let used = std::mem::replace(&mut self.current, next);
                    // The thread makes a new one when this does not come back.
                    let _full = self.back.try_send(used);
                    if self.current.is_empty() {
                        self.ready = None;
                    }
                }
                Ok(Err(error)) => {
                    self.failed = Some(error);
                    return Err(io::Error::other("see take_failure"));
                }
                Err(_) => return Err(io::Error::other("the thread that unpacks the layer died")),
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Skip for Unpacked {}

struct Worker {
    sender: SyncSender<Result<Vec<u8>, Error>>,
    free: Receiver<Vec<u8>>,
    limits: Limits,
    unpacked: u64,
}

/// The packed bytes, counted, with the reason kept apart when they cannot be read.
struct Packed {
    inner: Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>,
    count: u64,
    failed: bool,
}

impl Read for Packed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf);
        match &read {
            Ok(n) => self.count += *n as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.failed = true,
        }
        read
    }
}

/// A decoder, and the packed bytes behind it.
trait Decoder: Read {
    fn packed(&mut self) -> &mut BufReader<Packed>;
}

impl Decoder for BufReader<Packed> {
    fn packed(&mut self) -> &mut BufReader<Packed> {
        self
    }
}

impl Decoder for MultiGzDecoder<BufReader<Packed>> {
    fn packed(&mut self) -> &mut BufReader<Packed> {
        self.get_mut()
    }
}

impl Decoder for zstd::stream::read::Decoder<'_, BufReader<Packed>> {
    fn packed(&mut self) -> &mut BufReader<Packed> {
        self.get_mut()
    }
}

impl Worker {
    fn run(&mut self, input: Input) -> Result<(), Error> {
        let Input {
            name,
            packing: declared,
            digest,
            diff_id,
            bare: _,
            mut reader,
        } = input;
        let read_error = |source| Error::Read {
            layer: name.clone(),
            source,
        };
        let mut head = Vec::with_capacity(4);
        reader
            .by_ref()
            .take(4)
            .read_to_end(&mut head)
            .map_err(read_error)?;
        let packing = packing_of(&head);
        if declared != Packing::Unknown && declared != packing {
            return Err(Error::Packing {
                layer: name,
                declared,
                found: packing,
            });
        }
        let packed = Packed {
            inner: Cursor::new(head).chain(reader),
            count: 0,
            failed: false,
        };
        let packed = BufReader::with_capacity(BUFFER, packed);
        let mut decoder: Box<dyn Decoder> = match packing {
            Packing::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Packing::Zstd => {
                let setup = |source| Error::Unpack {
                    layer: name.clone(),
                    packing,
                    source,
                };
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(packed).map_err(setup)?;
                decoder
                    .window_log_max(self.limits.zstd_window_log)
                    .map_err(setup)?;
                Box::new(decoder)
            }
            Packing::Plain | Packing::Unknown => Box::new(packed),
        };
        // The packed bytes are the tar, and whoever gives them to us verifies them already.
        let verified = packing == Packing::Plain && digest.is_some() && digest == diff_id;
        let hasher = diff_id.as_ref().filter(|_| !verified).map(Digest::hasher);
        let hasher = self.pump(&name, packing, decoder.as_mut(), hasher)?;
        if let (Some(hasher), Some(expected)) = (hasher, diff_id) {
            let actual = hasher.finish();
            if actual != expected {
                return Err(Error::DiffId {
                    layer: name,
                    expected,
                    actual,
                });
            }
        }
        let _gone = self.sender.send(Ok(Vec::new()));
        Ok(())
    }

    /// Unpacks all of it. Ends early, without an error, when nobody wants the rest.
    fn pump(
        &mut self,
        name: &str,
        packing: Packing,
        decoder: &mut dyn Decoder,
        mut hasher: Option<Hasher>,
    ) -> Result<Option<Hasher>, Error> {
        let start = self.unpacked;
        loop {
            let mut buffer = self.free.try_recv().unwrap_or_default();
            buffer.resize(BUFFER, 0);
            let n = fill(decoder, &mut buffer).map_err(|source| {
                let layer = name.to_owned();
                if decoder.packed().get_ref().failed {
                    Error::Read { layer, source }
                } else {
                    Error::Unpack {
                        layer,
                        packing,
                        source,
                    }
                }
            })?;
            if n == 0 {
                nothing_follows(name, decoder)?;
                return Ok(hasher);
            }
            buffer.truncate(n);
            self.unpacked += n as u64;
            self.check_limits(
                name,
                decoder.packed().get_ref().count,
                self.unpacked - start,
            )?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&buffer);
            }
            if self.sender.send(Ok(buffer)).is_err() {
                return Ok(None);
            }
        }
    }

    fn check_limits(&self, name: &str, packed: u64, unpacked: u64) -> Result<(), Error> {
        let limits = &self.limits;
        if self.unpacked > limits.unpacked {
            return Err(Error::TooLarge {
                limit: limits.unpacked,
            });
        }
        if unpacked > limits.ratio_from && unpacked / packed.max(1) > limits.ratio {
            return Err(Error::Bomb {
                layer: name.to_owned(),
                ratio: limits.ratio,
            });
        }
        Ok(())
    }
}

/// The packed bytes must be at their end too, and their reader must say so without an error.
fn nothing_follows(name: &str, decoder: &mut dyn Decoder) -> Result<(), Error> {
    match decoder.packed().fill_buf() {
        Ok([]) => Ok(()),
        Ok(_) => Err(Error::Garbage {
            layer: name.to_owned(),
        }),
        Err(source) => Err(Error::Read {
            layer: name.to_owned(),
            source,
        }),
    }
}

/// What the first bytes show.
fn packing_of(head: &[u8]) -> Packing {
    match head {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        // A frame, or a skippable frame before it (RFC 8878 section 3.1).
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Packing::Zstd,
        _ => Packing::Plain,
    }
}

/// Reads until the buffer is full or the input ends.
fn fill(reader: &mut dyn Decoder, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
