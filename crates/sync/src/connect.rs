//! How a peer is reached, and how long it is waited for.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use trust::held::HTTP1;
use trust::{Dialer, Expected, Role};

use super::address::PeerAddress;

/// How connections are made.
pub trait Connect: Clone + Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Connects to a peer.
    fn connect(
        &self,
        address: &PeerAddress,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Connections of the operating system: with TLS, the peer has to be a manager.
impl Connect for Dialer {
    type Stream = trust::Stream;

    async fn connect(&self, address: &PeerAddress) -> io::Result<Self::Stream> {
        let expected = Expected::role(Role::Manager);
        let connected = Dialer::connect(self, address.as_str(), &expected, HTTP1).await;
        Ok(connected?.0)
    }
}

/// How long what is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub connect: Duration,
    /// For the next bytes of an answer.
    pub stall: Duration,
    /// For a whole chunk, so that a drip is no way to hold on.
    pub chunk: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            stall: Duration::from_secs(10),
            chunk: Duration::from_mins(1),
        }
    }
}
