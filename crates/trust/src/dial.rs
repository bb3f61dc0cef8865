//! Connections to other programs over TCP: with TLS where this program holds a credential, plain where it was
//! told to do without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::CertificateError;
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
                let greeted = held.connect(stream, expected, protocol).await;
                let (stream, peer) = greeted.map_err(explained)?;
                Ok((Stream::Tls(Box::new(stream)), Some(peer)))
            }
        }
    }
}

/// An error of reading. In TLS 1.3 a client is done before the server has looked at its certificate (RFC 8446,
/// section 2): that it is not believed is the first that the client reads.
fn refused(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::AlertReceived(_)) => explained(error),
        _ => error,
    }
}

/// The error of a handshake, for people: the library's words name what it read, not what to do.
fn explained(error: io::Error) -> io::Error {
    let inner = error.get_ref();
    let why = match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => {
            "the other side does not use TLS on this port: give both programs certificates, or neither"
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "the certificate of the other side is of another certificate authority than the one that this \
             program believes"
        }
        Some(rustls::Error::AlertReceived(_)) => {
            "the other side does not accept the certificate of this program"
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the other side closed the connection: it uses no TLS, or has no certificate yet"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{why} ({error})"))
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
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer).map_err(refused),
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
