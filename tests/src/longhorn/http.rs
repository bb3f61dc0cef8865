//! One HTTP/1.1 request at a time, written and read by hand, so that nothing is hidden or added.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, out of its chunks.
    pub body: Vec<u8>,
    /// Whether the body came to its announced end.
    pub complete: bool,
}

impl Response {
    /// The value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request on a connection of its own and reads the whole answer.
#[track_caller]
pub fn request(
    address: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    try_request(address, method, target, headers, body)
        .unwrap_or_else(|error| panic!("{method} http://{address}{target}: {error}"))
}

fn try_request(
    address: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(crate::wait::LONG))?;
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a text takes any text");
    }
    if !body.is_empty() || method == "POST" {
        write!(head, "Content-Length: {}\r\n", body.len()).expect("a text takes any text");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    read(&mut BufReader::new(stream), method == "HEAD")
}

fn read(stream: &mut impl BufRead, head_only: bool) -> std::io::Result<Response> {
    let line = line(stream)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| std::io::Error::other(format!("no status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = self::line(stream)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response {
        status,
        headers,
        body: Vec::new(),
        complete: true,
    };
    if head_only {
        return Ok(response);
    }
    if response.header("transfer-encoding") == Some("chunked") {
        response.complete = chunks(stream, &mut response.body)?;
    } else {
        let length = response.header("content-length").map(str::parse::<usize>);
        stream.read_to_end(&mut response.body)?;
        response.complete = !matches!(length, Some(Ok(length)) if length != response.body.len());
    }
    Ok(response)
}

/// Reads chunks; whether the last one came.
fn chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        let size = line(stream)?;
        let Ok(size) = u64::from_str_radix(&size, 16) else {
            return Ok(false);
        };
        let read = (&mut *stream).take(size).read_to_end(body)?;
        if read as u64 != size {
            return Ok(false);
        }
        line(stream)?;
        if size == 0 {
            return Ok(true);
        }
    }
}

fn line(stream: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
