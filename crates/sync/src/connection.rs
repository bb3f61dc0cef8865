//! A connection to a peer: requests over HTTP/1.1, until an answer of 101 leaves the bare stream.

use std::io;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Parts, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

/// What hyper may read ahead on a connection.
const READ_AHEAD: usize = 128 << 10;

/// A connection that speaks HTTP/1.1. Dropping it closes it, once the last answer was read or given up.
#[derive(Debug)]
pub(super) struct Connection<S> {
    sender: SendRequest<Empty<Bytes>>,
    /// Ends with the stream when it is not for HTTP any more.
    led: JoinHandle<hyper::Result<Parts<TokioIo<S>>>>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection<S> {
    /// A connection over a stream on which nothing is under way.
    pub(super) async fn new(stream: S) -> io::Result<Self> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_AHEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let led = tokio::spawn(connection.without_shutdown());
        Ok(Self { sender, led })
    }

    /// Whether a request can be sent: the peer may have closed it meanwhile.
    pub(super) async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and reads the head of its answer.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> io::Result<Response<Incoming>> {
        let answer = self.sender.send_request(request).await;
        answer.map_err(io::Error::other)
    }

    /// The stream, after an answer of 101, and what came of it behind the answer already.
    pub(super) async fn into_stream(self) -> io::Result<(S, Bytes)> {
        let parts = self.led.await.map_err(io::Error::other)?;
        let parts = parts.map_err(io::Error::other)?;
        Ok((parts.io.into_inner(), parts.read_buf))
    }
}
