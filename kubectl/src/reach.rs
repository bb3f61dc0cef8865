//! The managers and node services: through Kubernetes by forwarded ports, or by addresses that were given.
//!
//! Who does not answer is remembered and said: a list then shows what the others have.

use std::cell::RefCell;

use client::{Address, Client, Cluster, Member, Node, Wait, wire};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use trust::{Dialer, Source};
use types::{VolumeName, report};

use crate::error::{Error, Result};
use crate::kubernetes::{Forward, Kubectl, text};
use crate::options::Global;
use crate::output::note;

/// How pods of the programs are found.
const MANAGERS: &str = "longhorn.io/component=backing-image-manager";
const NODES: &str = "app=longhorn-csi-plugin";
const CONTROLLER: &str = "service/longhorn-csi-controller";
/// Their ports.
const MANAGER_PORT: &str = "8000";
const NODE_PORT: &str = "8002";
const AUTHORITY_PORT: &str = "8003";
/// Where the controller publishes who is believed.
const BUNDLE: &str = "longhorn-base-image-ca";

/// The way to the programs. What it forwards ends with it.
#[derive(Debug)]
pub(crate) struct Reach {
    kubectl: Option<Kubectl>,
    managers: Vec<Address>,
    node_services: Vec<Address>,
    source: Option<Source>,
    dialer: OnceCell<Dialer>,
    forwards: RefCell<Vec<Forward>>,
}

/// All managers.
#[derive(Debug)]
pub(crate) struct Managers {
    cluster: Cluster,
    /// Pods that no port could be forwarded to, with the reason.
    away: Vec<String>,
}

/// The managers that answered, and who did not.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    /// In the order of nodes and disks.
    pub(crate) members: Vec<(Member, T)>,
    /// In words.
    pub(crate) silent: Vec<String>,
}

/// A node service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// The node, as Kubernetes says; empty: not known.
    pub(crate) node: String,
    /// Its client.
    pub(crate) client: Node,
}

impl Reach {
    pub(crate) fn new(global: &Global) -> Result<Self> {
        let direct = !global.manager.is_empty() || !global.node_service.is_empty();
        let source = global.certificates.clone().map(Source::Files);
        if !direct && source.is_some() {
            return Err(Error::Missing(
                "--certificates is for use without Kubernetes: give --manager ADDR too".to_owned(),
            ));
        }
        Ok(Self {
            kubectl: (!direct).then(|| Kubectl::new(global)),
            managers: global.manager.clone(),
            node_services: global.node_service.clone(),
            source,
            dialer: OnceCell::new(),
            forwards: RefCell::default(),
        })
    }

    /// kubectl, for what only Kubernetes knows; `None`: addresses were given.
    pub(crate) fn kubectl(&self) -> Option<&Kubectl> {
        self.kubectl.as_ref()
    }

    /// The same, for a command that is nothing without.
    pub(crate) fn kubernetes(&self, what: &'static str) -> Result<&Kubectl> {
        self.kubectl.as_ref().ok_or(Error::NeedsKubernetes(what))
    }

    /// How the programs are connected to: with a certificate for a person, unless they have none themselves.
    async fn dialer(&self) -> Result<&Dialer> {
        self.dialer.get_or_try_init(|| self.certified()).await
    }

    async fn certified(&self) -> Result<Dialer> {
        let Some(kubectl) = &self.kubectl else {
            return Ok(match &self.source {
                Some(source) => Dialer::Proven(client::hold_once(source.clone()).await?),
                None => Dialer::Plain,
            });
        };
        let bundle = ["--namespace", &kubectl.system, "configmap", BUNDLE];
        let Some(bundle) = kubectl.find(&bundle).await? else {
            // Installed without TLS; the API server and the kubelet prove who is at the other end of a forward.
            return Ok(Dialer::Plain);
        };
        let (token, controller) =
            tokio::join!(kubectl.token(), kubectl.forward(CONTROLLER, AUTHORITY_PORT));
        let roots = text(&bundle, "/data/ca.crt");
        let address = controller?;
        let held = client::hold_by_token(address.address.clone(), token?, roots).await?;
        Ok(Dialer::Proven(held))
    }

