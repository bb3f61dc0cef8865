//! What the engine asks of a store, whatever is behind it.
//!
//! A key is a path in the store, from `backupstore` on, and made by [`crate::layout`] alone. All
//! times are those of the store's server: the clock of this machine counts for nothing there.

mod directory;
mod failure;
mod files;
mod http;
mod object;
mod threads;

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use crate::{Credentials, Options, Result, Scheme, StoreAddress};

/// A store. Each call is bounded in time, and those that fail for a moment are tried again inside.
pub(crate) trait Driver: Debug + Send + Sync {
    /// A whole object of at most `most` bytes.
    fn get<'a>(&'a self, key: &'a str, most: u64) -> BoxFuture<'a, Result<Object>>;
    /// A large object, piece by piece.
    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Reading>>;
    /// What an object is, if there is one.
    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Meta>>>;
    /// Writes an object or replaces it. It is durable when this answers; until then readers see the old one.
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>>;
    /// The same unless there is one: `false`. Not every store can.
    fn put_new<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>>;
    /// [`Driver::put`] for one of many: its bytes are durable when this answers, and its name is when
    /// [`Driver::settle`] has answered for its folder.
    fn put_lazily<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        self.put(key, bytes)
    }
    /// Makes the names in some folders durable.
    fn settle(&self, folders: Vec<String>) -> BoxFuture<'_, Result<()>> {
        drop(folders);
        Box::pin(std::future::ready(Ok(())))
    }
    /// Removes exactly this object; fine if there is none.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>>;
    /// All objects below `prefix` + `/`, in no order; in a directory also what was left half-written.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Entry>>;
    /// The names of the folders directly in `prefix`, in order.
    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>>;
}

/// Size and time of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Bytes as stored.
    pub(crate) size: u64,
    /// By the clock of the server.
    pub(crate) modified: Timestamp,
}

/// A whole object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) bytes: Bytes,
    pub(crate) meta: Meta,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) meta: Meta,
}

/// An object that is being read. The stream fails if it ends before the object does.
pub(crate) struct Reading {
    pub(crate) meta: Meta,
    pub(crate) bytes: BoxStream<'static, Result<Bytes>>,
}

impl Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading")
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

/// The store at an address. Nothing is asked of it yet.
pub(crate) fn open(
    address: &StoreAddress,
    credentials: &Credentials,
    options: &Options,
) -> Result<Arc<dyn Driver>> {
    Ok(match address.scheme() {
        Scheme::S3 | Scheme::Azblob => Arc::new(object::Bucket::open(address, credentials)?),
        Scheme::Nfs | Scheme::Cifs | Scheme::Directory => {
            Arc::new(directory::Directory::open(address, options))
        }
    })
}
