//! A node that was broken into: what root of node 2 can do to node 1, with what the programs of ours on node 2 have,
//! and with other people's tools.

use std::fs;
use std::process::Output;

use e2e::cluster::Cluster;
use e2e::command::words;
use e2e::programs::sources;
use e2e::{Sandbox, wait};
use serde_json::{Value, json};

use crate::examples::end;
use crate::install::tools;
use crate::provisioner::fetch_everywhere;

const NAMESPACE: &str = "longhorn-system";
const AUDIENCE: &str = "longhorn-base-image";
const BLANK: &str = "examples/blank_pvc.yaml";
const ISSUE: &str = "longhorn.trust.v1.Certificates/IssueCertificate";
const MANAGER_PORT: u16 = 8000;
const SYNC_PORT: u16 = 8001;
const NODE_PORT: u16 = 8002;
const AUTHORITY_PORT: u16 = 8003;

const STORAGE: &str = "storage/v1/storage.proto";
/// Every service between our programs, with its file and its port.
const SERVICES: [(&str, &str, u16); 5] = [
    ("longhorn.storage.v1.Volumes", STORAGE, MANAGER_PORT),
    ("longhorn.storage.v1.BackingImages", STORAGE, MANAGER_PORT),
    ("longhorn.storage.v1.Disks", STORAGE, MANAGER_PORT),
    (
        "bimrpc.BackingImageManagerService",
        "bimrpc/bimrpc.proto",
        MANAGER_PORT,
    ),
    ("longhorn.node.v1.Node", "node/v1/node.proto", NODE_PORT),
];

/// What is not refused: a manager that is to get an image of a name and a uuid from another one asks where that gives
/// its images to managers.
const MAY: [(&str, &str); 1] = [(
    "manager",
    "bimrpc.BackingImageManagerService.PrepareDownload",
)];

/// Root of node 2.
struct Attacker<'a> {
    cluster: &'a Cluster,
    sandbox: Sandbox,
    /// Where certificates are issued.
    authority: String,
}

/// A certificate and its key, as files.
struct Certificate {
    certificate: String,
    key: String,
}

/// Row 272: root of node 2 takes the tokens of the programs there, gets certificates for them, and calls everything
/// of node 1 by them: it reads the images that came from elsewhere, and that is all. Other pods get no certificate.
pub(crate) fn row_272_a_node_is_broken_into(cluster: &Cluster) {
    if cluster.nodes() < 2 {
        println!("  skipped: needs two nodes");
        return;
    }
    // The volume that is to be got at.
    cluster.kubectl("cordon n2");
    cluster.apply(BLANK);
    cluster.wait_pod("blank");
    cluster.kubectl("uncordon n2");
    let since = wait::until("the pod has written", || {
        let said = cluster.exec("blank", "cat /data/since; sync");
        (!said.is_empty()).then_some(said)
    });
    let volume = volume(cluster);
    fetch_everywhere(cluster);
    let snapshot = snapshot(cluster);

    let attacker = Attacker::new(cluster);
    for (what, role) in [
        ("backing-image-manager", "manager"),
        ("longhorn-csi-plugin", "node"),
    ] {
        let (pod, _) = pod(cluster, what, "n2");
        let token = attacker.token_of(&pod);
        let stolen = attacker
            .certify(role, &token)
            .unwrap_or_else(|refused| panic!("{pod}: {refused}"));
        let names = attacker.names(&stolen);
        assert!(names.contains(&format!("/{role}/n2/")), "{names}");
        attacker.may_do_what_its_node_may(role, &stolen);
        attacker.calls_everything_of_node_1(role, &stolen, &volume);
        attacker.reads_images_of_node_1(role, &stolen, &snapshot);
    }
    attacker.others_get_no_certificate();

    assert_eq!(cluster.exec("blank", "cat /data/since"), since);
    cluster.kubectl("delete volumesnapshot stolen");
    end(cluster, &[BLANK]);
}

