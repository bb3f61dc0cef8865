//! Registries that lie, abort and stall: rows 1 to 6, 8, 12, 13 and 20 of the faults.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod rig;

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fetch::registry::Client;
use fetch::{BlockingReader, Credentials, Digest, Error};
use rig::{
    Answer, INDEX_TYPE, Length, MANIFEST_TYPE, Server, TestImage, insecure, network, read_layer,
    reference, resolve_at,
};
use types::{Classify, ErrorKind};

const SIZE: usize = 3_000_000;

#[tokio::test]
async fn an_image_comes_whole_and_its_name_is_pinned() {
    let image = TestImage::new(SIZE);
    let server = {
        let image = image.clone();
        Server::plain(move |seen| image.serve(seen)).await
    };
    let (client, resolved) = resolve_at(&server.host, ":tag").await;
    let resolved = resolved.unwrap();
    assert_eq!(resolved.manifest_digest, Digest::of(&image.manifest));
    let pinned = format!("{}/x/y@{}", server.host, Digest::of(&image.manifest));
    assert_eq!(resolved.reference.to_string(), pinned);
    assert_eq!(resolved.layers[0].diff_id, Some(Digest::of(&image.layer)));
    assert_eq!(resolved.packed_size(), SIZE as u64);
    assert!(read_layer(&client, &resolved, 0).await.unwrap() == image.layer);
    // The same for code that blocks.
    let blob = client.blob(&resolved, &resolved.layers[0], 0);
    let mut reader = BlockingReader::spawn(&tokio::runtime::Handle::current(), blob.into_stream());
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    assert!(read.await.unwrap().unwrap() == image.layer);
    // And for tokio's own traits.
    let blob = client.blob(&resolved, &resolved.layers[0], 0);
    let mut bytes = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut Box::pin(blob.into_async_read()), &mut bytes)
        .await
        .unwrap();
    assert!(bytes == image.layer);
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[tokio::test]
async fn row_01_a_tag_is_looked_at_once() {
    let (old, new) = (TestImage::new(SIZE), TestImage::new(SIZE / 2));
    let looks = AtomicUsize::new(0);
    let server = {
        let (old, new) = (old.clone(), new.clone());
        Server::plain(move |seen| {
            let is_tag = seen.path.ends_with("/manifests/moving");
            if is_tag && looks.fetch_add(1, Ordering::Relaxed) > 0 {
                return new.serve(seen);
            }
            let answer = old.serve(seen);
            if answer.status == 404 {
                new.serve(seen)
            } else {
                answer
            }
        })
        .await
    };
    let (client, resolved) = resolve_at(&server.host, ":moving").await;
    let resolved = resolved.unwrap();
    assert!(read_layer(&client, &resolved, 0).await.unwrap() == old.layer);
    let tags = server
        .seen()
        .iter()
        .filter(|seen| seen.path.contains("moving"))
        .count();
    assert_eq!(tags, 1);
}

#[tokio::test]
async fn row_02_a_manifest_that_does_not_hash_to_its_name_is_refused() {
    let image = TestImage::new(100);
    let other = Digest::of(b"other");
    let server = {
        let image = image.clone();
        Server::plain(move |seen| image.serve(seen)).await
    };
    let (_, resolved) = resolve_at(&server.host, &format!("@{other}")).await;
    let error = resolved.unwrap_err();
    assert!(
        matches!(&error, Error::DigestMismatch { expected, .. } if *expected == other),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::DataLoss);
    // A registry that contradicts itself is not believed either.
    let server = Server::plain(move |seen| {
        image
            .serve(seen)
            .with("Docker-Content-Digest", Digest::of(b"other").to_string())
    })
    .await;
    let (_, resolved) = resolve_at(&server.host, ":tag").await;
    assert!(matches!(
        resolved.unwrap_err(),
        Error::DigestMismatch { .. }
    ));
    // The config is named by a digest too.
    let image = TestImage::new(100);
    let server = Server::plain(move |seen| {
        let mut answer = image.serve(seen);
        if answer.body == image.config {
            answer.body[0] = b' ';
        }
        answer
    })
    .await;
    let (_, resolved) = resolve_at(&server.host, ":tag").await;
    assert!(matches!(
        resolved.unwrap_err(),
        Error::DigestMismatch { .. }
    ));
}

