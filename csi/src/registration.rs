//! Registers the plugin with the kubelet, which finds plugins by their sockets in a directory: no
//! registrar beside the plugin is needed.
//!
//! The kubelet connects to `<directory>/<driver>-reg.sock` when it appears, and again after each
//! restart of its own; it requests the plugin's information, calls the plugin's own socket, and
//! reports the result. A new installation of the kubelet clears the directory, so the plugin
//! watches the socket and creates it again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::pluginregistration as wire;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use types::report;
use wire::registration_server::{Registration, RegistrationServer};

use crate::authority::Lenient;
use crate::config::{DriverName, RegistrationConfig};
use crate::error::{Error, Result};
use crate::socket::{Directory, Socket};

/// How often the socket is looked after. The kubelet waits for nobody here, so that a second or two
/// without a registration after its directory was cleared is no matter.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The type of plugin that the kubelet calls a CSI driver, and the version of the CSI it is to speak.
const CSI_PLUGIN: &str = "CSIPlugin";
const CSI_VERSION: &str = "1.0.0";
/// How much of the kubelet's words is repeated.
const WORDS_MAX: usize = 500;

/// What the kubelet has said so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Registered {
    NotYet,
    /// The plugin is registered.
    Yes,
    /// It is not, and why.
    Refused(String),
}

/// The registration, as those see it who want to know of it.
#[derive(Debug, Clone)]
pub(crate) struct Outcome(watch::Receiver<Registered>);

impl Outcome {
    /// Why the kubelet does not use the plugin; `None`: it does.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &*self.0.borrow() {
            Registered::Yes => None,
            Registered::NotYet => Some("the kubelet has not registered the plugin".to_owned()),
            Registered::Refused(why) => Some(format!("the kubelet refuses the plugin: {why}")),
        }
    }
}

/// What is told to the kubelet, and what it tells.
#[derive(Debug, Clone)]
struct Service {
    info: Arc<wire::PluginInfo>,
    said: watch::Sender<Registered>,
}

#[tonic::async_trait]
impl Registration for Service {
    async fn get_info(
        &self,
        _: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::PluginInfo>, Status> {
        tracing::debug!("the kubelet requests the plugin's information");
        Ok(Response::new((*self.info).clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<wire::RegistrationStatus>,
    ) -> Result<Response<wire::RegistrationStatusResponse>, Status> {
        let wire::RegistrationStatus {
            plugin_registered,
            error,
        } = request.into_inner();
        let said = if plugin_registered {
            tracing::info!(endpoint = self.info.endpoint, "registered with the kubelet");
            Registered::Yes
        } else {
            let why: String = error.chars().take(WORDS_MAX).collect();
            tracing::error!(
                endpoint = self.info.endpoint,
                why,
                "the kubelet refuses the plugin"
            );
            Registered::Refused(why)
        };
        self.said.send_replace(said);
        Ok(Response::new(wire::RegistrationStatusResponse {}))
    }
}

/// Keeps the plugin registered from now on, in a task that ends with `stop`.
pub(crate) fn keep(
    config: &RegistrationConfig,
    driver: &DriverName,
    stop: impl Future<Output = ()> + Send + 'static,
) -> (Outcome, tokio::task::JoinHandle<()>) {
    let (said, outcome) = watch::channel(Registered::NotYet);
    let endpoint = config.endpoint.display().to_string();
    let info = Arc::new(wire::PluginInfo {
        r#type: CSI_PLUGIN.to_owned(),
        name: driver.to_string(),
        endpoint,
        supported_versions: vec![CSI_VERSION.to_owned()],
    });
    let socket = config.directory.join(format!("{driver}-reg.sock"));
    let service = Service { info, said };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = look_after(&socket, &service) => {}
            () = stop => {}
        }
    });
    (Outcome(outcome), task)
}

/// Serves the socket, and makes it again whenever it is gone. Does not return.
async fn look_after(socket: &Path, service: &Service) {
    let mut trouble = String::new();
    loop {
        match serve(socket, service).await {
            Ok(()) => trouble.clear(),
            Err(error) => {
                // Once for each trouble, not once a second.
                let text = report(&error).to_string();
                if trouble != text {
                    tracing::warn!("cannot register with the kubelet yet: {text}");
                    trouble = text;
                }
            }
        }
        service.said.send_replace(Registered::NotYet);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Serves the socket until it is gone.
async fn serve(path: &Path, service: &Service) -> Result<()> {
    let bind: PathBuf = path.to_owned();
    let bound = tokio::task::spawn_blocking(move || Socket::bind(&bind, Directory::Shared));
    let (listener, socket) = bound.await.map_err(|_| Error::Lost)??;
    let listener =
        tokio::net::UnixListener::from_std(listener).map_err(Error::io("serve on", path))?;
    tracing::info!(socket = %path.display(), "waiting for the kubelet to register the plugin");
    let streams = UnixListenerStream::new(listener).map(|stream| stream.map(Lenient::new));
    let gone = async {
        while socket.is_in_place() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tracing::warn!(socket = %path.display(), "the socket was removed: creating it again");
    };
    let server = Server::builder()
        .add_service(RegistrationServer::new(service.clone()))
        .serve_with_incoming(streams);
    tokio::select! {
        served = server => served.map_err(Error::Serve),
        () = gone => Ok(()),
    }
}

#[cfg(test)]
mod tests;
