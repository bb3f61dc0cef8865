//! What goes over the wire to an object store, seen by a listener that answers what a test says.

use std::sync::Mutex;

use ring::{digest, hmac};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

const KEY: &str = "backupstore/volumes/aa/bb/vol/volume.cfg";
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const DATE: &str = "Fri, 24 May 2013 00:00:00 GMT";

/// A request as it came.
#[derive(Debug, Clone, Default)]
struct Asked {
    method: String,
    /// Path and query, as they are on the wire.
    target: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// A server that answers each request by a function of it and of how many came before.
struct Listener {
    endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    async fn new(answer: impl Fn(&Asked, usize) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (all, answer) = (Arc::clone(&asked), Arc::new(answer));
        let task = tokio::spawn(async move {
            let mut served = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                served.spawn(async move {
                    let _ = serve(stream, &all, &*answer).await;
                });
            }
        });
        Self {
            endpoint,
            asked,
            task,
        }
    }

    fn bucket(&self, more: &[(&str, &str)]) -> Bucket {
        let keys = [
            (ACCESS_KEY, ID),
            (SECRET_KEY, SECRET),
            (ENDPOINT, &self.endpoint),
        ];
        let (credentials, _) = Credentials::from_pairs(keys.iter().chain(more).copied()).unwrap();
        let address = "s3://bucket@auto/some/path/".parse().unwrap();
        Bucket::open(&address, &credentials).unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request for each connection.
async fn serve(
    mut stream: TcpStream,
    all: &Mutex<Vec<Asked>>,
    answer: &(dyn Fn(&Asked, usize) -> Vec<u8> + Send + Sync),
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_lowercase(), value.to_owned())
    });
    let mut asked = Asked {
        method: first.next().unwrap().to_owned(),
        target: first.next().unwrap().to_owned(),
        headers: headers.collect(),
        body: bytes.split_off(end + 4),
    };
    let length = asked
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    while asked.body.len() < length {
        stream.read_buf(&mut asked.body).await?;
    }
    let answer = {
        let mut all = all.lock().unwrap();
        let answer = answer(&asked, all.len());
        all.push(asked);
        answer
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\nETag: \"e\"\r\nLast-Modified: {DATE}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn refusal(status: &str, code: &str) -> Vec<u8> {
    let body = format!("<Error><Code>{code}</Code><Message>{ID} {SECRET}</Message></Error>");
    answer(status, body.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// AWS Signature Version 4 of a request, from its description alone.
fn signature(asked: &Asked, signed: &str, region: &str) -> String {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            if pair.contains('=') {
                pair.to_owned()
            } else {
                format!("{pair}=")
            }
        })
        .collect();
    pairs.sort();
    let headers = signed.split(';').fold(String::new(), |all, name| {
        format!("{all}{name}:{}\n", asked.header(name).unwrap().trim())
    });
    let payload = asked.header("x-amz-content-sha256").unwrap();
    let canonical = [
        &asked.method,
        path,
        &pairs.join("&"),
        &headers,
        signed,
        payload,
    ]
    .join("\n");
    let time = asked.header("x-amz-date").unwrap();
    let date = &time[..8];
    let scope = format!("{date}/{region}/s3/aws4_request");
    let text = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        sha256(canonical.as_bytes())
    );
    let mac = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let mut key = mac(format!("AWS4{SECRET}").as_bytes(), date);
    for part in [region, "s3", "aws4_request"] {
        key = mac(&key, part);
    }
    hex(&mac(&key, &text))
}

/// The published example of a GET with a range.
#[test]
fn the_signer_of_these_tests_agrees_with_the_published_vector() {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let asked = Asked {
        method: "GET".to_owned(),
        target: "/test.txt".to_owned(),
        headers: vec![
            header("host", "examplebucket.s3.amazonaws.com"),
            header("range", "bytes=0-9"),
            header("x-amz-content-sha256", &sha256(b"")),
            header("x-amz-date", "20130524T000000Z"),
        ],
        body: Vec::new(),
    };
    assert_eq!(
        signature(
            &asked,
            "host;range;x-amz-content-sha256;x-amz-date",
            "us-east-1"
        ),
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    );
}