#[tokio::test]
async fn row_03_a_blob_of_another_length_is_refused_at_once() {
    for (longer, chunked) in [(true, false), (true, true), (false, false), (false, true)] {
        let image = TestImage::new(SIZE);
        let server = Server::plain(move |seen| {
            let mut answer = image.serve(seen);
            if image.is_layer(seen) && seen.range().is_none() {
                if longer {
                    answer.body.push(0);
                    answer.endless = chunked;
                } else {
                    answer.body.pop();
                }
                if chunked {
                    answer.length = Length::Chunked;
                }
            } else if image.is_layer(seen) {
                return Answer::new(416, "");
            }
            answer
        })
        .await;
        let (client, resolved) = resolve_at(&server.host, "").await;
        let resolved = resolved.unwrap();
        let mut blob = client.blob(&resolved, &resolved.layers[0], 0);
        let mut read = 0;
        let error = loop {
            match blob.chunk().await {
                Ok(Some(chunk)) => read += chunk.len(),
                Ok(None) => panic!("a blob of a wrong length was taken"),
                Err(error) => break error,
            }
        };
        assert!(read <= SIZE, "{read} bytes were handed out");
        // A body that just ends early is asked for the rest of it, which is not there.
        let short = !longer && chunked;
        let right = if short {
            matches!(error, Error::Status { status: 416, .. })
        } else {
            matches!(error, Error::Size { expected, .. } if expected == SIZE as u64)
        };
        assert!(right, "longer {longer}, chunked {chunked}: {error}");
        if !chunked {
            assert_eq!(read, 0, "the body was read though its length was wrong");
        }
    }
}

#[tokio::test]
async fn row_04_a_flipped_bit_is_found_and_another_pass_helps() {
    let image = TestImage::new(SIZE);
    let bad_passes = AtomicUsize::new(1);
    let server = {
        let image = image.clone();
        Server::plain(move |seen| {
            let mut answer = image.serve(seen);
            let spoil = || {
                bad_passes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            };
            if image.is_layer(seen) && spoil().is_ok() {
                answer.body[SIZE / 2] ^= 1;
            }
            answer
        })
        .await
    };
    let (client, resolved) = resolve_at(&server.host, "").await;
    let resolved = resolved.unwrap();
    let error = read_layer(&client, &resolved, 0).await.unwrap_err();
    assert!(
        matches!(&error, Error::DigestMismatch { expected, .. } if *expected == Digest::of(&image.layer))
    );
    assert!(error.passes() == 3 && error.kind() == ErrorKind::DataLoss);
    assert!(read_layer(&client, &resolved, 1).await.unwrap() == image.layer);
    // Through a blocking reader the error is found in the chain.
    let always = image.clone();
    let server = Server::plain(move |seen| {
        let mut answer = always.serve(seen);
        if always.is_layer(seen) {
            answer.body[0] ^= 1;
        }
        answer
    })
    .await;
    let (client, resolved) = resolve_at(&server.host, "").await;
    let resolved = resolved.unwrap();
    for pass in 0..3 {
        let blob = client.blob(&resolved, &resolved.layers[0], pass);
        let mut reader =
            BlockingReader::spawn(&tokio::runtime::Handle::current(), blob.into_stream());
        let read =
            tokio::task::spawn_blocking(move || std::io::copy(&mut reader, &mut std::io::sink()));
        let error = read.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert!(Error::in_chain(&error).is_some_and(|error| error.passes() > 1));
    }
}

#[tokio::test]
async fn row_05_a_digest_that_is_none_never_becomes_a_url() {
    let good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for digest in [
        "sha256:../../etc/x".to_owned(),
        "sha256:abc".to_owned(),
        format!("md5:{good}"),
        format!("sha512:{good}"),
        format!("sha256:{}", good.to_uppercase()),
        format!("sha256:{good}/../x"),
    ] {
        let mut image = TestImage::new(100);
        image.manifest = image.manifest_with(&format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":1}}"#
        ));
        let server = Server::plain(move |seen| image.serve(seen)).await;
        let (_, resolved) = resolve_at(&server.host, "").await;
        let error = resolved.unwrap_err();
        assert!(matches!(error, Error::Document { .. }), "{digest}: {error}");
        assert_eq!(
            server.seen().len(),
            1,
            "something was asked for after the manifest"
        );
    }
}

