//! The files of a store that Longhorn wrote, and files that nobody should believe.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::backing_image::{self, BackingImageHead};
use super::backup::{self, BackupHead, Expected, VOLUME_SIZE};
use super::volume::{BaseImage, VolumeConfig};
use crate::driver::{Meta, Reading};
use crate::fixtures;
use crate::{BlockChecksum, BlockSize, Compression, Error, Name, Result, layout};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A file in pieces of 7 bytes, so that nothing depends on where they are cut.
fn reading(bytes: &[u8]) -> Reading {
    let pieces: Vec<_> = bytes
        .chunks(7)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    Reading {
        meta: Meta {
            size: bytes.len() as u64,
            modified: Timestamp::UNIX_EPOCH,
        },
        bytes: stream::iter(pieces).boxed(),
    }
}

fn expected(volume: &str, backup: &str, volume_size: Option<u64>) -> Expected {
    let (volume, backup) = (name(volume), name(backup));
    Expected {
        key: layout::backup_config(&volume, &backup),
        volume,
        backup,
        volume_size,
    }
}

type Blocks = Vec<(u64, BlockChecksum)>;

async fn read_backup(bytes: &[u8], expected: Expected) -> Result<(BackupHead, Blocks)> {
    let (sender, blocks) = std::sync::mpsc::channel();
    let push = move |offset, checksum| {
        sender.send((offset, checksum)).unwrap();
        Ok(())
    };
    let head = backup::read(reading(bytes), expected, push).await?;
    Ok((head, blocks.into_iter().collect()))
}

async fn read_image(bytes: &[u8]) -> Result<(BackingImageHead, Blocks)> {
    let (sender, blocks) = std::sync::mpsc::channel();
    let push = move |offset, checksum| {
        sender.send((offset, checksum)).unwrap();
        Ok(())
    };
    let key = layout::backing_image_config(&name("img-a"));
    let head = backing_image::read(reading(bytes), key, name("img-a"), push).await?;
    Ok((head, blocks.into_iter().collect()))
}

fn all(blocks: &Blocks) -> impl Iterator<Item = io::Result<(u64, BlockChecksum)>> {
    blocks.iter().map(|block| Ok(*block))
}

/// What is noise in the format, and is written in one way here.
fn without_noise(text: &[u8]) -> String {
    let text = std::str::from_utf8(text).unwrap();
    text.replace("\"ProcessingBlocks\":{}", "\"ProcessingBlocks\":null")
        .replace(
            "\"ProcessingBlocks\":{\"Blocks\":{}}",
            "\"ProcessingBlocks\":null",
        )
}

#[test]
fn volumes_that_longhorn_wrote_are_written_back_byte_for_byte() {
    let store = fixtures::store();
    let mut count = 0;
    for (key, bytes) in store.iter().filter(|(key, _)| key.ends_with("volume.cfg")) {
        let volume = name(key.rsplit('/').nth(1).unwrap());
        assert_eq!(*key, layout::volume_config(&volume));
        let config = VolumeConfig::parse(bytes, key, &volume).unwrap();
        assert_eq!(
            String::from_utf8(config.to_json()).unwrap(),
            String::from_utf8_lossy(bytes)
        );
        count += 1;
    }
    assert_eq!(count, 4);
    let key = layout::volume_config(&name("vol-on-base"));
    let config = VolumeConfig::parse(&store[&key], &key, &name("vol-on-base")).unwrap();
    let base = config.base.unwrap();
    assert_eq!((base.name.as_str(), base.checksum.len()), ("img-a", 128));
    assert_eq!(config.storage_class, "site");
}

