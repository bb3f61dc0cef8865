//! Longhorn's own ends of ssync, as in the recorded session: a sender that gives a request 5 s and
//! closes in any case, and a receiver that treats a close as success.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of one `writeData`.
const BATCH: u64 = 2 << 20;
const WORKERS: usize = 4;
/// What a request may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long `open` is tried, on a machine where tests have no time.
const OPEN: Duration = Duration::from_secs(30);

/// A connection that is used for one request after the other.
#[derive(Debug)]
pub struct Connection {
    address: String,
    stream: Option<BufReader<TcpStream>>,
    timeout: Duration,
}

impl Connection {
    /// To `host:port`, made at the first request.
    pub fn new(address: &str, timeout: Duration) -> Self {
        Self {
            address: address.to_owned(),
            stream: None,
            timeout,
        }
    }

    /// One request, and the status and the body of its answer. Nothing is tried twice.
    pub fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<(u16, Vec<u8>)> {
        let asked = self.try_ask(method, target, headers, body);
        if asked.is_err() {
            self.stream = None;
        }
        asked
    }

    fn try_ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<(u16, Vec<u8>)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(&self.address)?),
        };
        stream.get_ref().set_read_timeout(Some(self.timeout))?;
        stream.get_ref().set_write_timeout(Some(self.timeout))?;
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Go-http-client/1.1\r\n\
             Accept-Encoding: gzip\r\n",
            self.address
        );
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if method != "GET" && method != "HEAD" {
            let length = body.len().to_string();
            head.extend(["Content-Length: ", &length, "\r\n"]);
        }
        head.push_str("\r\n");
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(body)?;
        let (status, headers) = read_head(&mut stream)?;
        let status = status
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| std::io::Error::other(format!("no status in {status:?}")))?;
        let body = if method == "HEAD" {
            headers.join("\n").into_bytes()
        } else {
            read_body(&mut stream, &headers)?
        };
        if !headers.iter().any(|line| line == "connection: close") {
            self.stream = Some(stream);
        }
        Ok((status, body))
    }
}

/// The first line and the headers, these in lower case.
fn read_head(stream: &mut impl BufRead) -> std::io::Result<(String, Vec<String>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(if lines.is_empty() {
            line.to_owned()
        } else {
            line.to_ascii_lowercase()
        });
    }
    let first = lines.first().cloned().unwrap_or_default();
    Ok((first, lines.split_off(1.min(lines.len()))))
}

