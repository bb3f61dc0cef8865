//! An object store in memory that speaks S3 (`tests/s3-server`), and one with quirks in front of it.
//!
//! The store takes every signature: that ours are right is shown by the vectors in the tests of `backup`.

mod quirks;
mod rules;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::{Process, Sandbox, command, ports, web};

pub use quirks::{Answer, QuirkServer, Scheme};
pub use rules::{busy, clock_moved, full, no_bulk_delete, no_conditional_put, read_only};
pub use wire::Ask;

/// The bucket that every store has.
pub const BUCKET: &str = "backups";
/// Half of the key that the tests use. It may go over the wire.
pub const ACCESS_KEY: &str = "WIZARDSACCESSKEY";
/// The other half, which must be nowhere but in the file that the tests gave.
pub const SECRET_KEY: &str = "abracadabra/hocuspocus+secret";

/// A running store.
#[derive(Debug)]
pub struct ObjectStore {
    process: Process,
    address: SocketAddr,
}

impl ObjectStore {
    /// Starts one with an empty [`BUCKET`].
    pub fn start(sandbox: &Sandbox) -> Self {
        Self::start_at(sandbox, ports::free())
    }

    /// The same at an address that others know.
    pub fn start_at(sandbox: &Sandbox, address: SocketAddr) -> Self {
        let program = command::find("s3-server").unwrap_or_else(|| PathBuf::from("s3-server"));
        let arguments = [address.to_string(), BUCKET.to_owned()];
        let mut process = Process::spawn(sandbox, "s3-server", &program, arguments, &[]);
        let url = format!("http://{address}/{BUCKET}?list-type=2");
        process.wait_ready(|| web::get(&url).is_ok_and(|(status, _)| status == 200));
        Self { process, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the keys of Longhorn's Secret say for this store.
    pub fn credentials(&self) -> BTreeMap<String, String> {
        credentials(&format!("http://{}", self.address))
    }

    /// The keys that begin like this, in order, asked page by page.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        loop {
            let after = found.last().map_or("", String::as_str);
            let path = format!("/{BUCKET}?list-type=2&prefix={prefix}&start-after={after}");
            let (status, body) = self.ask("GET", &path, &[]);
            let text = String::from_utf8_lossy(&body);
            assert_eq!(status, "200 OK", "{text}");
            let parts = text.split("<Key>").skip(1);
            let page = parts.filter_map(|part| Some(part.split_once("</Key>")?.0.to_owned()));
            let before = found.len();
            found.extend(page);
            if found.len() == before {
                return found;
            }
        }
    }

    /// The bytes of a key; `None`: there is none.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let (status, body) = self.ask("GET", &format!("/{BUCKET}/{key}"), &[]);
        (status == "200 OK").then_some(body)
    }

    /// Writes a key.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let (status, _) = self.ask("PUT", &format!("/{BUCKET}/{key}"), bytes);
        assert_eq!(status, "200 OK", "{key}");
    }

    /// Removes a key.
    pub fn delete(&self, key: &str) {
        let (status, _) = self.ask("DELETE", &format!("/{BUCKET}/{key}"), &[]);
        assert_eq!(status, "204 No Content", "{key}");
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> (String, Vec<u8>) {
        let mut answer = wire::exchange(self.address, method, path, body);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("the store gives no answer to {method} {path}"));
        let body = answer.split_off(end + 4);
        let head = String::from_utf8_lossy(&answer);
        let status = head.lines().next().and_then(|line| line.split_once(' '));
        (status.map_or("", |(_, status)| status).to_owned(), body)
    }

    /// Copies the files below a directory to keys below a prefix.
    pub fn put_directory(&self, dir: &std::path::Path, prefix: &str) {
        for entry in std::fs::read_dir(dir).expect("read a directory of the test") {
            let entry = entry.expect("read a directory of the test");
            let key = format!("{prefix}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                self.put_directory(&entry.path(), &key);
            } else {
                self.put(
                    &key,
                    &std::fs::read(entry.path()).expect("read a file of the test"),
                );
            }
        }
    }

    /// Ends it: from now on nobody listens there.
    pub fn stop(&mut self) {
        self.process.kill_9();
    }
}

