//! The receiving end of ssync: an HTTP server for one file, which lives as long as its copy.
//!
//! Success for the incumbent is not success here: `close` alone proves nothing, because a sender
//! closes in both cases. A copy is complete when every byte arrived or was declared a hole, and
//! correct when its checksum is the expected one.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::{Ended, Shared, accept};
use super::convert;
use super::invite::Invite;
use super::session::Session;
use store::IoContext;

use crate::error::{Error, Result};
use catalog::source::{Job, Origin, OriginKind, Taken};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use store::{Provenance, Received};

/// How long a receiver waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the first byte: Longhorn's 60 s.
    pub first: Duration,
    /// For the next request after that: Longhorn's 300 s.
    pub idle: Duration,
    /// For the `close` of a file that is complete, and for the reason of one that is not.
    pub close: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: types::crash::patience(Duration::from_mins(1)),
            idle: Duration::from_mins(5),
            close: Duration::from_secs(2),
        }
    }
}

/// A receiver that listens but does not serve yet. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Receiver {
    listener: Arc<Mutex<Option<StdListener>>>,
    address: SocketAddr,
    /// The size that is asked for; 0: whatever comes.
    size: u64,
    invite: Invite,
    patience: Patience,
    /// Whether what comes is made a qcow2 image.
    convert: bool,
    /// Its place among the receivers of this process.
    place: Option<Arc<OwnedSemaphorePermit>>,
}

impl Origin for Receiver {
    fn provenance(&self) -> Provenance {
        let from = self.invite.text();
        Provenance::Pushed { from }
    }

    fn kind(&self) -> OriginKind {
        OriginKind::Pushed
    }

    fn take_in<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, catalog::Result<Taken>> {
        async move {
            let received = self.receive(job).await?;
            Ok(Taken::Bytes(Box::new((received, job.facts()))))
        }
        .boxed()
    }
}

impl Receiver {
    /// A receiver on a port that is held from now on, for a file of `size` bytes (0: of any size).
    pub fn new(listener: StdListener, size: u64, invite: Invite) -> Result<Self> {
        let address = listener
            .local_addr()
            .context("inspect the listener of", "a receiver".as_ref())?;
        Ok(Self {
            listener: Arc::new(Mutex::new(Some(listener))),
            address,
            size,
            invite,
            patience: Patience::default(),
            convert: false,
            place: None,
        })
    }

    /// One of those that are bounded: it has this place for as long as it lives.
    #[must_use]
    pub fn in_place(mut self, place: OwnedSemaphorePermit) -> Self {
        self.place = Some(Arc::new(place));
        self
    }

    /// With other waits than Longhorn's.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// One that makes a qcow2 image of the raw bytes that come.
    #[must_use]
    pub fn converted(mut self) -> Self {
        self.convert = true;
        self
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks the sender to send, and takes in what comes. When this returns, or is dropped, the port
    /// is free.
    pub(super) async fn receive(&self, job: &Job) -> Result<Received> {
        let session = Arc::new(Session::new(job.clone(), self.size));
        let served = self.serve(job, &session).await;
        let (convert, job) = (self.convert, job.clone());
        let finish = move || match served {
            Ok(why) if convert => convert::to_qcow2(session.finish(&why)?, &job),
            Ok(why) => session.finish(&why),
            Err(error) => {
                session.discard();
                Err(error)
            }
        };
        tokio::task::spawn_blocking(finish).await?
    }

    /// Serves until there is nothing more to wait for, and says why.
    async fn serve(&self, job: &Job, session: &Arc<Session>) -> Result<String> {
        let listener = self
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or(Error::Cancelled("the receiver has been used"))?;
        let listener = TcpListener::from_std(listener)
            .context("serve on", self.address.to_string().as_ref())?;
        let (ended, mut end) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            session: session.clone(),
            last: watch::Sender::new(Instant::now()),
            sender: OnceLock::new(),
            ended,
            over: CancellationToken::new(),
        });
        let _over = shared.over.clone().drop_guard();
        let hint = OnceLock::new();
        let mut refused = pin!(self.invite.refused(self.address, &job.id, &hint));
        let mut accepting = pin!(accept(&listener, &shared));
        tokio::select! {
            ended = end.recv() => match ended.expect("a sender of it is held here") {
                Ended::Closed => {}
                Ended::Failed(error) => return Err(error),
            },
            () = job.cancel.cancelled() => return Err(Error::Cancelled("the image is not wanted")),
            error = &mut refused => return Err(session.refused(error)),
            why = self.silence(&shared, &hint) => return why,
            never = &mut accepting => match never {},
        }
        // A replica that closes before the end says why in its answer, which comes right after.
        if self.invite.is_told_the_end() && !session.come().borrow().is_complete() {
            tokio::select! {
                error = refused => return Err(session.refused(error)),
                () = sleep(self.patience.close) => {}
                never = accepting => match never {},
            }
        }
        Ok("then its sender closed the file".to_owned())
    }

    /// Ends when nothing more is to be waited for, and says why.
    async fn silence(&self, shared: &Shared, hint: &OnceLock<String>) -> Result<String> {
        let (mut last, mut come) = (shared.last.subscribe(), shared.session.come());
        loop {
            let now = *come.borrow_and_update();
            let patience = if now.is_complete() {
                self.patience.close
            } else if now.received > 0 {
                self.patience.idle
            } else {
                self.patience.first
            };
            let until = *last.borrow_and_update() + patience;
            tokio::select! {
                () = sleep_until(until) => {
                    let seconds = patience.as_secs();
                    if now.received > 0 {
                        return Ok(format!("then no data arrived for {seconds} seconds"));
                    }
                    let hint = hint.get().map(|hint| format!(": {hint}")).unwrap_or_default();
                    return Err(Error::NothingCame { seconds, hint });
                }
                _ = last.changed() => {}
                _ = come.changed() => {}
            }
        }
    }
}
