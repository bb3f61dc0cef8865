//! What a start finds on a disk, and makes of it.

use super::*;

/// Row 97: whoever comes back finds its images on its disk.
#[test]
fn row_97_a_sealed_image_is_ready_at_the_next_start_and_nothing_is_read() {
    let fixture = fixture();
    let sealed = fixture.seal();
    assert_eq!(sealed.checksum().unwrap(), Sha512::of(&bytes()));
    assert_eq!(
        fixture.files(),
        ["backing", "backing.cfg", "backing.chunks"]
    );
    assert_eq!(fixture.ready(), sealed);
}

/// Row 62: whatever happens to the sidecar, the image comes back by its bytes.
#[test]
fn row_62_an_image_without_a_usable_sidecar_is_read_and_sealed_again() {
    let fixture = fixture();
    let sealed = fixture.seal();
    let other = br#"{"name":"x","uuid":"ffffffff","size":1}"#;
    for sidecar in [&b""[..], b"{\"name\":", b"\xff\xfe\x00", b"{}", other] {
        fixture.put_sidecar(sidecar);
        let [Found::Unsealed(id, None)] = &fixture.load()[..] else {
            panic!("{sidecar:?}")
        };
        let adopted = fixture.adopt(id).unwrap();
        assert_eq!(
            adopted.sidecar.current_checksum,
            sealed.sidecar.current_checksum
        );
        assert!(matches!(fixture.load()[..], [Found::Ready(_)]));
    }
    // Without the manifest too, the bytes are hashed.
    fs::remove_file(fixture.store.paths(&fixture.id).sidecar).unwrap();
    fs::remove_file(fixture.store.paths(&fixture.id).chunks).unwrap();
    let adopted = fixture.adopt(&fixture.id).unwrap();
    assert_eq!(
        adopted.sidecar.current_checksum,
        sealed.sidecar.current_checksum
    );
}

/// Row 62: a sidecar of the future keeps everybody's hands off.
#[test]
fn row_62_an_image_of_a_newer_version_is_not_touched() {
    let fixture = fixture();
    fixture.seal();
    fixture.put_sidecar(br#"{"uuid":"a93b9a55","seal":{"version":99},"shape":["new"]}"#);
    File::create(fixture.store.paths(&fixture.id).backing_tmp).unwrap();
    let before = fixture.files();
    let [Found::Unusable(_, Error::NewerFormat { version: 99, .. })] = &fixture.load()[..] else {
        panic!()
    };
    assert_eq!(fixture.files(), before);
}

/// Row 62: bytes that no longer agree with the manifest are not adopted.
#[test]
fn row_62_damaged_bytes_are_not_adopted() {
    let fixture = fixture();
    fixture.seal();
    fixture.put_sidecar(b"");
    spoil(&fixture.backing(), 1 << 20);
    assert!(matches!(
        fixture.adopt(&fixture.id),
        Err(Error::Damaged { .. })
    ));
}

/// A sidecar of Longhorn's own: its checksum must be right, then ours is written.
#[test]
fn an_image_that_longhorn_sealed_is_adopted_by_its_checksum() {
    let fixture = fixture();
    fixture.seal();
    fs::remove_file(fixture.store.paths(&fixture.id).chunks).unwrap();
    let sidecar = |sum: &str| {
        format!(
            r#"{{"name":"/data/backing-images/img-a93b9a55/backing","uuid":"a93b9a55",
            "size":3145728,"expectedChecksum":"","currentChecksum":"{sum}","modificationTime":""}}"#
        )
    };
    fixture.put_sidecar(sidecar(&Sha512::of(b"other").to_string()).as_bytes());
    let [Found::Unsealed(id, Some(_))] = &fixture.load()[..] else {
        panic!()
    };
    assert!(matches!(fixture.adopt(id), Err(Error::Damaged { .. })));
    assert!(
        fixture.backing().exists(),
        "a wrong checksum must never delete the bytes"
    );
    fixture.put_sidecar(sidecar(&Sha512::of(&bytes()).to_string()).as_bytes());
    let [Found::Unsealed(id, Some(_))] = &fixture.load()[..] else {
        panic!()
    };
    assert!(!fixture.adopt(id).unwrap().seal.unverified);
}

/// Row 64: the same bytes under a new stamp are ready again, other bytes never are, though their
/// modification time was set back.
#[test]
fn row_64_a_touched_image_is_read_and_a_forged_time_does_not_help() {
    let fixture = fixture();
    let sealed = fixture.seal();
    let path = fixture.backing();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let touch = |bytes: &[u8]| {
        file.write_all_at(bytes, 0).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    };
    touch(&[7; 16]);
    assert!(!fixture.store.is_untouched(&sealed).unwrap());
    assert!(matches!(fixture.load()[..], [Found::Modified(_)]));
    let fresh = fixture.store.verify(&sealed, &Cancel::never()).unwrap();
    assert!(fixture.store.is_untouched(&fresh).unwrap());
    assert!(matches!(fixture.load()[..], [Found::Ready(_)]));

    touch(&[8; 16]);
    let error = fixture.store.verify(&fresh, &Cancel::never()).unwrap_err();
    assert!(error.to_string().contains("offset 0"), "{error}");
    let aside = fixture.store.quarantine(&fixture.id).unwrap();
    assert!(aside.join("backing").exists());
    assert!(fixture.load().is_empty());
}

/// Row 64: removed, truncated, replaced by something that is no file.
#[test]
fn row_64_a_file_that_is_gone_or_cut_is_noticed() {
    let fixture = fixture();
    let sealed = fixture.seal();
    File::options()
        .write(true)
        .open(fixture.backing())
        .unwrap()
        .set_len(512)
        .unwrap();
    let error = fixture.store.verify(&sealed, &Cancel::never()).unwrap_err();
    assert!(error.to_string().contains("512 bytes"), "{error}");
    fs::remove_file(fixture.backing()).unwrap();
    assert!(!fixture.store.is_untouched(&sealed).unwrap());
    fs::create_dir(fixture.backing()).unwrap();
    assert!(matches!(fixture.load()[..], [Found::Unusable(..)]));
    fs::remove_dir(fixture.backing()).unwrap();
    assert!(fixture.load().is_empty());
    assert!(
        !fixture.store.paths(&fixture.id).dir.exists(),
        "an image without bytes is no image"
    );
}

#[test]
fn a_start_removes_what_a_crash_left() {
    let fixture = fixture();
    let layout = fixture.store.disk().layout().clone();
    fixture.seal();
    let paths = fixture.store.paths(&fixture.id);
    let half = fixture.store.paths(&ImageId::new("half", "1").unwrap());
    fs::create_dir(&half.dir).unwrap();
    fs::create_dir(layout.images().join(".deleting-x-1")).unwrap();
    for leftover in [&paths.backing_tmp, &paths.raw_tmp, &half.backing_tmp] {
        File::create(leftover).unwrap();
    }
    assert!(matches!(fixture.load()[..], [Found::Ready(_)]));
    assert_eq!(
        fixture.files(),
        ["backing", "backing.cfg", "backing.chunks"]
    );
    assert_eq!(fs::read_dir(layout.images()).unwrap().count(), 1);
}

#[test]
fn deleting_twice_is_fine() {
    let fixture = fixture();
    fixture.seal();
    fixture.store.delete(&fixture.id).unwrap();
    fixture.store.delete(&fixture.id).unwrap();
    assert!(fixture.load().is_empty());
}
