//! The recorded session of the incumbent: its requests and answers.

use std::collections::BTreeMap;

use serde_json::Value;

/// One exchange over HTTP/1.1.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Whose face it was: `sync A`, `data-source`, …
    pub at: String,
    /// GET, POST, DELETE.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
    /// The headers of the answer that matter.
    pub headers: BTreeMap<String, String>,
    /// The body of the answer, without the newline that a text ends with.
    pub body: String,
}

/// One exchange over gRPC.
#[derive(Debug, Clone)]
pub struct GrpcExchange {
    /// Which manager.
    pub at: String,
    /// The method.
    pub method: String,
    /// The bytes of the message asked with.
    pub request: Vec<u8>,
    /// The bytes of the answer, where there was one.
    pub response: Option<Vec<u8>>,
    /// The gRPC status.
    pub status: i32,
    /// The words of it.
    pub message: String,
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn list(json: &str) -> Vec<Value> {
    serde_json::from_str(json).expect("the fixture is a list")
}

/// The exchanges over HTTP, in the order in which they were recorded.
pub fn rest() -> Vec<Exchange> {
    let recorded = list(include_str!("../../fixtures/longhorn/rest.json"));
    let exchange = |value: &Value| Exchange {
        at: text(value, "at"),
        method: text(value, "method"),
        target: text(value, "target"),
        status: value["status"]
            .as_u64()
            .and_then(|status| status.try_into().ok())
            .expect("a status is a small number"),
        headers: serde_json::from_value(value["headers"].clone()).expect("headers are texts"),
        body: text(value, "body"),
    };
    recorded.iter().map(exchange).collect()
}

/// The exchanges over gRPC.
pub fn grpc() -> Vec<GrpcExchange> {
    let recorded = list(include_str!("../../fixtures/longhorn/grpc.json"));
    let exchange = |value: &Value| GrpcExchange {
        at: text(value, "at"),
        method: text(value, "path")
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned(),
        request: message(&text(value, "request")),
        response: value["response"].as_str().map(message),
        status: value["status"]
            .as_i64()
            .and_then(|status| status.try_into().ok())
            .expect("a status is a small number"),
        message: text(value, "message").replace("%0A", "\n"),
    };
    recorded.iter().map(exchange).collect()
}

/// What each method answers to an empty message: the message in hex, or code and words.
pub fn empty() -> Vec<Value> {
    list(include_str!("../../fixtures/longhorn/empty.json"))
}

/// What the incumbent's command printed: the command, and the output or the error.
pub fn cli() -> Vec<Value> {
    list(include_str!("../../fixtures/longhorn/cli.json"))
}

/// A message out of the hex of its frame, whose prefix says what it must.
fn message(hex: &str) -> Vec<u8> {
    let frame = from_hex(hex);
    let (prefix, message) = frame.split_at(5);
    let length = u32::from_be_bytes(prefix[1..].try_into().expect("4 bytes"));
    assert_eq!(prefix[0], 0, "not compressed");
    assert_eq!(length as usize, message.len());
    message.to_vec()
}

/// Bytes out of hexadecimal digits.
pub fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).expect("the fixture is in hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}
