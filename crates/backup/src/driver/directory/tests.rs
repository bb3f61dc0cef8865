//! A store in a real directory, and one that does not answer.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

const KEY: &str = "backupstore/volumes/aa/bb/vol/backups/backup_b1.cfg";
const FOLDER: &str = "backupstore/volumes/aa/bb/vol/backups";

fn store() -> (TempDir, Directory) {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("vfs://{}", directory.path().display());
    let store = Directory::open(&address.parse().unwrap(), &Options::default());
    (directory, store)
}

async fn keys(store: &Directory, prefix: &str) -> Vec<String> {
    let entries: Vec<Entry> = store.list(prefix).try_collect().await.unwrap();
    let mut keys: Vec<_> = entries.into_iter().map(|entry| entry.key).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn what_is_put_is_there_until_it_is_deleted() {
    let (directory, store) = store();
    let driver: &dyn Driver = &store;
    assert_eq!(driver.head(KEY).await.unwrap(), None);
    assert!(matches!(driver.get(KEY, 9).await, Err(Error::NoObject { key }) if key == KEY));
    driver.put(KEY, Bytes::from_static(b"one")).await.unwrap();
    driver.put(KEY, Bytes::from_static(b"other")).await.unwrap();
    let object = driver.get(KEY, 5).await.unwrap();
    assert_eq!((&object.bytes[..], object.meta.size), (&b"other"[..], 5));
    assert_eq!(driver.head(KEY).await.unwrap(), Some(object.meta));
    assert!(matches!(
        driver.get(KEY, 4).await,
        Err(Error::TooLarge {
            size: 5,
            limit: 4,
            ..
        })
    ));
    // Only ours to read.
    let volumes = directory.path().join("backupstore/volumes");
    let mode = std::fs::metadata(&volumes).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    assert!(
        !driver
            .put_new(KEY, Bytes::from_static(b"new"))
            .await
            .unwrap()
    );
    let block = "backupstore/volumes/aa/bb/vol/blocks/cc/dd/x.blk";
    assert!(
        driver
            .put_new(block, Bytes::from_static(b"new"))
            .await
            .unwrap()
    );
    assert_eq!(keys(&store, "backupstore/volumes").await, [KEY, block]);
    assert_eq!(
        driver
            .folders("backupstore/volumes/aa/bb/vol")
            .await
            .unwrap(),
        ["backups", "blocks"]
    );

    driver.delete(KEY).await.unwrap();
    driver.delete(KEY).await.unwrap();
    assert_eq!(
        driver
            .folders("backupstore/volumes/aa/bb/vol")
            .await
            .unwrap(),
        ["blocks"]
    );
    driver.delete(block).await.unwrap();
    // The folders went with the last file in them, but for the topmost.
    assert!(!volumes.exists() && directory.path().join("backupstore").exists());
    assert_eq!(keys(&store, "backupstore/volumes").await, [""; 0]);
    assert_eq!(driver.folders("none").await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_large_file_comes_in_pieces_and_one_that_shrinks_is_an_error() {
    let (directory, store) = store();
    let bytes = Bytes::from(vec![7; PIECE * 2 + 5]);
    store.put(KEY, bytes.clone(), Put::Replace).await.unwrap();
    let reading = Driver::open(&store, KEY).await.unwrap();
    assert_eq!(reading.meta.size, bytes.len() as u64);
    let pieces: Vec<Bytes> = reading.bytes.try_collect().await.unwrap();
    assert_eq!((pieces.len(), pieces.concat()), (3, bytes.to_vec()));

    let reading = Driver::open(&store, KEY).await.unwrap();
    File::options()
        .write(true)
        .open(directory.path().join(KEY))
        .unwrap()
        .set_len(9)
        .unwrap();
    let read = reading.bytes.try_collect::<Vec<_>>().await;
    assert!(matches!(read, Err(Error::Answer { why, .. }) if why.contains("ends")));
}

#[tokio::test]
async fn links_and_what_is_no_file_are_neither_listed_nor_read() {
    let (directory, store) = store();
    store.put(KEY, Bytes::new(), Put::Replace).await.unwrap();
    let folder = directory.path().join(FOLDER);
    // Half-written: who collects needs to see it.
    File::create(folder.join("backup_b1.cfg.tmp.17")).unwrap();
    symlink("/etc/passwd", folder.join("backup_b2.cfg")).unwrap();
    symlink("/etc", folder.join("etc")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("backup_b3.cfg"), 0o600.into()).unwrap();
    assert_eq!(keys(&store, FOLDER).await, [KEY, &format!("{KEY}.tmp.17")]);
    assert_eq!(store.folders(FOLDER).await.unwrap(), [""; 0]);
    for key in ["backup_b2.cfg", "backup_b3.cfg", "etc/passwd"] {
        let key = format!("{FOLDER}/{key}");
        assert!(store.get(&key, 1 << 20).await.is_err(), "{key}");
    }
}

#[tokio::test]
async fn nothing_is_written_through_a_link() {
    let (directory, store) = store();
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("backupstore")).unwrap();
    symlink(outside.path(), directory.path().join("backupstore/volumes")).unwrap();
    assert!(store.put(KEY, Bytes::new(), Put::Replace).await.is_err());
    assert!(store.delete("backupstore/volumes/x").await.is_err());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn many_write_and_remove_in_one_folder_at_once() {
    let (_directory, store) = store();
    let work = (0..16).map(|index| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                let key = format!("{FOLDER}/backup_{index:02}.cfg");
                store
                    .put(&key, Bytes::from_static(b"x"), Put::Replace)
                    .await
                    .unwrap();
                Driver::delete(&store, &key).await.unwrap();
            }
        })
    });
    for work in work.collect::<Vec<_>>() {
        work.await.unwrap();
    }
    assert_eq!(keys(&store, "backupstore").await, [""; 0]);
}

