//! A request's body that must keep coming.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

/// The time between two pieces of a body, as Longhorn's own servers and clients allow.
const IDLE: Duration = Duration::from_secs(30);

/// A body that ends with an error when nothing of it comes for [`IDLE`] while somebody waits for it.
#[derive(Debug)]
pub(super) struct Timed {
    inner: Incoming,
    /// Runs while somebody waits.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    pub(super) fn new(inner: Incoming) -> Self {
        Self { inner, alarm: None }
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            self.alarm = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + IDLE)));
        alarm.as_mut().poll(context).map(|()| {
            let why = format!("no data of the request arrived for {IDLE:?}");
            Some(Err(io::Error::new(io::ErrorKind::TimedOut, why).into()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
