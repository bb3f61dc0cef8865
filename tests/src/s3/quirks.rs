//! What stands in front of an object store and does as providers do on bad days: busy, read-only, full, without
//! conditional writes, with another clock, or with bodies that end too early. It writes down all that it is asked.

use std::fmt;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::ObjectStore;
use super::wire::{Ask, forward, later, read_head, refuse};
use crate::{Sandbox, registry, wait};

/// More than a block of 16 MiB and what packing may add to it.
const BODY_MAX: usize = 32 << 20;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The store answers.
    Pass,
    /// This status and code, and the store hears nothing of it.
    Refuse(u16, &'static str),
    /// The store's answer, whose length is the whole, with half of its body.
    CutAnswer,
    /// The connection ends in the middle of the request.
    CutRequest,
    /// The store does it, and the connection ends before the answer.
    CutReply,
    /// Nothing comes until [`QuirkServer::release`]; then the store answers.
    Hold,
    /// The store's answer by a clock that is so many seconds ahead.
    Later(i64),
}

type Rule = dyn Fn(&Ask) -> Answer + Send + Sync;

struct Shared {
    store: SocketAddr,
    rule: Mutex<Arc<Rule>>,
    asks: Mutex<Vec<Ask>>,
    stop: AtomicBool,
    released: Mutex<bool>,
    release: Condvar,
    tls: Option<Arc<rustls::ServerConfig>>,
}

/// How it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// With a certificate of an authority that only the file here vouches for.
    Https {
        /// The authority's certificate, PEM.
        ca: PathBuf,
    },
}

/// A running one; dropping it ends it.
pub struct QuirkServer {
    address: SocketAddr,
    scheme: Scheme,
    shared: Arc<Shared>,
}

impl fmt::Debug for QuirkServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuirkServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl QuirkServer {
    /// Starts one without quirks in front of a store.
    pub fn start(store: &ObjectStore) -> Self {
        Self::serve(store, Scheme::Http, None)
    }

    /// The same with TLS by an authority of its own.
    pub fn start_tls(sandbox: &Sandbox, store: &ObjectStore) -> Self {
        let (ca, certificate, key) = registry::certificates(sandbox, "s3-tls");
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate and its key");
        Self::serve(store, Scheme::Https { ca }, Some(Arc::new(config)))
    }

    fn serve(store: &ObjectStore, scheme: Scheme, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            store: store.address(),
            rule: Mutex::new(Arc::new(|_: &Ask| Answer::Pass)),
            asks: Mutex::default(),
            stop: AtomicBool::new(false),
            released: Mutex::new(false),
            release: Condvar::new(),
            tls,
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A client that goes away is part of the play.
                thread::spawn(move || drop(connection(&shared, stream)));
            }
        });
        Self {
            address,
            scheme,
            shared,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// `http://…` or `https://…`, as AWS_ENDPOINTS wants it.
    pub fn endpoint(&self) -> String {
        match self.scheme {
            Scheme::Http => format!("http://{}", self.address),
            Scheme::Https { .. } => format!("https://{}", self.address),
        }
    }

    /// From now on it treats each request as the rule says.
    pub fn behave(&self, rule: impl Fn(&Ask) -> Answer + Send + Sync + 'static) {
        *locked(&self.shared.rule) = Arc::new(rule);
    }

    /// What it was asked so far, in the order in which the requests were whole.
    pub fn asks(&self) -> Vec<Ask> {
        locked(&self.shared.asks).clone()
    }

    /// Forgets what it was asked.
    pub fn forget(&self) {
        locked(&self.shared.asks).clear();
    }

    /// Waits until it was asked for something like this.
    #[track_caller]
    pub fn wait_asked(&self, what: &str, like: impl Fn(&Ask) -> bool) {
        wait::until(what, || {
            locked(&self.shared.asks).iter().any(&like).then_some(())
        });
    }

    /// Lets every request that is held, and every later one, go on.
    pub fn release(&self) {
        *locked(&self.shared.released) = true;
        self.shared.release.notify_all();
    }
}

impl Drop for QuirkServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.release();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connection(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    let Some(config) = &shared.tls else {
        return serve(shared, stream);
    };
    let connection = rustls::ServerConnection::new(Arc::clone(config));
    let connection = connection.map_err(std::io::Error::other)?;
    serve(shared, rustls::StreamOwned::new(connection, stream))
}

/// One request after the other, until the client has enough or a connection is cut.
fn serve(shared: &Shared, stream: impl Read + Write) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(mut ask) = read_head(&mut stream)? {
        if ask.header("transfer-encoding").is_some() {
            // Neither Longhorn nor we send pieces: some stores refuse them, as this one does.
            locked(&shared.asks).push(ask);
            return refuse(stream.get_mut(), 411, "MissingContentLength", false);
        }
        let length = ask
            .header("content-length")
            .and_then(|length| length.parse().ok());
        ask.length = length.unwrap_or(0);
        let rule = Arc::clone(&locked(&shared.rule));
        let answer = rule(&ask);
        if answer == Answer::CutRequest {
            let mut half = vec![0; ask.length / 2];
            stream.read_exact(&mut half)?;
            locked(&shared.asks).push(ask);
            return Ok(());
        }
        let mut body = vec![0; ask.length.min(BODY_MAX)];
        stream.read_exact(&mut body)?;
        locked(&shared.asks).push(ask.clone());
        if answer == Answer::Hold {
            let released = locked(&shared.released);
            drop(shared.release.wait_while(released, |released| !*released));
        }
        if let Answer::Refuse(status, code) = answer {
            refuse(stream.get_mut(), status, code, ask.method == "HEAD")?;
            if ask.header("connection") == Some("close") {
                return Ok(());
            }
            continue;
        }
        let reply = forward(shared.store, &ask, &body)?;
        match answer {
            Answer::CutReply => return Ok(()),
            Answer::Later(seconds) => later(reply, seconds).send(stream.get_mut(), &ask, false)?,
            answer => reply.send(stream.get_mut(), &ask, answer == Answer::CutAnswer)?,
        }
        if answer == Answer::CutAnswer || ask.header("connection") == Some("close") {
            return Ok(());
        }
    }
    Ok(())
}