/// Checks the signature of a request, and that nothing is in it that proxies change or some stores refuse.
fn check_signed(asked: &Asked) {
    let authorization = asked.header("authorization").unwrap();
    let (_, rest) = authorization.split_once("SignedHeaders=").unwrap();
    let (signed, said) = rest.split_once(", Signature=").unwrap();
    assert!(
        authorization.contains(&format!("Credential={ID}/")),
        "{authorization}"
    );
    assert!(
        authorization.contains("/auto/s3/aws4_request"),
        "{authorization}"
    );
    assert_eq!(signature(asked, signed, "auto"), said, "{asked:?}");
    assert_eq!(
        asked.header("x-amz-content-sha256"),
        Some(sha256(&asked.body).as_str())
    );
    for name in signed.split(';') {
        let harmless = [
            "host",
            "content-length",
            "content-type",
            "x-amz-content-sha256",
            "x-amz-date",
            "if-none-match",
            "range",
            "if-match",
        ];
        assert!(harmless.contains(&name), "{name} is signed");
    }
    for (name, value) in &asked.headers {
        let refused = [
            "accept-encoding",
            "transfer-encoding",
            "expect",
            "x-amz-trailer",
            "content-encoding",
        ];
        assert!(!refused.contains(&name.as_str()), "{name}: {value}");
        assert!(
            !name.starts_with("x-amz-checksum") && !name.starts_with("x-amz-sdk"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn every_request_is_signed_and_is_one_that_all_stores_take() {
    let listener = Listener::new(|asked, _| match asked.method.as_str() {
        "DELETE" => answer("204 No Content", b""),
        "GET" if asked.target.contains("list-type") => answer(
            "200 OK",
            b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
        ),
        "HEAD" => {
            let whole = answer("200 OK", b"old");
            whole[..whole.len() - 3].to_vec()
        }
        _ => answer("200 OK", b"old"),
    })
    .await;
    let bucket = listener.bucket(&[]);
    let driver: &dyn Driver = &bucket;
    driver
        .put(KEY, Bytes::from_static(b"new bytes"))
        .await
        .unwrap();
    assert!(
        driver
            .put_new(KEY, Bytes::from_static(b"new"))
            .await
            .unwrap()
    );
    let object = driver.get(KEY, 10).await.unwrap();
    assert_eq!(&object.bytes[..], b"old");
    // The server's clock.
    assert_eq!(object.meta.modified.to_string(), "2013-05-24T00:00:00Z");
    assert_eq!(driver.head(KEY).await.unwrap(), Some(object.meta));
    driver.delete(KEY).await.unwrap();
    assert_eq!(
        driver
            .list("backupstore/volumes")
            .try_collect::<Vec<_>>()
            .await
            .unwrap(),
        []
    );
    assert_eq!(
        driver.folders("backupstore/volumes").await.unwrap(),
        [""; 0]
    );

    let asked = listener.asked();
    asked.iter().for_each(check_signed);
    let lines: Vec<String> = asked
        .iter()
        .map(|asked| format!("{} {}", asked.method, asked.target))
        .collect();
    let object = format!("/bucket/some/path/{KEY}");
    let pages = "/bucket?list-type=2&prefix=some%2Fpath%2Fbackupstore%2Fvolumes%2F";
    assert_eq!(
        lines[..5],
        [
            format!("PUT {object}"),
            format!("PUT {object}"),
            format!("GET {object}"),
            format!("HEAD {object}"),
            format!("DELETE {object}"),
        ]
    );
    assert_eq!(lines[5], format!("GET {pages}"));
    assert!(
        lines[6].starts_with("GET /bucket?") && lines[6].contains("delimiter=%2F"),
        "{}",
        lines[6]
    );
    assert_eq!(asked[0].body, b"new bytes");
    assert_eq!(asked[1].header("if-none-match"), Some("*"));
    assert_eq!(lines.len(), 7);
}

#[tokio::test]
async fn a_listing_is_read_page_by_page() {
    let page = |more: &str, keys: &[&str]| {
        let contents = keys.iter().fold(String::new(), |all, key| {
            format!(
                "{all}<Contents><Key>some/path/{key}</Key><Size>7</Size><ETag>e</ETag>\
                 <LastModified>2013-05-24T00:00:00.000Z</LastModified></Contents>"
            )
        });
        format!(
            "<ListBucketResult>{more}{contents}<CommonPrefixes><Prefix>some/path/a/f1/</Prefix></CommonPrefixes></ListBucketResult>"
        )
    };
    let listener = Listener::new(move |asked, _| {
        let body = if asked.target.contains("continuation-token=next") {
            page("<IsTruncated>false</IsTruncated>", &["a/c.cfg"])
        } else {
            let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>next</NextContinuationToken>";
            page(more, &["a/b.cfg", "a/b.cfg.tmp"])
        };
        answer("200 OK", body.as_bytes())
    })
    .await;
    let bucket = listener.bucket(&[]);
    let entries: Vec<Entry> = bucket.list("a").try_collect().await.unwrap();
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["a/b.cfg", "a/b.cfg.tmp", "a/c.cfg"]);
    assert_eq!(entries[0].meta.size, 7);
    assert_eq!(listener.asked().len(), 2);
    assert_eq!(bucket.folders("a").await.unwrap(), ["f1"]);
}

#[tokio::test]
async fn what_a_store_refuses_is_said_by_its_code_and_asked_once() {
    for (status, code, expected) in [
        (
            "404 Not Found",
            "NoSuchKey",
            "the store has no backupstore/",
        ),
        ("404 Not Found", "NoSuchBucket", "the bucket does not exist"),
        (
            "403 Forbidden",
            "AccessDenied",
            "permission denied (it says AccessDenied)",
        ),
        (
            "403 Forbidden",
            "SignatureDoesNotMatch",
            "refuses the credentials (it says SignatureDoesNotMatch)",
        ),
        (
            "403 Forbidden",
            "RequestTimeTooSkewed",
            "the clock of this machine",
        ),
        (
            "301 Moved Permanently",
            "PermanentRedirect",
            "in another region",
        ),
        ("307 Temporary Redirect", "", "a redirect (307)"),
        (
            "400 Bad Request",
            "AuthorizationHeaderMalformed",
            "in another region",
        ),
        (
            "507 Insufficient Storage",
            "XMinioStorageFull",
            "the store is full",
        ),
        ("501 Not Implemented", "NotImplemented", "cannot do this"),
        ("418 Teapot", "", "status 418"),
    ] {
        let listener = Listener::new(move |_, _| refusal(status, code)).await;
        let bucket = listener.bucket(&[]);
        for error in [
            bucket.get(KEY, 9).await.unwrap_err(),
            bucket
                .put(KEY, Bytes::new(), PutMode::Overwrite)
                .await
                .unwrap_err(),
        ] {
            let text = types::report(&error).to_string();
            assert!(text.contains(expected), "{status}: {text}");
            assert!(
                text.contains(KEY) && !text.contains(SECRET) && !text.contains(ID),
                "{text}"
            );
            let debug = format!("{error:?}");
            assert!(!debug.contains(SECRET) && !debug.contains(ID), "{debug}");
        }
        assert_eq!(listener.asked().len(), 2, "{status}");
    }
    // An answer to "what is it" is no failure.
    let listener = Listener::new(|_, _| refusal("404 Not Found", "NoSuchKey")).await;
    assert_eq!(listener.bucket(&[]).head(KEY).await.unwrap(), None);
    Driver::delete(&listener.bucket(&[]), KEY).await.unwrap();
    let listener =
        Listener::new(|_, _| refusal("412 Precondition Failed", "PreconditionFailed")).await;
    assert!(
        !listener
            .bucket(&[])
            .put_new(KEY, Bytes::new())
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again() {
    let listener = Listener::new(|asked, before| match before {
        0 => refusal("503 Slow Down", "SlowDown"),
        1 => refusal("500 Internal Server Error", "InternalError"),
        // It hangs up.
        2 => Vec::new(),
        _ => answer("200 OK", &asked.body),
    })
    .await;
    let bucket = listener.bucket(&[]);
    bucket
        .put(KEY, Bytes::from_static(b"x"), PutMode::Overwrite)
        .await
        .unwrap();
    let asked = listener.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|asked| asked.body == b"x"));
}

#[tokio::test]
async fn a_body_that_is_cut_is_read_on_or_is_an_error() {
    let whole = answer("200 OK", b"0123456789");
    let cut = whole[..whole.len() - 4].to_vec();
    let listener = Listener::new(move |asked, _| {
        let Some(range) = asked.header("range") else {
            return cut.clone();
        };
        assert_eq!(range, "bytes=6-9");
        let answer = String::from_utf8(answer("206 Partial Content", b"6789")).unwrap();
        answer
            .replace("ETag", "Content-Range: bytes 6-9/10\r\nETag")
            .into_bytes()
    })
    .await;
    let object = listener.bucket(&[]).get(KEY, 10).await.unwrap();
    assert_eq!(&object.bytes[..], b"0123456789");

    let large = Listener::new(|_, _| answer("200 OK", b"0123456789")).await;
    let error = large.bucket(&[]).get(KEY, 9).await.unwrap_err();
    assert!(matches!(
        error,
        Error::TooLarge {
            size: 10,
            limit: 9,
            ..
        }
    ));
}

#[tokio::test]
async fn nobody_who_answers_is_an_error_that_says_so() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let keys = [
        (ACCESS_KEY, ID),
        (SECRET_KEY, SECRET),
        (ENDPOINT, endpoint.as_str()),
    ];
    let (credentials, _) = Credentials::from_pairs(keys).unwrap();
    let address = "s3://bucket/".parse().unwrap();
    let mut bucket = Bucket::open(&address, &credentials).unwrap();
    // Without the retries, which take their time.
    let builder = AmazonS3Builder::new()
        .with_http_connector(Connector::new(&credentials, CERTIFICATES).unwrap())
        .with_retry(RetryConfig {
            max_retries: 0,
            ..retry()
        })
        .with_bucket_name("bucket")
        .with_endpoint(endpoint)
        .with_access_key_id(ID)
        .with_secret_access_key(SECRET);
    bucket.store = Arc::new(builder.build().unwrap());
    let error = bucket.get(KEY, 9).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable { why, .. } if why.contains("refused")),
        "{error}"
    );
}

