//! A small Kubernetes API server for the calls that the controller makes: TokenReviews, pods, Secrets and ConfigMaps with
//! their versions. Over TLS, as the account of a pod. What it does as the real one does is compared in
//! `tests/tests/authority_kubernetes.rs`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Sandbox;

/// The namespace of everything.
pub const NAMESPACE: &str = "longhorn-system";
/// The token of the controller itself.
pub const ITS_TOKEN: &str = "token-of-the-controller";

/// The server, for as long as it lives.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    account: PathBuf,
    objects: Arc<Mutex<Objects>>,
    /// Ends the server's thread with it.
    _stop: tokio::sync::oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Objects {
    /// By their path below the namespace: `secrets/ca`.
    stored: BTreeMap<String, (u64, BTreeMap<String, String>)>,
    version: u64,
    /// The pods by name: UID and node.
    pods: BTreeMap<String, (String, String)>,
    /// What a TokenReview says of a token.
    tokens: BTreeMap<String, Value>,
    /// Whether every answer is 503.
    is_away: bool,
    /// Paths that answer 403.
    forbidden: Vec<String>,
    /// Every request, as `METHOD /path`.
    asked: Vec<String>,
    /// TokenReviews under way, and the most at a time.
    reviews: (usize, usize),
    review_time: Duration,
}

/// The token of a pod.
#[derive(Debug, Clone)]
pub struct PodToken {
    pub namespace: &'static str,
    pub account: &'static str,
    pub pod: String,
    pub node: &'static str,
    pub audience: &'static str,
}

impl PodToken {
    /// Of a pod of ours.
    pub fn of(account: &'static str, pod: impl Into<String>, node: &'static str) -> Self {
        Self {
            namespace: NAMESPACE,
            account,
            pod: pod.into(),
            node,
            audience: "longhorn-base-image",
        }
    }
}

impl ApiServer {
    /// Starts one. Its account's files are in a directory of the sandbox.
    pub fn start(sandbox: &Sandbox) -> Self {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key =
            rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key.into())
            .unwrap();
        let account = sandbox.make_dir("account");
        for (name, text) in [
            ("token", ITS_TOKEN),
            ("namespace", NAMESPACE),
            ("ca.crt", &certified.cert.pem()),
        ] {
            sandbox.write(format!("account/{name}"), text);
        }
        let objects = Arc::new(Mutex::new(Objects::default()));
        let router = Router::new().fallback(answer).with_state(objects.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (bound, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(socket.local_addr().unwrap()).unwrap();
                let acceptor = TlsAcceptor::from(Arc::new(config));
                let serving = axum::serve(Tls { socket, acceptor }, router).into_future();
                tokio::select! { _ = serving => {}, _ = stopped => {} }
            });
        });
        Self {
            address: address.recv().unwrap(),
            account,
            objects,
            _stop: stop,
        }
    }

    /// `https://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The directory with the account of the controller.
    pub fn account(&self) -> &Path {
        &self.account
    }

    /// The environment of a pod.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("KUBERNETES_SERVICE_HOST", self.address.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", self.address.port().to_string()),
        ]
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap()
    }

    /// Stores an object (`secrets/NAME`, `configmaps/NAME`) with these entries and no others.
    pub fn put(&self, path: &str, entries: &[(&str, &str)]) {
        let entries = entries.iter();
        let entries = entries.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut objects = self.objects();
        objects.version += 1;
        let version = objects.version;
        objects
            .stored
            .insert(path.to_owned(), (version, entries.collect()));
    }

    /// The entries of an object that has to be there.
    #[track_caller]
    pub fn entries(&self, path: &str) -> BTreeMap<String, String> {
        self.objects().stored[path].1.clone()
    }

    /// Takes an object away.
    pub fn remove(&self, path: &str) {
        self.objects().stored.remove(path);
    }

    /// Makes a pod and its token.
    pub fn token(&self, of: &PodToken) -> String {
        let mut objects = self.objects();
        objects.version += 1;
        let uid = format!("uid-{}", objects.version);
        objects
            .pods
            .insert(of.pod.clone(), (uid.clone(), of.node.to_owned()));
        let pod = json!({"name": of.pod, "uid": uid});
        let claims = json!({"aud": [of.audience], "exp": 4_000_000_000_u64,
            "kubernetes.io": {"namespace": of.namespace, "pod": pod}, "jti": uid});
        let token = jwt(&claims);
        let key = |name| format!("authentication.kubernetes.io/{name}");
        let extra = json!({key("pod-name"): [of.pod], key("pod-uid"): [uid]});
        let user = format!("system:serviceaccount:{}:{}", of.namespace, of.account);
        let status = json!({"authenticated": true, "audiences": [of.audience],
            "user": {"username": user, "extra": extra}});
        objects.tokens.insert(token.clone(), status);
        token
    }

    /// A token of `NAMESPACE:ACCOUNT` that belongs to no pod.
    pub fn token_without_pod(&self, account: &str) -> String {
        let token = jwt(&json!({"aud": ["longhorn-base-image"], "jti": account}));
        let status = json!({"authenticated": true, "audiences": ["longhorn-base-image"],
            "user": {"username": format!("system:serviceaccount:{account}")}});
        self.objects().tokens.insert(token.clone(), status);
        token
    }

    /// The pod is deleted. Its token is not accepted any more where `tokens` says so: a moment later.
    pub fn delete_pod(&self, pod: &str, tokens: bool) {
        let mut objects = self.objects();
        objects.pods.remove(pod);
        if tokens {
            let of = |status: &Value| status.to_string().contains(&format!("\"{pod}\""));
            objects.tokens.retain(|_, status| !of(status));
        }
    }

    /// From now on every answer is 503, or not.
    pub fn set_away(&self, is_away: bool) {
        self.objects().is_away = is_away;
    }

    /// From now on a path that ends so answers 403.
    pub fn forbid(&self, path: &str) {
        self.objects().forbidden.push(path.to_owned());
    }

    /// Nothing is forbidden any more.
    pub fn permit(&self) {
        self.objects().forbidden.clear();
    }

    /// How long a TokenReview takes.
    pub fn slow_reviews(&self, time: Duration) {
        self.objects().review_time = time;
    }

    /// The most TokenReviews at a time so far.
    pub fn most_reviews(&self) -> usize {
        self.objects().reviews.1
    }

    /// Every request so far, as `METHOD /path`.
    pub fn asked(&self) -> Vec<String> {
        self.objects().asked.clone()
    }
}

