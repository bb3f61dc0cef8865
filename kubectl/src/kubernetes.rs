//! kubectl as the one way to a cluster: what is asked of it, and the ports that it forwards.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Child;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::options::Global;
use crate::process::{self, Bounds, Ended};

/// The driver, and provisioner of classes.
pub(crate) const DRIVER: &str = "driver.longhorn.io";

/// What an answer may have, and how long it may take.
const BOUNDS: Bounds = Bounds {
    bytes: 64 << 20,
    time: Duration::from_mins(1),
};
/// The time in which a port is forwarded.
const FORWARD: Duration = Duration::from_secs(20);
/// The line that says so is short.
const LINE_MAX: u64 = 4 << 10;

/// The audience of tokens by which programs prove who they are, and the account of persons.
const AUDIENCE: &str = "longhorn-base-image";
const ACCOUNT: &str = "longhorn-base-image-cli";

/// kubectl with the caller's own options.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl {
    program: OsString,
    options: Vec<OsString>,
    /// Namespace of claims and pods, where it was given.
    pub(crate) namespace: Option<String>,
    /// Namespace of the programs.
    pub(crate) system: String,
}

/// A port of this machine that leads to a pod, as long as this value lives.
#[derive(Debug)]
pub(crate) struct Forward {
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    child: Child,
}

impl Forward {
    /// Waits until kubectl gives up, as when the pod is gone.
    pub(crate) async fn ended(mut self) {
        // That it cannot be waited for means that it is no more.
        let _ = self.child.wait().await;
    }
}

impl Kubectl {
    pub(crate) fn new(global: &Global) -> Self {
        let mut options = Vec::new();
        if let Some(file) = &global.kubeconfig {
            options.extend(["--kubeconfig".into(), file.into()]);
        }
        if let Some(context) = &global.context {
            options.extend(["--context".into(), context.into()]);
        }
        Self {
            program: global.kubectl.clone().into(),
            options,
            namespace: global.namespace.clone(),
            system: global.system_namespace.clone(),
        }
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = process::child(&self.program);
        command.args(&self.options).args(arguments);
        command
    }

    /// What it prints.
    pub(crate) async fn bytes(&self, arguments: &[&str], bounds: Bounds) -> Result<Vec<u8>> {
        let what = arguments.join(" ");
        match process::run(self.command(arguments), bounds).await? {
            Ended::Done(out) => Ok(out),
            Ended::Failed(said) => Err(Error::Kubectl { what, said }),
            Ended::TooMuch => {
                let bytes = bounds.bytes;
                Err(Error::TooMuch { what, bytes })
            }
            Ended::Slow => {
                let seconds = bounds.time.as_secs();
                Err(Error::Slow { what, seconds })
            }
        }
    }

    /// An object, or a list of them.
    pub(crate) async fn get(&self, what: &[&str]) -> Result<Value> {
        let mut arguments = vec!["get"];
        arguments.extend(what);
        arguments.extend(["-o", "json"]);
        let out = self.bytes(&arguments, BOUNDS).await?;
        serde_json::from_slice(&out).map_err(|source| Error::Json {
            what: arguments.join(" "),
            source,
        })
    }

    /// The items of a list; empty where the API server does not know the kind.
    pub(crate) async fn list(&self, what: &[&str]) -> Result<Vec<Value>> {
        match self.get(what).await {
            Ok(mut list) => match list["items"].take() {
                Value::Array(items) => Ok(items),
                _ => Ok(vec![list]),
            },
            Err(error) if error.is_absent() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// An object; `None`: there is none.
    pub(crate) async fn find(&self, what: &[&str]) -> Result<Option<Value>> {
        match self.get(what).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The options that name the namespace of claims, where one was given.
    pub(crate) fn scope(&self) -> Vec<&str> {
        match &self.namespace {
            Some(namespace) => vec!["--namespace", namespace],
            None => Vec::new(),
        }
    }

    /// A token that is good for ten minutes, for the account of persons.
    pub(crate) async fn token(&self) -> Result<Zeroizing<String>> {
        let arguments = [
            "--namespace",
            &self.system,
            "create",
            "token",
            ACCOUNT,
            "--audience",
            AUDIENCE,
            "--duration",
            "10m",
        ];
        let bounds = Bounds {
            bytes: 16 << 10,
            ..BOUNDS
        };
        let out = Zeroizing::new(self.bytes(&arguments, bounds).await?);
        Ok(Zeroizing::new(
            String::from_utf8_lossy(&out).trim().to_owned(),
        ))
    }

    /// Forwards a free port of this machine to a port of a pod or service of the programs.
    pub(crate) async fn forward(&self, to: &str, port: &str) -> Result<Forward> {
        self.forward_from(0, to, port).await
    }

    /// The same from that port of this machine; 0: a free one.
    pub(crate) async fn forward_from(&self, own: u16, to: &str, port: &str) -> Result<Forward> {
        let own = if own == 0 {
            String::new()
        } else {
            own.to_string()
        };
        let pair = format!("{own}:{port}");
        let arguments = [
            "--namespace",
            &self.system,
            "port-forward",
            "--address",
            "127.0.0.1",
            to,
            &pair,
        ];
        let what = arguments.join(" ");
        let mut command = self.command(&arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = self.program.to_string_lossy().into_owned();
        let mut child = command
            .spawn()
            .map_err(|source| Error::Start { program, source })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut stdout = BufReader::new(stdout.ok_or_else(|| broken(&what))?);
        let mut stderr = stderr.ok_or_else(|| broken(&what))?;
        let mut line = String::new();
        let first = async {
            (&mut stdout).take(LINE_MAX).read_line(&mut line).await?;
            Ok::<_, std::io::Error>(forwarded(&line))
        };
        match tokio::time::timeout(FORWARD, first).await {
            Ok(Ok(Some(address))) => {
                // What it says later is nobody's, and must not fill the pipes.
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
                });
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
                });
                Ok(Forward { address, child })
            }
            Ok(_) => {
                let mut said = Vec::new();
                let mut stderr = stderr.take(LINE_MAX);
                let reading = stderr.read_to_end(&mut said);
                let _ = tokio::time::timeout(Duration::from_secs(1), reading).await;
                let said = process::said(&said);
                Err(Error::Kubectl { what, said })
            }
            Err(_) => Err(Error::Slow {
                what,
                seconds: FORWARD.as_secs(),
            }),
        }
    }
}

fn broken(what: &str) -> Error {
    Error::Kubectl {
        what: what.to_owned(),
        said: "it has no standard output".to_owned(),
    }
}

/// The address in `Forwarding from 127.0.0.1:40321 -> 8000`.
fn forwarded(line: &str) -> Option<String> {
    let rest = line.strip_prefix("Forwarding from ")?;
    let address = rest.split(" -> ").next()?;
    let address: std::net::SocketAddr = address.parse().ok()?;
    Some(address.to_string())
}

/// The text at a path of an object; empty: there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_forward_is_read() {
        let line = "Forwarding from 127.0.0.1:40321 -> 8000\n";
        assert_eq!(forwarded(line).unwrap(), "127.0.0.1:40321");
        for line in [
            "",
            "Forwarding from ",
            "Forwarding from x -> 1",
            "error: no",
        ] {
            assert_eq!(forwarded(line), None, "{line:?}");
        }
    }
}
