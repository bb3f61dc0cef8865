//! Downloads from URLs with false lengths, changed files and internal addresses: rows 22 to 29 of
//! the faults.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fetch::url::{Download, Source};
use fetch::{AddressPolicy, Config, Error, Network};
use rig::{Answer, Length, Seen, Server, network, tuning};
use types::{Classify, ErrorKind};

const SIZE: usize = 2_000_000;
const LIMIT: u64 = 10 << 20;

fn content() -> Vec<u8> {
    (0..SIZE).map(|n| (n * 17 % 253).to_le_bytes()[0]).collect()
}

async fn download(url: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let mut download = Download::start(&network(""), &url.parse()?, limit).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Serves the content in ranges; the first answer breaks off at 30 %, and `spoil` changes the rest.
async fn broken(spoil: impl Fn(&Seen, Answer) -> Answer + Send + Sync + 'static) -> Server {
    let asked = AtomicUsize::new(0);
    Server::plain(move |seen| {
        let answer = Answer::ranged(seen, &content()).with("ETag", "\"v1\"");
        if asked.fetch_add(1, Ordering::Relaxed) == 0 {
            return Answer {
                cut: Some(SIZE * 3 / 10),
                ..answer
            };
        }
        spoil(seen, answer)
    })
    .await
}

#[tokio::test]
async fn a_download_comes_whole_and_is_resumed() {
    let server = broken(|_, answer| answer).await;
    assert!(download(&server.url("/d.img"), LIMIT).await.unwrap() == content());
    let seen = server.seen();
    assert_eq!(seen[1].range(), Some((SIZE * 3 / 10, SIZE - 1)));
    assert_eq!(seen[1].header("if-range"), Some("\"v1\""));
    assert!(seen.iter().all(|seen| seen.method == "GET"));
    assert!(
        seen.iter()
            .all(|seen| seen.header("accept-encoding") == Some("identity"))
    );
    // The whole again, provably the same: what is there already is passed over.
    let server = broken(|_, _| Answer::ok(content()).with("ETag", "\"v1\"")).await;
    assert!(download(&server.url("/d.img"), LIMIT).await.unwrap() == content());
    // A stall is a break.
    let stalled = AtomicUsize::new(0);
    let server = Server::plain(move |seen| {
        let answer =
            Answer::ranged(seen, &content()).with("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT");
        let first = stalled.fetch_add(1, Ordering::Relaxed) == 0;
        Answer {
            stall: first.then_some(1000),
            ..answer
        }
    })
    .await;
    assert!(download(&server.url("/d.img"), LIMIT).await.unwrap() == content());
}

#[tokio::test]
async fn row_22_other_schemes_never_leave() {
    for text in [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "httpsinvalid://127.0.0.1/",
        "http:///x",
        "x",
    ] {
        let error = download(text, LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}: {error}");
    }
}

#[tokio::test]
async fn row_23_addresses_inside_are_refused_by_whatever_name() {
    let closed = Network::new(Config::default(), AddressPolicy::default(), tuning());
    let server = Server::plain(|_| Answer::ok("secret")).await;
    let port = server.host.rsplit(':').next().unwrap().to_owned();
    for host in [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "localhost",
        "LOCALHOST",
        "169.254.169.254",
        "[fe80::1]",
        "0.0.0.0",
        "[::]",
        "255.255.255.255",
        "224.0.0.1",
        "[fd00:ec2::254]",
        "100.100.100.200",
    ] {
        let source: Source = format!("http://{host}:{port}/latest").parse().unwrap();
        let error = Download::start(&closed, &source, LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Forbidden { .. }), "{host}: {error}");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("--allow-address"), "{error}");
    }
    assert!(server.seen().is_empty());
    // The allow-list opens it, by name too.
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(
            download(&format!("http://{host}:{port}/"), LIMIT)
                .await
                .unwrap(),
            b"secret"
        );
    }
}

#[tokio::test]
async fn row_23_each_redirect_is_checked_again() {
    for to in [
        "http://169.254.169.254/x",
        "http://[::1]:1/x",
        "http://0.0.0.0/x",
        "http://[::ffff:169.254.1.1]/",
    ] {
        let server = Server::plain(move |_| Answer::redirect(to)).await;
        let error = download(&server.url("/"), LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Forbidden { .. }), "{to}: {error}");
    }
    let server = Server::plain(|_| Answer::redirect("file:///etc/passwd")).await;
    assert!(matches!(
        download(&server.url("/"), LIMIT).await.unwrap_err(),
        Error::Url { .. }
    ));
}

