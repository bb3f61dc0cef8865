//! Certificates of a test's own cluster, and clients that prove themselves by them: good ones, and ones that are
//! wrong in one way.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::{Channel, Endpoint, Uri};
use trust::held::{H2, HTTP1};
use trust::{Dialer, Expected, Held, Identity, Role, files};

use crate::{Sandbox, block_on, wait};

/// The life of a certificate, unless a test says otherwise.
pub const LIFE: Duration = Duration::from_hours(24);

/// A certificate authority in a directory.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    issued: PathBuf,
}

impl Authority {
    /// Makes one; two in a sandbox have two names.
    pub fn new(sandbox: &Sandbox, name: &str) -> Self {
        let (dir, issued) = (sandbox.path(name), sandbox.path(format!("{name}-issued")));
        files::init(&dir, SystemTime::now()).expect("make an authority");
        Self { dir, issued }
    }

    /// The directory of a program that is `role/instance` or `role/node/instance`; made anew when it is there.
    pub fn issue(&self, program: &str) -> PathBuf {
        self.issue_at(program, SystemTime::now(), LIFE)
    }

    /// The same, made at another time, for another life.
    pub fn issue_at(&self, program: &str, now: SystemTime, life: Duration) -> PathBuf {
        let output = self.issued.join(program.replace('/', "-"));
        files::issue(&self.dir, &identity(program), life, &output, now).expect("issue");
        output
    }

    /// What a program holds that has such a certificate.
    pub fn held(&self, program: &str) -> Held {
        held(&self.issue(program))
    }

    /// The directory of the authority.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }
}

/// `role/instance` or `role/node/instance`.
pub fn identity(program: &str) -> Identity {
    let uri = format!("spiffe://base-image.longhorn.io/{program}");
    uri.parse().expect("the name of a program")
}

/// What a program holds that was given a directory.
pub fn held(directory: &std::path::Path) -> Held {
    let held = Held::awaited("");
    let credential = files::load(directory).expect("load a certificate");
    held.set(credential).expect("hold a certificate");
    held
}

/// A channel to a manager as whoever holds that certificate. Each new one makes a connection.
pub fn channel(address: SocketAddr, held: &Held) -> Channel {
    let held = held.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let held = held.clone();
        async move {
            let manager = Expected::role(Role::Manager);
            let (stream, _) = Dialer::Proven(held)
                .connect(&address.to_string(), &manager, H2)
                .await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    block_on(async {
        Endpoint::from_static("http://manager").connect_with_connector_lazy(connector)
    })
}

/// One HTTP/1.1 request to a manager as whoever holds that certificate: the status, and the whole answer.
///
/// # Errors
/// The handshake fails, or the connection ends before there is an answer.
pub fn request(
    address: SocketAddr,
    held: &Held,
    method: &str,
    target: &str,
) -> io::Result<(u16, String)> {
    let exchange = async {
        let (dialer, manager) = (Dialer::Proven(held.clone()), Expected::role(Role::Manager));
        let (mut stream, _) = dialer
            .connect(&address.to_string(), &manager, HTTP1)
            .await?;
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no answer: {answer:?}")))?;
        Ok((status, answer))
    };
    block_on(async { tokio::time::timeout(wait::LONG, exchange).await })?
}

/// The first bytes of a client of TLS 1.2, which offers no later version (RFC 5246, section 7.4.1.2).
pub fn hello_of_tls_1_2() -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    // No session; two suites with forward secrecy; no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    // The curve P-256, and ECDSA with SHA-256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    hello.extend([0, 16]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).expect("a short greeting");
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

/// Says something to a port without TLS, and what comes back until it closes.
///
/// # Errors
/// The connection is refused.
pub fn say(address: SocketAddr, words: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(wait::LONG))?;
    stream.write_all(words)?;
    let mut answer = Vec::new();
    // A reset after the answer takes nothing of it away.
    let _ = stream.read_to_end(&mut answer);
    Ok(answer)
}
