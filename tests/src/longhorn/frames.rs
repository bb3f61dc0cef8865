//! HTTP/2 by hand, for peers that do not behave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The first bytes of a client.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The kinds of frames that are sent here (RFC 9113, section 6).
pub mod kind {
    /// A piece of a body.
    pub const DATA: u8 = 0;
    /// The head of a request.
    pub const HEADERS: u8 = 1;
    /// What a peer allows.
    pub const SETTINGS: u8 = 4;
    /// More of a head.
    pub const CONTINUATION: u8 = 9;
}

/// Nobody may keep a peer waiting longer.
const TIMEOUT: Duration = crate::wait::LONG;

/// The head is complete.
pub const END_HEADERS: u8 = 4;

/// A frame of some stream.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a small payload")
        .to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header as HPACK writes one that is in no table (RFC 7541, section 6.2.2).
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        integer(&mut field, text.len());
        field.extend_from_slice(text.as_bytes());
    }
    field
}

/// An integer with a 7-bit prefix.
fn integer(to: &mut Vec<u8>, value: usize) {
    let Ok(small @ 0..=126) = u8::try_from(value) else {
        to.push(127);
        let mut rest = value - 127;
        while rest >= 128 {
            to.push(u8::try_from(rest % 128).expect("7 bits") | 128);
            rest /= 128;
        }
        to.push(u8::try_from(rest).expect("7 bits"));
        return;
    };
    to.push(small);
}

/// The head of a gRPC call.
pub fn call(path: &str) -> Vec<u8> {
    [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", path),
        header(":authority", "manager"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ]
    .concat()
}

/// A connection that has said hello.
pub fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(PREFACE)?;
    stream.write_all(&frame(kind::SETTINGS, 0, 0, &[]))?;
    Ok(stream)
}

/// Reads until the peer closes; how many bytes came.
pub fn until_closed(stream: &mut TcpStream) -> usize {
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut all);
    all.len()
}