#[tokio::test]
async fn backups_that_longhorn_wrote_are_written_back_byte_for_byte() {
    let store = fixtures::store();
    let mut count = 0;
    for (key, bytes) in store.iter().filter(|(key, _)| key.contains("/backups/")) {
        let backup = layout::backup_of(key).unwrap();
        let volume = key.rsplit('/').nth(2).unwrap();
        let expected = expected(volume, backup.as_str(), Some(32 << 20));
        assert_eq!(*key, expected.key);
        let (head, blocks) = read_backup(bytes, expected).await.unwrap();
        assert_eq!(head.size, blocks.len() as u64 * head.block_size.bytes());
        let mut written = Vec::new();
        backup::write(&mut written, &head, all(&blocks)).unwrap();
        let mut known = without_noise(bytes);
        if volume == "vol-gzip" {
            // Written before block sizes could be chosen; here it is always said.
            let said = "\"Parameters\":{\"backup-block-size\":\"2097152\"}";
            known = known.replace("\"Parameters\":{}", said);
        }
        assert_eq!(String::from_utf8(written).unwrap(), known);
        count += 1;
    }
    assert_eq!(count, 8);
}

#[tokio::test]
async fn a_backing_image_that_longhorn_wrote_is_written_back_byte_for_byte() {
    let key = layout::backing_image_config(&name("img-a"));
    let bytes = &fixtures::store()[&key];
    let (head, blocks) = read_image(bytes).await.unwrap();
    assert_eq!(
        (head.size, head.block_count, blocks.len()),
        (7_340_544, 2, 2)
    );
    let mut written = Vec::new();
    backing_image::write(&mut written, &head, all(&blocks)).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), without_noise(bytes));
}

#[tokio::test]
async fn an_unfinished_backup_has_no_blocks_and_no_time() {
    let (head, _) = read_backup(
        &backup_of("b1"),
        expected("vol-gzip", "backup-00000000000000b1", None),
    )
    .await
    .unwrap();
    let head = BackupHead {
        created_at: None,
        ..head
    };
    let mut written = Vec::new();
    backup::write(&mut written, &head, all(&Vec::new())).unwrap();
    let text = String::from_utf8(written).unwrap();
    assert!(
        text.contains("\"CreatedTime\":\"\"") && !text.contains("\"Blocks\""),
        "{text}"
    );
    let expected = expected("vol-gzip", "backup-00000000000000b1", None);
    let (read, blocks) = read_backup(text.as_bytes(), expected).await.unwrap();
    assert_eq!((read.created_at, blocks), (None, Vec::new()));
}

fn backup_of(which: &str) -> Vec<u8> {
    let key = layout::backup_config(
        &name("vol-gzip"),
        &name(&format!("backup-00000000000000{which}")),
    );
    fixtures::store()[&key].clone()
}

#[tokio::test]
async fn each_hostile_backup_is_refused_or_read_as_it_must_be() {
    let key = layout::backup_config(&name("vol-gzip"), &name("backup-00000000000000b1"));
    let (mut read, mut refused) = (Vec::new(), BTreeMap::new());
    for (store, files) in fixtures::hostile() {
        let volume = layout::volume_config(&name("vol-gzip"));
        let size = files.get(&volume).map(|bytes| {
            VolumeConfig::parse(bytes, &volume, &name("vol-gzip")).map(|config| config.size)
        });
        let Some(Ok(size)) = size else {
            refused.insert(store, "volume.cfg".to_owned());
            continue;
        };
        let expected = expected("vol-gzip", "backup-00000000000000b1", Some(size));
        match read_backup(&files[&key], expected).await {
            Ok((_, blocks)) => read.push((store, blocks.len())),
            Err(Error::Config { key: named, why }) => {
                assert_eq!(named, key, "the error names the file");
                refused.insert(store, why);
            }
            Err(error) => panic!("{store}: {error}"),
        }
    }
    let reasons = [
        ("checksum-is-a-path", "64 lower-case"),
        ("checksum-too-short", "64 lower-case"),
        ("cut-backup-cfg", "cut short"),
        ("empty-backup-cfg", "empty"),
        ("huge-size", ""),
        ("no-volume-cfg", "volume.cfg"),
        ("offset-negative", "negative"),
        ("offset-not-aligned", "not a multiple"),
        ("offset-past-the-end", "behind the end"),
        ("size-not-a-multiple", "do not divide"),
    ];
    for (store, reason) in reasons {
        let why = refused.remove(store);
        let why = why.unwrap_or_else(|| panic!("{store} is read"));
        assert!(why.contains(reason), "{store}: {why}");
    }
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(read.len(), 11, "{read:?}");
}

