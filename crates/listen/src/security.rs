//! Who is at the other end of a connection: TLS with certificates of ours, Longhorn's plain bytes, or a user of
//! this machine. What he may call is said by [`trust::Policy`], and asked in [`crate::access`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use trust::held::{H2, HTTP1, Proof};
use trust::{Caller, Held, LonghornTls};

use crate::takeover::Socket;
use crate::{PREFACE, Protocol, says_hello};

/// The first byte of TLS: a record of a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// What a gRPC client without TLS is told: empty settings, then GOAWAY for stream 0 with the code
/// INADEQUATE_SECURITY and the words of [`NEEDS_TLS`] (RFC 9113, sections 6.5, 6.8 and 7).
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: u8 = 7;
const INADEQUATE_SECURITY: u8 = 0xc;
/// What everybody without TLS is told.
const NEEDS_TLS: &str = "this port needs TLS and a certificate of this cluster";
/// What a browser without TLS is told where people are served.
const NEEDS_HTTPS: &str = "this port needs TLS: write https:// in front of its address";
const HEADERS: u8 = 1;
/// Frames before a request, and bytes of one, that are read to tell a client why it is refused.
const FRAMES_MAX: usize = 16;
const FRAME_MAX: u32 = 16 << 10;
/// How long a client without TLS may take to ask.
const FIRST_WORDS: Duration = Duration::from_secs(1);
/// How long a refusal may take to be sent and read.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Who is let in at a port.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// The certificate of this program; `None`: no TLS is spoken here.
    pub held: Option<Held>,
    /// Whether clients that speak TLS have to show a certificate.
    pub proof: Proof,
    /// Whether clients that do not speak TLS are listened to as well.
    pub plain: bool,
    /// Longhorn's certificates, where its control plane may call with them.
    pub longhorn: Option<Arc<LonghornTls>>,
    /// A certificate that browsers know, as it is now; clients show none. Nothing else is spoken then.
    pub people: Option<watch::Receiver<Arc<ServerConfig>>>,
}

impl Security {
    /// Everybody, without TLS.
    pub const fn plain() -> Self {
        Self {
            held: None,
            proof: Proof::Required,
            plain: true,
            longhorn: None,
            people: None,
        }
    }
}

/// A connection, and who made it.
pub(crate) struct Known {
    pub(crate) stream: Box<dyn Socket>,
    pub(crate) caller: Caller,
    /// How long what the caller has proven is good; `None`: for ever.
    pub(crate) good_for: Option<Duration>,
}

/// Finds out who made a connection over TCP; `None`: somebody who is not served, and has been told so. Its caller
/// bounds the time.
pub(crate) async fn meet(
    security: &Security,
    stream: TcpStream,
    protocol: Protocol,
) -> io::Result<Option<Known>> {
    if let Some(certificate) = &security.people {
        let config = certificate.borrow().clone();
        return of_a_person(config, stream).await;
    }
    if security.held.is_none() && security.longhorn.is_none() {
        if !security.plain {
            return Ok(None);
        }
        return anybody(stream, protocol).await;
    }
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first[0] != HANDSHAKE {
        if security.plain {
            return anybody(stream, protocol).await;
        }
        tokio::time::timeout(LAST_WORDS, refuse(stream, protocol, NEEDS_TLS)).await??;
        return Ok(None);
    }
    let inside = match protocol {
        Protocol::Http1 => HTTP1,
        Protocol::Grpc => H2,
    };
    let (stream, peer) = match (&security.held, &security.longhorn) {
        (held, Some(longhorn)) => longhorn.accept(held.as_ref(), stream, inside).await?,
        (Some(held), None) => held.accept(stream, security.proof, inside).await?,
        (None, None) => return Ok(None),
    };
    let good_for = peer.as_ref().map(|peer| {
        let left = peer.until.duration_since(SystemTime::now());
        left.unwrap_or_default()
    });
    let caller = match peer {
        Some(peer) => Caller::Program(peer.identity),
        None if security.longhorn.is_some() => Caller::Longhorn,
        None => Caller::Anybody,
    };
    let stream: Box<dyn Socket> = match protocol {
        Protocol::Http1 => Box::new(stream),
        Protocol::Grpc => Box::new(Begun::read(stream).await?),
    };
    Ok(Some(Known {
        stream,
        caller,
        good_for,
    }))
}

