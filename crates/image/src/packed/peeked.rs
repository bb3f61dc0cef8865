//! Packed bytes as they are read: counted, and looked at before they are taken.

use std::io::{self, BufRead, Read};

/// What is read at a time.
const BUFFER: usize = 256 << 10;

/// A reader that can be looked into, and knows whether it was it that failed.
pub(super) struct Peeked<R> {
    inner: R,
    buffer: Vec<u8>,
    /// The bytes of the buffer that nobody took.
    start: usize,
    end: usize,
    pub(super) count: u64,
    /// Whether the bytes could not be had, whatever was in them.
    pub(super) failed: bool,
}

impl<R: Read> Peeked<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            count: 0,
            failed: false,
        }
    }

    /// The next `length` bytes, a few; fewer only at the end.
    pub(super) fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        if self.end - self.start < length {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            while self.end < length && self.read_more()? {}
        }
        let end = self.end.min(self.start + length);
        Ok(&self.buffer[self.start..end])
    }

    /// Reads behind what is there; false at the end.
    fn read_more(&mut self) -> io::Result<bool> {
        match self.inner.read(&mut self.buffer[self.end..]) {
            Ok(read) => {
                self.count += read as u64;
                self.end += read;
                Ok(read > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }

    /// Bytes that were taken.
    pub(super) const fn taken(&self) -> u64 {
        self.count - (self.end - self.start) as u64
    }

    /// Takes zeros, as many as come; whether anything follows them.
    pub(super) fn pass_zeros(&mut self) -> io::Result<bool> {
        loop {
            let ready = self.fill_buf()?;
            if ready.is_empty() {
                return Ok(false);
            }
            let zeros = ready.iter().take_while(|byte| **byte == 0).count();
            let is_all = zeros == ready.len();
            self.consume(zeros);
            if !is_all {
                return Ok(true);
            }
        }
    }

    /// Takes all that is left.
    pub(super) fn pass_all(&mut self) -> io::Result<()> {
        loop {
            let ready = self.fill_buf()?.len();
            if ready == 0 {
                return Ok(());
            }
            self.consume(ready);
        }
    }
}

impl<R: Read> BufRead for Peeked<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            while self.end == 0 && self.read_more()? {}
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let read = ready.len().min(buf.len());
        buf[..read].copy_from_slice(&ready[..read]);
        self.consume(read);
        Ok(read)
    }
}
