//! A scripted HTTP server that lies, aborts and stalls.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET, HEAD …
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What to answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Beside Content-Length and Connection.
    pub headers: Vec<(String, String)>,
    /// The true body.
    pub body: Vec<u8>,
    /// What Content-Length claims; none: the truth.
    pub claimed_length: Option<u64>,
    /// Ends the connection after so many bytes of the body.
    pub cut_after: Option<usize>,
    /// Waits after so many bytes of the body until [`HttpServer::release`], or the server's end.
    pub hold_after: Option<usize>,
}

impl Reply {
    /// 200 with this body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    served: AtomicUsize,
    stop: AtomicBool,
    released: Mutex<bool>,
    release: Condvar,
}

/// A running server; dropping it ends it.
pub struct HttpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl HttpServer {
    /// Starts one that answers by `handler`, each connection once.
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on(0, handler)
    }

    /// The same on a port that others know; 0: one of the kernel's choice.
    pub fn start_on(
        port: u16,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .unwrap_or_else(|error| panic!("bind port {port}: {error}"));
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            served: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            released: Mutex::new(false),
            release: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A client that goes away is part of the play.
                thread::spawn(move || drop(serve(&shared, &stream)));
            }
        });
        Self { address, shared }
    }

    /// `http://host:port` + `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests have come so far.
    pub fn served(&self) -> usize {
        self.shared.served.load(Ordering::SeqCst)
    }

    /// Lets every held reply, and every later one, go on.
    pub fn release(&self) {
        *self
            .shared
            .released
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.release.notify_all();
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.release();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(shared: &Shared, stream: &TcpStream) -> std::io::Result<()> {
    let Some(request) = read_request(stream)? else {
        return Ok(());
    };
    shared.served.fetch_add(1, Ordering::SeqCst);
    let reply = (shared.handler)(&request);
    let length = reply.claimed_length.unwrap_or(reply.body.len() as u64);
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {} x\r\nContent-Length: {length}\r\nConnection: close\r\n",
        reply.status
    )?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let end = reply.cut_after.unwrap_or(usize::MAX).min(reply.body.len());
    let hold = reply.hold_after.unwrap_or(end).min(end);
    stream.write_all(&reply.body[..hold])?;
    stream.flush()?;
    if reply.hold_after.is_some() {
        let released = shared
            .released
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(shared.release.wait_while(released, |released| !*released));
    }
    stream.write_all(&reply.body[hold..end])
}

fn read_request(stream: &TcpStream) -> std::io::Result<Option<Request>> {
    // A request of the programs under test is far below 64 KiB.
    let mut reader = BufReader::new(stream.take(64 << 10));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(Some(Request {
                method,
                path,
                headers,
            }));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web;

    #[test]
    fn it_tells_the_truth_when_it_is_not_told_to_lie() {
        let server = HttpServer::start(|request| Reply::ok(request.path.clone()));
        let (status, body) = web::get(&server.url("/a")).unwrap();
        assert_eq!((status, body.as_slice()), (200, b"/a".as_slice()));
        assert_eq!(server.served(), 1);
    }

    #[test]
    fn it_claims_and_cuts_as_told() {
        let server = HttpServer::start(|_| Reply {
            claimed_length: Some(1 << 30),
            cut_after: Some(3),
            ..Reply::ok("abcdef")
        });
        assert_eq!(web::get(&server.url("/")).unwrap().1, b"abc");
    }

    #[test]
    fn it_holds_a_reply_until_it_is_released() {
        let server = HttpServer::start(|_| Reply {
            hold_after: Some(1),
            ..Reply::ok("ab")
        });
        let url = server.url("/");
        let client = thread::spawn(move || web::get(&url).unwrap().1);
        crate::wait::until("the request has come", || {
            (server.served() == 1).then_some(())
        });
        assert!(!client.is_finished());
        server.release();
        assert_eq!(client.join().unwrap(), b"ab");
    }
}
