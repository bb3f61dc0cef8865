//! Incoming images and their results.

use super::*;

/// Row 28: a wrong sum fails with both sums in the text, and nothing is left of the bytes.
#[test]
fn row_28_a_wrong_checksum_leaves_nothing_and_the_right_one_works() {
    let fixture = fixture();
    let (right, wrong) = (Sha512::of(&bytes()), Sha512::of(b"other"));
    let with = |sum| Facts {
        expected: Some(sum),
        ..Facts::default()
    };
    let error = fixture
        .try_seal(&bytes(), &with(wrong))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&right.to_string()) && error.contains(&wrong.to_string()),
        "{error}"
    );
    assert_eq!(fixture.files(), [""; 0]);
    assert!(
        !fixture
            .try_seal(&bytes(), &with(right))
            .unwrap()
            .seal
            .unverified
    );
}

/// Row 29: without a sum, the computed one is recorded, marked as unverified, and enforced.
#[test]
fn row_29_an_unverified_image_says_so_and_is_held_to_its_own_checksum() {
    let fixture = fixture();
    let sealed = fixture.seal();
    assert!(sealed.seal.unverified);
    assert_eq!(
        sealed.sidecar.current_checksum,
        Sha512::of(&bytes()).to_string()
    );
    spoil(&fixture.backing(), 0);
    assert!(matches!(
        fixture.store.verify(&sealed, &Cancel::never()),
        Err(Error::Damaged { .. })
    ));
}

/// Row 44: a raw image that looks like qcow2 stays raw, and is never asked again.
#[test]
fn row_44_a_declared_format_is_never_guessed_again() {
    let fixture = fixture();
    let mut disguised = bytes();
    disguised[..4].copy_from_slice(b"QFI\xfb");
    let facts = Facts {
        format: Some(Format::Raw),
        ..Facts::default()
    };
    let sealed = fixture.try_seal(&disguised, &facts).unwrap();
    assert_eq!(
        (sealed.format(), sealed.sidecar.virtual_size),
        (Format::Raw, 3 << 20)
    );
    assert_eq!(fixture.ready().format(), Format::Raw);
    // Not declared, the same bytes are a broken qcow2 and refused.
    let other = Fixture {
        id: ImageId::new("other", "1").unwrap(),
        ..fixture
    };
    assert!(matches!(
        other.try_seal(&disguised, &Facts::default()),
        Err(Error::Image(_))
    ));
}

#[test]
fn the_raw_form_is_made_once_and_again_when_it_was_touched() {
    let fixture = fixture();
    let source = tempfile::tempfile().unwrap();
    source.write_all_at(&bytes(), 0).unwrap();
    let source = probe::FileDisk::new(source).unwrap();
    let mut qcow2 = tempfile::NamedTempFile::new().unwrap();
    image::qcow2::create(
        &source,
        qcow2.as_file_mut(),
        &image::qcow2::CreateOptions::default(),
    )
    .unwrap();
    let sealed = fixture
        .try_seal(&fs::read(qcow2.path()).unwrap(), &Facts::default())
        .unwrap();
    assert_eq!(
        (sealed.format(), sealed.sidecar.virtual_size),
        (Format::Qcow2, 3 << 20)
    );
    assert_eq!(fixture.store.raw_form(&sealed).unwrap(), None);

    let cancel = Cancel::never();
    let path = fixture.store.make_raw_form(&sealed, &cancel).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes());
    assert_eq!(fixture.store.raw_form(&sealed).unwrap(), Some(path.clone()));
    spoil(&path, 0);
    assert_eq!(fixture.store.raw_form(&sealed).unwrap(), None);
    fixture.store.make_raw_form(&sealed, &cancel).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes());
}

#[test]
fn what_is_no_disk_image_is_refused() {
    let fixture = fixture();
    let error = fixture.try_seal(b"", &Facts::default()).unwrap_err();
    assert!(error.to_string().contains("empty"), "{error}");
    assert_eq!(fixture.files(), [""; 0]);
}

#[test]
fn a_directory_of_others_is_left_alone_whatever_it_is_called() {
    let fixture = fixture();
    let theirs = fixture.store.disk().layout().images().join("old-images");
    fs::create_dir(&theirs).unwrap();
    File::create(theirs.join("debian.qcow2")).unwrap();
    File::create(theirs.join("notes.tmp")).unwrap();
    assert!(fixture.load().is_empty());
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 2);
}

/// Nobody waits for the end of a long read that is no longer wanted.
#[test]
fn verifying_ends_when_it_is_called_off() {
    let fixture = fixture();
    let sealed = fixture.seal();
    let cancel = Cancel::when(|| true);
    fixture.put_sidecar(b"");
    assert!(matches!(
        fixture.store.verify(&sealed, &cancel),
        Err(Error::Cancelled(_))
    ));
    assert!(matches!(
        fixture
            .store
            .adopt(&fixture.id, &Asked::default(), Reading::silent(&cancel)),
        Err(Error::Cancelled(_))
    ));
}
