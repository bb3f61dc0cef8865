//! Against a small server that answers as the API server does. Against the real one: `tests/tests/certificates.rs`.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tempfile::TempDir;
use types::{Classify as _, ErrorKind};

use super::*;
use crate::{Entries, Kind, Reviewed, TokenPod, Written};

const TOKEN: &str = "the-token-of-this-pod";

/// What the server answers, and what it was asked.
pub(crate) struct Server {
    /// The last of them again and again.
    answers: Mutex<Vec<(u16, String)>>,
    asked: Mutex<Vec<(String, String, String)>>,
}

async fn reply(State(server): State<Arc<Server>>, request: Request) -> Response {
    let authorization = request.headers()["authorization"].to_str().unwrap();
    assert_eq!(authorization, format!("Bearer {TOKEN}"));
    let line = format!("{} {}", request.method(), request.uri());
    let kind = request.headers().get("content-type");
    let kind = kind.map_or("", |kind| kind.to_str().unwrap()).to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
    server.asked.lock().unwrap().push((line, kind, body));
    let mut answers = server.answers.lock().unwrap();
    let (status, answer) = match answers.len() {
        1 => answers[0].clone(),
        _ => answers.remove(0),
    };
    let status = StatusCode::from_u16(status).unwrap();
    (status, Body::from(answer)).into_response()
}

pub(crate) async fn server(status: u16, answer: impl Into<String>) -> (Api, Arc<Server>, TempDir) {
    server_of(vec![(status, answer.into())]).await
}

pub(crate) async fn server_of(answers: Vec<(u16, String)>) -> (Api, Arc<Server>, TempDir) {
    let server = Arc::new(Server {
        answers: Mutex::new(answers),
        asked: Mutex::default(),
    });
    let router = Router::new().fallback(reply).with_state(server.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await });
    let account = account();
    let api = Api::at(url, account.path()).await.unwrap();
    (api, server, account)
}

pub(crate) fn account() -> TempDir {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: &str| put(&directory.path().join(name), text);
    write("token", &format!("{TOKEN}\n"));
    write("namespace", "longhorn-system");
    write("ca.crt", include_str!("test-ca.crt"));
    directory
}

/// Writes a file of the account.
fn put(path: &Path, text: &str) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

pub(crate) fn asked(server: &Server) -> (String, String, String) {
    server.asked.lock().unwrap().last().unwrap().clone()
}

#[tokio::test]
async fn a_secret_is_read_and_its_values_are_shown_nowhere() {
    let object = json!({"metadata": {"resourceVersion": "7"},
        "data": {"tls.crt": "Y2VydGlmaWNhdGU=", "tls.key": "", "blob": "/w=="}});
    let (api, server, _account) = server(200, object.to_string()).await;
    let stored = api.read(Kind::Secret, "ca").await.unwrap().unwrap();
    assert_eq!(
        asked(&server).0,
        "GET /api/v1/namespaces/longhorn-system/secrets/ca"
    );
    assert_eq!(stored.version, "7");
    assert_eq!(stored.entries.get("tls.crt"), Some("certificate"));
    for key in ["tls.key", "blob", "other"] {
        assert_eq!(stored.entries.get(key), None, "{key}");
    }
    let shown = format!("{stored:?} {api:?}");
    assert!(
        shown.contains("tls.crt") && !shown.contains("certificate"),
        "{shown}"
    );
    assert!(!shown.contains(TOKEN), "{shown}");
}

