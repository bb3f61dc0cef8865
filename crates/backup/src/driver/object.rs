//! A store in the buckets of S3 or the containers of Azure.
//!
//! What providers differ in is left out: an object is written by one PUT and removed by one DELETE, and
//! no checksums travel besides the signature. No header that a proxy may change is signed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, GetOptions, ObjectMeta, ObjectStore, PutMode, PutOptions, RetryConfig,
};
use tokio::time::timeout;

use super::http::{ANSWER, BYTES_PER_SECOND, Connector};
use super::{Driver, Entry, Meta, Object, Reading, failure};
use crate::credentials::{
    ACCESS_KEY, AZURE_ACCOUNT, AZURE_CERTIFICATES, AZURE_ENDPOINT, AZURE_KEY, CERTIFICATES,
    ENDPOINT, REGION, SECRET_KEY,
};
use crate::{Credentials, Error, Result, Scheme, StoreAddress};

/// After this no request is tried again.
const RETRY: Duration = Duration::from_mins(2);
const RETRIES_MAX: usize = 6;
/// No call lasts longer than this and what its bytes take: the last try, and all before it.
const CALL: Duration = Duration::from_mins(4);
const REGION_DEFAULT: &str = "us-east-1";
const AZURE_SUFFIX: &str = "core.windows.net";

#[derive(Clone)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// In front of each key: empty, or ends in a slash.
    prefix: String,
}

impl fmt::Debug for Bucket {
    /// Without the client, which shows the name of its key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    pub(super) fn open(address: &StoreAddress, credentials: &Credentials) -> Result<Self> {
        let store: Arc<dyn ObjectStore> = match address.scheme() {
            Scheme::Azblob => Arc::new(azure(address, credentials)?),
            _ => Arc::new(s3(address, credentials)?),
        };
        let prefix = match address.path.as_str() {
            "" => String::new(),
            path => format!("{path}/"),
        };
        Ok(Self { store, prefix })
    }

    fn path(&self, key: &str) -> Result<Path> {
        let path = Path::parse(format!("{}{key}", self.prefix));
        path.map_err(|_| Error::Answer {
            operation: "name",
            key: key.to_owned(),
            why: "an object store has no such key".to_owned(),
        })
    }

    fn key(&self, path: &Path) -> String {
        let path = path.as_ref();
        path.strip_prefix(&self.prefix).unwrap_or(path).to_owned()
    }

    /// One call, with an error of ours; `bytes` are what it moves.
    async fn call<T>(
        operation: &'static str,
        key: &str,
        bytes: u64,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let after = CALL + Duration::from_secs(bytes / BYTES_PER_SECOND);
        match timeout(after, call).await {
            Ok(result) => result.map_err(|error| failure::error(operation, key, &error)),
            Err(_) => Err(stalled(operation, key, after)),
        }
    }

    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<bool> {
        let path = self.path(key)?;
        let length = bytes.len() as u64;
        let is_new = mode == PutMode::Create;
        let put = self
            .store
            .put_opts(&path, bytes.into(), PutOptions::from(mode));
        let put = async {
            match put.await {
                Ok(_) => Ok(true),
                Err(
                    object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. },
                ) if is_new => Ok(false),
                Err(error) => Err(error),
            }
        };
        Self::call("write", key, length, put).await
    }
}

fn stalled(operation: &'static str, key: &str, after: Duration) -> Error {
    Error::Stalled {
        operation,
        key: key.to_owned(),
        after,
    }
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(15),
            base: 2.0,
        },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY,
    }
}

fn s3(address: &StoreAddress, credentials: &Credentials) -> Result<impl ObjectStore> {
    let region = match address.host.as_str() {
        "" => credentials.get(REGION).unwrap_or(REGION_DEFAULT),
        region => region,
    };
    let bucket = &address.bucket;
    let virtual_hosted = credentials.virtual_hosted();
    let said = credentials
        .get(ENDPOINT)
        .map(|url| url.trim_end_matches('/').to_owned());
    let (endpoint, virtual_hosted) = match said {
        // The client wants it as it is asked.
        Some(url) if virtual_hosted => {
            let (scheme, rest) = url.split_once("://").unwrap_or(("https", &url));
            (format!("{scheme}://{bucket}.{rest}"), true)
        }
        Some(url) => (url, false),
        None => {
            let suffix = if region.starts_with("cn-") {
                "amazonaws.com.cn"
            } else {
                "amazonaws.com"
            };
            // A certificate of all buckets is for one name without dots.
            if virtual_hosted && !bucket.contains('.') {
                (format!("https://{bucket}.s3.{region}.{suffix}"), true)
            } else {
                (format!("https://s3.{region}.{suffix}"), false)
            }
        }
    };
    let mut builder = AmazonS3Builder::new()
        .with_http_connector(Connector::new(credentials, CERTIFICATES)?)
        .with_retry(retry())
        .with_bucket_name(bucket)
        .with_region(region)
        .with_endpoint(endpoint)
        .with_virtual_hosted_style_request(virtual_hosted)
        .with_allow_http(true)
        .with_disable_bulk_delete(true)
        .with_disable_tagging(true)
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    // Without keys: those of this machine's role.
    if let (Some(id), Some(secret)) = (credentials.get(ACCESS_KEY), credentials.get(SECRET_KEY)) {
        builder = builder
            .with_access_key_id(id)
            .with_secret_access_key(secret);
    }
    builder.build().map_err(|error| unusable(address, &error))
}

