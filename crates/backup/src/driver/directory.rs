//! A store in a directory: of this machine, or of a share that others have mounted.
//!
//! Nothing here waits for a system call: that is done by [`super::threads`].

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::files::{Files, Put};
use super::threads::Threads;
use super::{Driver, Entry, Meta, Object, Reading};
use crate::{Error, Options, Result, StoreAddress, layout};

/// Bytes of one piece of a large file.
const PIECE: usize = 1 << 20;
/// Folders that one call makes durable.
const SETTLED: usize = 1024;
/// Most folders above a file, counted from the folder that is listed.
const DEPTH_MAX: usize = 8;

#[derive(Debug, Clone)]
pub(super) struct Directory {
    files: Files,
    threads: Arc<Threads>,
}

impl Directory {
    pub(super) fn open(address: &StoreAddress, options: &Options) -> Self {
        let (root, mounted) = match address.mount() {
            Some(mount) => (options.mounts.join(&mount.point), Some(address.to_string())),
            None => (format!("/{}", address.path).into(), None),
        };
        let threads = Threads::of(&root);
        Self::with(Files { root, mounted }, threads)
    }

    pub(super) fn with(files: Files, threads: Arc<Threads>) -> Self {
        Self { files, threads }
    }

    /// `call` on a thread.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        bytes: u64,
        call: impl FnOnce(Files, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (files, owned) = (self.files.clone(), key.to_owned());
        let call = move || call(files, &owned);
        self.threads.run(operation, key, bytes, call).await
    }

    async fn put(&self, key: &str, bytes: Bytes, how: Put) -> Result<bool> {
        let length = bytes.len() as u64;
        let put = move |files: Files, key: &str| files.put(key, bytes, how);
        self.run("write", key, length, put).await
    }

    async fn listed(&self, folder: &str) -> Result<(Vec<Entry>, Vec<String>)> {
        let list = |files: Files, folder: &str| files.list(folder);
        self.run("list", folder, 0, list).await
    }

    /// A piece of `file`, and the file again. The end comes as no piece.
    async fn piece(&self, key: &str, mut file: File) -> Result<(Bytes, File)> {
        let read = move |files: Files, key: &str| Ok((files.read(&mut file, key, PIECE)?, file));
        self.run("read", key, PIECE as u64, read).await
    }
}

impl Driver for Directory {
    fn get<'a>(&'a self, key: &'a str, most: u64) -> BoxFuture<'a, Result<Object>> {
        let get = move |files: Files, key: &str| files.get(key, most);
        self.run("read", key, most, get).boxed()
    }

    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Reading>> {
        let open = |files: Files, key: &str| files.open(key);
        async move {
            let (file, meta) = self.run("open", key, 0, open).await?;
            let state = (self.clone(), key.to_owned(), file, meta.size);
            let bytes = stream::try_unfold(state, async |(directory, key, file, left)| {
                if left == 0 {
                    return Ok(None);
                }
                let (mut bytes, file) = directory.piece(&key, file).await?;
                if bytes.is_empty() {
                    let why = format!("it ends {left} bytes early");
                    return Err(Error::Answer {
                        operation: "read",
                        key,
                        why,
                    });
                }
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - bytes.len() as u64;
                Ok(Some((bytes, (directory, key, file, left))))
            });
            Ok(Reading {
                meta,
                bytes: bytes.boxed(),
            })
        }
        .boxed()
    }

    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Meta>>> {
        let head = |files: Files, key: &str| files.head(key);
        self.run("look at", key, 0, head).boxed()
    }

    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        async move { self.put(key, bytes, Put::Replace).await.map(drop) }.boxed()
    }

    fn put_new<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>> {
        self.put(key, bytes, Put::New).boxed()
    }

    fn put_lazily<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        async move { self.put(key, bytes, Put::Lazily).await.map(drop) }.boxed()
    }

    fn settle(&self, folders: Vec<String>) -> BoxFuture<'_, Result<()>> {
        async move {
            for some in folders.chunks(SETTLED) {
                let some = some.to_vec();
                let settle = move |files: Files, _: &str| files.settle(&some);
                self.run("sync", layout::ROOT, 0, settle).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        let delete = |files: Files, key: &str| files.delete(key);
        self.run("remove", key, 0, delete).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Entry>> {
        let folders = vec![(prefix.to_owned(), 0)];
        stream::try_unfold(folders, async move |mut folders: Vec<(String, usize)>| {
            let Some((folder, depth)) = folders.pop() else {
                return Ok(None);
            };
            let (files, inside) = self.listed(&folder).await?;
            if depth < DEPTH_MAX {
                let below = |name| (format!("{folder}/{name}"), depth + 1);
                folders.extend(inside.into_iter().map(below));
            }
            let files = stream::iter(files.into_iter().map(Ok));
            Ok(Some((files, folders)))
        })
        .try_flatten()
        .boxed()
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        async move {
            let (_, mut folders) = self.listed(prefix).await?;
            folders.sort_unstable();
            Ok(folders)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