#[test]
fn what_is_not_known_is_kept_and_what_is_absent_is_its_default() {
    let text = br#"{"Name":"vol","Size":4194304,"Later":{"a":[1]},"CompressionMethod":"lz4","Labels":null}"#;
    let config = VolumeConfig::parse(text, "volume.cfg", &name("vol")).unwrap();
    assert_eq!(
        (config.size, config.compression),
        (4 << 20, Compression::Lz4)
    );
    assert_eq!(
        (config.data_engine.as_str(), config.base.is_none()),
        ("v1", true)
    );
    let written = String::from_utf8(config.to_json()).unwrap();
    assert!(
        written.ends_with(",\"DataEngine\":\"\\\"v1\\\"\",\"Later\":{\"a\":[1]}}"),
        "{written}"
    );
    assert!(
        written.contains("\"Size\":\"4194304\"")
            && written.contains("\"CompressionMethod\":\"\\\"lz4\\\"\"")
    );

    let text = br#"{"Name":"vol","Size":"4194304"}"#;
    let config = VolumeConfig::parse(text, "volume.cfg", &name("vol")).unwrap();
    assert_eq!(config.compression, Compression::Gzip);
    let base = Some(BaseImage {
        name: "a \"quoted\" image".to_owned(),
        checksum: String::new(),
    });
    let config = VolumeConfig { base, ..config };
    let read = VolumeConfig::parse(&config.to_json(), "volume.cfg", &name("vol")).unwrap();
    assert_eq!(read, config);
}

