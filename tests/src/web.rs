//! The web server of the original documentation's example, and a client for it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use crate::{Process, Sandbox, command, ports, wait};

/// An nginx that serves one directory.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    address: SocketAddr,
}

impl Nginx {
    /// Starts one.
    pub fn serve(sandbox: &Sandbox, name: &str, root: &Path) -> Self {
        let address = ports::free();
        let dir = sandbox.make_dir(format!("nginx-{name}"));
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};", dir.display()))
            .concat();
        let config = sandbox.write(
            format!("nginx-{name}/nginx.conf"),
            format!(
                "daemon off; user root; worker_processes 1; pid {dir}/pid; error_log stderr;\n\
                 events {{}}\n\
                 http {{ access_log off; {temporary} types {{ image/gif gif; text/html html; }}\n\
                 server {{ listen {address}; root {root}; }} }}\n",
                dir = dir.display(),
                root = root.display(),
            ),
        );
        let program = command::find("nginx").unwrap_or_else(|| PathBuf::from("nginx"));
        let arguments = [
            "-p".as_ref(),
            dir.as_os_str(),
            "-c".as_ref(),
            config.as_os_str(),
        ];
        let mut process =
            Process::spawn(sandbox, &format!("nginx-{name}"), &program, arguments, &[]);
        process.wait_ready(|| TcpStream::connect(address).is_ok());
        Self { process, address }
    }

    /// The URL of a path on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The body of a file that must be there.
    #[track_caller]
    pub fn fetch(&self, path: &str) -> Vec<u8> {
        let url = self.url(path);
        let (status, body) = get(&url).unwrap_or_else(|error| panic!("GET {url}: {error}"));
        assert_eq!(status, 200, "GET {url}");
        body
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker outlives a killed master: ask the master first.
        self.process.signal(rustix::process::Signal::QUIT);
        wait::until("nginx ends", || self.process.ended());
    }
}

/// GET of an `http://host:port/path` URL: status and body.
///
/// # Errors
/// When the server cannot be reached, or does not speak HTTP.
pub fn get(url: &str) -> io::Result<(u16, Vec<u8>)> {
    let rest = url
        .strip_prefix("http://")
        .ok_or(io::ErrorKind::InvalidInput)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(wait::LONG))?;
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    let end = reply
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or_else(|| io::Error::other("no end of the headers"))?;
    let head = String::from_utf8_lossy(&reply[..end]);
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("no status line"))?;
    Ok((status, reply.split_off(end + 4)))
}
