use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use tokio::net::TcpStream;

use super::*;
use crate::managers::Managers;
use crate::socket::{Directory, Socket};

async fn get(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: node\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn health_readiness_and_metrics_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let (_listener, socket) = Socket::bind(&root.path().join("csi.sock"), Directory::Own).unwrap();
    let manager = "unix:/nonexistent/manager.sock".parse().unwrap();
    let readiness = Readiness {
        managers: Some(Managers::new(
            client::Cluster::new([manager], &trust::Dialer::Plain).unwrap(),
            "driver.example/node".to_owned(),
            Duration::ZERO,
        )),
        node: None,
        certificate: None,
        registration: None,
    };
    let health = Health {
        readiness,
        socket: socket.place(),
    };
    let mut beside = JoinSet::new();
    let bound = serve(
        "127.0.0.1:0".parse().unwrap(),
        health,
        BoundAddresses::default(),
        &mut beside,
    );
    let bound = bound.await.unwrap().to_string();
    let address = bound.strip_prefix("http=").unwrap().parse().unwrap();

    assert!(
        get(address, "GET /healthz")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let ready = get(address, "GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(
        ready.contains("manager.sock"),
        "it says who does not answer: {ready}"
    );
    let metrics = get(address, "GET /metrics").await;
    assert!(metrics.contains("csi_plugin_ready 0"), "{metrics}");
    assert!(get(address, "GET /").await.starts_with("HTTP/1.1 404"));
    assert!(
        get(address, "POST /healthz")
            .await
            .starts_with("HTTP/1.1 405")
    );
    // Without its socket nobody reaches the plugin: only a new start helps.
    std::fs::remove_file(root.path().join("csi.sock")).unwrap();
    assert!(
        get(address, "GET /healthz")
            .await
            .starts_with("HTTP/1.1 503")
    );
}