    /// Forwards to each running pod of a kind; gives their addresses and nodes, and who has none.
    async fn forward_all(&self, selector: &str, port: &str) -> Result<(Vec<Pod>, Vec<String>)> {
        let kubectl = self.kubernetes("a port-forward")?;
        let system = [
            "--namespace",
            &kubectl.system,
            "pods",
            "--selector",
            selector,
        ];
        let (mut found, mut away) = (Vec::new(), Vec::new());
        let mut started = JoinSet::new();
        for pod in kubectl.list(&system).await? {
            let name = text(&pod, "/metadata/name").to_owned();
            let node = text(&pod, "/spec/nodeName").to_owned();
            let phase = text(&pod, "/status/phase");
            if phase != "Running" {
                away.push(format!(
                    "pod {name} of node {node} is {phase}{}",
                    reason(&pod)
                ));
                continue;
            }
            let (kubectl, port) = (kubectl.clone(), port.to_owned());
            started.spawn(async move {
                let forward = kubectl.forward(&format!("pod/{name}"), &port).await;
                (name, node, forward)
            });
        }
        for (name, node, forward) in started.join_all().await {
            match forward {
                Ok(forward) => {
                    let address = Address::Tcp(forward.address.clone());
                    self.forwards.borrow_mut().push(forward);
                    found.push(Pod { node, address });
                }
                Err(error) => away.push(format!("pod {name} of node {node}: {}", report(&error))),
            }
        }
        found.sort_by(|a, b| a.node.cmp(&b.node));
        if found.is_empty() && away.is_empty() {
            return Err(Error::Nobody(format!(
                "no pod in namespace {} has the label {selector}; name the namespace of the programs with \
                 --system-namespace, or install them: docs/install.md",
                kubectl.system
            )));
        }
        Ok((found, away))
    }

    /// All managers.
    pub(crate) async fn managers(&self) -> Result<Managers> {
        let (addresses, away) = if self.kubectl.is_some() {
            let (found, away) = self.forward_all(MANAGERS, MANAGER_PORT).await?;
            (found.into_iter().map(|pod| pod.address).collect(), away)
        } else if self.managers.is_empty() {
            let text = "no manager is given: add --manager ADDR";
            return Err(Error::Missing(text.to_owned()));
        } else {
            (self.managers.clone(), Vec::new())
        };
        let cluster = Cluster::new(addresses, self.dialer().await?)?;
        Ok(Managers { cluster, away })
    }

    /// All node services, and who of them is not there.
    pub(crate) async fn services(&self) -> Result<(Vec<Service>, Vec<String>)> {
        let (pods, away) = if self.kubectl.is_some() {
            self.forward_all(NODES, NODE_PORT).await?
        } else if self.node_services.is_empty() {
            let text = "no node service is given: add --node-service ADDR";
            return Err(Error::Missing(text.to_owned()));
        } else {
            let pod = |address: &Address| Pod {
                node: String::new(),
                address: address.clone(),
            };
            (self.node_services.iter().map(pod).collect(), Vec::new())
        };
        let dialer = self.dialer().await?;
        let service = |pod: Pod| {
            Ok(Service {
                client: Node::new(pod.address, dialer)?,
                node: pod.node,
            })
        };
        let services: Result<Vec<_>> = pods.into_iter().map(service).collect();
        Ok((services?, away))
    }

    /// The node service of one node.
    pub(crate) async fn service(&self, node: &str) -> Result<Node> {
        let (services, away) = self.services().await?;
        let named = services.iter().find(|service| service.node == node);
        if let Some(named) = named {
            return Ok(named.client.clone());
        }
        for service in services.iter().filter(|service| service.node.is_empty()) {
            // One that does not answer may be another node's.
            if service
                .client
                .info()
                .await
                .is_ok_and(|info| info.node_id == node)
            {
                return Ok(service.client.clone());
            }
        }
        let away = listed(&away);
        Err(Error::Nobody(format!(
            "the node service of node {node} is not there{away}; check the pods longhorn-csi-plugin, or that the \
             node exists"
        )))
    }
}

