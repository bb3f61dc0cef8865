//! The ports of receivers: a range to choose from, and one that is held.
//!
//! The kernel is the list of used ports: a port is reserved by listening on it and released when
//! the listener is closed, whatever the result of the copy. None can leak.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use store::IoContext;

use crate::error::{Error, Result};

/// The ports that receivers may listen on, `FIRST-LAST`.
#[derive(Debug, Clone)]
pub struct PortRange {
    first: u16,
    last: u16,
    /// Which to try next: a port that was just in use is the last one to be used again.
    next: Arc<AtomicU32>,
}

impl FromStr for PortRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::InvalidField {
            field: "port-range",
            why: format!("{text:?} is not FIRST-LAST with ports from 1 to 65535"),
        };
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (port(first)?, port(last)?);
        if first == 0 || first > last {
            return Err(wrong());
        }
        Ok(Self {
            first,
            last,
            next: Arc::default(),
        })
    }
}

impl Default for PortRange {
    /// Longhorn's own: 30001-31000.
    fn default() -> Self {
        Self {
            first: 30001,
            last: 31000,
            next: Arc::default(),
        }
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl PortRange {
    /// Whether a port is one of them.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Listens on the next free port of the range.
    pub fn listen(&self, ip: IpAddr) -> Result<TcpListener> {
        let count = u32::from(self.last - self.first) + 1;
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        for step in 0..count {
            let offset = start.wrapping_add(step) % count;
            let port = self.first + u16::try_from(offset).expect("less than the range");
            match TcpListener::bind((ip, port)) {
                Ok(listener) => {
                    self.next
                        .fetch_max(start.wrapping_add(step + 1), Ordering::Relaxed);
                    return nonblocking(listener, (ip, port).into());
                }
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    return Ok(Err(error).context("listen on", format!("{ip}:{port}").as_ref())?);
                }
            }
        }
        Err(Error::PortsInUse(self.to_string()))
    }
}

/// Receivers that wait for a sender, or receive, at once: each holds a port and a task, and whoever can
/// reach the sync server may ask for one.
const RECEIVERS_MAX: usize = 64;

/// The places of receivers. Clones are the same.
#[derive(Debug, Clone)]
pub struct Receivers(Arc<Semaphore>);

impl Default for Receivers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(RECEIVERS_MAX)))
    }
}

impl Receivers {
    /// A place for one more, until it is dropped.
    pub fn place(&self) -> Result<OwnedSemaphorePermit> {
        let place = self.0.clone().try_acquire_owned();
        place.map_err(|_| Error::TooManyReceivers(RECEIVERS_MAX))
    }
}

/// Listens on one port that somebody else chose.
pub fn listen_on(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).context("listen on", address.to_string().as_ref())?;
    nonblocking(listener, address)
}

fn nonblocking(listener: TcpListener, address: SocketAddr) -> Result<TcpListener> {
    listener
        .set_nonblocking(true)
        .context("set up the listener on", address.to_string().as_ref())?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use types::Classify;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn ranges_are_read_as_longhorn_writes_them() {
        assert_eq!(
            "30001-31000".parse::<PortRange>().unwrap().to_string(),
            PortRange::default().to_string()
        );
        for wrong in ["", "30001", "2-1", "0-5", "1-70000", "a-b", "1-2-3", "-1-5"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }

    /// Row 119: receivers that nobody sends to are bounded.
    #[test]
    fn row_119_receivers_are_bounded_and_their_places_are_given_back() {
        let receivers = Receivers::default();
        let places: Vec<_> = (0..RECEIVERS_MAX)
            .map(|_| receivers.place().unwrap())
            .collect();
        let error = receivers.place().unwrap_err();
        assert_eq!(error.kind(), types::ErrorKind::ResourceExhausted);
        drop(places);
        assert!(receivers.place().is_ok());
    }

    #[test]
    fn a_port_is_free_again_at_once_and_a_full_range_says_so() {
        let first = e2e::ports::free_range(3);
        let last = first + 2;
        let range: PortRange = format!("{first}-{last}").parse().unwrap();
        let taken: Vec<_> = (0..3).map(|_| range.listen(HERE).unwrap()).collect();
        let mut ports: Vec<_> = taken
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        ports.sort_unstable();
        assert!(ports.into_iter().eq(first..=last));
        assert!(matches!(range.listen(HERE), Err(Error::PortsInUse(_))));
        drop(taken);
        for _ in 0..7 {
            range.listen(HERE).unwrap();
        }
    }
}
