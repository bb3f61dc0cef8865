//! Connections to other programs over TCP: with TLS where this program holds a credential, plain where it was
//! told to do without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::held::Held;
use crate::identity::Identity;
use crate::verify::Expected;

/// How other programs are reached.
#[derive(Debug, Clone, Default)]
pub enum Dialer {
    /// Without TLS: whoever answers is believed.
    #[default]
    Plain,
    /// With TLS, proving who we are.
    Proven(Held),
}

impl Dialer {
    /// Connects to `HOST:PORT`; a name is looked up. Says who answered, where that was proven.
    ///
    /// # Errors
    /// Nobody answers there, or somebody else than `expected`.
    pub async fn connect(
        &self,
        address: &str,
        expected: &Expected,
        protocol: &[u8],
    ) -> io::Result<(Stream, Option<Identity>)> {
        let stream = TcpStream::connect(address).await?;
        // Small requests must not wait for the acknowledgement of the ones before.
        stream.set_nodelay(true)?;
        match self {
            Self::Plain => Ok((Stream::Plain(stream), None)),
            Self::Proven(held) => {
                let (stream, peer) = held.connect(stream, expected, protocol).await?;
                Ok((Stream::Tls(Box::new(stream)), Some(peer)))
            }
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// With it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
