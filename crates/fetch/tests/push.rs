//! Pushing to registries that redirect, break off, take small pieces only, or refuse with a reason.
#![allow(clippy::unwrap_used, reason = "a test")]

mod rig;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fetch::registry::Client;
use fetch::{Credentials, Digest, Error};
use rig::{Answer, Seen, Server, insecure, network, reference};

/// What a registry of the tests has, and how it behaves.
#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    upload: Vec<u8>,
    /// The most bytes of a body.
    limit: Option<usize>,
    /// The next pieces of which only the first half is taken before the connection ends.
    breaks: usize,
    /// Another host that requests with these methods are sent to.
    moved: Option<(String, Vec<&'static str>)>,
    manifests: usize,
}

/// An honest registry but for what `state` says.
async fn registry(state: &Arc<Mutex<State>>) -> Server {
    let state = Arc::clone(state);
    Server::plain(move |seen| {
        let mut state = state.lock().unwrap();
        if let Some((host, methods)) = &state.moved
            && methods.contains(&seen.method.as_str())
        {
            return Answer::redirect(format!("http://{host}{}", seen.path));
        }
        serve(&mut state, seen)
    })
    .await
}

fn serve(state: &mut State, seen: &Seen) -> Answer {
    if state.limit.is_some_and(|limit| seen.body.len() > limit) {
        return Answer::new(413, "<html>nginx</html>");
    }
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let range = |state: &State| format!("0-{}", state.upload.len().saturating_sub(1));
    match seen.method.as_str() {
        "HEAD" => {
            let there = state.blobs.contains_key(path.rsplit('/').next().unwrap());
            Answer::new(if there { 200 } else { 404 }, "")
        }
        "POST" => {
            state.upload.clear();
            Answer::new(202, "").with("Location", "/v2/x/y/blobs/uploads/1?_state=%2B%2F")
        }
        "PATCH" => {
            let first = seen.header("content-range").unwrap().split('-').next();
            if first.unwrap().parse() != Ok(state.upload.len()) {
                return Answer::new(416, "").with("Range", range(state));
            }
            if state.breaks > 0 {
                state.breaks -= 1;
                state.upload.extend(&seen.body[..seen.body.len() / 2]);
                // No answer at all.
                return Answer {
                    cut: Some(0),
                    ..Answer::new(503, "x")
                };
            }
            state.upload.extend(&seen.body);
            Answer::new(202, "")
                .with("Range", range(state))
                .with("Location", "/v2/x/y/blobs/uploads/1?_state=%2B%2F")
        }
        "GET" => Answer::new(204, "").with("Range", range(state)),
        "PUT" if path.contains("/manifests/") => {
            state.manifests += 1;
            Answer::new(201, "")
        }
        "PUT" => {
            assert!(query.starts_with("_state=%2B%2F&digest=sha256"), "{query}");
            state.upload.extend(&seen.body);
            let digest = Digest::of(&state.upload).to_string();
            let named = query.replace("%3A", ":").ends_with(&digest);
            state.blobs.insert(digest, state.upload.clone());
            Answer::new(if named { 201 } else { 400 }, "")
        }
        _ => Answer::new(405, ""),
    }
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 31 % 251).to_le_bytes()[0]).collect()
}

/// Pushes a blob that lies in a file, and a manifest.
async fn push(server: &Server, blob: &[u8], piece: Option<u64>) -> Result<(), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), blob).unwrap();
    let client = Client::new(network(&insecure(&server.host)));
    let to = reference(&format!("{}/x/y:v1", server.host));
    let user = Credentials::anonymous().with_password(to.registry(), "u", "hunter2");
    let mut pusher = client.pusher(&to, &user);
    if let Some(piece) = piece {
        pusher = pusher.in_pieces_of(piece);
    }
    let digest = Digest::of(blob);
    pusher.blob(&digest, blob.len() as u64, &path).await?;
    let manifest = bytes::Bytes::from_static(b"{}");
    pusher.manifest(rig::MANIFEST_TYPE, manifest).await?;
    Ok(())
}

#[tokio::test]
async fn row_171_every_request_of_a_push_may_be_redirected() {
    let blob = bytes(700_000);
    for methods in [
        vec!["HEAD"],
        vec!["POST"],
        vec!["PUT"],
        vec!["PATCH", "GET"],
        vec!["HEAD", "POST", "PUT", "PATCH"],
    ] {
        let state = Arc::new(Mutex::new(State::default()));
        let host = registry(&state).await;
        let (behind, moved, to) = (Arc::clone(&state), methods.clone(), host.host.clone());
        // The first asks for a password, and the place that it sends to must never see it.
        let front = Server::plain(move |seen| {
            if seen.header("authorization").is_none() {
                return Answer::new(401, "").with("WWW-Authenticate", "Basic realm=x");
            }
            if moved.contains(&seen.method.as_str()) {
                return Answer::redirect(format!("http://{to}{}", seen.path));
            }
            serve(&mut behind.lock().unwrap(), seen)
        })
        .await;
        for piece in [None, Some(300_000)] {
            push(&front, &blob, piece).await.unwrap();
            let stored = &mut state.lock().unwrap().blobs;
            assert_eq!(stored[&Digest::of(&blob).to_string()], blob, "{methods:?}");
            stored.clear();
        }
        let seen = host.seen();
        assert!(!seen.is_empty(), "{methods:?}");
        assert!(seen.iter().all(|s| s.header("authorization").is_none()));
    }
}