/// Something that looks like a token with these claims.
pub fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.c2lnbmF0dXJl",
        part(&json!({"alg": "RS256"})),
        part(claims)
    )
}

struct Tls {
    socket: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.socket.accept().await else {
                continue;
            };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.socket.local_addr()
    }
}

type Shared = State<Arc<Mutex<Objects>>>;

async fn answer(State(objects): Shared, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 4 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = head.uri.path();
    let (review_time, reviewing) = {
        let mut objects = objects.lock().unwrap();
        objects.asked.push(format!("{} {path}", head.method));
        let authorization = head.headers.get("authorization");
        if authorization.is_none_or(|value| value != &format!("Bearer {ITS_TOKEN}")) {
            return said(401, &json!({"reason": "Unauthorized"}));
        }
        if objects.is_away {
            return said(503, &json!({"reason": "ServiceUnavailable"}));
        }
        if objects.forbidden.iter().any(|end| path.ends_with(end)) {
            return said(403, &json!({"reason": "Forbidden"}));
        }
        let reviewing = path.ends_with("/tokenreviews");
        if reviewing {
            objects.reviews.0 += 1;
            objects.reviews.1 = objects.reviews.1.max(objects.reviews.0);
        }
        (objects.review_time, reviewing)
    };
    if reviewing {
        tokio::time::sleep(review_time).await;
        let mut objects = objects.lock().unwrap();
        objects.reviews.0 -= 1;
        let asked = &body["spec"];
        let known = objects.tokens.get(asked["token"].as_str().unwrap());
        let for_us = |status: &&Value| status["audiences"][0] == asked["audiences"][0];
        let unknown = json!({"authenticated": false, "error": "invalid bearer token"});
        let status = known.filter(for_us).cloned().unwrap_or(unknown);
        return said(201, &json!({"kind": "TokenReview", "status": status}));
    }
    let Some(name) = path.strip_prefix(&format!("/api/v1/namespaces/{NAMESPACE}/")) else {
        return said(404, &json!({"reason": "NotFound"}));
    };
    let mut objects = objects.lock().unwrap();
    objects.answer(&head.method, name, &body)
}

fn said(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, body.to_string()).into_response()
}

impl Objects {
    /// What is stored, or a change of it.
    fn answer(&mut self, method: &Method, name: &str, body: &Value) -> Response {
        let missing = || said(404, &json!({"reason": "NotFound"}));
        if let Some(pod) = name.strip_prefix("pods/") {
            return match self.pods.get(pod) {
                Some((uid, node)) => said(
                    200,
                    &json!({"metadata": {"uid": uid}, "spec": {"nodeName": node}}),
                ),
                None => missing(),
            };
        }
        let next = self.version + 1;
        let Some((version, entries)) = self.stored.get_mut(name) else {
            return missing();
        };
        let is_secret = name.starts_with("secrets/");
        if method == Method::PATCH {
            let of = body["metadata"]["resourceVersion"].as_str();
            if of.and_then(|of| of.parse().ok()) != Some(*version) {
                return said(409, &json!({"reason": "Conflict"}));
            }
            for (key, value) in body["data"].as_object().unwrap() {
                match value.as_str() {
                    None => drop(entries.remove(key)),
                    Some(value) => drop(entries.insert(key.clone(), decoded(is_secret, value))),
                }
            }
            (*version, self.version) = (next, next);
            return said(200, &json!({}));
        }
        let encoded = |value: &String| {
            if is_secret {
                STANDARD.encode(value)
            } else {
                value.clone()
            }
        };
        let data: BTreeMap<_, _> = entries.iter().map(|(k, v)| (k, encoded(v))).collect();
        let metadata = json!({"resourceVersion": version.to_string()});
        said(200, &json!({"metadata": metadata, "data": data}))
    }
}

fn decoded(is_secret: bool, value: &str) -> String {
    if is_secret {
        String::from_utf8(STANDARD.decode(value).unwrap()).unwrap()
    } else {
        value.to_owned()
    }
}
