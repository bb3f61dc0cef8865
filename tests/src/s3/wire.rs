//! HTTP as far as it takes to stand between a client and a store: requests, and the store's answers, whole.

use std::fmt::Write as _;
use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// GET, PUT …
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Bytes of its body.
    pub length: usize,
}

impl Ask {
    /// The value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(key, _)| key == name)?;
        Some(value)
    }

    /// Whether it would change what is stored.
    pub fn writes(&self) -> bool {
        matches!(self.method.as_str(), "PUT" | "POST" | "DELETE")
    }

    /// Whether it is about a block.
    pub fn is_of_a_block(&self) -> bool {
        self.path
            .split('?')
            .next()
            .is_some_and(|path| path.strip_suffix(".blk").is_some())
    }
}

pub(super) fn read_head(stream: &mut impl BufRead) -> std::io::Result<Option<Ask>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(Some(Ask {
                method,
                path,
                headers,
                length: 0,
            }));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
    }
}

pub(super) fn refuse(
    stream: &mut impl Write,
    status: u16,
    code: &str,
    head: bool,
) -> std::io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
    );
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{}",
        body.len(),
        if head { "" } else { &body }
    )?;
    stream.flush()
}

/// What the store answered.
pub(super) struct Reply {
    status: String,
    /// Without those about the connection and the length.
    headers: Vec<(String, String)>,
    /// What it says of the length.
    length: Option<String>,
    body: Vec<u8>,
}

impl Reply {
    pub(super) fn send(
        &self,
        stream: &mut impl Write,
        ask: &Ask,
        cut: bool,
    ) -> std::io::Result<()> {
        let head = ask.method == "HEAD";
        let length = match &self.length {
            Some(length) if head => length.clone(),
            _ => self.body.len().to_string(),
        };
        write!(stream, "HTTP/1.1 {}\r\n", self.status)?;
        for (name, value) in &self.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        write!(stream, "Content-Length: {length}\r\n\r\n")?;
        if !head {
            let end = if cut {
                self.body.len() / 2
            } else {
                self.body.len()
            };
            stream.write_all(&self.body[..end])?;
        }
        stream.flush()
    }
}

/// Asks the store. In HTTP/1.0, so that its answer ends with the connection and has no pieces.
pub(super) fn forward(store: SocketAddr, ask: &Ask, body: &[u8]) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(store)?;
    let mut head = format!("{} {} HTTP/1.0\r\n", ask.method, ask.path);
    for (name, value) in &ask.headers {
        if name != "connection" {
            let _ = write!(head, "{name}: {value}\r\n");
        }
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| std::io::Error::other("the store gave no answer"))?;
    let text = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split_once(' '));
    let status = status.map_or("", |(_, status)| status).to_owned();
    let mut reply = Reply {
        status,
        headers: Vec::new(),
        length: None,
        body: answer.split_off(end + 4),
    };
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        match name.to_lowercase().as_str() {
            "content-length" => reply.length = Some(value.to_owned()),
            "connection" | "transfer-encoding" => {}
            _ => reply.headers.push((name.to_owned(), value.to_owned())),
        }
    }
    Ok(reply)
}

/// The same answer by another clock: its date, when things were modified, and the same in a list of keys.
pub(super) fn later(mut reply: Reply, seconds: i64) -> Reply {
    let by = SignedDuration::from_secs(seconds);
    for (name, value) in &mut reply.headers {
        if (name == "Date" || name == "Last-Modified")
            && let Ok(time) = rfc2822::DateTimeParser::new().parse_zoned(value.as_bytes())
        {
            let moved = time.timestamp() + by;
            let printer = rfc2822::DateTimePrinter::new();
            let printed = printer.timestamp_to_rfc9110_string(&moved);
            *value = printed.expect("a time that can be printed");
        }
    }
    let text = String::from_utf8_lossy(&reply.body);
    if text.contains("<LastModified>") {
        let mut parts = text.split("<LastModified>");
        let mut moved = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (time, rest) = part.split_once("</LastModified>").unwrap_or((part, ""));
            let time = time.parse::<Timestamp>().map_or(time.to_owned(), |time| {
                let time = time + by;
                format!("{time:.3}")
            });
            let _ = write!(moved, "<LastModified>{time}</LastModified>{rest}");
        }
        reply.body = moved.into_bytes();
    }
    reply
}

/// One request without a signature, and the whole answer; empty: the connection ended. In HTTP/1.0, so that no
/// answer comes in pieces.
pub(super) fn exchange(server: SocketAddr, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let ask = || {
        let mut stream = TcpStream::connect(server)?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {server}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    // A connection that was cut may end with a reset.
    ask().unwrap_or_default()
}
