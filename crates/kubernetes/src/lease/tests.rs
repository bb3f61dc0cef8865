//! Against a small API server that keeps one Lease, in the time of tokio.

use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::api::tests::account;

#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    away: bool,
}

async fn reply(State(server): State<Arc<Mutex<Server>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut server = server.lock().unwrap();
    let said = |status: u16, body: &Value| {
        let status = StatusCode::from_u16(status).unwrap();
        (status, Body::from(body.to_string())).into_response()
    };
    if server.away {
        return said(503, &json!({}));
    }
    let path = head.uri.path();
    assert!(path.starts_with("/apis/coordination.k8s.io/v1/namespaces/longhorn-system/leases"));
    let of = body["metadata"]["resourceVersion"].take();
    let is_stored = server.lease.is_some();
    let is_current = of == json!(server.version.to_string());
    match (head.method, is_stored) {
        (Method::GET, true) => said(200, server.lease.as_ref().unwrap()),
        (Method::POST, true) => said(409, &json!({})),
        (Method::PUT, true) if !is_current => said(409, &json!({})),
        (Method::POST, false) | (Method::PUT, true) => {
            server.version += 1;
            body["metadata"]["resourceVersion"] = json!(server.version.to_string());
            server.lease = Some(body.clone());
            said(200, &body)
        }
        _ => said(404, &json!({})),
    }
}

async fn server() -> (Arc<Api>, Arc<Mutex<Server>>, TempDir) {
    let server = Arc::new(Mutex::new(Server::default()));
    let router = Router::new().fallback(reply).with_state(server.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await });
    let account = account();
    let api = Api::at(url, account.path()).await.unwrap();
    (Arc::new(api), server, account)
}

fn candidate(api: &Arc<Api>, identity: &str) -> Leadership {
    Leadership::seek(api.clone(), "controller", identity, |_| {})
}

const SOON: Duration = Duration::from_secs(8);

#[tokio::test]
async fn one_leads_and_the_other_begins_when_it_is_released() {
    let (api, server, _account) = server().await;
    let a = candidate(&api, "a");
    a.gained().await;
    let b = candidate(&api, "b");
    // Some renewals of one, some looks of the other.
    for _ in 0..5 {
        sleep(Duration::from_secs(1)).await;
        assert!(a.leads() && !b.leads());
    }
    let renewed = server.lock().unwrap().version;
    assert!(renewed >= 3, "{renewed}");
    a.release().await.unwrap();
    tokio::time::timeout(SOON, b.gained()).await.unwrap();
    let lease = server.lock().unwrap().lease.clone().unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "b");
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
}

#[tokio::test]
async fn a_leader_that_cannot_renew_steps_down_before_another_may_begin() {
    let (api, server, _account) = server().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = told.clone();
    let a = Leadership::seek(api.clone(), "controller", "a", move |why| {
        tells.lock().unwrap().push(why.to_owned());
    });
    a.gained().await;
    server.lock().unwrap().away = true;
    let began = Instant::now();
    a.lost().await;
    assert!(!a.leads());
    let late = Duration::from_millis(100);
    assert!(began.elapsed() <= DEADLINE + late, "{:?}", began.elapsed());
    server.lock().unwrap().away = false;
    tokio::time::timeout(SOON, a.gained()).await.unwrap();
    let told = told.lock().unwrap().clone();
    // Each trouble once, and its end.
    let (end, troubles) = told.split_last().unwrap();
    assert!(
        end.is_empty() && (1..=2).contains(&troubles.len()),
        "{told:?}"
    );
    assert!(troubles.iter().all(|why| why.contains("503")), "{told:?}");
}