/// The address of a store in [`BUCKET`], as Longhorn writes it.
pub fn address(path: &str) -> String {
    format!("s3://{BUCKET}@us-east-1/{path}/")
}

/// The keys of Longhorn's Secret for a store at a URL.
pub fn credentials(endpoint: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_ENDPOINTS", endpoint),
    ];
    BTreeMap::from(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
}

/// Writes credentials as Kubernetes mounts Secrets: a directory for each target, a file for each key. Gives the
/// directory of all targets.
pub fn mount_secret(
    sandbox: &Sandbox,
    target: &str,
    credentials: &BTreeMap<String, String>,
) -> PathBuf {
    let dir = sandbox.make_dir("backup-credentials");
    sandbox.make_dir(format!("backup-credentials/{target}"));
    for (key, value) in credentials {
        sandbox.write(format!("backup-credentials/{target}/{key}"), value);
    }
    dir
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Need, needs};

    fn object(server: SocketAddr, method: &str, bytes: &[u8]) -> String {
        let answer = wire::exchange(server, method, &format!("/{BUCKET}/a/b.blk"), bytes);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn what_is_put_is_listed_and_got_and_gone_when_deleted() {
        needs!(Need::Tool("s3-server"));
        let sandbox = Sandbox::new("s3");
        let store = ObjectStore::start(&sandbox);
        for number in 0..1500 {
            store.put(&format!("a/{number:05}"), b"x");
        }
        store.put("b/c", b"other");
        let keys = store.keys("a/");
        assert_eq!(keys.len(), 1500, "of which a page has a thousand");
        assert_eq!(store.get("b/c").unwrap(), b"other");
        store.delete("b/c");
        assert_eq!(store.get("b/c"), None);
    }

    #[test]
    fn quirks_are_what_they_say() {
        needs!(Need::Tool("s3-server"));
        let sandbox = Sandbox::new("s3");
        let store = ObjectStore::start(&sandbox);
        let server = QuirkServer::start(&store);
        let at = server.address();
        assert!(object(at, "PUT", b"0123456789").starts_with("HTTP/1.1 200"));
        server.behave(busy(2));
        assert!(object(at, "GET", b"").starts_with("HTTP/1.1 503"));
        assert!(object(at, "GET", b"").starts_with("HTTP/1.1 503"));
        assert!(object(at, "GET", b"").ends_with("0123456789"));
        server.behave(|ask| match ask.method.as_str() {
            "GET" => Answer::CutAnswer,
            _ => Answer::CutRequest,
        });
        assert!(object(at, "GET", b"").ends_with("\r\n\r\n01234"));
        assert_eq!(object(at, "PUT", b"new"), "");
        server.behave(read_only());
        assert!(object(at, "PUT", b"new").contains("AccessDenied"));
        server.behave(full());
        assert!(object(at, "PUT", b"new").starts_with("HTTP/1.1 507"));
        server.behave(clock_moved(3600));
        let ahead = object(at, "HEAD", b"");
        server.behave(|_| Answer::Pass);
        let now = object(at, "HEAD", b"");
        let modified = |answer: &str| {
            let mut lines = answer.lines();
            lines
                .find(|line| line.starts_with("Last-Modified"))
                .unwrap()
                .to_owned()
        };
        assert_ne!(modified(&ahead), modified(&now));
        assert!(object(at, "GET", b"").ends_with("0123456789"));
        let asks = server.asks();
        assert_eq!(asks.iter().filter(|ask| ask.method == "PUT").count(), 4);
        assert_eq!(asks[0].header("content-length"), Some("10"));
        assert_eq!(asks[0].path, format!("/{BUCKET}/a/b.blk"));
    }
}
