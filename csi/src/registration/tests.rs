use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use tonic::transport::Endpoint;
use wire::registration_client::RegistrationClient;

use super::*;

struct Rig {
    root: tempfile::TempDir,
    outcome: Outcome,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = RegistrationConfig {
            directory: root.path().join("plugins_registry"),
            endpoint: "/var/lib/kubelet/plugins/d/csi.sock".into(),
        };
        let driver = DriverName::new("driver.example.org").unwrap();
        let (outcome, task) = keep(&config, &driver, std::future::pending());
        Self {
            root,
            outcome,
            task,
        }
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("plugins_registry")
    }

    fn socket(&self) -> PathBuf {
        self.directory().join("driver.example.org-reg.sock")
    }

    /// As the kubelet: it connects when it sees the socket.
    async fn kubelet(&self) -> RegistrationClient<tonic::transport::Channel> {
        let address = format!("unix://{}", self.socket().display());
        // Until the test program is given up.
        for _ in 0..6000 {
            let endpoint = Endpoint::from_shared(address.clone()).unwrap();
            if let Ok(channel) = endpoint.connect().await {
                return RegistrationClient::new(channel);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{address} is not served");
    }

    async fn register(&self, error: &str) {
        let mut kubelet = self.kubelet().await;
        let info = kubelet.get_info(wire::InfoRequest {}).await.unwrap();
        let expected = wire::PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: "driver.example.org".to_owned(),
            endpoint: "/var/lib/kubelet/plugins/d/csi.sock".to_owned(),
            supported_versions: vec!["1.0.0".to_owned()],
        };
        assert_eq!(info.into_inner(), expected);
        let status = wire::RegistrationStatus {
            plugin_registered: error.is_empty(),
            error: error.to_owned(),
        };
        kubelet.notify_registration_status(status).await.unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn the_kubelet_is_told_who_this_is_and_tells_what_came_of_it() {
    let rig = Rig::new();
    std::fs::create_dir(rig.directory()).unwrap();
    std::fs::File::create(rig.directory().join("another-reg.sock")).unwrap();
    std::fs::set_permissions(rig.directory(), Permissions::from_mode(0o750)).unwrap();
    assert!(rig.outcome.trouble().unwrap().contains("not registered"));
    rig.register("node has no such driver").await;
    assert!(rig.outcome.trouble().unwrap().contains("no such driver"));
    rig.register("").await;
    assert_eq!(rig.outcome.trouble(), None);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&rig.socket()), 0o600);
    assert_eq!(
        mode(&rig.directory()),
        0o750,
        "the directory is the kubelet's"
    );
}

/// Returns when every task has looked at least twice for what it waits for, by a clock that runs ahead whenever
/// no task has anything to do.
async fn looks_around() {
    tokio::time::pause();
    tokio::time::sleep(3 * LOOK_EVERY).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_registry_that_comes_late_or_is_cleared_gets_its_socket() {
    let rig = Rig::new();
    looks_around().await;
    assert!(
        !rig.directory().exists(),
        "the directory is the kubelet's to make"
    );
    std::fs::create_dir(rig.directory()).unwrap();
    rig.register("").await;
    assert_eq!(rig.outcome.trouble(), None);
    // As a kubelet that starts anew does it, or a person who clears the node.
    std::fs::remove_dir_all(rig.directory()).unwrap();
    std::fs::create_dir(rig.directory()).unwrap();
    rig.register("").await;
    assert_eq!(rig.outcome.trouble(), None);
}

#[tokio::test]
async fn row_85_the_registration_socket_follows_the_rules_of_the_other() {
    let rig = Rig::new();
    std::fs::create_dir(rig.directory()).unwrap();
    // What is there is no socket of ours, until somebody takes it away.
    std::os::unix::fs::symlink("/nowhere", rig.socket()).unwrap();
    looks_around().await;
    assert!(
        std::fs::symlink_metadata(rig.socket())
            .unwrap()
            .is_symlink()
    );
    std::fs::remove_file(rig.socket()).unwrap();
    rig.register("").await;
    // A socket that is dead, as kill -9 leaves it, is replaced.
    let dead = Rig::new();
    std::fs::create_dir(dead.directory()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(dead.socket()).unwrap());
    dead.register("").await;
}