#[tokio::test]
async fn a_directory_that_is_missing_or_not_mounted_is_never_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("server/export");
    let address = format!("vfs://{}", root.display());
    let missing = Directory::open(&address.parse().unwrap(), &Options::default());
    assert!(matches!(
        missing.put(KEY, Bytes::new(), Put::Replace).await,
        Err(Error::NoDirectory { .. })
    ));

    let options = Options {
        mounts: directory.path().to_owned(),
        ..Options::default()
    };
    let share = Directory::open(&"nfs://server:/export".parse().unwrap(), &options);
    let put = share.put(KEY, Bytes::new(), Put::Replace).await;
    assert!(matches!(put, Err(Error::NotMounted { point, .. }) if point == root));
    std::fs::create_dir_all(&root).unwrap();
    let put = share.put(KEY, Bytes::new(), Put::Replace).await;
    assert!(
        matches!(put, Err(Error::NotMounted { address, .. }) if address == "nfs://server:/export")
    );
    assert!(matches!(
        share.head(KEY).await,
        Err(Error::NotMounted { .. })
    ));
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);

    // What is another file system than its parent is mounted.
    let files = Files {
        root: "/proc".into(),
        mounted: Some("nfs://server:/export".to_owned()),
    };
    let threads = Threads::of(&files.root);
    assert_eq!(
        Directory::with(files, threads).head(KEY).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn calls_that_hang_are_left_alone_and_do_not_pile_up() {
    let threads = Arc::new(Threads::new(
        "/nowhere".as_ref(),
        Duration::from_millis(20),
        2,
    ));
    let hang = || {
        let (release, hung) = mpsc::channel::<()>();
        let call = move || Ok(hung.recv().is_ok());
        (release, call)
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let (release, call) = hang();
        let late = threads.run("read", "key", 0, call).await;
        assert!(matches!(late, Err(Error::Stalled { .. })), "{late:?}");
        held.push(release);
    }
    // No third thread.
    let refused = threads.run("read", "key", 0, || Ok(true)).await;
    assert!(
        matches!(refused, Err(Error::Stuck { calls: 2, .. })),
        "{refused:?}"
    );
    // The server is back.
    drop(held);
    loop {
        match threads.run("read", "key", 0, || Ok(true)).await {
            Ok(answer) => break assert!(answer),
            Err(Error::Stuck { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn stores_in_one_directory_share_their_threads() {
    let (directory, one) = store();
    let address = format!("vfs://{}", directory.path().display());
    let other = Directory::open(&address.parse().unwrap(), &Options::default());
    assert!(Arc::ptr_eq(&one.threads, &other.threads));
    let (_other, other) = store();
    assert!(!Arc::ptr_eq(&one.threads, &other.threads));
}
