//! The options of a download, and which servers see them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fetch::url::{Download, Options, Source};
use fetch::{AddressPolicy, Config, Error, Network, Proxies};
use rig::tls::Certificates;
use rig::{Answer, Server, network, tuning};
use types::{Classify, ErrorKind};

const LIMIT: u64 = 10 << 20;

async fn download(
    network: &Network,
    url: &str,
    set: impl FnOnce(&mut Options),
) -> Result<Vec<u8>, Error> {
    let mut options = Options::default();
    set(&mut options);
    let source = url.parse::<Source>()?.with(options)?;
    let mut download = Download::start(network, &source, LIMIT).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn headers_and_credentials_go_to_the_urls_own_host_alone() {
    let other = Server::plain(|_| Answer::ok("there")).await;
    let to = other.url("/signed?by=them");
    let server =
        Server::plain(
            move |seen| match (seen.header("authorization"), seen.header("x-api-key")) {
                (Some("Bearer hunter2"), Some("hunter3")) => Answer::redirect(&to),
                _ => Answer::new(401, ""),
            },
        )
        .await;
    let signed_in = |options: &mut Options| {
        options.bearer("hunter2").unwrap();
        options.header("X-Api-Key", "hunter3").unwrap();
    };
    let url = server.url("/d.img");
    let got = download(&network(""), &url, signed_in).await.unwrap();
    assert_eq!(got, b"there");
    let seen = &other.seen()[0];
    assert_eq!(
        (seen.header("authorization"), seen.header("x-api-key")),
        (None, None)
    );
    let error = download(&network(""), &url, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    // Twice is a question that nobody can answer.
    let twice = url.replace("http://", "http://me:hunter2@");
    let error = download(&network(""), &twice, signed_in).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_download_brings_its_own_authority() {
    let Some(certificates) = Certificates::make() else {
        return;
    };
    let server = Server::start(Some(certificates.acceptor()), |_| Answer::ok("disk")).await;
    let url = format!("https://{}/d.img", server.host);
    let error = download(&network(""), &url, |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
    let pem = std::fs::read(certificates.ca()).unwrap();
    let with_it = |options: &mut Options| options.authorities(&pem).unwrap();
    let got = download(&network(""), &url, with_it).await.unwrap();
    assert_eq!(got, b"disk");
}

#[tokio::test]
async fn a_download_goes_through_its_own_proxy_and_the_environments() {
    // What a proxy sees is the whole URL; the host need not have a name here.
    let proxy = Server::plain(|seen| {
        let known = seen.path == "http://images.invalid/d.img";
        if known {
            Answer::ok("by the proxy")
        } else {
            Answer::new(404, "")
        }
    })
    .await;
    let server = Server::plain(|_| Answer::ok("by itself")).await;
    let through = format!("http://me:hunter2@{}", proxy.host);
    let got = download(&network(""), "http://images.invalid/d.img", |options| {
        options.through(&through).unwrap();
    })
    .await;
    assert_eq!(got.unwrap(), b"by the proxy");
    let seen = proxy.seen();
    assert_eq!(
        seen[0].header("proxy-authorization"),
        Some("Basic bWU6aHVudGVyMg==")
    );

    // A proxy that a request names is an address like any other.
    let closed = Network::new(Config::default(), AddressPolicy::default(), tuning());
    let error = download(&closed, "http://images.invalid/d.img", |options| {
        options.through(&through).unwrap();
    })
    .await;
    assert!(matches!(error.unwrap_err(), Error::Forbidden { .. }));

    // One of the environment is the operator's, at whatever address. A child has the environment.
    if std::env::var_os("http_proxy").is_none() {
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "a_child_with_a_proxy_in_its_environment",
            "--ignored",
        ]);
        let output = command
            .env(
                "http_proxy",
                format!("http://{}", proxy.host.replace("127.0.0.1", "localhost")),
            )
            .env("NO_PROXY", "none.invalid")
            .env("SERVER", server.url("/"))
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
    }
}

#[tokio::test]
#[ignore = "a child of another test"]
async fn a_child_with_a_proxy_in_its_environment() {
    let network = |policy| {
        let proxies = Proxies::of_environment();
        Network::with_proxies(Config::default(), policy, tuning(), proxies)
    };
    let url = "http://images.invalid/d.img";
    let got = download(&network(AddressPolicy::default()), url, |_| {}).await;
    assert_eq!(got.unwrap(), b"by the proxy");
    // This machine, and who says so, are asked directly; what is forbidden stays so.
    let here = std::env::var("SERVER").unwrap();
    let open = network(AddressPolicy::unrestricted());
    assert_eq!(download(&open, &here, |_| {}).await.unwrap(), b"by itself");
    let error = download(&network(AddressPolicy::default()), &here, |_| {}).await;
    assert!(matches!(error.unwrap_err(), Error::Forbidden { .. }));
    let metadata = "http://169.254.169.254/latest";
    let error = download(&network(AddressPolicy::default()), metadata, |_| {}).await;
    assert!(matches!(error.unwrap_err(), Error::Forbidden { .. }));
    let direct = |options: &mut Options| options.through("direct").unwrap();
    assert!(download(&open, url, direct).await.is_err());
}

#[tokio::test]
async fn a_body_called_gzip_is_taken_where_gzip_is_asked_for() {
    let server = Server::plain(|_| Answer::ok("packed").with("Content-Encoding", "x-gzip")).await;
    let url = server.url("/d.img.gz");
    let got = download(&network(""), &url, Options::take_gzip).await;
    assert_eq!(got.unwrap(), b"packed");
    let server = Server::plain(|_| Answer::ok("packed").with("Content-Encoding", "br")).await;
    let got = download(&network(""), &server.url("/"), Options::take_gzip).await;
    assert!(matches!(got.unwrap_err(), Error::Answer { .. }));
}

#[tokio::test]
async fn a_download_is_as_patient_as_it_says() {
    // Silent after the first bytes, each time.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = Server::plain(move |seen| {
        count.fetch_add(1, Ordering::Relaxed);
        let answer = Answer::ranged(seen, &[7; 5000]).with("ETag", "\"v1\"");
        Answer {
            stall: Some(1000),
            ..answer
        }
    })
    .await;
    let started = Instant::now();
    let got = download(&network(""), &server.url("/"), |options| {
        options.idle_timeout(Duration::from_secs(1)).unwrap();
    })
    .await;
    // A thousand bytes each time: five requests bring all of it.
    assert_eq!(got.unwrap(), [7; 5000]);
    assert!(
        started.elapsed() >= Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(asked.load(Ordering::Relaxed), 5);
}

/// Row 20: however often a link breaks, a large transfer on it gets through.
#[tokio::test]
async fn row_20_a_busy_server_is_left_alone_as_long_as_it_asks() {
    let asked = AtomicUsize::new(0);
    let server = Server::plain(move |seen| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::new(429, "").with("Retry-After", "1"),
        1 => Answer::new(503, ""),
        2 => Answer {
            cut: Some(2000),
            ..Answer::ok([7; 5000]).with("ETag", "\"v1\"")
        },
        3 => Answer::new(503, "").with("Retry-After", "1"),
        _ => Answer::ranged(seen, &[7; 5000]).with("ETag", "\"v1\""),
    })
    .await;
    let started = Instant::now();
    let got = download(&network(""), &server.url("/"), |_| {}).await;
    assert_eq!(got.unwrap(), [7; 5000]);
    assert!(
        started.elapsed() >= Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(server.seen().last().unwrap().range(), Some((2000, 4999)));
}
