//! Listening for HTTP/1.1 and gRPC so that no peer keeps the others out: all ports of all daemons are served from here.
//!
//! Everything a peer can make last or grow has a bound: connections in all and per peer, the time to say hello, the
//! time between two pieces of a request, the size of headers and frames, streams per connection. Where there is no
//! room, a connection that has not asked for anything yet makes way for a new one.
//! Who the peer is, the connection has to prove ([`Security`]); what he may ask is looked up ([`access`]).
//! What a request means is not known here.

pub mod access;
mod body;
mod bound;
pub mod calls;
mod peers;
mod security;
pub mod takeover;
mod unix;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use client::Address;
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

pub use self::bound::BoundAddresses;
pub use self::peers::Peer;
use self::peers::{Admission, Peers, Room};
pub use self::security::Security;
use self::security::{Known, meet, meet_local};
use self::takeover::Answering;

/// The time a peer has to say what it wants: the preface of HTTP/2, or the headers of a request.
const HELLO: Duration = Duration::from_secs(10);
/// The same for who asks how a daemon is.
const PROBE_HELLO: Duration = Duration::from_secs(2);
/// The time of such a question from the connection to the end of its answer.
const PROBE_TIME: Duration = Duration::from_secs(20);
/// HTTP/2 peers that do not answer a ping are gone.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(20);
/// Headers of one request, in bytes; what real clients send has a few hundred.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Headers of one HTTP/1.1 request, in number.
const HEADERS_MAX: usize = 64;
/// The read buffer of an HTTP/1.1 connection, and so the longest head of a request.
const BUFFER_MAX: usize = 64 << 10;
/// Requests that one connection may have open.
const STREAMS_MAX: u32 = 256;
/// The largest frame: with the default of HTTP/2, 16 KiB (RFC 9113), a piece of an image comes in hundreds.
const FRAME_MAX: u32 = 256 << 10;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// The time that what is under way on a connection has to end when the certificate of its peer has expired.
const AFTER_EXPIRY: Duration = Duration::from_mins(5);
/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A pause after the system has no descriptor left for a connection.
const NO_DESCRIPTOR: Duration = Duration::from_millis(100);

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// gRPC over HTTP/2.
    Grpc,
}

/// Reads where to listen: `HOST:PORT`, `unix:/path`, or `:PORT` for every address of the machine, which
/// is how Longhorn's control plane says it. With a host, the port may be 0: the system chooses one.
pub fn address(text: &str) -> Result<Address, client::InvalidAddress> {
    if let Some(port) = text.strip_prefix(':') {
        return format!("[::]:{port}").parse();
    }
    // A client has nothing to connect to at port 0, so its addresses never have it: the host is checked.
    let Some(host) = text.strip_suffix(":0") else {
        return text.parse();
    };
    match format!("{host}:1").parse() {
        Ok(Address::Tcp(checked)) => {
            let host = checked.strip_suffix(":1").unwrap_or(&checked);
            Ok(Address::Tcp(format!("{host}:0")))
        }
        _ => text.parse(),
    }
}

/// The same where only an IP address will do.
pub fn socket_address(text: &str) -> Result<SocketAddr, std::net::AddrParseError> {
    match text.strip_prefix(':') {
        Some(port) => format!("[::]:{port}").parse(),
        None => text.parse(),
    }
}

/// Listens at `HOST:PORT`; a name is looked up. The unspecified address of IPv6 is that of both
/// families, whatever `net.ipv6.bindv6only` says, and of IPv4 alone on a kernel without IPv6.
pub async fn tcp(address: &str) -> io::Result<TcpListener> {
    match address.parse() {
        Ok(SocketAddr::V6(any)) if any.ip().is_unspecified() => match both_families(any) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, any.port())).await
            }
            listener => listener
                .map_err(io::Error::from)
                .and_then(TcpListener::from_std),
        },
        _ => TcpListener::bind(address).await,
    }
}

fn both_families(any: SocketAddrV6) -> rustix::io::Result<std::net::TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &any)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    protocol: Protocol,
    security: Security,
    /// Only how the daemon is can be asked here.
    probes: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds `address` for everybody who reaches it; a name is looked up.
    pub async fn bind(address: &Address, protocol: Protocol) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => Socket::Tcp(tcp(address).await?),
            Address::Unix(path) => Socket::Unix(unix::bind(path)?),
        };
        Ok(Self::of(socket, protocol))
    }

    const fn of(socket: Socket, protocol: Protocol) -> Self {
        Self {
            socket,
            protocol,
            security: Security::plain(),
            probes: false,
        }
    }

    /// Takes a unix socket that its program has bound, with care of its own for who can replace it.
    pub fn of_unix(
        listener: std::os::unix::net::UnixListener,
        protocol: Protocol,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let socket = Socket::Unix(UnixListener::from_std(listener)?);
        Ok(Self::of(socket, protocol))
    }

    /// The same for whom `security` lets in. A unix socket is for root and our own user in any case.
    #[must_use]
    pub fn secured(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// Binds `address` for `/healthz` and `/metrics`: one short question a connection. The few
    /// connections that it may have are its own, so that whoever fills it takes nothing of the others.
    pub async fn for_probes(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::Tcp(tcp(&address.to_string()).await?);
        Ok(Self {
            probes: true,
            ..Self::of(socket, Protocol::Http1)
        })
    }

    /// The address that was bound, for people: `127.0.0.1:8000` or `unix:/path`.
    pub fn bound_address(&self) -> String {
        match &self.socket {
            Socket::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|error| error.to_string(), |address| address.to_string()),
            Socket::Unix(listener) => listener
                .local_addr()
                .ok()
                .and_then(|address| Some(format!("unix:{}", address.as_pathname()?.display())))
                .unwrap_or_default(),
        }
    }

    /// The address that was bound, where it is one of TCP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Answers until `stop`; then no new request is taken and this returns when the last is answered.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let room = if self.probes {
            Room::Probes
        } else {
            Room::Requests
        };
        let peers = Peers::new(room);
        let connections = TaskTracker::new();
        let mut refusing = false;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // EMFILE and the like last until some connection ends: said once, not ten times a
                    // second.
                    if !std::mem::replace(&mut refusing, true) {
                        warn!(%error, "a connection cannot be accepted");
                    }
                    tokio::time::sleep(NO_DESCRIPTOR).await;
                    continue;
                }
            };
            refusing = false;
            let Some(admission) = peers.admit(address) else {
                debug!(?address, "too many connections: this one is closed");
                // Those that made way, and those that are served, get their turn first.
                tokio::task::yield_now().await;
                continue;
            };
            let connection = Connection {
                router: router.clone(),
                stop: stop.clone(),
                protocol: self.protocol,
                security: self.security.clone(),
                probes: self.probes,
                admission: Arc::new(admission),
            };
            connections.spawn(connection.run(stream));
        }
        connections.close();
        connections.wait().await;
    }

    async fn accept(&self) -> io::Result<(Stream, Option<std::net::IpAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Small answers must not wait for the acknowledgement of the ones before.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Some(address.ip().to_canonical())))
            }
            Socket::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