#[tokio::test]
async fn row_06_urls_of_foreign_layers_are_never_followed() {
    let elsewhere = Server::plain(|_| Answer::ok("x")).await;
    let mut image = TestImage::new(100);
    let digest = Digest::of(b"foreign");
    image.manifest = image.manifest_with(&format!(
        r#"{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{digest}","size":7,"urls":["{}"]}}"#,
        elsewhere.url("/layer")
    ));
    let server = Server::plain(move |seen| image.serve(seen)).await;
    let (client, resolved) = resolve_at(&server.host, "").await;
    let error = read_layer(&client, &resolved.unwrap(), 0)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn row_08_redirects_are_followed_without_credentials_and_not_for_ever() {
    let image = TestImage::new(SIZE);
    let cdn = {
        let image = image.clone();
        Server::plain(move |seen| Answer::ranged(seen, &image.layer)).await
    };
    let to = cdn.url("/signed?token=t");
    let server = {
        let image = image.clone();
        Server::plain(move |seen| {
            if seen.header("authorization").is_none() && seen.path != "/v2/" {
                return Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\"");
            }
            if image.is_layer(seen) {
                Answer::redirect(&to)
            } else {
                image.serve(seen)
            }
        })
        .await
    };
    let client = Client::new(network(&insecure(&server.host)));
    let credentials = Credentials::anonymous().with_password(&server.host, "tester", "s3cret");
    let name = reference(&format!("{}/x/y", server.host));
    let resolved = client
        .resolve(&name, &"linux/amd64".parse().unwrap(), &credentials)
        .await
        .unwrap();
    assert!(read_layer(&client, &resolved, 0).await.unwrap() == image.layer);
    assert!(
        server
            .seen()
            .iter()
            .any(|seen| seen.header("authorization").is_some())
    );
    assert!(
        cdn.seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
            && !cdn.seen().is_empty()
    );
}

