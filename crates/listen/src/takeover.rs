//! A connection that its handler takes for a while: after an answer of 101 Switching Protocols (RFC 9110,
//! section 15.2.2) the handler writes to it as it likes, and when it is done requests go on.
//!
//! The connection stays counted, bounded and ended by its listener meanwhile.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::Response;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// What a connection is made of.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// The connection of the kernel, where what is written to it goes out as it is.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl Socket for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Socket for UnixStream {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for tokio_rustls::server::TlsStream<S> {}

impl Socket for Box<dyn Socket> {
    fn plain(&self) -> Option<&TcpStream> {
        (**self).plain()
    }
}

type Work = Box<dyn for<'a> FnOnce(&'a mut dyn Socket) -> BoxFuture<'a, io::Result<()>> + Send>;

/// Where a handler leaves what is to be done with the connection after its answer of 101. Requests have one among
/// their extensions where that is possible.
#[derive(Clone, Default)]
pub struct Takeover(Arc<Mutex<Option<Work>>>);

impl Takeover {
    /// Leaves it. The connection is closed when it fails.
    pub fn leave(
        &self,
        work: impl for<'a> FnOnce(&'a mut dyn Socket) -> BoxFuture<'a, io::Result<()>> + Send + 'static,
    ) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(work));
    }

    fn take(&self) -> Option<Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for Takeover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Takeover").finish_non_exhaustive()
    }
}

/// An answer on its way.
pub type Answering = BoxFuture<'static, Result<Response<axum::body::Body>, Infallible>>;

/// Serves the requests of a connection, and what their handlers take it for, until the peer closes it, or `stop`
/// is ready: then what is under way ends first. `answer` is given each request with its [`Takeover`] in it.
pub async fn serve(
    mut stream: impl Socket + 'static,
    builder: &Builder,
    answer: impl Fn(Request<Incoming>) -> Answering + Clone + Unpin,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut stop = std::pin::pin!(stop);
    let mut stopped = false;
    while !stopped {
        let takeover = Takeover::default();
        let (answer, given) = (answer.clone(), takeover.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(given.clone());
            answer(request)
        });
        let mut connection = builder.serve_connection(TokioIo::new(stream), service);
        loop {
            tokio::select! {
                ended = poll_fn(|context| connection.poll_without_shutdown(context)) => {
                    ended.map_err(io::Error::other)?;
                    break;
                }
                () = &mut stop, if !stopped => {
                    stopped = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        }
        let parts = connection.into_parts();
        stream = parts.io.into_inner();
        let Some(work) = takeover.take() else {
            return stream.shutdown().await;
        };
        // Nothing is asked before the answer to the last request is there.
        if !parts.read_buf.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut working = work(&mut stream);
        loop {
            tokio::select! {
                worked = &mut working => {
                    worked?;
                    break;
                }
                () = &mut stop, if !stopped => stopped = true,
            }
        }
    }
    stream.shutdown().await
}
