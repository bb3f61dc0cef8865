//! The engine over a store that counts, refuses and damages: what no real store does on demand.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use types::{Classify as _, ErrorKind};

use crate::driver::{Driver, Entry, Meta, Object, Reading};
use crate::store::Store;
use crate::{
    BackupInfo, Begin, BlockSet, BlockSize, Compression, Contents, Credentials, Error, Item, Job,
    Mode, Name, NewBackup, Options, Piece, RestoreOptions, Result, Source, StoreAddress,
    VolumeFacts,
};

const BLOCK: u64 = 2 << 20;

/// What becomes of one request.
enum Fate {
    Passes,
    Fails(Error),
    /// Of a put: so many bytes less arrive, and nobody is told.
    Cuts(usize),
}

type Judge = Box<dyn FnMut(&'static str, &str, &[u8]) -> Fate + Send>;

/// A real store, watched.
struct Watched {
    inner: Arc<dyn Driver>,
    judge: Mutex<Judge>,
    log: Mutex<Vec<(&'static str, String)>>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Watched {
    fn asked(&self, operation: &'static str, key: &str, bytes: &[u8]) -> Fate {
        self.log.lock().unwrap().push((operation, key.to_owned()));
        self.judge.lock().unwrap()(operation, key, bytes)
    }

    fn passes(&self, operation: &'static str, key: &str) -> Result<()> {
        match self.asked(operation, key, &[]) {
            Fate::Fails(error) => Err(error),
            Fate::Passes | Fate::Cuts(_) => Ok(()),
        }
    }
}

impl Driver for Watched {
    fn get<'a>(&'a self, key: &'a str, most: u64) -> BoxFuture<'a, Result<Object>> {
        let passes = self.passes("get", key);
        Box::pin(async move {
            passes?;
            self.inner.get(key, most).await
        })
    }
    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Reading>> {
        let passes = self.passes("open", key);
        Box::pin(async move {
            passes?;
            self.inner.open(key).await
        })
    }
    fn head<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Meta>>> {
        let passes = self.passes("head", key);
        Box::pin(async move {
            passes?;
            self.inner.head(key).await
        })
    }
    fn put<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        let fate = self.asked("put", key, &bytes);
        Box::pin(async move {
            match fate {
                Fate::Passes => self.inner.put(key, bytes).await,
                Fate::Fails(error) => Err(error),
                Fate::Cuts(by) => self.inner.put(key, bytes.slice(..bytes.len() - by)).await,
            }
        })
    }
    fn put_new<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>> {
        self.inner.put_new(key, bytes)
    }
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        let passes = self.passes("delete", key);
        Box::pin(async move {
            passes?;
            self.inner.delete(key).await
        })
    }
    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Entry>> {
        match self.passes("list", prefix) {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        }
    }
    fn folders<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        self.inner.folders(prefix)
    }
}

/// A watched store in a directory.
struct Room {
    dir: tempfile::TempDir,
    watched: Arc<Watched>,
    store: Store,
}

fn room() -> Room {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("vfs://{}", dir.path().display());
    let address: StoreAddress = text.parse().unwrap();
    let options = Options::default();
    let inner = crate::driver::open(&address, &Credentials::default(), &options).unwrap();
    let watched = Arc::new(Watched {
        inner,
        judge: Mutex::new(Box::new(|_, _, _| Fate::Passes)),
        log: Mutex::default(),
    });
    let store = Store::over(address, Arc::clone(&watched) as Arc<dyn Driver>, options);
    Room {
        dir,
        watched,
        store,
    }
}

impl Room {
    fn judged(&self, judge: impl FnMut(&'static str, &str, &[u8]) -> Fate + Send + 'static) {
        *self.watched.judge.lock().unwrap() = Box::new(judge);
    }

    /// The requests so far whose key has `of` in it, by kind; then none.
    fn requests(&self, of: &str) -> BTreeMap<&'static str, usize> {
        let log = std::mem::take(&mut *self.watched.log.lock().unwrap());
        let mut counts = BTreeMap::new();
        for (operation, _) in log.iter().filter(|(_, key)| key.contains(of)) {
            *counts.entry(*operation).or_default() += 1;
        }
        counts
    }