#[tokio::test]
async fn row_08_the_place_of_a_redirect_cannot_ask_for_credentials() {
    let nosy =
        Server::plain(|_| Answer::new(401, "").with("WWW-Authenticate", "Basic realm=\"x\"")).await;
    let (image, to) = (TestImage::new(100), nosy.url("/x"));
    let server = Server::plain(move |seen| {
        if image.is_layer(seen) {
            Answer::redirect(&to)
        } else {
            image.serve(seen)
        }
    })
    .await;
    let client = Client::new(network(&insecure(&server.host)));
    let credentials = Credentials::anonymous().with_password(&server.host, "tester", "s3cret");
    let name = reference(&format!("{}/x/y", server.host));
    let resolved = client
        .resolve(&name, &"linux/amd64".parse().unwrap(), &credentials)
        .await
        .unwrap();
    let error = read_layer(&client, &resolved, 0).await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    assert!(
        server
            .seen()
            .iter()
            .chain(&nosy.seen())
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[tokio::test]
async fn row_08_redirects_that_lead_astray_are_refused() {
    for to in [
        "/v2/x/y/again",
        "file:///etc/passwd",
        "http://u:p@127.0.0.1/",
        "http://169.254.169.254/x",
        "",
    ] {
        let image = TestImage::new(100);
        let server = Server::plain(move |seen| {
            let stays = !image.is_layer(seen) && !seen.path.ends_with("again");
            if stays {
                image.serve(seen)
            } else {
                Answer::redirect(to)
            }
        })
        .await;
        let (client, resolved) = resolve_at(&server.host, "").await;
        let error = read_layer(&client, &resolved.unwrap(), 0)
            .await
            .unwrap_err();
        let refused = matches!(
            error,
            Error::Answer { .. } | Error::Url { .. } | Error::Forbidden { .. }
        );
        assert!(refused, "{to}: {error}");
        assert!(
            server.seen().len() <= 8,
            "{to}: {} requests",
            server.seen().len()
        );
    }
}

#[tokio::test]
async fn row_12_a_document_with_two_faces_is_refused() {
    let image = TestImage::new(100);
    let text = String::from_utf8(image.manifest.clone()).unwrap();
    let both = text.replacen('{', r#"{"manifests":[],"#, 1);
    let as_index = text.replacen(MANIFEST_TYPE, INDEX_TYPE, 1);
    let untyped = text.replacen(&format!(r#""mediaType":"{MANIFEST_TYPE}","#), "", 1);
    let twice = text.replacen(r#""layers""#, r#""layers":[],"layers""#, 1);
    for (body, content_type) in [
        (both.as_str(), MANIFEST_TYPE),
        (&text, INDEX_TYPE),
        (&as_index, MANIFEST_TYPE),
        (&as_index, INDEX_TYPE),
        (&untyped, INDEX_TYPE),
        (&untyped, "application/json"),
        (&twice, MANIFEST_TYPE),
        (&text, "text/html"),
        ("[]", MANIFEST_TYPE),
        ("{}", MANIFEST_TYPE),
        (
            r#"{"schemaVersion":1,"fsLayers":[],"config":{},"layers":[]}"#,
            MANIFEST_TYPE,
        ),
    ] {
        let mut image = image.clone();
        image.manifest = body.as_bytes().to_vec();
        let content_type = content_type.to_owned();
        let server = Server::plain(move |seen| {
            let mut answer = image.serve(seen);
            answer.headers.retain(|(name, _)| name != "Content-Type");
            answer.with("Content-Type", content_type.clone())
        })
        .await;
        let (_, resolved) = resolve_at(&server.host, "").await;
        let error = resolved.expect_err(body);
        assert!(matches!(error, Error::Document { .. }), "{body}: {error}");
    }
}

/// An index of these entries: type, document, platform.
fn index(entries: &[(&str, &[u8], &str)]) -> Vec<u8> {
    let entry = |(media_type, document, platform): &(&str, &[u8], &str)| {
        let (os, architecture) = platform.split_once('/').unwrap();
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{}","size":{},"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#,
            Digest::of(document),
            document.len()
        )
    };
    let entries: Vec<String> = entries.iter().map(entry).collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":[{}]}}"#,
        entries.join(",")
    )
    .into_bytes()
}

/// Serves an index under the tag, and documents by their digests.
async fn serve_documents(
    tag: Vec<u8>,
    documents: Vec<(Vec<u8>, &'static str)>,
    image: TestImage,
) -> Server {
    Server::plain(move |seen| {
        if seen.path.ends_with("/manifests/latest") {
            return Answer::ok(tag.clone()).with("Content-Type", INDEX_TYPE);
        }
        let wanted = documents
            .iter()
            .find(|(bytes, _)| seen.path.ends_with(&Digest::of(bytes).to_string()));
        match wanted {
            Some((bytes, media_type)) => {
                Answer::ok(bytes.clone()).with("Content-Type", *media_type)
            }
            None => image.serve(seen),
        }
    })
    .await
}

#[tokio::test]
async fn row_13_the_platform_is_chosen_and_its_absence_is_clear() {
    let (amd, arm) = (TestImage::new(100), TestImage::new(200));
    let tag = index(&[
        (MANIFEST_TYPE, b"attestation", "unknown/unknown"),
        (MANIFEST_TYPE, &arm.manifest, "linux/arm64"),
        (MANIFEST_TYPE, &amd.manifest, "linux/amd64"),
    ]);
    let documents = vec![
        (amd.manifest.clone(), MANIFEST_TYPE),
        (arm.manifest.clone(), MANIFEST_TYPE),
    ];
    let server = serve_documents(tag, documents, amd.clone()).await;
    let (_, resolved) = resolve_at(&server.host, "").await;
    assert_eq!(resolved.unwrap().manifest_digest, Digest::of(&amd.manifest));

    let tag = index(&[
        (MANIFEST_TYPE, &arm.manifest, "linux/arm64"),
        (MANIFEST_TYPE, b"w", "windows/amd64"),
    ]);
    let server = serve_documents(tag, Vec::new(), amd.clone()).await;
    let (_, resolved) = resolve_at(&server.host, "").await;
    let error = resolved.unwrap_err();
    let text = types::report(&error).to_string();
    assert!(
        text.contains("no matching platform") && text.contains("linux/arm64, windows/amd64"),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn row_13_nesting_and_size_of_documents_are_bounded() {
    let image = TestImage::new(100);
    let mut documents = vec![(image.manifest.clone(), MANIFEST_TYPE)];
    let mut tag = index(&[(MANIFEST_TYPE, &image.manifest, "linux/amd64")]);
    for depth in 1..10 {
        let server = serve_documents(tag.clone(), documents.clone(), image.clone()).await;
        let (_, resolved) = resolve_at(&server.host, "").await;
        assert_eq!(resolved.is_ok(), depth <= 2, "depth {depth}: {resolved:?}");
        assert!(
            server.seen().len() <= 4,
            "depth {depth}: {} requests",
            server.seen().len()
        );
        documents.push((tag.clone(), INDEX_TYPE));
        tag = index(&[(INDEX_TYPE, &tag, "linux/amd64")]);
    }
    for (chunked, endless) in [(false, false), (true, false), (true, true)] {
        let server = Server::plain(move |_| Answer {
            length: if chunked {
                Length::Chunked
            } else {
                Length::True
            },
            endless,
            ..Answer::ok(vec![b' '; 10 << 20]).with("Content-Type", MANIFEST_TYPE)
        })
        .await;
        let (_, resolved) = resolve_at(&server.host, "").await;
        let error = resolved.unwrap_err();
        assert!(
            matches!(
                error,
                Error::TooLarge {
                    limit: 0x40_0000,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[tokio::test]
async fn row_20_a_blob_that_breaks_off_is_resumed_where_it_broke() {
    let image = TestImage::new(SIZE);
    let asked = AtomicUsize::new(0);
    let server = {
        let image = image.clone();
        Server::plain(move |seen| {
            let mut answer = image.serve(seen);
            if !image.is_layer(seen) {
                return answer;
            }
            let third = answer.body.len() * 3 / 10;
            match asked.fetch_add(1, Ordering::Relaxed) {
                0 => answer.cut = Some(third),
                1 => answer.stall = Some(third),
                2 => answer = Answer::new(429, "slow down").with("Retry-After", "1"),
                3 => answer = Answer::new(503, "busy"),
                // Ignores the range and sends all.
                4 => {
                    answer = Answer {
                        cut: Some(SIZE * 3 / 4),
                        ..Answer::ok(image.layer.clone())
                    }
                }
                _ => {}
            }
            answer
        })
        .await
    };
    let (client, resolved) = resolve_at(&server.host, "").await;
    let start = Instant::now();
    assert!(read_layer(&client, &resolved.unwrap(), 0).await.unwrap() == image.layer);
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "Retry-After was not heeded"
    );
    let ranges: Vec<_> = server
        .seen()
        .iter()
        .filter(|s| image.is_layer(s))
        .map(rig::Seen::range)
        .collect();
    let first = SIZE * 3 / 10;
    assert_eq!(ranges[0], None);
    assert_eq!(
        ranges[1],
        Some((first, SIZE - 1)),
        "the range is not closed or not where it broke"
    );
    assert_eq!(ranges.len(), 6);
    assert_eq!(ranges[5].unwrap().0, SIZE * 3 / 4);
}

#[tokio::test]
async fn row_20_a_range_that_was_not_asked_for_is_never_spliced() {
    for wrong in [
        "bytes 0-99/3000000",
        "bytes 900001-2999999/3000000",
        "bytes 900000-2999999/9",
        "x",
    ] {
        let image = TestImage::new(SIZE);
        let server = Server::plain(move |seen| {
            let mut answer = image.serve(seen);
            if image.is_layer(seen) && seen.range().is_some() {
                answer.headers = vec![("Content-Range".to_owned(), wrong.to_owned())];
            } else if image.is_layer(seen) {
                answer.cut = Some(900_000);
            }
            answer
        })
        .await;
        let (client, resolved) = resolve_at(&server.host, "").await;
        let error = read_layer(&client, &resolved.unwrap(), 0)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Answer { .. }), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn row_20_attempts_are_counted_and_then_it_is_over() {
    let image = TestImage::new(SIZE);
    let server = {
        let image = image.clone();
        Server::plain(move |seen| {
            if image.is_layer(seen) {
                Answer::new(503, "no")
            } else {
                image.serve(seen)
            }
        })
        .await
    };
    let (client, resolved) = resolve_at(&server.host, "").await;
    let error = read_layer(&client, &resolved.unwrap(), 0)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Exhausted { attempts: 4, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let layers = server
        .seen()
        .iter()
        .filter(|seen| image.is_layer(seen))
        .count();
    assert_eq!(layers, 4);
    // Plain HTTP where that was not opted in is said, and not tried again.
    let client = Client::new(network(""));
    let name = reference(&format!("{}/x/y", server.host));
    let platform = "linux/amd64".parse().unwrap();
    let error = client
        .resolve(&name, &platform, &Credentials::anonymous())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("does not speak TLS"),
        "{}",
        types::report(&error)
    );
    // Nobody there at all.
    let (_, resolved) = resolve_at("127.0.0.1:1", "").await;
    assert_eq!(resolved.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn mirrors_are_asked_first_and_a_broken_one_is_passed_over() {
    let image = TestImage::new(SIZE);
    let serve = |image: &TestImage| {
        let image = image.clone();
        move |seen: &rig::Seen| image.serve(seen)
    };
    let registry = Server::plain(serve(&image)).await;
    let mirror = Server::plain(serve(&image)).await;
    let dead = Server::plain(|_| Answer::new(404, "")).await;
    let config = |mirror: &str| {
        format!(
            "{}[[registry.mirror]]\nlocation = '{mirror}/proxy'\ninsecure = true\n",
            insecure(&registry.host)
        )
    };
    let name = reference(&format!("{}/x/y", registry.host));
    let platform = "linux/amd64".parse().unwrap();

    let client = Client::new(network(&config(&mirror.host)));
    let resolved = client
        .resolve(&name, &platform, &Credentials::anonymous())
        .await
        .unwrap();
    assert!(read_layer(&client, &resolved, 0).await.unwrap() == image.layer);
    assert!(
        registry.seen().is_empty(),
        "the registry was asked though the mirror has it"
    );
    assert!(
        mirror
            .seen()
            .iter()
            .all(|seen| seen.path.starts_with("/v2/proxy/x/y/"))
    );
    // Another pass goes to another place.
    assert!(read_layer(&client, &resolved, 1).await.unwrap() == image.layer);
    assert_eq!(registry.seen().len(), 1);

    let client = Client::new(network(&config(&dead.host)));
    let resolved = client
        .resolve(&name, &platform, &Credentials::anonymous())
        .await
        .unwrap();
    assert!(read_layer(&client, &resolved, 0).await.unwrap() == image.layer);
    assert!(!dead.seen().is_empty());
    // A mirror that loses the layer after the manifest.
    let forgetful = {
        let image = image.clone();
        Server::plain(move |seen| {
            if image.is_layer(seen) {
                Answer::new(404, "")
            } else {
                image.serve(seen)
            }
        })
        .await
    };
    let client = Client::new(network(&config(&forgetful.host)));
    let resolved = client
        .resolve(&name, &platform, &Credentials::anonymous())
        .await
        .unwrap();
    assert!(read_layer(&client, &resolved, 0).await.unwrap() == image.layer);
}

/// When no place has it, what each of them says is said.
#[tokio::test]
async fn row_181_every_place_that_was_asked_says_why() {
    let refusing = |code: &'static str| {
        Server::plain(move |_| Answer::new(404, format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#)))
    };
    let registry = refusing("NAME_UNKNOWN").await;
    let (first, second) = (refusing("MANIFEST_UNKNOWN").await, refusing("DENIED").await);
    let mirrors = [&first, &second].map(|mirror| {
        format!(
            "[[registry.mirror]]\nlocation = '{}'\ninsecure = true\n",
            mirror.host
        )
    });
    let config = format!("{}{}", insecure(&registry.host), mirrors.concat());
    let client = Client::new(network(&config));
    let name = reference(&format!("{}/x/y:v1", registry.host));
    let platform = "linux/amd64".parse().unwrap();
    let error = client
        .resolve(&name, &platform, &Credentials::anonymous())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let said = types::report(&error).to_string();
    for part in [
        first.host.as_str(),
        &second.host,
        &registry.host,
        "MANIFEST_UNKNOWN",
        "DENIED",
        "NAME_UNKNOWN",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}