/// What is there is not sent again, though the registry sends the question elsewhere.
#[tokio::test]
async fn row_171_the_second_push_to_redirecting_storage_sends_nothing() {
    let state = Arc::new(Mutex::new(State::default()));
    let storage = registry(&state).await;
    let front_state = Arc::new(Mutex::new(State {
        moved: Some((storage.host.clone(), vec!["HEAD"])),
        ..State::default()
    }));
    let blob = bytes(1000);
    let digest = Digest::of(&blob).to_string();
    state.lock().unwrap().blobs.insert(digest, blob.clone());
    let front = registry(&front_state).await;
    push(&front, &blob, None).await.unwrap();
    assert!(front.seen().iter().all(|seen| seen.method != "POST"));
}

#[tokio::test]
async fn row_171_redirects_of_a_push_end_and_never_change_what_is_sent() {
    let endless = Server::plain(|seen| match seen.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        _ => Answer::redirect(seen.path.clone()),
    })
    .await;
    let error = push(&endless, &bytes(10), None).await.unwrap_err();
    assert!(error.to_string().contains("more than 5 times"), "{error}");
    // A browser would make a GET of it.
    let changing = Server::plain(|seen| match seen.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        "POST" => Answer::new(302, "").with("Location", "/elsewhere"),
        _ => Answer::ok(""),
    })
    .await;
    let error = push(&changing, &bytes(10), None).await.unwrap_err();
    assert!(
        matches!(error, Error::Status { status: 302, .. }),
        "{error}"
    );
    assert!(changing.seen().iter().all(|seen| seen.path != "/elsewhere"));
    let inside = Server::plain(|seen| match seen.method.as_str() {
        "HEAD" => Answer::new(404, ""),
        _ => Answer::redirect("http://169.254.169.254/latest"),
    })
    .await;
    let error = push(&inside, &bytes(10), None).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
}

/// Storage that a HEAD is redirected to refuses what is absent, or what was signed for a GET, by 403.
#[tokio::test]
async fn row_171_a_head_that_says_nothing_is_no_failure() {
    for status in [403, 405, 400] {
        let state = Arc::new(Mutex::new(State::default()));
        let front = Server::plain(move |seen| match seen.method.as_str() {
            "HEAD" => Answer::new(status, ""),
            _ => serve(&mut state.lock().unwrap(), seen),
        })
        .await;
        push(&front, &bytes(1000), None).await.unwrap();
    }
}

#[tokio::test]
async fn row_172_what_is_too_large_at_once_is_sent_in_pieces() {
    let blob = bytes(3_000_000);
    let state = Arc::new(Mutex::new(State {
        limit: Some(1 << 20),
        ..State::default()
    }));
    let server = registry(&state).await;
    push(&server, &blob, None).await.unwrap();
    assert_eq!(
        state.lock().unwrap().blobs[&Digest::of(&blob).to_string()],
        blob
    );
    // Who says so beforehand is never refused.
    state.lock().unwrap().blobs.clear();
    let before = server.seen().len();
    push(&server, &blob, Some(1 << 20)).await.unwrap();
    let sizes: Vec<_> = server.seen()[before..]
        .iter()
        .filter(|seen| seen.method == "PATCH")
        .map(|seen| seen.body.len())
        .collect();
    assert_eq!(sizes, [1 << 20, 1 << 20, 3_000_000 - (2 << 20)]);
    // A limit that no piece fits into is said with what to do.
    state.lock().unwrap().limit = Some(1000);
    state.lock().unwrap().blobs.clear();
    let error = push(&server, &blob, None).await.unwrap_err();
    assert!(error.to_string().contains("raise the limit"), "{error}");
}

#[tokio::test]
async fn row_172_a_piece_that_breaks_off_is_gone_on_with() {
    let blob = bytes(3_000_000);
    let state = Arc::new(Mutex::new(State {
        breaks: 2,
        ..State::default()
    }));
    let server = registry(&state).await;
    push(&server, &blob, Some(1 << 20)).await.unwrap();
    let digest = Digest::of(&blob).to_string();
    assert_eq!(state.lock().unwrap().blobs[&digest], blob);
    let seen = server.seen();
    let begun = seen.iter().filter(|seen| seen.method == "POST").count();
    assert_eq!(begun, 1, "it was begun anew");
    let patched = seen.iter().filter(|seen| seen.method == "PATCH");
    assert!(patched.map(|seen| seen.body.len()).sum::<usize>() < 2 * blob.len());
}

/// The registry's reason is said by its code, and nothing else of the body.
#[tokio::test]
async fn row_170_a_registrys_own_word_is_said() {
    let refusing = |status, method: &'static str| {
        Server::plain(move |seen| {
            if seen.method == method {
                return Answer::new(
                    status,
                    r#"{"errors":[{"code":"TAG_INVALID","message":"hunter2 is immutable"}]}"#,
                );
            }
            serve(&mut State::default(), seen)
        })
    };
    for (status, method) in [(400, "PUT"), (403, "POST"), (404, "POST"), (412, "PUT")] {
        let server = refusing(status, method).await;
        let error = push(&server, &bytes(10), None).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("TAG_INVALID") && !text.contains("hunter2"),
            "{text}"
        );
    }
    let server = refusing(404, "GET").await;
    let (_, pulled) = rig::resolve_at(&server.host, ":v1").await;
    let text = pulled.unwrap_err().to_string();
    assert!(
        text.contains("TAG_INVALID") && !text.contains("hunter2"),
        "{text}"
    );
}