fn azure(address: &StoreAddress, credentials: &Credentials) -> Result<impl ObjectStore> {
    let (Some(account), Some(key)) = (credentials.get(AZURE_ACCOUNT), credentials.get(AZURE_KEY))
    else {
        return Err(Error::Credentials {
            key: AZURE_ACCOUNT.to_owned(),
            why: "it is missing: an azblob store needs the name and the key of its account"
                .to_owned(),
        });
    };
    let suffix = match address.host.as_str() {
        "" => AZURE_SUFFIX,
        suffix => suffix,
    };
    let endpoint = credentials.get(AZURE_ENDPOINT).map_or_else(
        || format!("https://{account}.blob.{suffix}"),
        |url| format!("{}/{account}", url.trim_end_matches('/')),
    );
    MicrosoftAzureBuilder::new()
        .with_http_connector(Connector::new(credentials, AZURE_CERTIFICATES)?)
        .with_retry(retry())
        .with_account(account)
        .with_access_key(key)
        .with_container_name(&address.bucket)
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_disable_tagging(true)
        .build()
        .map_err(|error| match error {
            // Its text may hold what could not be decoded.
            object_store::Error::Generic { .. } => Error::Credentials {
                key: AZURE_KEY.to_owned(),
                why: "it is not the key of an account: that is Base64".to_owned(),
            },
            error => unusable(address, &error),
        })
}

fn unusable(address: &StoreAddress, error: &object_store::Error) -> Error {
    Error::Answer {
        operation: "open",
        key: address.to_string(),
        why: types::report(error).to_string(),
    }
}

fn meta(meta: &ObjectMeta) -> Meta {
    let modified = meta.last_modified;
    Meta {
        size: meta.size,
        modified: Timestamp::new(modified.timestamp(), 0).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

impl Driver for Bucket {
    fn get<'a>(&'a self, key: &'a str, most: u64) -> BoxFuture<'a, Result<Object>> {
        async move {
            let Reading { meta, mut bytes } = self.open(key).await?;
            if meta.size > most {
                return Err(Error::TooLarge {
                    key: key.to_owned(),
                    size: meta.size,
                    limit: most,
                });
            }
            let mut all = BytesMut::with_capacity(usize::try_from(meta.size).unwrap_or_default());
            while let Some(piece) = bytes.try_next().await? {
                all.extend_from_slice(&piece);
            }
            Ok(Object {
                bytes: all.freeze(),
                meta,
            })
        }
        .boxed()
    }

    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Reading>> {
        async move {
            let path = self.path(key)?;
            let get = self.store.get_opts(&path, GetOptions::default());
            let found = Self::call("read", key, 0, get).await?;
            let meta = meta(&found.meta);
            let state = (found.into_stream(), key.to_owned(), meta.size);
            let bytes = stream::try_unfold(state, async |(mut pieces, key, left)| {
                let piece = timeout(ANSWER, pieces.try_next()).await;
                let piece = piece.map_err(|_| stalled("read", &key, ANSWER))?;
                let piece = piece.map_err(|error| failure::error("read", &key, &error))?;
                let why = match piece {
                    None if left == 0 => return Ok(None),
                    None => format!("it ends {left} bytes early"),
                    Some(bytes) => match left.checked_sub(bytes.len() as u64) {
                        Some(left) => return Ok(Some((bytes, (pieces, key, left)))),
                        None => "it is longer than it is said to be".to_owned(),
                    },
                };
                Err(Error::Answer {
                    operation: "read",
                    key,
                    why,
                })
            });
            Ok(Reading {
                meta,
                bytes: bytes.boxed(),
            })
        }
        .boxed()
    }

    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Meta>>> {
        async move {
            let path = self.path(key)?;
            let head = GetOptions {
                head: true,
                ..GetOptions::default()
            };
            match Self::call("look at", key, 0, self.store.get_opts(&path, head)).await {
                Ok(found) => Ok(Some(meta(&found.meta))),
                Err(Error::NoObject { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        async move { self.put(key, bytes, PutMode::Overwrite).await.map(drop) }.boxed()
    }

    fn put_new<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>> {
        self.put(key, bytes, PutMode::Create).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let path = self.path(key)?;
            let paths = stream::once(async { Ok(path) }).boxed();
            let delete = self.store.delete_stream(paths).try_collect::<Vec<_>>();
            match Self::call("remove", key, 0, delete).await {
                Ok(_) | Err(Error::NoObject { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Entry>> {
        let pages = match self.path(prefix) {
            Ok(path) => self.store.list(Some(&path)),
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        stream::try_unfold(pages, async move |mut pages| {
            let next = Self::call("list", prefix, 0, pages.try_next()).await?;
            Ok(next.map(|found| {
                let key = self.key(&found.location);
                let meta = meta(&found);
                (Entry { key, meta }, pages)
            }))
        })
        .boxed()
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        async move {
            let path = self.path(prefix)?;
            let list = self.store.list_with_delimiter(Some(&path));
            let found = Self::call("list", prefix, 0, list).await?;
            let names = found
                .common_prefixes
                .iter()
                .filter_map(|path| path.filename());
            let mut names: Vec<_> = names.map(str::to_owned).collect();
            names.sort_unstable();
            Ok(names)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
