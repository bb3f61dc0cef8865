//! The receiving end, against our sender and against a misbehaving one.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_what_is_received_and_holes_stay_holes() {
    let site = site();
    let dir = tempfile::tempdir().unwrap();
    let size = 40 * MIB + 512;
    let (file, bytes) = sample(dir.path(), size);
    let (address, receiving) = site.receive(size);
    let sent = sending(&file, address).run().await.unwrap();
    let received = receiving.await.unwrap().unwrap();
    // The port is free at once.
    drop(StdListener::bind(address).unwrap());
    assert_eq!(received.manifest.checksum, Some(Sha512::of(&bytes)));
    assert!(std::fs::read(&received.path).unwrap() == bytes);
    assert!(received.file.metadata().unwrap().blocks() * 512 < 8 * MIB);
    assert_eq!(sent.bytes + sent.holes, size);
    assert!(sent.bytes < 5 * MIB && sent.requests < 20, "{sent:?}");
    assert_eq!(*site.told.0.lock().unwrap(), (size, size));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_one_hole_arrives() {
    let site = site();
    let dir = tempfile::tempdir().unwrap();
    let file = File::create_new(dir.path().join("source")).unwrap();
    file.set_len(64 * MIB).unwrap();
    let file = File::open(dir.path().join("source")).unwrap();
    let (address, receiving) = site.receive(0);
    let sent = sending(&file, address).run().await.unwrap();
    assert_eq!((sent.bytes, sent.holes, sent.requests), (0, 64 * MIB, 1));
    assert_eq!(receiving.await.unwrap().unwrap().manifest.size, 64 * MIB);
}

/// Row 47, and the incumbent's worst defect: a close is no success.
#[tokio::test]
async fn row_47_a_sender_that_closes_early_has_sent_nothing() {
    let site = site();
    for (percent, close) in [
        (0, true),
        (50, true),
        (99, true),
        (0, false),
        (50, false),
        (99, false),
    ] {
        let (address, receiving) = site.receive(100 * 4096);
        ask(address, "GET", "open?end=409600&begin=0&directIO=true", b"").await;
        for part in 0..percent {
            let target = format!("writeData?end={}&begin={}", (part + 1) * 4096, part * 4096);
            assert_eq!(ask(address, "POST", &target, &[1; 4096]).await.0, 200);
        }
        if close {
            let (status, words) =
                ask(address, "POST", "close?checksum=&checksumMethod=", b"").await;
            assert_eq!(status, 409);
            assert!(
                words.contains(&format!("received {} of 409600 bytes", percent * 4096)),
                "{words}"
            );
        }
        let error = time_passes(receiving).await.unwrap_err();
        let text = report(&error).to_string();
        let expected = match (percent, close) {
            (0, false) => "failed to wait for processing begin in 60 seconds".to_owned(),
            (_, true) => format!(
                "received {} of 409600 bytes, then its sender closed",
                percent * 4096
            ),
            (_, false) => format!(
                "received {} of 409600 bytes, then no data arrived for 300 seconds",
                percent * 4096
            ),
        };
        assert!(text.starts_with(&expected), "{percent} {close}: {text}");
        let left = site.job.store.paths(&site.job.id).backing_tmp;
        assert!(!left.exists(), "{}", left.display());
        drop(StdListener::bind(address).unwrap());
    }
}

/// Row 47 at 100 %: all bytes are there, only the last word is missing.
#[tokio::test(flavor = "multi_thread")]
async fn row_47_a_sender_that_dies_before_its_close_has_sent_all() {
    let site = site();
    let (address, receiving) = site.receive(8192);
    ask(address, "GET", "open?begin=0&directIO=false&end=8192", b"").await;
    ask(address, "POST", "sendHole?begin=4096&end=8192", b"").await;
    ask(address, "POST", "writeData?begin=0&end=4096", &[3; 4096]).await;
    let received = receiving.await.unwrap().unwrap();
    let expected = [vec![3; 4096], vec![0; 4096]].concat();
    assert_eq!(received.manifest.checksum, Some(Sha512::of(&expected)));
}

#[tokio::test]
async fn nobody_comes() {
    let site = site();
    let (address, receiving) = site.receive(8192);
    let error = time_passes(receiving).await.unwrap_err();
    assert!(matches!(error, Error::NothingCame { .. }), "{error}");
    drop(StdListener::bind(address).unwrap());
}