/// The name by which the managers know the volume of the claim.
fn volume(cluster: &Cluster) -> String {
    let claim = cluster.get("pvc blank");
    let name = claim["spec"]["volumeName"].as_str().unwrap();
    let handle = cluster.get(&format!("pv {name}"));
    handle["spec"]["csi"]["volumeHandle"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A snapshot of the volume, as the manager of node 1 knows it: an image whose bytes are a volume's.
fn snapshot(cluster: &Cluster) -> String {
    let sandbox = Sandbox::new("k8s-stolen-snapshot");
    let snapshot = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": "stolen"},
        "spec": {
            "volumeSnapshotClassName": "longhorn-base-image",
            "source": {"persistentVolumeClaimName": "blank"},
        },
    });
    let file = sandbox.write("snapshot.json", snapshot.to_string());
    cluster.kubectl(&format!("apply -f {}", file.display()));
    wait::until("the snapshot is ready", || {
        let snapshot = cluster.get("volumesnapshot stolen");
        (snapshot["status"]["readyToUse"] == true).then_some(())
    });
    let content =
        cluster.get("volumesnapshot stolen")["status"]["boundVolumeSnapshotContentName"].clone();
    let content = cluster.get(&format!(
        "volumesnapshotcontent {}",
        content.as_str().unwrap()
    ));
    content["status"]["snapshotHandle"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The pod of a DaemonSet on a node, and its address.
fn pod(cluster: &Cluster, daemon_set: &str, node: &str) -> (String, String) {
    let pods = cluster.get(&format!(
        "pods -n {NAMESPACE} --field-selector spec.nodeName={node}"
    ));
    let is_meant = |pod: &&Value| pod["metadata"]["ownerReferences"][0]["name"] == daemon_set;
    let pod = pods["items"].as_array().unwrap().iter().find(is_meant);
    let pod = pod.unwrap_or_else(|| panic!("{node} has no pod of {daemon_set}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&pod["metadata"]["name"]),
        text(&pod["status"]["podIP"]),
    )
}

impl<'a> Attacker<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let services = cluster.get(&format!("services -n {NAMESPACE}"));
        let authority = services["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|service| {
                let mut ports = service["spec"]["ports"].as_array().unwrap().iter();
                ports.any(|port| port["port"] == AUTHORITY_PORT)
            });
        let address = authority.expect("a service of the authority")["spec"]["clusterIP"].clone();
        Self {
            cluster,
            sandbox: Sandbox::new("k8s-stolen"),
            authority: format!("{}:{AUTHORITY_PORT}", address.as_str().unwrap()),
        }
    }

    /// Runs the words of a line, and some that may have spaces.
    fn run(&self, line: &str, more: &[&str]) -> Output {
        let words: Vec<&str> = line.split(' ').chain(more.iter().copied()).collect();
        self.cluster.try_enter(2, &words)
    }

    /// The token of a pod of this node, from where the kubelet has put it.
    fn token_of(&self, pod: &str) -> String {
        let uid = self.cluster.get(&format!("pod -n {NAMESPACE} {pod}"))["metadata"]["uid"].clone();
        let volumes = format!("/var/lib/kubelet/pods/{}/volumes", uid.as_str().unwrap());
        // What is called so is a link to the token of now, beside earlier ones.
        let find =
            format!("find {volumes} -path '*projected*' -name token -type l -exec cat {{}} +");
        let token = self.cluster.enter(2, &["sh", "-c", &find]);
        assert!(
            token.starts_with("ey"),
            "{pod} has no token below {volumes}"
        );
        token.trim().to_owned()
    }

    /// Asks for a certificate with a token; `Err`: the words of the refusal.
    fn certify(&self, name: &str, token: &str) -> Result<Certificate, String> {
        let path = |kind: &str| {
            self.sandbox
                .path(format!("{name}.{kind}"))
                .display()
                .to_string()
        };
        let (key, request) = (path("key"), path("csr"));
        // Whatever it says of itself.
        let names = "subjectAltName=URI:spiffe://base-image.longhorn.io/controller/c";
        let made = self.run(
            "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=controller",
            &["-addext", names, "-keyout", &key, "-out", &request],
        );
        assert!(made.status.success(), "{}", words(&made));
        let request = json!({"csrPem": fs::read_to_string(request).unwrap()}).to_string();
        let header = format!("authorization: Bearer {token}");
        let arguments = ["-H", &header, "-d", &request];
        let answer = self.grpc("trust/v1/trust.proto", &arguments, &self.authority, ISSUE);
        if !answer.status.success() {
            return Err(words(&answer));
        }
        let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
        let certificate = path("crt");
        let chain = answer["chainPem"].as_str().unwrap();
        self.sandbox.write(format!("{name}.crt"), chain);
        Ok(Certificate { certificate, key })
    }

    /// The names in a certificate.
    fn names(&self, by: &Certificate) -> String {
        let shown = self.run(
            "openssl x509 -noout -ext subjectAltName -in",
            &[&by.certificate],
        );
        String::from_utf8(shown.stdout).unwrap()
    }

    /// A call with Go's gRPC, which is told to believe whoever answers.
    fn grpc(&self, proto: &str, arguments: &[&str], address: &str, method: &str) -> Output {
        let begin = format!(
            "grpcurl -insecure -max-time 20 -import-path {} -proto {proto}",
            protos()
        );
        self.run(&begin, &[arguments, &[address, method]].concat())
    }

    /// A call of a method that is about a volume, if it is about anything that has a name.
    fn call(&self, by: &Certificate, proto: &str, at: &str, method: &str, volume: &str) -> Output {
        let begin = ["-cert", &by.certificate, "-key", &by.key, "-d"];
        let named = json!({"name": volume}).to_string();
        let answer = self.grpc(proto, &[&begin[..], &[&named]].concat(), at, method);
        let said = String::from_utf8_lossy(&answer.stderr);
        if said.contains("unknown field") || said.contains("no known field") {
            return self.grpc(proto, &[&begin[..], &["{}"]].concat(), at, method);
        }
        answer
    }

    /// The certificates are good ones, and calls are made as they have to be: at its own node the node service is
    /// believed.
    fn may_do_what_its_node_may(&self, role: &str, by: &Certificate) {
        let (_, manager) = pod(self.cluster, "backing-image-manager", "n2");
        let at = format!("{manager}:{MANAGER_PORT}");
        let listed = self.call(
            by,
            STORAGE,
            &at,
            "longhorn.storage.v1.Volumes/ListVolumes",
            "",
        );
        let may = listed.status.success();
        assert_eq!(may, role == "node", "{role}: {}", words(&listed));
    }

    fn calls_everything_of_node_1(&self, role: &str, by: &Certificate, volume: &str) {
        let (_, manager) = pod(self.cluster, "backing-image-manager", "n1");
        let (_, node) = pod(self.cluster, "longhorn-csi-plugin", "n1");
        let mut called = 0;
        for (service, proto, port) in SERVICES {
            let list = format!(
                "grpcurl -import-path {} -proto {proto} list {service}",
                protos()
            );
            let methods = String::from_utf8(self.run(&list, &[]).stdout).unwrap();
            assert!(!methods.is_empty(), "{service} has no methods");
            let host = if port == NODE_PORT { &node } else { &manager };
            for method in methods.lines() {
                let answer = self.call(by, proto, &format!("{host}:{port}"), method, volume);
                let said = words(&answer);
                let refused = said.contains("Code: PermissionDenied");
                assert_eq!(
                    !refused,
                    MAY.contains(&(role, method)),
                    "{role} calls {method}: {said}"
                );
                called += 1;
            }
        }
        println!("  {role} of n2: {called} methods of n1 refuse it");
    }

    /// Images that came from elsewhere are for every manager; bytes of a volume are not.
    fn reads_images_of_node_1(&self, role: &str, by: &Certificate, snapshot: &str) {
        let (_, manager) = pod(self.cluster, "backing-image-manager", "n1");
        let images = self
            .cluster
            .enter(1, &["ls", "/var/lib/longhorn-base-image/backing-images"]);
        let mut read = Vec::new();
        for image in images.lines() {
            let (name, uuid) = image.rsplit_once('-').unwrap();
            let url = format!("https://{manager}:{SYNC_PORT}/v2/images/{name}/{uuid}/manifest");
            let curl = "curl -sk --http1.1 --max-time 20 -o /dev/null -w %{http_code}";
            let answer = self.run(curl, &["--cert", &by.certificate, "--key", &by.key, &url]);
            let status = String::from_utf8_lossy(&answer.stdout).into_owned();
            let may = role == "manager" && !snapshot.contains(name);
            assert_eq!(status == "200", may, "{role} reads {image}: {status}");
            read.push(may);
        }
        assert!(
            read.contains(&(role == "manager")) && read.len() > 1,
            "{images}"
        );
    }

    /// Tokens that are not those of our pods on a node, or not for this purpose.
    fn others_get_no_certificate(&self) {
        let bound = "--bound-object-kind Pod --bound-object-name";
        self.cluster
            .kubectl("create serviceaccount backing-image-manager");
        let denied = [
            // A pod of a tenant that asks for our audience.
            format!("default --audience {AUDIENCE} {bound} blank"),
            // An account of our name in another namespace.
            format!("backing-image-manager --audience {AUDIENCE}"),
            // An account of our namespace that is none of our programs'.
            format!("default -n {NAMESPACE} --audience {AUDIENCE}"),
            // Our account, and no pod.
            format!("backing-image-manager -n {NAMESPACE} --audience {AUDIENCE}"),
        ];
        // Our account, for the API server.
        let unknown = format!("backing-image-manager -n {NAMESPACE}");
        let denied = denied.map(|token| (token, "PermissionDenied"));
        for (token, code) in denied.into_iter().chain([(unknown, "Unauthenticated")]) {
            let secret = self.cluster.kubectl(&format!("create token {token}"));
            let refused = self.certify("other", secret.trim());
            let said = refused
                .err()
                .unwrap_or_else(|| panic!("{token} got a certificate"));
            assert!(said.contains(code), "{token}: {said}");
        }
        self.cluster
            .kubectl("delete serviceaccount backing-image-manager");
        self.the_node_gets_no_other_pods_token();
    }

    /// With the kubelet's own rights there are no tokens of pods of another node, and no key of the authority.
    fn the_node_gets_no_other_pods_token(&self) {
        let (pod, _) = pod(self.cluster, "backing-image-manager", "n1");
        let config = e2e::cluster::directory().join("node2.kubeconfig");
        let kubectl = format!(
            "{}/kubectl --kubeconfig {} -n {NAMESPACE}",
            tools(),
            config.display()
        );
        let bound = format!(
            "create token backing-image-manager --audience {AUDIENCE} --bound-object-kind Pod --bound-object-name {pod}"
        );
        for line in [bound.as_str(), "get secrets"] {
            let said = words(&self.run(&format!("{kubectl} {line}"), &[]));
            assert!(said.to_lowercase().contains("forbidden"), "{line}: {said}");
        }
    }
}

/// Where the protocols are.
fn protos() -> String {
    sources().join("proto/proto").display().to_string()
}