#[tokio::test]
async fn the_proxy_of_the_credentials_is_asked() {
    let proxy = Listener::new(|_, _| answer("200 OK", b"x")).await;
    let more = [
        ("HTTP_PROXY", proxy.endpoint.as_str()),
        (ENDPOINT, "http://store.invalid"),
    ];
    let keys = [(ACCESS_KEY, ID), (SECRET_KEY, SECRET)];
    let (credentials, _) = Credentials::from_pairs(keys.into_iter().chain(more)).unwrap();
    let bucket = Bucket::open(&"s3://bucket/".parse().unwrap(), &credentials).unwrap();
    bucket.get(KEY, 9).await.unwrap();
    assert_eq!(
        proxy.asked()[0].target,
        format!("http://store.invalid/bucket/{KEY}")
    );
}

#[tokio::test]
async fn the_bucket_is_part_of_the_host_if_that_is_wanted() {
    let proxy = Listener::new(|_, _| answer("200 OK", b"x")).await;
    for (more, target) in [
        (
            &[
                ("VIRTUAL_HOSTED_STYLE", "true"),
                (ENDPOINT, "http://store.invalid:90/"),
            ][..],
            "http://bucket.store.invalid:90/",
        ),
        (
            &[
                ("VIRTUAL_HOSTED_STYLE", "false"),
                (ENDPOINT, "http://store.invalid:90/"),
            ],
            "http://store.invalid:90/bucket/",
        ),
    ] {
        let keys = [
            (ACCESS_KEY, ID),
            (SECRET_KEY, SECRET),
            ("HTTP_PROXY", proxy.endpoint.as_str()),
        ];
        let (credentials, _) = Credentials::from_pairs(keys.iter().chain(more).copied()).unwrap();
        let bucket = Bucket::open(&"s3://bucket@auto/".parse().unwrap(), &credentials).unwrap();
        bucket.get(KEY, 9).await.unwrap();
        assert_eq!(
            proxy.asked().last().unwrap().target,
            format!("{target}{KEY}")
        );
    }
}