struct Connection {
    router: Router,
    stop: CancellationToken,
    protocol: Protocol,
    security: Security,
    probes: bool,
    admission: Arc<Admission>,
}

impl Connection {
    async fn run(self, stream: Stream) {
        let (makes_way, probes) = (self.admission.makes_way(), self.probes);
        let served = async {
            if probes {
                // Whoever reads slower than that is not waited for.
                let _ = tokio::time::timeout(PROBE_TIME, self.serve(stream)).await;
            } else {
                self.serve(stream).await;
            }
        };
        tokio::select! {
            () = makes_way.cancelled() => debug!("closed an idle connection to admit a new one"),
            () = served => {}
        }
    }

    async fn serve(self, stream: Stream) {
        let met = match stream {
            Stream::Tcp(stream) => {
                let meeting = async {
                    let met = meet(&self.security, stream, self.protocol).await?;
                    Ok::<_, io::Error>(met)
                };
                tokio::time::timeout(HELLO, meeting).await
            }
            Stream::Unix(stream) => Ok(meet_local(stream)),
        };
        match met {
            Ok(Ok(Some(known))) => self.speak(known).await,
            Ok(Ok(None)) | Err(_) => {
                debug!("a connection is closed: it is not of anybody who is served");
            }
            // Whoever can reach the port can make these: no reason to fill the log.
            Ok(Err(error)) => debug!(%error, "a connection is closed"),
        }
    }

    async fn speak(self, known: Known) {
        let Known {
            stream,
            caller,
            good_for,
        } = known;
        let (router, peer) = (self.router, self.admission.peer());
        // The port is that of the connection alone, and of no use to anybody.
        let from = self.admission.address().map(|ip| SocketAddr::new(ip, 0));
        let (admission, protocol) = (self.admission.clone(), self.protocol);
        let answer = move |request: hyper::Request<Incoming>| {
            // A head of HTTP/1.1 is whole here, and what follows it must keep coming. A stream of gRPC
            // costs its peer nothing before its message is there.
            if protocol == Protocol::Http1 {
                admission.asked();
            }
            let admission = admission.clone();
            let mut request: Request =
                request.map(|body| axum::body::Body::new(body::Timed::new(body)));
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(caller.clone());
            if let Some(from) = from {
                request.extensions_mut().insert(ConnectInfo(from));
            }
            let answering = router.clone().oneshot(request);
            async move {
                let answer = answering.await;
                admission.asked();
                answer
            }
            .boxed()
        };
        let expired = async {
            match good_for {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
            debug!("the certificate of a peer has expired");
        };
        let expired = expired.shared();
        let ends = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = expired.clone() => {}
            }
        };
        let late = async {
            expired.clone().await;
            tokio::time::sleep(AFTER_EXPIRY).await;
        };
        let served = lead(stream, protocol, self.probes, answer, ends);
        tokio::select! {
            ended = served => {
                if let Err(error) = ended {
                    debug!(%error, "a connection broke off");
                }
            }
            () = late => {}
        }
    }
}

/// Answers the requests of a connection until its peer closes it, or `ends` is ready and what is under way has ended.
async fn lead(
    stream: Box<dyn takeover::Socket>,
    protocol: Protocol,
    probes: bool,
    answer: impl Fn(hyper::Request<Incoming>) -> Answering + Clone + Unpin + Send + 'static,
    ends: impl Future<Output = ()>,
) -> io::Result<()> {
    if protocol == Protocol::Http1 {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(if probes { PROBE_HELLO } else { HELLO })
            .keep_alive(!probes)
            .max_headers(HEADERS_MAX)
            .max_buf_size(BUFFER_MAX);
        return takeover::serve(stream, &builder, answer, ends).await;
    }
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(FRAME_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ends => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}

/// Waits until the preface of HTTP/2 is there, or what is certainly none of it: hyper alone would wait for ever.
async fn says_hello(stream: &TcpStream) -> io::Result<bool> {
    let mut said = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut said).await? {
            0 => return Ok(false),
            n if n == said.len() || !PREFACE.starts_with(&said[..n]) => return Ok(true),
            // The rest is on its way; peek would return at once.
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The peer of a request that came in through a [`Listener`].
fn peer_of<B>(request: &axum::http::Request<B>) -> Option<Arc<Peer>> {
    request.extensions().get::<Arc<Peer>>().cloned()
}

#[cfg(test)]
mod tests;
