//! Which servers receive credentials: rows 7, 9 and 10 of the faults, and bearer tokens.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod rig;

use std::sync::atomic::{AtomicUsize, Ordering};

use fetch::registry::{Client, Resolved};
use fetch::{Credentials, Error};
use rig::tls::Certificates;
use rig::{Answer, Seen, Server, TestImage, insecure, network, read_layer, reference};
use types::{Classify, ErrorKind};

/// base64 of tester:s3cret.
const BASIC: &str = "Basic dGVzdGVyOnMzY3JldA==";

async fn resolve(
    config: &str,
    host: &str,
    credentials: Credentials,
) -> (Client, Result<Resolved, Error>) {
    let client = Client::new(network(config));
    let name = reference(&format!("{host}/x/y"));
    let image = client
        .resolve(&name, &"linux/amd64".parse().unwrap(), &credentials)
        .await;
    (client, image)
}

fn tester(host: &str) -> Credentials {
    Credentials::anonymous().with_password(host, "tester", "s3cret")
}

/// What a registry says to who has no token.
fn challenge(realm: &str) -> Answer {
    let bearer = format!(r#"Bearer realm="{realm}",service="test",scope="repository:x/y:pull""#);
    Answer::new(401, "").with("WWW-Authenticate", bearer)
}

/// A registry that wants tokens and hands them out itself; each is good for `uses` requests.
fn token_registry(image: TestImage, uses: usize) -> impl Fn(&Seen) -> Answer + Send + Sync {
    let (issued, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
    move |seen| {
        let scheme = if seen.header("x-scheme").is_some() {
            "https"
        } else {
            "http"
        };
        if seen.path.starts_with("/token?") {
            if seen.header("authorization") != Some(BASIC) {
                return Answer::new(401, "");
            }
            assert!(seen.path.contains("service=test"), "{}", seen.path);
            assert!(
                seen.path.contains("scope=repository%3Ax%2Fy%3Apull"),
                "{}",
                seen.path
            );
            left.store(uses, Ordering::Relaxed);
            let token = issued.fetch_add(1, Ordering::Relaxed) + 1;
            return Answer::ok(format!(r#"{{"token":"t{token}","expires_in":60}}"#));
        }
        let current = format!("Bearer t{}", issued.load(Ordering::Relaxed));
        let spend =
            || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if seen.header("authorization") == Some(current.as_str()) && spend().is_ok() {
            return image.serve(seen);
        }
        challenge(&format!(
            "{scheme}://{}/token",
            seen.header("host").unwrap()
        ))
    }
}

#[tokio::test]
async fn a_bearer_token_is_fetched_once_and_used_for_all() {
    let image = TestImage::new(100_000);
    let server = Server::plain(token_registry(image.clone(), 100)).await;
    let (client, resolved) =
        resolve(&insecure(&server.host), &server.host, tester(&server.host)).await;
    assert!(read_layer(&client, &resolved.unwrap(), 0).await.unwrap() == image.layer);
    let seen = server.seen();
    assert_eq!(
        seen.iter()
            .filter(|seen| seen.path.starts_with("/token"))
            .count(),
        1
    );
    let leaked =
        |s: &&Seen| s.header("authorization") == Some(BASIC) && !s.path.starts_with("/token");
    assert!(
        !seen.iter().any(|s| leaked(&s)),
        "the password went to the registry"
    );
}

#[tokio::test]
async fn row_10_a_token_that_expires_in_the_middle_is_renewed_once_each_time() {
    let image = TestImage::new(100_000);
    let server = Server::plain(token_registry(image.clone(), 1)).await;
    let (client, resolved) =
        resolve(&insecure(&server.host), &server.host, tester(&server.host)).await;
    assert!(read_layer(&client, &resolved.unwrap(), 0).await.unwrap() == image.layer);
    // Manifest, config, layer: each with a token of its own.
    assert_eq!(
        server
            .seen()
            .iter()
            .filter(|seen| seen.path.starts_with("/token"))
            .count(),
        3
    );
    // A token that never works is not asked for again and again.
    let server = Server::plain(token_registry(image, 0)).await;
    let (_, resolved) = resolve(&insecure(&server.host), &server.host, tester(&server.host)).await;
    assert_eq!(resolved.unwrap_err().kind(), ErrorKind::Unauthenticated);
    assert_eq!(server.seen().len(), 3, "manifest, token, manifest");
}

#[tokio::test]
async fn row_10_a_wrong_password_is_said_and_not_tried_again() {
    let image = TestImage::new(100);
    let server = Server::plain(token_registry(image.clone(), 9)).await;
    let wrong = Credentials::anonymous().with_password(&server.host, "tester", "hunter2");
    let (_, resolved) = resolve(&insecure(&server.host), &server.host, wrong.clone()).await;
    let error = resolved.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert_eq!(server.seen().len(), 2, "manifest, token");

    let basic = Server::plain(move |seen| match seen.header("authorization") {
        Some(BASIC) => image.serve(seen),
        _ => Answer::new(401, "").with("WWW-Authenticate", r#"Basic realm="test""#),
    })
    .await;
    let wrong = wrong.with_password(&basic.host, "tester", "hunter2");
    let (_, resolved) = resolve(&insecure(&basic.host), &basic.host, wrong).await;
    let error = resolved.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(error.to_string().contains("check the password"), "{error}");
    assert_eq!(basic.seen().len(), 2);
    let (_, resolved) = resolve(
        &insecure(&basic.host),
        &basic.host,
        Credentials::anonymous(),
    )
    .await;
    let error = resolved.unwrap_err();
    assert!(error.to_string().contains("give credentials"), "{error}");
    assert_eq!(
        basic.seen().len(),
        3,
        "without credentials there is nothing to try again with"
    );
    let helper = Credentials::from_docker_config(br#"{"credsStore":"desktop"}"#).unwrap();
    let (_, resolved) = resolve(&insecure(&basic.host), &basic.host, helper).await;
    assert!(
        resolved
            .unwrap_err()
            .to_string()
            .contains("credential helper")
    );
    let (_, resolved) = resolve(&insecure(&basic.host), &basic.host, tester(&basic.host)).await;
    assert!(resolved.is_ok());
}

#[tokio::test]
async fn row_07_a_realm_elsewhere_gets_nothing() {
    let thief = Server::plain(|_| Answer::ok(r#"{"token":"t"}"#)).await;
    for realm in [
        thief.url("/token"),
        format!(
            "https://{}/token",
            thief.host.replace("127.0.0.1", "localhost")
        ),
        "file:///etc/passwd".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "https://evil.example/token".to_owned(),
        String::new(),
    ] {
        let asked = realm.clone();
        let server = Server::plain(move |_| challenge(&asked)).await;
        let (_, resolved) =
            resolve(&insecure(&server.host), &server.host, tester(&server.host)).await;
        let error = resolved.unwrap_err();
        assert!(matches!(error, Error::Realm { .. }), "{realm}: {error}");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(!error.to_string().contains("s3cret"));
        assert_eq!(server.seen().len(), 1);
    }
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn row_07_a_listed_token_server_gets_the_credentials_over_tls_alone() {
    let Some(certificates) = Certificates::make() else {
        return;
    };
    let image = TestImage::new(1000);
    let tokens = Server::start(Some(certificates.acceptor()), |seen| {
        match seen.header("authorization") {
            Some(BASIC) => Answer::ok(r#"{"access_token":"good"}"#),
            _ => Answer::new(401, ""),
        }
    })
    .await;
    // By another name, so that it is another host.
    let auth_host = tokens.host.replace("127.0.0.1", "localhost");
    let registry = {
        let (image, realm) = (image.clone(), format!("https://{auth_host}/token"));
        let tls = certificates.acceptor();
        Server::start(Some(tls), move |seen| match seen.header("authorization") {
            Some("Bearer good") => image.serve(seen),
            _ => challenge(&realm),
        })
        .await
    };
    let config = format!(
        "[[registry]]\nlocation = '{}'\nca-file = '{}'\n",
        registry.host,
        certificates.ca().display()
    );
    let (_, resolved) = resolve(&config, &registry.host, tester(&registry.host)).await;
    assert!(matches!(resolved.unwrap_err(), Error::Realm { .. }));
    assert!(tokens.seen().is_empty());
    let listed = format!("{config}auth-hosts = ['{auth_host}']\n");
    let (client, resolved) = resolve(&listed, &registry.host, tester(&registry.host)).await;
    assert!(read_layer(&client, &resolved.unwrap(), 0).await.unwrap() == image.layer);
    assert_eq!(tokens.seen().len(), 1);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let image = TestImage::new(1000);
    let server = Server::plain(move |seen| {
        if seen.path == "/token" && seen.method == "POST" {
            let form = String::from_utf8(seen.body.clone()).unwrap();
            let right =
                form.contains("refresh_token=r%2Ft") && form.contains("grant_type=refresh_token");
            return if right {
                Answer::ok(r#"{"access_token":"a"}"#)
            } else {
                Answer::new(401, "")
            };
        }
        match seen.header("authorization") {
            Some("Bearer a") => image.serve(seen),
            _ => challenge(&format!("http://{}/token", seen.header("host").unwrap())),
        }
    })
    .await;
    let config = format!(
        r#"{{"auths":{{"{}":{{"identitytoken":"r/t"}}}}}}"#,
        server.host
    );
    let credentials = Credentials::from_docker_config(config.as_bytes()).unwrap();
    let (_, resolved) = resolve(&insecure(&server.host), &server.host, credentials).await;
    assert!(resolved.is_ok(), "{resolved:?}");
}

#[tokio::test]
async fn row_09_no_error_or_debug_text_tells_a_secret() {
    let server = Server::plain(|seen| match seen.path.as_str() {
        path if path.starts_with("/token") => Answer::ok(r#"{"token":"hunter2-token"}"#),
        _ => challenge(&format!("http://{}/token", seen.header("host").unwrap()))
            .with("X-Secret", "hunter2"),
    })
    .await;
    let credentials = Credentials::anonymous().with_password(&server.host, "tester", "hunter2");
    let client = Client::new(network(&insecure(&server.host)));
    let name = reference(&format!("{}/x/y", server.host));
    let error = client
        .resolve(&name, &"linux/amd64".parse().unwrap(), &credentials)
        .await
        .unwrap_err();
    let shown = format!(
        "{error} {error:?} {} {client:?} {credentials:?}",
        types::report(&error)
    );
    assert!(!shown.contains("hunter2"), "{shown}");
}