#[tokio::test]
async fn azure_is_asked_with_its_own_signature() {
    let listener = Listener::new(|asked, _| match asked.method.as_str() {
        "PUT" => answer("201 Created", b""),
        _ => answer("200 OK", b"old"),
    })
    .await;
    let keys = [
        (AZURE_ACCOUNT, "account"),
        (AZURE_KEY, "c2VjcmV0"),
        (AZURE_ENDPOINT, listener.endpoint.as_str()),
    ];
    let (credentials, _) = Credentials::from_pairs(keys).unwrap();
    let bucket = Bucket::open(&"azblob://box/p/".parse().unwrap(), &credentials).unwrap();
    bucket
        .put(KEY, Bytes::from_static(b"x"), PutMode::Overwrite)
        .await
        .unwrap();
    assert_eq!(&bucket.get(KEY, 9).await.unwrap().bytes[..], b"old");
    for asked in listener.asked() {
        assert_eq!(
            asked.target.split('?').next(),
            Some(format!("/account/box/p/{KEY}").as_str())
        );
        assert!(
            asked
                .header("authorization")
                .unwrap()
                .starts_with("SharedKey account:")
        );
    }

    let (none, _) = Credentials::from_pairs([("HTTP_PROXY", "http://p")]).unwrap();
    let error = Bucket::open(&"azblob://box/".parse().unwrap(), &none).unwrap_err();
    assert!(matches!(error, Error::Credentials { key, .. } if key == AZURE_ACCOUNT));
    let keys = [
        (AZURE_ACCOUNT, "account"),
        (AZURE_KEY, "not base64, but hunter2"),
    ];
    let (bad, _) = Credentials::from_pairs(keys).unwrap();
    let error = Bucket::open(&"azblob://box/".parse().unwrap(), &bad).unwrap_err();
    assert!(matches!(&error, Error::Credentials { key, .. } if key == AZURE_KEY));
    assert!(!format!("{error:?}{error}").contains("hunter2"));
}

#[test]
fn nothing_that_is_shown_of_a_store_is_a_credential() {
    let keys = [
        (ACCESS_KEY, ID),
        (SECRET_KEY, SECRET),
        ("HTTPS_PROXY", "http://user:hunter2@proxy"),
    ];
    let (credentials, _) = Credentials::from_pairs(keys).unwrap();
    let bucket = Bucket::open(&"s3://bucket@eu-central-1/".parse().unwrap(), &credentials).unwrap();
    let debug = format!("{bucket:?}");
    let values = [ID, SECRET, "hunter2"];
    assert!(!values.iter().any(|value| debug.contains(value)), "{debug}");
}