#[tokio::test]
async fn row_23_a_proxy_of_the_environment_is_not_asked() {
    // The variables are read when a client is built: a child of this test has them.
    if std::env::var_os("http_proxy").is_none() {
        let proxy = Server::plain(|_| Answer::ok("from the proxy")).await;
        let server = Server::plain(|_| Answer::ok("from the server")).await;
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "row_23_a_proxy_of_the_environment_is_not_asked",
            "--nocapture",
        ]);
        command
            .env("http_proxy", format!("http://{}", proxy.host))
            .env("DOWNLOAD", server.url("/"));
        let output = command.output().await.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert!(proxy.seen().is_empty() && server.seen().len() == 1);
    } else {
        let url = std::env::var("DOWNLOAD").unwrap();
        assert_eq!(download(&url, LIMIT).await.unwrap(), b"from the server");
    }
}

#[tokio::test]
async fn row_24_nothing_of_an_error_body_is_told() {
    for status in [400, 403, 404, 418, 500, 503] {
        let server = Server::plain(move |_| Answer::new(status, "SECRET ".repeat(100))).await;
        let error = download(&server.url("/?token=hunter2"), LIMIT)
            .await
            .unwrap_err();
        let shown = format!("{} {error:?}", types::report(&error));
        assert!(
            !shown.contains("SECRET") && !shown.contains("hunter2"),
            "{shown}"
        );
        if matches!(status, 400 | 418) {
            assert!(
                shown.contains(&status.to_string()) && shown.contains("700 bytes"),
                "{shown}"
            );
        }
    }
}

#[tokio::test]
async fn row_25_a_length_that_lies_is_found() {
    // 10 GB announced: more than is accepted, refused before the body.
    let server = Server::plain(|_| Answer {
        length: Length::Lie(10 << 30),
        ..Answer::ok("x")
    })
    .await;
    assert!(matches!(
        download(&server.url("/"), LIMIT).await.unwrap_err(),
        Error::TooLarge { limit: LIMIT, .. }
    ));
    // Accepted, but only 1 KB comes: both sizes are told.
    let server = Server::plain(|_| Answer {
        length: Length::Lie(10 << 30),
        ..Answer::ok(vec![1; 1024]).with("ETag", "\"v1\"")
    })
    .await;
    let error = download(&server.url("/"), 20 << 30).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Exhausted { .. } | Error::Changed { received: 1024, .. }
        ),
        "{error}"
    );
    assert!(
        types::report(&error).to_string().contains("1024 bytes"),
        "{}",
        types::report(&error)
    );
    // No length and no end.
    let server = Server::plain(|_| Answer {
        length: Length::Chunked,
        endless: true,
        ..Answer::ok("x")
    })
    .await;
    assert!(matches!(
        download(&server.url("/"), LIMIT).await.unwrap_err(),
        Error::TooLarge { .. }
    ));
    // Fewer announced than come: the body is what was announced.
    let server = Server::plain(|_| Answer {
        length: Length::Lie(4),
        ..Answer::ok("12345678")
    })
    .await;
    assert_eq!(download(&server.url("/"), LIMIT).await.unwrap(), b"1234");
    // Without a length the end of the body is its end.
    let server = Server::plain(|_| Answer {
        length: Length::Chunked,
        ..Answer::ok("12345678")
    })
    .await;
    assert_eq!(
        download(&server.url("/"), LIMIT).await.unwrap(),
        b"12345678"
    );
}

#[tokio::test]
async fn row_26_versions_are_never_spliced() {
    type Spoil = fn(&Seen, Answer) -> Answer;
    let changes: [(&str, Spoil); 6] = [
        ("200 without a validator", |_, _| Answer::ok(vec![9; SIZE])),
        ("200 with another ETag", |_, _| {
            Answer::ok(vec![9; SIZE]).with("ETag", "\"v2\"")
        }),
        ("206 with another ETag", |_, mut answer| {
            answer.headers.retain(|(name, _)| name != "ETag");
            answer.with("ETag", "\"v2\"")
        }),
        ("206 of another range", |_, mut answer| {
            answer.headers.retain(|(name, _)| name != "Content-Range");
            answer.with("Content-Range", format!("bytes 0-9/{SIZE}"))
        }),
        ("206 of another size", |seen, mut answer| {
            let first = seen.range().unwrap().0;
            answer.headers.retain(|(name, _)| name != "Content-Range");
            answer.with(
                "Content-Range",
                format!("bytes {first}-{}/{}", SIZE - 1, SIZE + 1),
            )
        }),
        ("416", |_, _| Answer::new(416, "")),
    ];
    for (what, spoil) in changes {
        let server = broken(spoil).await;
        let error = download(&server.url("/"), LIMIT).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Changed {
                    received: 600_000,
                    ..
                }
            ),
            "{what}: {error}"
        );
        assert!(error.passes() > 1);
    }
    // Nothing to tell versions by: not even asked for the rest.
    let server = Server::plain(|_| Answer {
        cut: Some(1000),
        ..Answer::ok(content())
    })
    .await;
    assert!(matches!(
        download(&server.url("/"), LIMIT).await.unwrap_err(),
        Error::Changed { .. }
    ));
    assert_eq!(server.seen().len(), 1);
    // A weak ETag proves nothing.
    let server = Server::plain(|_| Answer {
        cut: Some(1000),
        ..Answer::ok(content()).with("ETag", "W/\"v\"")
    })
    .await;
    assert!(matches!(
        download(&server.url("/"), LIMIT).await.unwrap_err(),
        Error::Changed { .. }
    ));
}

