//! Which addresses a daemon has bound: told to the log, and to a file for whoever asked for port 0.
//!
//! One line for each listener, `NAME=ADDRESS`: `grpc=127.0.0.1:41873`, `metrics=[::]:9500`. The file is complete
//! from the moment at which it is there. It lives as long as its reader needs it, and is not synced to disk.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::Listener;

/// The addresses of a daemon's listeners, by name.
#[derive(Debug, Default)]
pub struct BoundAddresses(Vec<(&'static str, String)>);

impl BoundAddresses {
    /// With one more listener. The name is a word of the daemon's `--help`.
    #[must_use]
    pub fn with(mut self, name: &'static str, listener: &Listener) -> Self {
        self.0.push((name, listener.bound_address()));
        self
    }

    /// Writes the file, under another name first, and replaces one that is there. `None`: nobody asked for it.
    ///
    /// # Errors
    /// When it cannot be written in the directory of `path`.
    pub fn write(&self, path: Option<&Path>) -> io::Result<()> {
        let Some(path) = path else { return Ok(()) };
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".part");
        let mut file = File::create(&unfinished)?;
        for (name, address) in &self.0 {
            writeln!(file, "{name}={address}")?;
        }
        drop(file);
        fs::rename(&unfinished, path)
    }
}

/// `grpc=127.0.0.1:41873 sync=127.0.0.1:37111`, for the log.
impl fmt::Display for BoundAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, address)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{name}={address}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    #[tokio::test]
    async fn the_file_names_the_port_that_the_system_chose() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("addresses");
        let local = crate::address("127.0.0.1:0").unwrap();
        let tcp = Listener::bind(&local, Protocol::Grpc).await.unwrap();
        let port = tcp.local_address().unwrap().port();
        let socket = dir.path().join("api.sock");
        let at_socket = client::Address::Unix(socket.clone());
        let unix = Listener::bind(&at_socket, Protocol::Grpc).await.unwrap();
        let bound = BoundAddresses::default()
            .with("grpc", &tcp)
            .with("local", &unix);
        bound.write(Some(&path)).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        let expected = format!("grpc=127.0.0.1:{port}\nlocal=unix:{}\n", socket.display());
        assert_eq!(written, expected);
        assert_eq!(bound.to_string(), expected.trim_end().replace('\n', " "));
        // The next start of the daemon replaces it, and nothing else is left in the directory.
        BoundAddresses::default().write(Some(&path)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_and_no_file_is_no_error() {
        let bound = BoundAddresses::default();
        assert!(bound.write(Some(Path::new("/nonexistent/a/b"))).is_err());
        bound.write(None).unwrap();
    }
}