    /// Backs up a volume of blocks that hold these bytes; 0 is a hole.
    async fn backup(&self, backup: &str, blocks: &[u8]) -> Result<BackupInfo> {
        let begin = self
            .store
            .begin_backup(new(backup, blocks), &Job::silent())
            .await?;
        let begun = match begin {
            Begin::Complete(info) => return Ok(*info),
            Begin::Started(begun) => begun,
        };
        let size = blocks.len() as u64 * BLOCK;
        let contents = Contents {
            source: Arc::new(Blocks(blocks.to_vec())),
            mapped: BlockSet::all(size, BlockSize::MIB2),
            changed: None,
        };
        begun.upload(contents).await
    }

    async fn restore(&self, backup: &str) -> Result<Vec<u8>> {
        let item = Item::Backup {
            volume: name("vol"),
            backup: name(backup),
        };
        let how = RestoreOptions::default();
        let plan = self.store.plan_restore(&item, &how, &Job::silent()).await?;
        let mut blocks = vec![0; usize::try_from(plan.size() / BLOCK).unwrap()];
        let mut pieces = std::pin::pin!(plan.pieces());
        while let Some(piece) = pieces.next().await {
            match piece? {
                Piece::Bytes { offset, bytes } => {
                    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
                    blocks[usize::try_from(offset / BLOCK).unwrap()] = bytes[0];
                }
                Piece::Lost { .. } => panic!("it was not salvaged"),
            }
        }
        Ok(blocks)
    }