/// A pod that is reached.
#[derive(Debug)]
struct Pod {
    node: String,
    address: Address,
}

/// Why a pod does not run, where that is known.
fn reason(pod: &Value) -> String {
    let reason = text(pod, "/status/conditions/0/message");
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({})", types::shown(reason))
    }
}

/// ` (a; b)`, or nothing.
fn listed(texts: &[String]) -> String {
    if texts.is_empty() {
        String::new()
    } else {
        format!(" ({})", texts.join("; "))
    }
}

impl Managers {
    /// Asks all the same; fails where nobody answers.
    pub(crate) async fn ask<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<Answers<T>>
    where
        T: Send + 'static,
        F: Future<Output = client::Result<T>> + Send + 'static,
    {
        let look = self.cluster.look(Wait::All(None), ask, |_| false).await?;
        let known = look.census.silent(&[]);
        let mut silent = self.away.clone();
        silent.extend(
            look.census
                .failed
                .iter()
                .map(|error| report(error).to_string()),
        );
        if look.census.members.is_empty() {
            return Err(Error::Nobody(format!(
                "no backing image manager answers{}; check the pods backing-image-manager",
                listed(&silent)
            )));
        }
        if silent.is_empty() {
            silent.extend(
                known
                    .iter()
                    .map(|(uuid, node)| format!("disk {uuid} of node {node}")),
            );
        }
        Ok(Answers {
            members: look.census.members.into_iter().zip(look.others).collect(),
            silent,
        })
    }

    /// Their disks.
    pub(crate) async fn disks(&self) -> Result<Answers<()>> {
        self.ask(|_| async { Ok(()) }).await
    }

    /// All that have a volume: one, or those of the replicas of a replicated volume.
    pub(crate) async fn having(&self, name: &VolumeName) -> Result<Vec<(Member, wire::Volume)>> {
        let answers = self
            .ask(|client| {
                let name = name.clone();
                async move { client::there(client.volume(&name).await) }
            })
            .await?;
        let found: Vec<_> = answers
            .members
            .into_iter()
            .filter_map(|(member, volume)| Some((member, volume?)))
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        Err(missing(&format!("volume {name}"), &answers.silent))
    }

    /// The one that has a volume, and the volume.
    pub(crate) async fn volume(&self, name: &VolumeName) -> Result<(Member, wire::Volume)> {
        let mut found = self.having(name).await?;
        if found.len() > 1 {
            let replicated = found.iter().all(|(_, volume)| volume.is_replica);
            let disks: Vec<_> = found.iter().map(|(member, _)| &*member.disk.uuid).collect();
            let disks = disks.join(", ");
            return Err(Error::Refused(if replicated {
                format!(
                    "volume {name} is replicated (disks {disks}), and the controller changes such volumes: change its \
                     PersistentVolumeClaim"
                )
            } else {
                format!(
                    "several disks have a volume {name} ({disks}): ask one of their managers with --manager ADDR"
                )
            }));
        }
        Ok(found.swap_remove(0))
    }
}

impl<T> Answers<T> {
    /// Says who did not answer.
    pub(crate) fn say_silent(&self) {
        if self.silent.is_empty() {
            return;
        }
        note(&format!(
            "note: {} of {} backing image managers answered: {}",
            self.members.len(),
            self.members.len() + self.silent.len(),
            self.silent.join("; ")
        ));
    }
}

/// That something is not there, or not known to be.
pub(crate) fn missing(what: &str, silent: &[String]) -> Error {
    match silent {
        [] => Error::NotFound(format!("there is no {what} on any disk")),
        silent => Error::Nobody(format!(
            "no disk that answers has {what}, and one that does not answer may have it: {}",
            silent.join("; ")
        )),
    }
}
