//! The body of a peer's answer, as it arrives.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;

use super::Error;
use super::address::PeerAddress;
use super::connect::Patience;

/// Bytes of an error's text that are looked at.
const REASON_MAX: usize = 300;

/// An answer that is being read: `length` bytes will come, or an error.
#[derive(Debug)]
pub struct Answer {
    pub(super) peer: PeerAddress,
    pub(super) body: Incoming,
    pub(super) left: u64,
    /// What came and was not taken yet.
    pub(super) pending: Bytes,
    pub(super) sender: Option<SendRequest<Empty<Bytes>>>,
    pub(super) patience: Patience,
}

impl Answer {
    /// The next bytes; `None` at the end.
    pub(super) async fn some(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.pending.is_empty() {
            return Ok(Some(std::mem::take(&mut self.pending)));
        }
        if self.left == 0 {
            return Ok(None);
        }
        loop {
            let frame = timeout(self.patience.stall, self.body.frame()).await;
            let frame = frame.map_err(|_| Error::Stalled {
                peer: self.peer.clone(),
                after: self.patience.stall,
            })?;
            let Some(frame) = frame else {
                return Err(Error::Broken {
                    peer: self.peer.clone(),
                    what: "its answer ends early".to_owned(),
                });
            };
            let frame = frame.map_err(|source| Error::Cut {
                peer: self.peer.clone(),
                source,
            })?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            if !bytes.is_empty() {
                // hyper holds the body to its Content-Length.
                self.left = self.left.saturating_sub(bytes.len() as u64);
                return Ok(Some(bytes));
            }
        }
    }

    /// Waits until more has come, without taking it: so that a buffer is taken only by who can fill it.
    pub async fn ready(&mut self) -> Result<(), Error> {
        if self.pending.is_empty()
            && let Some(bytes) = self.some().await?
        {
            self.pending = bytes;
        }
        Ok(())
    }

    /// Appends exactly `length` bytes to `buffer`.
    pub async fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<(), Error> {
        let peer = self.peer.clone();
        let after = self.patience.chunk;
        let filling = async {
            buffer.reserve_exact(length);
            let mut missing = length;
            while missing > 0 {
                let Some(mut bytes) = self.some().await? else {
                    return Err(Error::Broken {
                        peer: self.peer.clone(),
                        what: "its answer ends early".to_owned(),
                    });
                };
                let now = bytes.split_to(bytes.len().min(missing));
                buffer.extend_from_slice(&now);
                missing -= now.len();
                self.pending = bytes;
            }
            Ok(())
        };
        timeout(after, filling)
            .await
            .unwrap_or(Err(Error::Stalled { peer, after }))
    }
}

/// What a peer says about an error, as far as it is fit to be shown.
pub(super) async fn reason(mut body: Incoming, stall: Duration) -> String {
    let mut said = Vec::new();
    while said.len() < REASON_MAX {
        match timeout(stall, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let bytes = frame.into_data().unwrap_or_default();
                said.extend_from_slice(&bytes[..bytes.len().min(REASON_MAX - said.len())]);
            }
            _ => break,
        }
    }
    let text = String::from_utf8_lossy(&said);
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(shown).collect()
}