fn read_body(stream: &mut impl BufRead, headers: &[String]) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let value = |name: &str| {
        headers
            .iter()
            .find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    if value("transfer-encoding:").as_deref() == Some("chunked") {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            stream.by_ref().take(size).read_to_end(&mut body)?;
            stream.read_line(&mut line)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let length = value("content-length:").and_then(|length| length.parse().ok());
    let length: u64 = length.unwrap_or(0);
    if stream.take(length).read_to_end(&mut body)? as u64 != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// How a sender misbehaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Misbehave {
    /// Fails after so many bytes of data, as when its disk breaks; it closes all the same.
    pub fail_after: Option<u64>,
    /// Dies then: it does not even close.
    pub dies: bool,
}

/// Pushes a file as Go's sender does. `data` are its extents; the rest is holes.
pub fn push(
    to: &str,
    path: &Path,
    data: &[Range<u64>],
    misbehave: Misbehave,
) -> Result<(), String> {
    let file = Arc::new(File::open(path).map_err(|error| error.to_string())?);
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    let began = Instant::now();
    loop {
        let target = format!("/v1-ssync/open?begin=0&directIO=false&end={size}");
        match expect_ok(&mut Connection::new(to, TIMEOUT), "GET", &target, b"") {
            Ok(()) => break,
            Err(why) if began.elapsed() > OPEN => return Err(why),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
    let work = Arc::new(Mutex::new(intervals(size, data)));
    let sent = Arc::new(AtomicU64::new(0));
    let failed = Arc::new(Mutex::new(None::<String>));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (work, file, to) = (work.clone(), file.clone(), to.to_owned());
            let (sent, failed) = (sent.clone(), failed.clone());
            thread::spawn(move || {
                let mut connection = Connection::new(&to, TIMEOUT);
                loop {
                    let next = lock(&work).pop_front();
                    let Some((range, is_data)) = next else { return };
                    if lock(&failed).is_some() {
                        return;
                    }
                    let done = if is_data {
                        send(&mut connection, &file, &range, &sent, misbehave)
                    } else {
                        let (begin, end) = (range.start, range.end);
                        let target = format!("/v1-ssync/sendHole?begin={begin}&end={end}");
                        expect_ok(&mut connection, "POST", &target, b"")
                    };
                    if let Err(why) = done {
                        lock(&failed).get_or_insert(why);
                        return;
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked".to_owned())?;
    }
    let failed = lock(&failed).take();
    if failed.is_none() || !misbehave.dies {
        // On success and on failure.
        let target = "/v1-ssync/close?checksum=&checksumMethod=";
        let closed = expect_ok(&mut Connection::new(to, TIMEOUT), "POST", target, b"");
        failed.map_or(closed, Err)
    } else {
        failed.map_or(Ok(()), Err)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn expect_ok(
    connection: &mut Connection,
    method: &str,
    target: &str,
    body: &[u8],
) -> Result<(), String> {
    match connection.ask(method, target, &[], body) {
        Ok((200, _)) => Ok(()),
        Ok((status, body)) => Err(format!(
            "{target}: {status} {}",
            String::from_utf8_lossy(&body).trim()
        )),
        Err(error) => Err(format!("{target}: {error}")),
    }
}

fn send(
    connection: &mut Connection,
    file: &File,
    range: &Range<u64>,
    sent: &AtomicU64,
    misbehave: Misbehave,
) -> Result<(), String> {
    let mut begin = range.start;
    while begin < range.end {
        let end = (begin + BATCH).min(range.end);
        if misbehave
            .fail_after
            .is_some_and(|limit| sent.load(Ordering::Relaxed) >= limit)
        {
            return Err("input/output error".to_owned());
        }
        let mut bytes = vec![0; usize::try_from(end - begin).expect("2 MiB at most")];
        file.read_exact_at(&mut bytes, begin)
            .map_err(|error| error.to_string())?;
        let target = format!("/v1-ssync/writeData?begin={begin}&end={end}");
        expect_ok(connection, "POST", &target, &bytes)?;
        sent.fetch_add(end - begin, Ordering::Relaxed);
        begin = end;
    }
    Ok(())
}

/// What a file is cut into: the range, and whether it is data.
type Intervals = VecDeque<(Range<u64>, bool)>;

fn intervals(size: u64, data: &[Range<u64>]) -> Intervals {
    let mut all = Intervals::new();
    let mut at = 0;
    for range in data {
        if at < range.start {
            all.push_back((at..range.start, false));
        }
        all.push_back((range.clone(), true));
        at = range.end;
    }
    if at < size {
        all.push_back((at..size, false));
    }
    all
}

/// A receiver like Go's. Dropping it ends it.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    path: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
    closed: mpsc::Receiver<()>,
    stop: Arc<AtomicBool>,
}

impl Receiver {
    /// Listens on a port of its own and writes to `path`.
    pub fn start(path: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let (tell, closed) = mpsc::channel();
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let receiver = Self {
            address,
            path: path.to_owned(),
            lines: lines.clone(),
            closed,
            stop: stop.clone(),
        };
        let path = path.to_owned();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (path, lines, tell) = (path.clone(), lines.clone(), tell.clone());
                thread::spawn(move || take(stream, &path, &lines, &tell));
            }
        });
        receiver
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Waits for the close, and gives what was asked until then: method, path and query.
    #[track_caller]
    pub fn wait_closed(&self) -> Vec<String> {
        let closed = self.closed.recv_timeout(crate::wait::LONG);
        assert!(closed.is_ok(), "nobody closed {}", self.path.display());
        lock(&self.lines).clone()
    }

    /// What was asked so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// Takes the requests of one connection, as Go's handlers do: what comes is written, nothing is
/// compared.
fn take(stream: TcpStream, path: &Path, lines: &Mutex<Vec<String>>, closed: &mpsc::Sender<()>) {
    let mut stream = BufReader::new(stream);
    while let Ok((line, headers)) = read_head(&mut stream) {
        let Ok(body) = read_body(&mut stream, &headers) else {
            return;
        };
        let request = line.trim_end_matches(" HTTP/1.1").to_owned();
        lock(lines).push(request.clone());
        let parameter = |name: &str| {
            let value = request
                .split(['?', '&'])
                .find_map(|pair| pair.strip_prefix(name));
            value
                .and_then(|value| value.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .expect("open the receiver's file");
        let mut answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        if request.contains("/open?") {
            file.set_len(parameter("end=")).expect("set a length");
            answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nfalse";
        } else if request.contains("/writeData?") {
            file.write_all_at(&body, parameter("begin="))
                .expect("write what came");
        } else if request.contains("/close?") {
            answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        }
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
        if request.contains("/close?") {
            let _ = closed.send(());
        }
    }
}
