//! Who may call what: the table has a line for each method of the protos that a manager serves, and a daemon
//! answers each role over TLS as the table says.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use e2e::certificates::{self, Authority};
use e2e::documents::read;
use e2e::manager::{Options, init_disk};
use e2e::programs::sources;
use e2e::{Manager, Sandbox, block_on};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use trust::access::{Reach, TABLE};
use trust::{Held, Role};

/// The protos of what our programs serve to each other. CSI and the registration of plugins are the kubelet's and
/// the sidecars'; enginerpc is served by Longhorn's engines.
const PROTOS: [&str; 5] = [
    "storage/v1/storage.proto",
    "storage/v1/backup.proto",
    "bimrpc/bimrpc.proto",
    "node/v1/node.proto",
    "trust/v1/trust.proto",
];

/// Every method of a proto: `/package.Service/Method`.
fn methods(proto: &str) -> BTreeSet<String> {
    let text = read(&sources().join("proto/proto").join(proto));
    let word_after = |line: &str, keyword: &str| {
        let rest = line.trim().strip_prefix(keyword)?;
        let end = rest.find(|letter: char| !letter.is_alphanumeric() && !"._".contains(letter));
        Some(rest[..end?].to_owned())
    };
    let (mut package, mut service, mut found) = (String::new(), String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(name) = word_after(line, "package ") {
            package = name;
        } else if let Some(name) = word_after(line, "service ") {
            service = name;
        } else if let Some(name) = word_after(line, "rpc ") {
            found.insert(format!("/{package}.{service}/{name}"));
        }
    }
    assert!(!found.is_empty(), "{proto} has no method");
    found
}

#[test]
fn the_table_has_each_method_of_the_protos_and_no_other() {
    let services: BTreeSet<String> = PROTOS.iter().flat_map(|proto| methods(proto)).collect();
    let others = ["/v1/", "/v2/", "/grpc.reflection."];
    let listed = TABLE.iter().map(|line| line.path.to_owned());
    let listed: Vec<String> = listed
        .filter(|path| !others.iter().any(|other| path.starts_with(other)))
        .collect();
    let once: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "a method has two lines");
    assert_eq!(once, services);
}

/// Messages without a field, whatever is in them.
#[derive(Debug, Default)]
struct Empty;

impl Codec for Empty {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Empty {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Empty {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        bytes::Buf::advance(buffer, bytes::Buf::remaining(buffer));
        Ok(Some(()))
    }
}

/// Calls a method with an empty message; of a stream, only its beginning is waited for.
fn call(channel: &tonic::transport::Channel, path: &'static str) -> Result<(), Status> {
    block_on(async {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client
            .ready()
            .await
            .map_err(|error| Status::unknown(error.to_string()))?;
        let path = PathAndQuery::from_static(path);
        let answer = client.server_streaming(Request::new(()), path, Empty).await;
        answer.map(drop)
    })
}

/// Whether a refusal is what came of it.
fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::PermissionDenied | Code::Unauthenticated
    )
}

/// Whether a manager serves it; the rest is the node plugin's and the controller's.
fn is_of_manager(path: &str) -> bool {
    proto::MANAGER_METHODS.contains(&path)
        || ["/v1/", "/v2/", "/grpc.reflection."]
            .iter()
            .any(|other| path.starts_with(other))
}

/// Where a daemon serves the paths below a prefix of the table.
fn below(manager: &Manager, prefix: &str, held: &Held) -> u16 {
    let target = match prefix {
        "/v2/images/" => "/v2/images/a/b/manifest",
        "/v1/" => "/v1/files",
        other => panic!("where is {other} served?"),
    };
    let address: SocketAddr = manager.sync_address();
    certificates::request(address, held, "GET", target)
        .unwrap()
        .0
}

#[test]
fn row_263_each_role_may_call_its_own_methods_of_a_daemon_and_no_other() {
    let sandbox = Sandbox::new("trust-table");
    let authority = Authority::new(&sandbox, "authority");
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let options = Options::new(&disk).trusting(&authority, "n1");
    let manager = Manager::start(&sandbox, &options);
    let mut wrong = Vec::new();
    let mut pairs = 0;
    for role in Role::ALL {
        for node in ["n1", "n2"] {
            let program = if role.has_node() {
                format!("{role}/{node}/p")
            } else {
                format!("{role}/p")
            };
            let held = authority.held(&program);
            let channel = certificates::channel(manager.address(), &held);
            for line in TABLE.iter().filter(|line| is_of_manager(line.path)) {
                let listed = line.roles.iter().find(|(listed, _)| *listed == role);
                let may = listed.is_some_and(|(_, reach)| {
                    *reach == Reach::Cluster || !role.has_node() || node == "n1"
                });
                let (may_indeed, answer) = if line.path.ends_with('/') {
                    let status = below(&manager, line.path, &held);
                    (!matches!(status, 401 | 403), status.to_string())
                } else {
                    let answer = call(&channel, line.path);
                    let refused = answer.as_ref().err().is_some_and(is_refusal);
                    (!refused, format!("{answer:?}"))
                };
                if may != may_indeed {
                    wrong.push(format!("{program}, {}: {answer}", line.path));
                }
                pairs += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        pairs,
        2 * Role::ALL.len() * (proto::MANAGER_METHODS.len() + 4)
    );
    // Nothing of all this went past the table into a handler that was not meant.
    assert!(manager.list_volumes().unwrap().is_empty());
}