/// Row 52: what a peer must not do is refused, and harms neither the copy nor the process.
#[tokio::test(flavor = "multi_thread")]
async fn row_52_a_hostile_sender_is_refused_and_the_copy_goes_on() {
    let site = site();
    let (to, receiving) = site.receive(0);
    let early = ask(to, "POST", "writeData?begin=0&end=4096", &[1; 4096]).await;
    assert_eq!(early.0, 409, "{}", early.1);
    // Nor does a close by somebody who has not opened it end the copy.
    assert_eq!(ask(to, "POST", "close", b"").await.0, 409);
    assert_eq!(
        ask(to, "GET", "open?begin=0&directIO=false&end=8192", b"").await,
        (200, "false".into())
    );
    // The answer was lost, it asks again; and then for another file.
    assert_eq!(
        ask(to, "GET", "open?begin=0&directIO=false&end=8192", b"")
            .await
            .0,
        200
    );
    assert_eq!(
        ask(to, "GET", "open?begin=0&directIO=false&end=4096", b"")
            .await
            .0,
        409
    );
    let block = [1_u8; 4096];
    assert_eq!(
        ask(to, "POST", "writeData?begin=0&end=4096", &block)
            .await
            .0,
        200
    );
    for (target, body, status) in [
        ("writeData?begin=0&end=4096", &block[..], 200),
        ("writeData?begin=0&end=4096", &[2_u8; 4096][..], 409),
        ("sendHole?begin=0&end=512", b"", 409),
        ("writeData?begin=4096&end=12288", &[1_u8; 8192][..], 400),
        ("writeData?begin=8192&end=12288", &block[..], 400),
        ("sendHole?begin=4096&end=1099511627776", b"", 400),
        ("sendHole?begin=-4096&end=8192", b"", 400),
        ("writeData?begin=0&end=-1", &block[..], 400),
        ("writeData?begin=0&end=512", &block[..], 400),
        ("writeData?begin=0&end=4096", &block[..100], 400),
        ("writeMetaFile", b"{}", 404),
    ] {
        let answer = ask(to, "POST", target, body).await;
        assert_eq!(answer.0, status, "{target}: {}", answer.1);
    }
    let sum = |answer: (u16, String)| answer.1;
    let of_zeros_and_ones = sum(ask(to, "GET", "getChecksum?begin=0&end=4096", b"").await);
    // The chunk has not all come yet.
    assert_eq!(of_zeros_and_ones, "null");
    assert_eq!(ask(to, "GET", "getRecordedMetadata", b"").await.0, 500);
    assert_eq!(
        ask(to, "POST", "sendHole?begin=4096&end=8192", b"").await.0,
        200
    );
    let told = sum(ask(to, "GET", "getChecksum?begin=0&end=4096", b"").await);
    assert_eq!(told.len(), 90, "{told}");
    assert_eq!(
        ask(to, "POST", "close?checksum=&checksumMethod=", b"").await,
        (200, String::new())
    );
    let received = receiving.await.unwrap().unwrap();
    let expected = [vec![1; 4096], vec![0; 4096]].concat();
    assert_eq!(received.manifest.checksum, Some(Sha512::of(&expected)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_with_another_file_is_told_at_once() {
    let site = site();
    let (to, receiving) = site.receive(8192);
    let (status, words) = ask(to, "GET", "open?begin=0&end=4096", b"").await;
    assert_eq!(status, 500);
    assert!(words.contains("4096 bytes, expected 8192"), "{words}");
    let error = receiving.await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Catalog(catalog::Error::Store(store::Error::WrongSize {
                expected: 8192,
                actual: 4096
            }))
        ),
        "{error}"
    );
}

/// A deleted image does not keep its port, its file or its sender.
#[tokio::test(flavor = "multi_thread")]
async fn row_56_a_receiver_that_is_not_wanted_ends_at_once() {
    let site = site();
    let (to, receiving) = site.receive(8192);
    ask(to, "GET", "open?begin=0&end=8192", b"").await;
    site.job.cancel.cancel();
    let error = receiving.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
    drop(StdListener::bind(to).unwrap());
    assert!(!site.job.store.paths(&site.job.id).backing_tmp.exists());
}