#[test]
fn a_volume_that_cannot_be_is_refused() {
    for (text, reason) in [
        ("", "empty"),
        ("{\"Name\":\"vol\"", "cut short"),
        ("[]", "not JSON"),
        (r#"{"Name":"other","Size":"1"}"#, "expected vol"),
        (r#"{"Size":"1"}"#, "expected vol"),
        (r#"{"Name":"vol"}"#, "Size is 0"),
        (r#"{"Name":"vol","Size":"0"}"#, "Size is 0"),
        (r#"{"Name":"vol","Size":-1}"#, "not a number"),
        (r#"{"Name":"vol","Size":"+1"}"#, "not a number"),
        (
            r#"{"Name":"vol","Size":"99999999999999999999"}"#,
            "not a number",
        ),
        (
            r#"{"Name":"vol","Size":"9223372036854775807"}"#,
            "more than 1 PiB",
        ),
        (
            r#"{"Name":"vol","Size":"1","LastBackupName":"../x"}"#,
            "not a name",
        ),
        (
            r#"{"Name":"vol","Size":"1","LastBackupAt":"yesterday"}"#,
            "RFC 3339",
        ),
        (r#"{"Name":"vol","Size":"1","Labels":{"a":1}}"#, "no text"),
        (
            r#"{"Name":"vol","Size":"1","CompressionMethod":"\"zip\""}"#,
            "none that is known",
        ),
        (
            r#"{"Name":"vol","Size":"1","DataEngine":"\"v1"}"#,
            "text inside of a text",
        ),
    ] {
        let error = VolumeConfig::parse(text.as_bytes(), "k", &name("vol"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

/// A cfg of these parameters and blocks, with the blocks first or last.
fn cfg(parameters: &str, offsets: &[u64], blocks_first: bool) -> String {
    let checksum = BlockChecksum::of(b"x");
    let blocks: Vec<_> = offsets
        .iter()
        .map(|offset| format!(r#"{{"Offset":{offset},"BlockChecksum":"{checksum}"}}"#))
        .collect();
    let blocks = format!(r#""Blocks":[{}]"#, blocks.join(","));
    let head = format!(r#""Name":"bb","VolumeName":"vol","Parameters":{parameters}"#);
    if blocks_first {
        format!("{{{blocks},{head}}}")
    } else {
        format!("{{{head},{blocks}}}")
    }
}

#[tokio::test]
async fn the_blocks_of_a_map_are_checked_wherever_they_stand() {
    const M: u64 = 1 << 20;
    let mib = r#"{"backup-block-size":"1Mi"}"#;
    let grown = format!(r#"{{"{VOLUME_SIZE}":"4194304"}}"#);
    for (parameters, offsets, reason) in [
        ("{}", &[0, 2 * M, 6 * M][..], ""),
        ("null", &[0, 6 * M], ""),
        (mib, &[M, 7 * M], ""),
        (r#"{"backup-block-size":"0"}"#, &[2 * M], ""),
        (r#"{"backup-block-size":""}"#, &[2 * M], ""),
        (&grown, &[2 * M], ""),
        (&grown, &[4 * M], "behind the end"),
        ("{}", &[8 * M], "behind the end"),
        ("{}", &[u64::MAX], "offset 18446744073709551615"),
        ("{}", &[1 << 60], "the end"),
        ("{}", &[M], "not a multiple"),
        ("{}", &[0, 2 * M, 3 * M], "not a multiple"),
        (mib, &[M + 512], "not a multiple"),
        ("{}", &[2 * M, 0], "comes after"),
        ("{}", &[2 * M, 2 * M], "comes after"),
        (r#"{"backup-block-size":"3145728"}"#, &[], "do not divide"),
        (r#"{"backup-block-size":"128Mi"}"#, &[], "at most"),
        (r#"{"backup-block-size":"-1"}"#, &[], "not valid"),
        (r#"{"volume-size":"x"}"#, &[], "not a size"),
    ] {
        for blocks_first in [false, true] {
            let text = cfg(parameters, offsets, blocks_first);
            let read = read_backup(text.as_bytes(), expected("vol", "bb", Some(8 * M))).await;
            match read {
                Ok((_, blocks)) => {
                    assert!(reason.is_empty(), "{text}");
                    assert_eq!(blocks.len(), offsets.len());
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(
                        !reason.is_empty() && error.contains(reason),
                        "{text}: {error}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn other_files_than_the_one_that_was_asked_for_are_refused() {
    for text in [
        r#"{"Name":"bb","VolumeName":"other"}"#,
        r#"{"Name":"cc","VolumeName":"vol"}"#,
        r#"{"Name":"bb","VolumeName":"vol","Name":"bb"}"#,
        r#"{"Name":"bb","VolumeName":"vol","Blocks":[],"Blocks":[]}"#,
        r#"{"Name":"bb","VolumeName":"vol","Blocks":{}}"#,
        r#"{"Name":"bb","VolumeName":"vol"} x"#,
    ] {
        let read = read_backup(text.as_bytes(), expected("vol", "bb", None)).await;
        assert!(
            matches!(read, Err(Error::Config { .. })),
            "{text}: {read:?}"
        );
    }
}

/// What it reads of a file without an end; the reader must give up long before that.
#[tokio::test]
async fn bytes_that_no_block_explains_are_bounded() {
    for (before, endless) in [
        (r#"{"Name":""#, "x"),
        (r#"{"Name":"bb","Blocks":["#, " "),
        (r#"{"Name":"bb","Labels":{"a":""#, "x"),
        (r#"{"Blocks":[{"Offset":0,"Other":""#, "x"),
    ] {
        let piece = Bytes::from(endless.repeat(64 << 10));
        let pieces = stream::iter([Ok(Bytes::from_static(before.as_bytes()))]);
        let endless = stream::iter(std::iter::repeat_n(piece, 1024)).map(Ok);
        let reading = Reading {
            meta: Meta {
                size: 0,
                modified: Timestamp::UNIX_EPOCH,
            },
            bytes: pieces.chain(endless).boxed(),
        };
        let read = backup::read(reading, expected("vol", "bb", None), |_, _| Ok(())).await;
        let why = read.unwrap_err().to_string();
        assert!(why.contains("longer than"), "{before}: {why}");
    }
}

#[tokio::test]
async fn what_the_store_says_while_a_map_is_read_is_the_error() {
    let failure = || Error::NoObject {
        key: "gone".to_owned(),
    };
    let text = Bytes::from_static(br#"{"Name":"bb","Blocks":["#);
    let reading = Reading {
        meta: Meta {
            size: 0,
            modified: Timestamp::UNIX_EPOCH,
        },
        bytes: stream::iter([Ok(text), Err(failure())]).boxed(),
    };
    let read = backup::read(reading, expected("vol", "bb", None), |_, _| Ok(())).await;
    assert!(matches!(read, Err(Error::NoObject { key }) if key == "gone"));
    // And what who takes the blocks says.
    let text = cfg("{}", &[0], false);
    let push = move |_, _| Err(failure());
    let read = backup::read(
        self::reading(text.as_bytes()),
        expected("vol", "bb", None),
        push,
    )
    .await;
    assert!(matches!(read, Err(Error::NoObject { .. })));
}

/// A map goes through in one pass, and is not held.
#[tokio::test]
async fn a_long_map_is_streamed() {
    const BLOCKS: u64 = 50_000;
    let size = BLOCKS * BlockSize::MIB2.bytes();
    let (head, _) = read_backup(
        cfg("{}", &[], false).as_bytes(),
        expected("vol", "bb", None),
    )
    .await
    .unwrap();
    let checksum = BlockChecksum::of(b"x");
    let mut text = Vec::new();
    let blocks =
        (0..BLOCKS).map(|index| Ok::<_, io::Error>((index * BlockSize::MIB2.bytes(), checksum)));
    backup::write(&mut text, &head, blocks).unwrap();
    let mut from = Cursor::new(text);
    let pieces = std::iter::from_fn(move || {
        let mut piece = vec![0; 1 << 20];
        let read = from.read(&mut piece).unwrap();
        piece.truncate(read);
        (read > 0).then_some(Ok(Bytes::from(piece)))
    });
    let reading = Reading {
        meta: Meta {
            size: 0,
            modified: Timestamp::UNIX_EPOCH,
        },
        bytes: stream::iter(pieces.collect::<Vec<_>>()).boxed(),
    };
    let (sender, counted) = std::sync::mpsc::channel();
    let mut count = 0;
    let push = move |_, _| {
        count += 1;
        if count == BLOCKS {
            sender.send(count).unwrap();
        }
        Ok(())
    };
    backup::read(reading, expected("vol", "bb", Some(size)), push)
        .await
        .unwrap();
    assert_eq!(counted.recv(), Ok(BLOCKS));
}

#[tokio::test]
async fn an_image_that_cannot_be_is_refused() {
    let checksum = BlockChecksum::of(b"x");
    for (text, reason) in [
        (r#"{"Name":"img-a"}"#.to_owned(), "Size is 0"),
        (
            r#"{"Name":"img-b","Size":"512"}"#.to_owned(),
            "expected img-a",
        ),
        (
            r#"{"Name":"img-a","Size":"512","Checksum":"../x"}"#.to_owned(),
            "128 lower-case",
        ),
        (
            format!(
                r#"{{"Name":"img-a","Size":"2097152","Blocks":[{{"Offset":2097152,"BlockChecksum":"{checksum}"}}]}}"#
            ),
            "behind the end",
        ),
        (
            format!(
                r#"{{"Name":"img-a","Size":"2097152","Blocks":[{{"Offset":512,"BlockChecksum":"{checksum}"}}]}}"#
            ),
            "not a multiple",
        ),
    ] {
        let error = read_image(text.as_bytes()).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}