/// Somebody with a browser.
async fn of_a_person(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<Option<Known>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first[0] != HANDSHAKE {
        let told = refuse(stream, Protocol::Http1, NEEDS_HTTPS);
        tokio::time::timeout(LAST_WORDS, told).await??;
        return Ok(None);
    }
    Ok(Some(Known {
        stream: Box::new(TlsAcceptor::from(config).accept(stream).await?),
        caller: Caller::Anybody,
        good_for: None,
    }))
}

/// Somebody without TLS, who says hello first.
async fn anybody(stream: TcpStream, protocol: Protocol) -> io::Result<Option<Known>> {
    if protocol == Protocol::Grpc && !says_hello(&stream).await? {
        return Ok(None);
    }
    Ok(Some(Known {
        stream: Box::new(stream),
        caller: Caller::Anybody,
        good_for: None,
    }))
}

/// Who made a connection over a unix socket: `None` for others than root and our own user, whom the mode of
/// the socket keeps out unless somebody has changed it.
pub(crate) fn meet_local(stream: UnixStream) -> io::Result<Option<Known>> {
    let user = stream.peer_cred()?.uid();
    if user != 0 && user != rustix::process::geteuid().as_raw() {
        return Ok(None);
    }
    Ok(Some(Known {
        stream: Box::new(stream),
        caller: Caller::Local,
        good_for: None,
    }))
}

/// Tells a client without TLS in its own protocol why it is not served.
async fn refuse(mut stream: TcpStream, protocol: Protocol, why: &str) -> io::Result<()> {
    let words = match protocol {
        Protocol::Http1 => {
            let body = format!("{why}\n");
            format!(
                "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.3, HTTP/1.1\r\n\
                 Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: upgrade, close\r\n\r\n{body}",
                body.len()
            )
            .into_bytes()
        }
        Protocol::Grpc => {
            stream.write_all(SETTINGS).await?;
            // Nobody asks: it is told all the same.
            let _ = tokio::time::timeout(FIRST_WORDS, until_asked(&mut stream)).await;
            let length = u8::try_from(8 + why.len()).unwrap_or(8);
            let mut words = Vec::new();
            words.extend([0, 0, length, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            words.extend([0, 0, 0, INADEQUATE_SECURITY]);
            words.extend(&why.as_bytes()[..usize::from(length) - 8]);
            words
        }
    };
    stream.write_all(&words).await?;
    stream.shutdown().await?;
    // To close with unread bytes would take the words back (RFC 1122, section 4.2.2.13).
    let mut rest = [0; 1024];
    let mut unread = 16 << 10;
    while unread > 0 {
        match stream.read(&mut rest).await? {
            0 => break,
            read => unread -= read.min(unread),
        }
    }
    Ok(())
}

/// Reads up to the head of the first request: a client that is told why before it has asked hears of a closed connection
/// alone, because its library has nobody to tell.
async fn until_asked(stream: &mut TcpStream) -> io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    if preface != *PREFACE {
        return Ok(());
    }
    for _ in 0..FRAMES_MAX {
        // A frame is its length in 3 bytes, its type, 5 bytes more, and the payload (RFC 9113, section 4.1).
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        if head[3] == HEADERS || length > FRAME_MAX {
            break;
        }
        let mut payload = stream.take(length.into());
        tokio::io::copy(&mut payload, &mut tokio::io::sink()).await?;
    }
    Ok(())
}

/// A stream whose preface of HTTP/2 has been read: hyper alone would wait for it for ever.
struct Begun<S> {
    stream: S,
    preface: [u8; PREFACE.len()],
    /// How much of it has been passed on.
    passed: usize,
}

impl<S: AsyncRead + Unpin> Begun<S> {
    async fn read(mut stream: S) -> io::Result<Self> {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await?;
        Ok(Self {
            stream,
            preface,
            passed: 0,
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.preface[self.passed..];
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..length]);
        self.passed += length;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for Begun<S> {}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
