//! A small HTTP server with scripted faults, an image to serve, and a network to reach it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test"
)]

pub(crate) mod tls;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fetch::registry::{Client, Resolved};
use fetch::{
    AddressPolicy, Config, Credentials, Digest, Error, Network, Platform, Reference, Tuning,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First and last byte of the range that is asked for.
    pub(crate) fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((first.parse().ok()?, last.parse().unwrap_or(usize::MAX)))
    }
}

/// What an answer says of the length of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    True,
    Lie(u64),
    Chunked,
}

/// An answer, and how it is broken.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) length: Length,
    /// The connection ends after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Nothing more comes after so many bytes of the body, and the connection stays.
    pub(crate) stall: Option<usize>,
    /// The last kilobyte is sent again and again.
    pub(crate) endless: bool,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Self {
            status,
            headers,
            body,
            length: Length::True,
            cut: None,
            stall: None,
            endless: false,
        }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn redirect(to: impl Into<String>) -> Self {
        Self::new(307, "").with("Location", to)
    }

    /// `body`, or the part of it that is asked for.
    pub(crate) fn ranged(seen: &Seen, body: &[u8]) -> Self {
        match seen.range() {
            Some((first, last)) if first < body.len() => {
                let last = last.min(body.len() - 1);
                let range = format!("bytes {first}-{last}/{}", body.len());
                Self::new(206, &body[first..=last]).with("Content-Range", range)
            }
            _ => Self::ok(body),
        }
    }
}

type Handler = dyn Fn(&Seen) -> Answer + Send + Sync;

/// The server; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Over plain HTTP.
    pub(crate) async fn plain(handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(None, handler).await
    }

    pub(crate) async fn start(
        tls: Option<TlsAcceptor>,
        handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, handler): (_, Arc<Handler>) = (Arc::clone(&seen), Arc::new(handler));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(
                    stream,
                    tls.clone(),
                    Arc::clone(&log),
                    Arc::clone(&handler),
                ));
            }
        });
        Self { host, seen, task }
    }

    /// What was asked so far, probes left out.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| seen.path != "/v2/")
            .cloned()
            .collect()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    log: Arc<Mutex<Vec<Seen>>>,
    handler: Arc<Handler>,
) {
    match tls {
        None => exchange(stream, &log, &*handler).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                exchange(stream, &log, &*handler).await;
            }
        }
    }
}

/// One request and one answer; then the connection ends.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    log: &Mutex<Vec<Seen>>,
    handler: &Handler,
) {
    let Some(seen) = request(&mut stream).await else {
        return;
    };
    log.lock().unwrap().push(seen.clone());
    let answer = handler(&seen);
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    let chunked = answer.length == Length::Chunked;
    match answer.length {
        Length::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        Length::Lie(length) => write!(head, "Content-Length: {length}\r\n").unwrap(),
        Length::True => write!(head, "Content-Length: {}\r\n", answer.body.len()).unwrap(),
    }
    head.push_str("\r\n");
    let end = answer
        .cut
        .or(answer.stall)
        .unwrap_or(answer.body.len())
        .min(answer.body.len());
    let mut out = head.into_bytes();
    for piece in answer.body[..end].chunks(64 << 10) {
        if chunked {
            out.extend(format!("{:x}\r\n", piece.len()).bytes());
        }
        out.extend(piece);
        if chunked {
            out.extend(b"\r\n");
        }
    }
    if chunked && answer.cut.is_none() && answer.stall.is_none() && !answer.endless {
        out.extend(b"0\r\n\r\n");
    }
    if stream.write_all(&out).await.is_err() || stream.flush().await.is_err() {
        return;
    }
    if answer.stall.is_some() {
        tokio::time::sleep(Duration::from_mins(10)).await;
    }
    let again = if chunked {
        format!("400\r\n{}\r\n", "x".repeat(1024))
    } else {
        "x".repeat(1024)
    };
    while answer.endless && stream.write_all(again.as_bytes()).await.is_ok() {}
    let _closed = stream.shutdown().await;
}

async fn request(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
        // A TLS handshake, for example.
        if head.len() > 16384 || !(head[0] as char).is_ascii_uppercase() {
            stream
                .write_all(b"HTTP/1.1 400 x\r\nContent-Length: 0\r\n\r\n")
                .await
                .ok()?;
            return None;
        }
    }
    let text = String::from_utf8(head).ok()?;
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen {
        method,
        path,
        headers,
        body,
    })
}

/// An image with one layer.
#[derive(Debug, Clone)]
pub(crate) struct TestImage {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) layer: Vec<u8>,
}

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

impl TestImage {
    /// With a layer of so many bytes, of which nobody looks inside.
    pub(crate) fn new(size: usize) -> Self {
        let layer: Vec<u8> = (0..size).map(|n| (n * 31 % 251).to_le_bytes()[0]).collect();
        let config = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(&layer)
        )
        .into_bytes();
        let mut image = Self {
            manifest: Vec::new(),
            config,
            layer,
        };
        image.manifest = image.manifest_with(&format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{size}}}"#,
            Digest::of(&image.layer)
        ));
        image
    }

    /// A manifest with these layer descriptors.
    pub(crate) fn manifest_with(&self, layers: &str) -> Vec<u8> {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{layers}]}}"#,
            Digest::of(&self.config),
            self.config.len()
        )
        .into_bytes()
    }

    /// Answers as an honest registry without passwords does.
    pub(crate) fn serve(&self, seen: &Seen) -> Answer {
        let name = seen.path.rsplit('/').next().unwrap();
        if seen.path.contains("/manifests/") {
            return Answer::ok(self.manifest.clone()).with("Content-Type", MANIFEST_TYPE);
        }
        for blob in [&self.config, &self.layer] {
            if name == Digest::of(blob).to_string() {
                return Answer::ranged(seen, blob);
            }
        }
        if seen.path == "/v2/" {
            Answer::ok("{}")
        } else {
            Answer::new(404, "")
        }
    }

    /// Whether the request is for the layer.
    pub(crate) fn is_layer(&self, seen: &Seen) -> bool {
        seen.path.ends_with(&Digest::of(&self.layer).to_string())
    }
}

/// Fast enough for tests, patient enough for a busy machine.
pub(crate) fn tuning() -> Tuning {
    Tuning {
        connect_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_millis(700),
        attempts: 4,
        attempts_under_way: 4,
        backoff: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        retry_after_max: Duration::from_secs(2),
    }
}

/// A network that may reach this machine.
pub(crate) fn network(config: &str) -> Network {
    let local = AddressPolicy::new(["127.0.0.0/8".parse().unwrap()]);
    Network::new(Config::from_toml(config).unwrap(), local, tuning())
}

/// The configuration that lets a plain server be a registry.
pub(crate) fn insecure(host: &str) -> String {
    format!("[[registry]]\nlocation = '{host}'\ninsecure = true\n")
}

pub(crate) fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A client of a plain server, and the image `x/y` of it.
pub(crate) async fn resolve_at(host: &str, tag: &str) -> (Client, Result<Resolved, Error>) {
    let client = Client::new(network(&insecure(host)));
    let reference = reference(&format!("{host}/x/y{tag}"));
    let platform: Platform = "linux/amd64".parse().unwrap();
    let image = client
        .resolve(&reference, &platform, &Credentials::anonymous())
        .await;
    (client, image)
}

/// Reads the first layer whole, pass `pass`.
pub(crate) async fn read_layer(
    client: &Client,
    image: &Resolved,
    pass: u32,
) -> Result<Vec<u8>, Error> {
    let mut blob = client.blob(image, &image.layers[0], pass);
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
