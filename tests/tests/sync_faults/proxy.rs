//! A corrupting connection: a TCP proxy between a receiver and a sender.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What is done to the bytes of each answer, after [`AFTER`] good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A bit is another one.
    Flip,
    /// Two bytes have changed places.
    Swap,
    /// A piece comes twice.
    Repeat,
    /// The connection is reset.
    Reset,
    /// No more comes in this direction.
    HalfClose,
    /// Nothing comes any more, and nothing ends.
    Stall,
}

/// Good bytes of a connection before the fault: manifests of small images and some of a chunk.
const AFTER: usize = 300_000;

/// A running proxy; it ends with the test.
pub(crate) struct Proxy {
    address: SocketAddr,
    faults: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) fn start(to: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&faults);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let counted = Arc::clone(&counted);
                thread::spawn(move || {
                    let server = TcpStream::connect(to)?;
                    let (mut from, mut up) = (client.try_clone()?, server.try_clone()?);
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut up);
                        let _ = up.shutdown(Shutdown::Both);
                    });
                    spoil(server, &client, fault, &counted)
                });
            }
        });
        Self { address, faults }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often it has done what it is there for.
    pub(crate) fn faults(&self) -> usize {
        self.faults.load(Ordering::Relaxed)
    }
}

fn spoil(
    mut server: TcpStream,
    mut client: &TcpStream,
    fault: Fault,
    faults: &AtomicUsize,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    loop {
        let read = server.read(&mut buffer)?;
        if read == 0 {
            return client.shutdown(Shutdown::Both);
        }
        let bytes = &mut buffer[..read];
        let now = passed <= AFTER && passed + read > AFTER && read > 2;
        passed += read;
        if now {
            faults.fetch_add(1, Ordering::Relaxed);
            match fault {
                Fault::Flip => bytes[read / 2] ^= 0x10,
                Fault::Swap => bytes.swap(0, read - 1),
                Fault::Repeat => client.write_all(bytes)?,
                Fault::Reset => {
                    client.write_all(&bytes[..read / 2])?;
                    // Unread bytes in the buffer of a socket that is closed make it a reset.
                    return client.shutdown(Shutdown::Both);
                }
                Fault::HalfClose => {
                    client.write_all(&bytes[..read / 2])?;
                    client.shutdown(Shutdown::Write)?;
                    return until_closed(client);
                }
                Fault::Stall => return until_closed(client),
            }
        }
        client.write_all(bytes)?;
    }
}

/// Holds the connection until the client gives it up.
fn until_closed(mut client: &TcpStream) -> std::io::Result<()> {
    std::io::copy(&mut client, &mut std::io::sink()).map(drop)
}
