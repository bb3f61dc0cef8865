//! The simulated network, and the end of a host's connections.
//!
//! A crash drops the tasks of a host in an order that depends on how many tasks the whole process
//! has had. Each dropped connection notifies its peer, and each such message draws from the random
//! numbers of the run: so the connections of a crashed host are closed in the order of their
//! creation.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use sync::{Connect, PeerAddress};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

/// The connections of one host.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    made: AtomicU64,
    crashing: AtomicBool,
    /// Connections whose tasks were dropped by a crash, with their numbers.
    dropped: Mutex<Vec<(u64, TcpStream)>>,
}

/// A connection of a host.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Taken only by its drop.
    stream: Option<TcpStream>,
    number: u64,
    sockets: Arc<Sockets>,
}

impl Sockets {
    pub(crate) fn keep(self: &Arc<Self>, stream: TcpStream) -> Socket {
        Socket {
            stream: Some(stream),
            number: self.made.fetch_add(1, Ordering::Relaxed),
            sockets: self.clone(),
        }
    }

    /// Runs what crashes the host.
    pub(crate) fn crash(&self, crash: impl FnOnce()) {
        self.crashing.store(true, Ordering::Relaxed);
        crash();
        self.crashing.store(false, Ordering::Relaxed);
    }

    /// To be held by the host's first task, which a crash drops after all others.
    pub(crate) fn closed_in_order(self: &Arc<Self>) -> ClosedInOrder {
        ClosedInOrder(self.clone())
    }
}

/// Closes the connections of a crashed host when it is dropped.
#[derive(Debug)]
pub(crate) struct ClosedInOrder(Arc<Sockets>);

impl Drop for ClosedInOrder {
    fn drop(&mut self) {
        let mut dropped = std::mem::take(&mut *self.0.dropped.lock().unwrap());
        dropped.sort_by_key(|(number, _)| *number);
        // From the first to the last.
        dropped.into_iter().for_each(drop);
    }
}

impl Socket {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        let stream = self.get_mut().stream.as_mut();
        Pin::new(stream.expect("it is there until the drop"))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take()
            && self.sockets.crashing.load(Ordering::Relaxed)
        {
            let mut dropped = self.sockets.dropped.lock().unwrap();
            dropped.push((self.number, stream));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

impl sync::serve::takeover::Socket for Socket {}

/// How a host connects.
#[derive(Debug, Clone)]
pub(crate) struct Wire(pub Arc<Sockets>);

impl Connect for Wire {
    type Stream = Socket;

    async fn connect(&self, address: &PeerAddress) -> io::Result<Socket> {
        let address = address.socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let stream = TcpStream::connect(address).await?;
        Ok(self.0.keep(stream))
    }
}