#[tokio::test]
async fn row_27_what_is_encoded_is_refused_and_a_page_is_told() {
    let server = Server::plain(|_| Answer::ok("packed").with("Content-Encoding", "gzip")).await;
    assert!(matches!(
        download(&server.url("/"), LIMIT).await.unwrap_err(),
        Error::Answer { .. }
    ));
    let server =
        Server::plain(|_| Answer::ok("<html>").with("Content-Type", "text/HTML; charset=utf-8"))
            .await;
    let source = server.url("/login").parse().unwrap();
    let page = Download::start(&network(""), &source, LIMIT).await.unwrap();
    assert!(page.is_no_disk().is_some() && page.content_type().is_some() && page.size() == Some(6));
}

/// Words of `Content-Encoding` that change nothing are believed to change nothing.
#[tokio::test]
async fn row_175_an_encoding_that_is_none_is_taken() {
    let with = |words: &[&'static str]| {
        let words = words.to_vec();
        Server::plain(move |_| {
            let answer = Answer::ok("the disk");
            words.iter().fold(answer, |answer, word| {
                answer.with("Content-Encoding", *word)
            })
        })
    };
    for words in [
        &["aws-chunked"][..],
        &["identity, identity"],
        &["none"],
        &["AWS-Chunked,identity"],
        &["aws-chunked", "identity"],
        &["aws-chunked,"],
        &[""],
    ] {
        let server = with(words).await;
        let got = download(&server.url("/"), LIMIT).await;
        assert_eq!(got.unwrap(), b"the disk", "{words:?}");
    }
    for words in [
        &["gzip"][..],
        &["aws-chunked,gzip"],
        &["aws-chunked", "br"],
        &["deflate, none"],
    ] {
        let server = with(words).await;
        let error = download(&server.url("/"), LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Answer { .. }), "{words:?}: {error}");
    }
}

/// What the server calls a page, a document or an archive is told; what may be a disk is not.
#[tokio::test]
async fn row_174_a_type_that_is_no_disks_is_told() {
    for (content_type, is_disk) in [
        ("application/json", false),
        ("Application/JSON; charset=utf-8", false),
        ("application/xml", false),
        ("text/xml", false),
        ("application/zip", false),
        ("application/xhtml+xml", false),
        ("text/html", false),
        ("text/plain", true),
        ("application/octet-stream", true),
        ("application/x-xz", true),
        ("application/gzip", true),
        ("application/x-raw-disk-image", true),
        ("", true),
    ] {
        let server =
            Server::plain(move |_| Answer::ok("x").with("Content-Type", content_type)).await;
        let source = server.url("/d").parse().unwrap();
        let answer = Download::start(&network(""), &source, LIMIT).await.unwrap();
        assert_eq!(answer.is_no_disk().is_none(), is_disk, "{content_type}");
    }
}

#[tokio::test]
async fn row_09_credentials_in_a_url_stay_with_its_host() {
    let other = Arc::new(Server::plain(|_| Answer::ok("there")).await);
    let to = other.url("/");
    let server = Server::plain(move |seen| match seen.header("authorization") {
        // base64 of us@er:hunter2.
        Some("Basic dXNAZXI6aHVudGVyMg==") => Answer::redirect(&to),
        _ => Answer::new(401, ""),
    })
    .await;
    let url = format!("http://us%40er:hunter2@{}/d.img", server.host);
    assert_eq!(download(&url, LIMIT).await.unwrap(), b"there");
    assert_eq!(other.seen()[0].header("authorization"), None);
    let error = download(&server.url("/"), LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    let error = download(&url.replace("hunter2", "hunter3"), LIMIT)
        .await
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter3"));
}
