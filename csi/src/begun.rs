//! Started calls continue when their caller disconnects, as the work of the node does.
//!
//! Dropping a call would also drop its request to a manager. A manager takes many dropped requests
//! for an attack and closes the connection, which all callers share.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

/// Calls at once; more wait for their turn, and are dropped with their callers while they do.
const CALLS_MAX: usize = 256;

/// A service whose calls are tasks of their own.
#[derive(Debug, Clone)]
pub(crate) struct Begun<S> {
    service: S,
    turns: Arc<Semaphore>,
    calls: TaskTracker,
}

impl<S> Begun<S> {
    /// `calls` is told of each, so that somebody can wait for those whose callers are gone.
    pub(crate) fn new(service: S, calls: &TaskTracker) -> Self {
        let turns = Arc::new(Semaphore::new(CALLS_MAX));
        let calls = calls.clone();
        Self {
            service,
            turns,
            calls,
        }
    }
}

impl<S: NamedService> NamedService for Begun<S> {
    const NAME: &'static str = S::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for Begun<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone,
    S: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let (turns, calls) = (self.turns.clone(), self.calls.clone());
        // The one that is ready is used; what is left behind is a fresh one.
        let ready = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, ready);
        Box::pin(async move {
            let Ok(turn) = turns.acquire_owned().await else {
                return Ok(Status::unavailable("the plugin ends").into_http());
            };
            let call = calls.spawn(async move {
                let answer = service.call(request).await;
                drop(turn);
                answer
            });
            let panicked =
                |_| Ok(Status::internal("the call panicked: a bug of the plugin").into_http());
            call.await.unwrap_or_else(panicked)
        })
    }
}
