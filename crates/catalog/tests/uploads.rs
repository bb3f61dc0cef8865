//! Uploads in pieces: how they end without their last byte, and what outlives their process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::source::{Pieces, Source, Sources};
use catalog::{Catalog, Error, Existing, Lifecycle, NewImage, Status};
use fetch::{AddressPolicy, Config, Credentials, Network, Tuning};
use store::{Disk, ImageStore, Place};
use tokio_util::sync::CancellationToken;
use types::{Classify, ErrorKind, ImageName};

const PIECE: usize = 1 << 20;
const SIZE: u64 = 40 << 20;

fn catalog(dir: &Path, idle: Duration) -> Catalog {
    Disk::init(dir, None).unwrap();
    let disk = Arc::new(Disk::open(dir).unwrap());
    let policy = AddressPolicy::unrestricted();
    let network = Network::new(Config::default(), policy, Tuning::default());
    let sources = Sources::new(network, Credentials::anonymous(), Vec::new());
    let sources = sources.with_upload_idle(idle);
    let store = ImageStore::new(disk, Place::Images);
    Catalog::load(store, sources, CancellationToken::new()).unwrap()
}

fn new(name: &str, size: u64) -> NewImage {
    NewImage {
        name: Some(ImageName::new(name).unwrap()),
        uuid: None,
        source: Some(Source::Pieces(
            Pieces::new(size, "disk.raw".into()).unwrap(),
        )),
        size,
        expected: None,
        format: None,
        for_volumes: false,
        existing: Existing::Join,
    }
}

async fn add(catalog: &Catalog, image: &Status, offset: u64) -> Result<Status, Error> {
    let piece = Bytes::from(vec![7; PIECE]);
    let id = &image.id;
    catalog
        .write_upload(&id.name, &id.uuid, offset, piece)
        .await
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("backing-images"))
        .unwrap()
        .count()
}

/// Row 410: what is not gone on with is given up, and removed.
#[tokio::test]
async fn row_410_an_upload_to_which_nothing_is_added_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = catalog(dir.path(), Duration::from_millis(300));
    let image = catalog.create(new("img", SIZE)).unwrap();
    let mut watch = catalog.watch(&image.id.name, None).unwrap();
    add(&catalog, &image, 0).await.unwrap();
    let failed = watch.wait_for(is_done).await.unwrap().clone();
    let Lifecycle::Failed(failure) = failed.state else {
        panic!("{failed:?}");
    };
    assert!(
        failure.message.contains("nothing was added"),
        "{}",
        failure.message
    );
    assert_eq!(files(dir.path()), 0);
    let late = add(&catalog, &image, PIECE as u64).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::FailedPrecondition, "{late}");
    // It can be begun anew.
    let again = catalog.create(new("img", SIZE)).unwrap();
    assert_eq!(again.id, image.id);
    let added = add(&catalog, &again, 0).await.unwrap();
    assert_eq!(added.processed, PIECE as u64);
    catalog.delete(&image.id, || Ok(())).await.unwrap();
    assert_eq!(files(dir.path()), 0);
}

/// Row 567: two pieces on their way may come in any order; one that waits in vain is refused.
#[tokio::test]
async fn row_567_a_piece_waits_for_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = catalog(dir.path(), Duration::from_hours(1));
    let image = catalog.create(new("img", SIZE)).unwrap();
    add(&catalog, &image, 0).await.unwrap();
    let at = |piece: usize| (piece * PIECE) as u64;
    for piece in [1, 3, 5] {
        let (before, after) = (at(piece), at(piece + 1));
        let (early, on_time) = tokio::join!(
            biased;
            add(&catalog, &image, after),
            add(&catalog, &image, before),
        );
        assert!(on_time.unwrap().processed >= after);
        assert_eq!(early.unwrap().processed, at(piece + 2));
    }
    // Two may wait, and one that is too far ahead does not.
    let (first, second, third, far) = tokio::join!(
        biased;
        add(&catalog, &image, at(8)),
        add(&catalog, &image, at(9)),
        add(&catalog, &image, at(9)),
        add(&catalog, &image, at(20)),
    );
    assert_eq!(third.unwrap_err().kind(), ErrorKind::Aborted);
    for early in [first, second, far] {
        let early = early.unwrap_err();
        assert!(early.to_string().contains(&at(7).to_string()), "{early}");
        assert_eq!(early.kind(), ErrorKind::OutOfRange);
    }
    let on_time = add(&catalog, &image, at(7)).await.unwrap();
    assert_eq!(on_time.processed, at(8));
}

#[tokio::test]
async fn an_upload_outlives_its_process_and_a_drain_does_not_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let idle = Duration::from_hours(1);
    let first = catalog(dir.path(), idle);
    let image = first.create(new("img", SIZE)).unwrap();
    assert!(matches!(image.state, Lifecycle::InProgress(_)));
    for at in 0..20 {
        add(&first, &image, at * PIECE as u64).await.unwrap();
    }
    let drained = tokio::time::timeout(Duration::from_mins(1), first.drain()).await;
    assert!(drained.is_ok(), "it waits for the upload");
    first.stop().await;
    drop(first);
    let second = catalog(dir.path(), idle);
    let found = second.get(&image.id.name, None).unwrap();
    let Lifecycle::InProgress(progress) = found.state else {
        panic!("{found:?}");
    };
    // More than was synced while it came: the end was an orderly one.
    assert_eq!((progress.processed, progress.total), (20 << 20, SIZE));
    let joined = second.create(new("img", SIZE)).unwrap();
    assert_eq!(joined.id, image.id);
    for at in 20..40 {
        add(&second, &image, at * PIECE as u64).await.unwrap();
    }
    let mut watch = second.watch(&image.id.name, None).unwrap();
    let ready = watch.wait_for(is_done).await.unwrap().clone();
    assert!(matches!(ready.state, Lifecycle::Ready(_)), "{ready:?}");
    // The last piece again: its answer was lost.
    let again = add(&second, &image, SIZE - PIECE as u64).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::OutOfRange, "{again}");
}

#[tokio::test]
async fn uploads_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = catalog(dir.path(), Duration::from_hours(1));
    for number in 0..64 {
        catalog.create(new(&format!("img-{number}"), 512)).unwrap();
    }
    let refused = catalog.create(new("more", 512)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ResourceExhausted, "{refused}");
    let id = catalog.list()[0].id.clone();
    catalog.delete(&id, || Ok(())).await.unwrap();
    catalog.create(new("more", 512)).unwrap();
    catalog.stop().await;
}

/// Whether an image is ready with its sum, or failed.
fn is_done(status: &Status) -> bool {
    match &status.state {
        Lifecycle::Ready(image) => image.checksum().is_ok(),
        state => state.is_settled(),
    }
}