    async fn is_complete(&self, backup: &str) -> bool {
        let info = self.store.backup(&name("vol"), &name(backup)).await;
        info.is_ok_and(|info| info.created_at.is_some())
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn new(backup: &str, blocks: &[u8]) -> NewBackup {
    NewBackup {
        volume: VolumeFacts {
            name: name("vol"),
            size: blocks.len() as u64 * BLOCK,
            base: None,
            storage_class: String::new(),
            labels: BTreeMap::new(),
        },
        name: name(backup),
        snapshot: format!("of-{backup}"),
        snapshot_created_at: jiff::Timestamp::UNIX_EPOCH,
        mode: Mode::Incremental,
        compression: Compression::Lz4,
        block_size: None,
        labels: BTreeMap::new(),
    }
}

/// A volume of which each block is one byte, again and again.
#[derive(Debug)]
struct Blocks(Vec<u8>);

impl Source for Blocks {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        buffer.fill(self.0[usize::try_from(offset / BLOCK).unwrap()]);
        Ok(())
    }
}

fn unavailable(key: &str) -> Error {
    Error::Unavailable {
        operation: "put",
        key: key.to_owned(),
        why: "503".to_owned(),
    }
}

#[tokio::test]
async fn blocks_of_the_parent_cost_no_question() {
    let room = room();
    room.backup("one", &[1, 2, 0, 1, 3]).await.unwrap();
    assert_eq!(
        room.requests(".blk"),
        [("head", 3), ("put", 3)].into(),
        "one of each per block"
    );
    let two = room.backup("two", &[1, 2, 3, 3, 4]).await.unwrap();
    assert!(two.incremental);
    assert_eq!(room.requests(".blk"), [("head", 1), ("put", 1)].into());
    assert_eq!(room.restore("two").await.unwrap(), [1, 2, 3, 3, 4]);
}

#[tokio::test]
async fn what_reads_back_differently_is_not_complete() {
    let room = room();
    // In progress it is a short file; the long one loses its end on its way.
    room.judged(|operation, key, bytes| {
        let is_final =
            key.ends_with("backup_one.cfg") && bytes.windows(6).any(|at| at == b"Blocks");
        let complete = is_final && !String::from_utf8_lossy(bytes).contains("\"CreatedTime\":\"\"");
        if operation == "put" && complete {
            return Fate::Cuts(30);
        }
        Fate::Passes
    });
    let error = room.backup("one", &[1, 2]).await.unwrap_err();
    assert!(matches!(error, Error::ReadBack { .. }), "{error}");
    assert!(!room.is_complete("one").await);
    let error = room.restore("one").await.unwrap_err();
    assert!(matches!(error, Error::Incomplete { .. }), "{error}");
    room.judged(|_, _, _| Fate::Passes);
    room.backup("one", &[1, 2]).await.unwrap();
    assert_eq!(room.restore("one").await.unwrap(), [1, 2]);
}

#[tokio::test]
async fn an_error_anywhere_leaves_nothing_that_counts_as_complete() {
    // Of each kind of file one write is refused: by a network, by a full disk.
    for of in ["blk", "backup_one.cfg", "volume.cfg", "lck"] {
        for nth in [1, 2] {
            let room = room();
            let mut left = nth;
            room.judged(move |operation, key, _| {
                left -= i32::from(operation == "put" && key.ends_with(of));
                match left {
                    0 => {
                        left = -1;
                        match nth {
                            1 => Fate::Fails(unavailable(key)),
                            _ => Fate::Fails(Error::File {
                                operation: "write",
                                path: key.into(),
                                source: io::ErrorKind::StorageFull.into(),
                            }),
                        }
                    }
                    _ => Fate::Passes,
                }
            });
            let error = room.backup("one", &[1, 2]).await.unwrap_err();
            let kind = match nth {
                1 => ErrorKind::Unavailable,
                _ => ErrorKind::ResourceExhausted,
            };
            assert_eq!(error.kind(), kind, "{of}: {error}");
            // The volume's record comes after the backup is complete.
            let late = of == "volume.cfg" && nth == 2;
            assert_eq!(room.is_complete("one").await, late, "{of} {nth}");
            room.backup("one", &[1, 2]).await.unwrap();
            assert_eq!(room.restore("one").await.unwrap(), [1, 2]);
            let volume = room.store.volume(&name("vol")).await.unwrap();
            assert_eq!(volume.last_backup, Some(name("one")), "{of} {nth}");
        }
    }
}

#[tokio::test]
async fn a_store_that_may_only_be_read_is_restored_from() {
    let room = room();
    room.backup("one", &[1, 0, 2]).await.unwrap();
    room.judged(|operation, key, _| match operation {
        "put" | "delete" => Fate::Fails(Error::Denied {
            operation: "put",
            key: key.to_owned(),
            code: None,
        }),
        _ => Fate::Passes,
    });
    assert_eq!(room.restore("one").await.unwrap(), [1, 0, 2]);
    let error = room.backup("two", &[1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let checks = room.store.check().await;
    let refused = checks.iter().filter(|check| check.refused.is_some());
    let refused: Vec<_> = refused.map(|check| check.step).collect();
    assert!(
        refused.contains(&"put") && refused.contains(&"delete"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_missing_block_is_asked_for_once() {
    let room = room();
    room.backup("one", &[1, 2]).await.unwrap();
    let checksum = crate::BlockChecksum::of(&vec![2; usize::try_from(BLOCK).unwrap()]);
    let key = crate::layout::Pool::Volume(name("vol")).block(&checksum);
    room.store.driver().delete(&key).await.unwrap();
    room.requests("");
    let error = room.restore("one").await.unwrap_err();
    assert!(
        matches!(error, Error::Block { offset: BLOCK, .. }),
        "{error}"
    );
    assert_eq!(room.requests(&checksum.to_string()), [("get", 1)].into());
}

#[tokio::test]
async fn a_backup_begun_while_blocks_are_counted_keeps_them_all() {
    let room = room();
    room.backup("one", &[1, 2]).await.unwrap();
    let vol = name("vol");
    room.store
        .driver()
        .delete(&crate::layout::backup_config(&vol, &name("one")))
        .await
        .unwrap();
    // A program that heeds no lock begins one while the blocks are listed.
    let root = room.dir.path().join(crate::layout::backups(&vol));
    room.judged(move |operation, key, _| {
        if operation == "list" && key == crate::layout::volume(&name("vol")) {
            std::fs::create_dir_all(&root).unwrap();
            std::fs::File::create(root.join("backup_other.cfg")).unwrap();
        }
        Fate::Passes
    });
    let collected = room
        .store
        .collect(&vol, false, &Job::silent())
        .await
        .unwrap();
    assert_eq!(collected.blocks, 0);
    assert!(collected.kept[0].contains("have changed"), "{collected:?}");
    assert_eq!(room.requests(".blk").get("delete"), None);
}

#[tokio::test]
async fn verify_and_restore_say_what_the_network_does_as_what_it_is() {
    let room = room();
    room.backup("one", &[1, 2]).await.unwrap();
    room.judged(|operation, key, _| match operation {
        "get" if key.contains("/blocks/") => Fate::Fails(unavailable(key)),
        _ => Fate::Passes,
    });
    let error = room.restore("one").await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unavailable,
        "no block is called damaged"
    );
    let job = Job::silent();
    let error = room
        .store
        .verify(&name("vol"), crate::Sample::All, &job)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
