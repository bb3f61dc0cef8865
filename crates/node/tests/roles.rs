//! Who may call the node service over the network: each role, each method, and who has no certificate.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::SystemTime;

use client::{Address, Cluster, Node, node_wire as wire};
use listen::{Listener, Protocol, Security};
use node::{ExposeSettings, Service, Settings};
use replication::{Layout, Member, MemberId, Secret};
use tokio_util::sync::CancellationToken;
use trust::authority::{Authority, LEAF_LIFE};
use trust::{Dialer, Held, Identity, KeyRequest, Role};
use types::{ByteSize, Classify as _, ErrorKind, NodeId, VolumeName};

fn held(authority: &Authority, role: Role, node: &str) -> Held {
    let node = role.has_node().then(|| NodeId::new(node).unwrap());
    let identity = Identity::new(role, node, "pod").unwrap();
    let request = KeyRequest::new().unwrap();
    let chain = authority.sign(request.csr_pem(), &identity, LEAF_LIFE, SystemTime::now());
    let credential = request.complete(&chain.unwrap(), authority.certificate_pem());
    let held = Held::awaited("test");
    held.set(credential.unwrap()).unwrap();
    held
}

fn layout(volume: &VolumeName) -> Layout {
    Layout {
        volume: volume.clone(),
        generation: 1,
        size: ByteSize(1 << 20),
        minor: 1000,
        port: 7000,
        members: vec![Member {
            id: MemberId(0),
            node: NodeId::new("node-1").unwrap(),
            address: "127.0.0.1".parse().unwrap(),
            disk: None,
            create: false,
            apart: false,
            as_first: false,
        }],
        holder: None,
        readers: Vec::new(),
        tls: false,
        day_zero: None,
        initialized: false,
    }
}

/// How each call of the service ends for a caller: `NotFound`, `FailedPrecondition` (there is no layout, and no DRBD)
/// and success are answers of the service itself.
async fn outcomes(address: &str, dialer: &Dialer) -> [Option<ErrorKind>; 15] {
    let node = Node::new(Address::Tcp(address.to_owned()), dialer).unwrap();
    let volume = VolumeName::new("roles-1").unwrap();
    let secret = Secret::new("geheim".to_owned()).unwrap();
    let kind = |error: client::Error| error.kind();
    let device = wire::ExposeVolumeRequest {
        volume: volume.to_string(),
        access: Some(wire::expose_volume_request::Access::BlockDevice(
            wire::BlockDeviceAccess {},
        )),
        ..Default::default()
    };
    [
        node.attach(&volume, None, false).await.err().map(kind),
        node.detach(&volume).await.err().map(kind),
        node.attachments().await.err().map(kind),
        node.info().await.err().map(kind),
        (node.put_replica(&layout(&volume), &secret).await)
            .err()
            .map(kind),
        node.remove_replica(&volume).await.err().map(kind),
        node.replicas().await.err().map(kind),
        node.initialize_replicas(&volume).await.err().map(kind),
        node.grow_replicas(&volume).await.err().map(kind),
        node.rejoin_replica(&volume).await.err().map(kind),
        node.suspend_volume(&volume, 1).await.err().map(kind),
        node.resume_volume(&volume).await.err().map(kind),
        node.expose(device).await.err().map(kind),
        node.unexpose(&volume, false).await.err().map(kind),
        node.exposed().await.err().map(kind),
    ]
}

#[tokio::test]
async fn row_249_the_controller_and_a_person_call_the_node_service_and_nobody_else() {
    assert_eq!(proto::NODE_METHODS.len(), 15, "each method is called below");
    let authority = Authority::create(SystemTime::now()).unwrap();
    let root = tempfile::tempdir().unwrap();
    let settings = Settings {
        node_id: NodeId::new("node-1").unwrap(),
        version: "test",
        disks: host::Disks::new(vec![root.path().to_owned()]),
        kubelet_dir: root.path().to_owned(),
        records: root.path().join("attachments"),
        replicas: root.path().join("replicas"),
        storage: None,
        expose: ExposeSettings {
            records: root.path().join("exposed"),
            names: root.path().join("dev"),
            managers: Cluster::new([], &Dialer::Plain).unwrap(),
            targets: None,
        },
    };
    let service = Service::new(settings, |_, _, _| {});
    let anywhere = Address::Tcp("127.0.0.1:0".to_owned());
    let listener = Listener::bind(&anywhere, Protocol::Grpc).await.unwrap();
    let listener = listener.secured(Security {
        held: Some(held(&authority, Role::Node, "node-1")),
        ..Security::default()
    });
    let address = listener.bound_address();
    tokio::spawn(listener.serve(node::router(service), CancellationToken::new()));

    for (role, allowed) in [
        (Role::Controller, true),
        (Role::Cli, true),
        (Role::Manager, false),
        (Role::Node, false),
    ] {
        // Also on the same node.
        let dialer = Dialer::Proven(held(&authority, role, "node-1"));
        let found = outcomes(&address, &dialer).await;
        let denied = Some(ErrorKind::PermissionDenied);
        if allowed {
            assert_eq!(found[0], Some(ErrorKind::NotFound), "{role:?}");
            assert!(!found.contains(&denied), "{role:?}: {found:?}");
        } else {
            assert_eq!(found, [denied; 15], "{role:?}");
        }
    }
    // The UI looks, and exposes for people whom it has asked.
    let ui = Dialer::Proven(held(&authority, Role::Ui, "node-1"));
    let found = outcomes(&address, &ui).await;
    for (at, outcome) in found.into_iter().enumerate() {
        let is_its = matches!(at, 2 | 3 | 6 | 12..=14);
        let is_denied = outcome == Some(ErrorKind::PermissionDenied);
        assert_eq!(is_denied, !is_its, "method {at}: {outcome:?}");
    }
    let other = Authority::create(SystemTime::now()).unwrap();
    for stranger in [
        Dialer::Plain,
        Dialer::Proven(held(&other, Role::Controller, "node-1")),
    ] {
        for outcome in outcomes(&address, &stranger).await {
            assert_eq!(outcome, Some(ErrorKind::Unavailable), "{stranger:?}");
        }
    }
    assert!(!root.path().join("attachments").exists());
}