#[tokio::test]
async fn a_map_without_entries_is_there_and_a_missing_one_is_not() {
    let (api, ..) = server(200, r#"{"metadata": {"resourceVersion": "1"}}"#).await;
    let stored = api.read(Kind::ConfigMap, "ca").await;
    // The directory of the account is gone: what was read of it is not enough.
    assert!(matches!(stored, Err(Error::File { .. })), "{stored:?}");
    let (api, _, _account) = server(200, r#"{"metadata": {"resourceVersion": "1"}}"#).await;
    let stored = api.read(Kind::ConfigMap, "ca").await.unwrap().unwrap();
    assert_eq!(stored.entries, Entries::default());
    let (api, _, _account) = server(404, "{}").await;
    assert_eq!(api.read(Kind::ConfigMap, "ca").await.unwrap(), None);
}

#[tokio::test]
async fn a_change_names_the_version_that_it_was_made_of() {
    let (api, server_, _account) = server(200, "{}").await;
    let changes = [("tls.crt", Some("a")), ("previous.crt", None)];
    let written = api.write(Kind::Secret, "ca", "7", &changes).await.unwrap();
    assert_eq!(written, Written::Done);
    let (line, kind, body) = asked(&server_);
    assert_eq!(
        line,
        "PATCH /api/v1/namespaces/longhorn-system/secrets/ca?fieldManager=longhorn-base-image"
    );
    assert_eq!(kind, "application/merge-patch+json");
    let body: Value = serde_json::from_str(&body).unwrap();
    let expected = json!({"metadata": {"resourceVersion": "7"},
        "data": {"tls.crt": "YQ==", "previous.crt": null}});
    assert_eq!(body, expected);
    for (status, written) in [(409, Written::Conflict), (404, Written::Missing)] {
        let (api, _, _account) = server(status, "{}").await;
        let answer = api.write(Kind::ConfigMap, "ca", "7", &changes).await;
        assert_eq!(answer.unwrap(), written);
    }
}

#[tokio::test]
async fn a_secret_of_a_volume_is_made_once_and_deleted() {
    let (api, server_, _account) = server(201, "{}").await;
    assert!(api.create_secret("of-v", "key", "s3cret").await.unwrap());
    let (line, _, body) = asked(&server_);
    assert_eq!(
        line,
        "POST /api/v1/namespaces/longhorn-system/secrets?fieldManager=longhorn-base-image"
    );
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["metadata"]["name"], "of-v");
    assert_eq!(body["data"], json!({"key": "czNjcmV0"}));
    assert_eq!(body["immutable"], true);
    let (api, _, _account) = server(409, "{}").await;
    assert!(!api.create_secret("of-v", "key", "s3cret").await.unwrap());
    for status in [200, 404] {
        let (api, server, _account) = server(status, "{}").await;
        api.delete_secret("of-v").await.unwrap();
        assert_eq!(
            asked(&server).0,
            "DELETE /api/v1/namespaces/longhorn-system/secrets/of-v"
        );
    }
    let invalid = r#"{"reason": "Invalid", "message": "s3cret"}"#;
    let (api, _, _account) = server(422, invalid).await;
    let error = api
        .create_secret("of-v", "key", "s3cret")
        .await
        .unwrap_err();
    assert!(!format!("{error}{error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn errors_name_the_object_and_the_rule_and_nothing_of_the_answer() {
    for (status, answer, kind, words) in [
        (
            403,
            r#"{"reason": "Forbidden", "message": "s3cret"}"#,
            ErrorKind::PermissionDenied,
            "{apiGroups: [\"\"], resources: [secrets], resourceNames: [ca], verbs: [patch]}",
        ),
        (
            401,
            "s3cret",
            ErrorKind::Unavailable,
            "does not accept the token",
        ),
        (
            422,
            r#"{"reason": "Invalid", "message": "s3cret"}"#,
            ErrorKind::Unavailable,
            "answers 422 (Invalid)",
        ),
        (
            500,
            r#"{"reason": "it is s3cret"}"#,
            ErrorKind::Unavailable,
            "answers 500",
        ),
        (302, "s3cret", ErrorKind::Unavailable, "answers 302"),
        (200, "s3cret", ErrorKind::Internal, "is not JSON"),
    ] {
        let (api, _, _account) = server(status, answer).await;
        let changes = [("tls.key", Some("s3cret"))];
        let error = api
            .write(Kind::Secret, "ca", "7", &changes)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{status}");
        let text = types::report(&error).to_string();
        assert!(
            text.contains(words) && text.contains("Secret longhorn-system/ca"),
            "{text}"
        );
        assert!(!format!("{text}{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn what_does_not_answer_or_answers_without_end_is_an_error() {
    let account = account();
    let api = Api::at("http://127.0.0.1:1".to_owned(), account.path())
        .await
        .unwrap();
    let error = api.read(Kind::Secret, "ca").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = types::report(&error).to_string();
    assert!(text.contains("does not answer"), "{text}");
    let (api, _, _account) = server(200, " ".repeat(ANSWER_MAX + 1)).await;
    let error = api.read(Kind::Secret, "ca").await.unwrap_err();
    assert!(error.to_string().contains("4 MiB"), "{error}");
}

#[tokio::test]
async fn what_is_in_the_files_of_the_account_is_checked() {
    let account = account();
    let at = || Api::at("http://127.0.0.1:1".to_owned(), account.path());
    let write = |name: &str, text: &str| put(&account.path().join(name), text);
    for text in ["", "../etc", "a/b", "A b"] {
        write("namespace", text);
        assert!(at().await.is_err(), "{text:?}");
    }
    write("namespace", "longhorn-system\n");
    let api = at().await.unwrap();
    assert_eq!(api.namespace(), "longhorn-system");
    for text in ["", "no certificate"] {
        write("ca.crt", text);
        let error = api.read(Kind::Secret, "ca").await.unwrap_err();
        assert!(error.to_string().contains("ca.crt"), "{error}");
    }
    assert!(matches!(
        Api::at("http://127.0.0.1:1".to_owned(), Path::new("/nonexistent")).await,
        Err(Error::File { .. })
    ));
}

fn pod() -> TokenPod {
    TokenPod {
        namespace: "longhorn-system".into(),
        account: "backing-image-manager".into(),
        name: "manager-x1".into(),
        uid: "1-2".into(),
    }
}

fn review(user: &str, extra: &Value, audiences: &Value, authenticated: bool) -> String {
    let status = json!({"authenticated": authenticated, "audiences": audiences,
        "user": {"username": user, "extra": extra}});
    json!({"status": status}).to_string()
}

#[tokio::test]
async fn a_token_is_that_of_a_pod_or_is_not() {
    let account = "system:serviceaccount:longhorn-system:backing-image-manager";
    let name = "authentication.kubernetes.io/pod-name";
    let uid = "authentication.kubernetes.io/pod-uid";
    let (ours, of_pod) = (json!(["us"]), json!({name: ["manager-x1"], uid: ["1-2"]}));
    for (answer, expected) in [
        (review(account, &of_pod, &ours, true), Reviewed::Pod(pod())),
        (review(account, &of_pod, &ours, false), Reviewed::Rejected),
        (
            review(account, &of_pod, &json!([]), true),
            Reviewed::Rejected,
        ),
        (
            review(account, &of_pod, &json!(["them"]), true),
            Reviewed::Rejected,
        ),
        (
            review(account, &json!({}), &ours, true),
            Reviewed::NoPod {
                user: account.into(),
            },
        ),
        (
            review("admin", &json!({}), &ours, true),
            Reviewed::NoPod {
                user: "admin".into(),
            },
        ),
        (r#"{"status": {}}"#.into(), Reviewed::Rejected),
    ] {
        let (api, server, _account) = server(201, answer.clone()).await;
        assert_eq!(
            api.review("t0ken", "us").await.unwrap(),
            expected,
            "{answer}"
        );
        let body: Value = serde_json::from_str(&asked(&server).2).unwrap();
        assert_eq!(body["spec"], json!({"token": "t0ken", "audiences": ["us"]}));
        let long = "x".repeat(17 << 10);
        assert_eq!(api.review(&long, "us").await.unwrap(), Reviewed::Rejected);
    }
}

#[tokio::test]
async fn the_node_of_a_pod_is_that_of_the_very_pod() {
    let object = json!({"metadata": {"uid": "1-2"}, "spec": {"nodeName": "n1"}});
    let (api, server_, _account) = server(200, object.to_string()).await;
    assert_eq!(api.node_of(&pod()).await.unwrap().as_deref(), Some("n1"));
    assert_eq!(
        asked(&server_).0,
        "GET /api/v1/namespaces/longhorn-system/pods/manager-x1"
    );
    let another = TokenPod {
        uid: "9".into(),
        ..pod()
    };
    assert_eq!(api.node_of(&another).await.unwrap(), None);
    let elsewhere = TokenPod {
        namespace: "default".into(),
        ..pod()
    };
    assert_eq!(api.node_of(&elsewhere).await.unwrap(), None);
    let astray = TokenPod {
        name: "../secrets/ca".into(),
        ..pod()
    };
    assert_eq!(api.node_of(&astray).await.unwrap(), None);
    let (api, _, _account) = server(404, "{}").await;
    assert_eq!(api.node_of(&pod()).await.unwrap(), None);
}
