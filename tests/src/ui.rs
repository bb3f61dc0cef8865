//! The web UI as a process, and a client that says of itself what a browser would.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::{AddressFile, Process, Sandbox, programs};

/// A running UI.
#[derive(Debug)]
pub struct Ui {
    process: Process,
    address: SocketAddr,
}

/// What it answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head, in lower case but for the values.
    pub head: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut head = self.head.iter();
        let found = head.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// What a browser sends back of `Set-Cookie`.
    #[track_caller]
    pub fn cookie(&self) -> String {
        let set = self.header("set-cookie").expect("a cookie is set");
        set.split(';').next().unwrap_or_default().to_owned()
    }
}

impl Ui {
    /// Starts one at a port of the kernel's choice, with these arguments and this environment.
    #[track_caller]
    pub fn start(
        sandbox: &Sandbox,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let addresses = AddressFile::new(sandbox);
        let path = addresses.path().display().to_string();
        let mut all = vec!["--listen", "127.0.0.1:0", "--address-file", &path];
        all.extend(arguments);
        let program = programs::ui();
        let mut process = Process::spawn(sandbox, name, &program, all, environment);
        process.wait_ready(|| addresses.written());
        let address = addresses.get("http");
        Self { process, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://localhost:PORT`, as a person writes it.
    pub fn url(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Asks as a page of the UI itself does, with more headers.
    ///
    /// # Errors
    /// It cannot be reached, or answers no HTTP.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let host = format!("localhost:{}", self.address.port());
        let mut all = vec![("Host", host.as_str()), ("Sec-Fetch-Site", "same-origin")];
        all.retain(|(name, _)| !headers.iter().any(|(other, _)| other == name));
        all.extend(headers.iter().filter(|(_, value)| !value.is_empty()));
        let asked = self.exchange(method, path, &all, body);
        asked.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.extend([*name, ": ", *value, "\r\n"]);
        }
        if !headers.iter().any(|(name, _)| *name == "Content-Type") {
            head.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
        }
        let length = body.len();
        stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, answer.clone());
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(invalid)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|status| status.parse().ok());
        let head = lines.filter_map(|line| line.split_once(": "));
        Ok(Answer {
            status: status.ok_or_else(invalid)?,
            head: head
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: body.to_owned(),
        })
    }
}
