//! Commands that run in a guest: the harness's side of `vm-guest`, which describes the protocol.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::wait::LONG;

/// Where `vm-guest` listens.
const PORT: u16 = 1;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const STATUS: u8 = 3;
/// The most that a guest sends in one piece: it reads its programs in pieces of 64 KiB.
const FRAME_MAX: u32 = 1 << 20;

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its exit status, or 128 + the signal that ended it.
    pub status: i32,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub errors: String,
}

impl Ran {
    /// Whether it said that all went well.
    pub fn is_ok(&self) -> bool {
        self.status == 0
    }
}

/// One line or the end.
#[derive(Debug)]
enum Piece {
    Output(Vec<u8>),
    Errors(Vec<u8>),
    Status(i32),
}

/// A command in a guest. Dropping it kills it there.
#[derive(Debug)]
pub struct Remote {
    what: String,
    stream: TcpStream,
    pieces: Receiver<Piece>,
    ran: Ran,
    ended: bool,
}

fn connect(guest: Ipv4Addr, asked: &Value) -> io::Result<TcpStream> {
    let address = SocketAddr::from((guest, PORT));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    stream.write_all(format!("{asked}\n").as_bytes())?;
    Ok(stream)
}

impl Remote {
    /// Starts a program in the guest with this input.
    pub(super) fn start(guest: Ipv4Addr, words: &[&str], input: &[u8]) -> io::Result<Self> {
        let mut stream = connect(guest, &json!({"run": words}))?;
        stream.write_all(input)?;
        stream.shutdown(Shutdown::Write)?;
        let (to, pieces) = channel();
        let mut from = stream.try_clone()?;
        thread::spawn(move || {
            while let Ok(piece) = read_piece(&mut from) {
                if to.send(piece).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            what: words.join(" "),
            stream,
            pieces,
            ran: Ran {
                status: -1,
                output: String::new(),
                errors: String::new(),
            },
            ended: false,
        })
    }

    /// What it has printed so far.
    pub fn output(&mut self) -> &str {
        while let Ok(piece) = self.pieces.try_recv() {
            self.take(piece);
        }
        &self.ran.output
    }

    /// Waits for its end; `None`: the guest is gone, or the command has not ended within that time.
    pub fn wait_within(&mut self, bound: Duration) -> Option<&Ran> {
        let end = Instant::now() + bound;
        while !self.ended {
            match self
                .pieces
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(piece) => self.take(piece),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
        Some(&self.ran)
    }

    /// Waits for its end. Panics when there is none.
    #[track_caller]
    pub fn wait(&mut self) -> &Ran {
        let ended = self.wait_within(LONG).is_some();
        assert!(ended, "{}: no end; so far: {:?}", self.what, self.ran);
        &self.ran
    }

    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Output(bytes) => self.ran.output.push_str(&String::from_utf8_lossy(&bytes)),
            Piece::Errors(bytes) => self.ran.errors.push_str(&String::from_utf8_lossy(&bytes)),
            Piece::Status(status) => {
                self.ran.status = status;
                self.ended = true;
            }
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn read_piece(from: &mut TcpStream) -> io::Result<Piece> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length);
    if length > FRAME_MAX {
        return Err(io::Error::other("a frame that is too long"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    match kind {
        OUTPUT => Ok(Piece::Output(bytes)),
        ERRORS => Ok(Piece::Errors(bytes)),
        STATUS => {
            let status = <[u8; 4]>::try_from(&bytes[..]).map_err(io::Error::other)?;
            Ok(Piece::Status(i32::from_be_bytes(status)))
        }
        _ => Err(io::Error::other("a frame of no known kind")),
    }
}

/// Makes `socket` here lead to `path` in the guest, for as long as this program runs.
pub(super) fn forward(guest: Ipv4Addr, path: &str, socket: &Path) -> io::Result<()> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    let asked = json!({"connect": path});
    thread::spawn(move || {
        while let Ok((local, _)) = listener.accept() {
            // A guest that is away is a connection that ends.
            let Ok(remote) = connect(guest, &asked) else {
                continue;
            };
            let copies = (local.try_clone(), remote.try_clone());
            let (Ok(mut from), Ok(mut to)) = copies else {
                continue;
            };
            let (mut local, mut remote) = (local, remote);
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                let _ = io::copy(&mut remote, &mut local);
                let _ = local.shutdown(Shutdown::Both);
            });
        }
    });
    Ok(())
}
