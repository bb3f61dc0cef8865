use types::{Classify as _, ErrorKind};

use super::*;

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn secrets(pairs: &[(&str, &str)]) -> Secrets {
    Secrets::parse(map(pairs)).unwrap()
}

fn class(pairs: &[(&str, &str)], secret: &[(&str, &str)]) -> Result<BackupClass> {
    BackupClass::parse(&map(pairs), secrets(secret))
}

#[test]
fn an_id_names_a_volume_a_backup_and_sometimes_a_target() {
    for text in [
        "bak://pvc-1/snapshot-1",
        "bak://pvc-1/backup-0123456789abcdef",
        "bak://a_b.c/d-e?target=nightly",
    ] {
        assert_eq!(BackupId::parse(text).unwrap().to_string(), text);
    }
    let id = BackupId::parse("bak://vol/back?target=t").unwrap();
    let parts = (id.volume.as_str(), id.backup.as_str(), id.target.as_str());
    assert_eq!(parts, ("vol", "back", "t"));
    for bad in [
        "",
        "bak://",
        "bak://vol",
        "bak://vol/",
        "bak:///back",
        "bak://v/back",
        "bak://vol/b",
        "bak://vol/back/more",
        "bak://../back",
        "bak://vol/..",
        "bak://vol/back?",
        "bak://vol/back?target=",
        "bak://vol/back?target=a/b",
        "bak://vol/back?target=../x",
        "bak://vol/back?target=a&x=y",
        "bak://vol/back?volume=other",
        "bak://vol/ba ck",
        "bak://vol/back\n",
        "bs://vol/back",
        "snap://vol/back",
    ] {
        assert_eq!(BackupId::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn a_class_says_how_its_backups_are_made() {
    let id = BackupId::parse("bak://vol/back").unwrap();
    let request = |pairs: &[(&str, &str)]| class(pairs, &[]).unwrap().request(&id);
    let plain = request(&[]);
    assert_eq!(
        (plain.volume.as_str(), plain.name.as_str()),
        ("vol", "back")
    );
    assert_eq!(plain.snapshot, "", "one is taken");
    let chosen = (
        plain.mode.as_str(),
        plain.block_size,
        plain.compression.as_str(),
    );
    assert_eq!((chosen, plain.on_base), (("", 0, ""), false));
    assert_eq!(plain.target, Some(wire::BackupTarget::default()));
    for (given, mode, on_base) in [
        ("full", "full", false),
        ("incremental", "incremental", false),
        ("on-base", "incremental", true),
    ] {
        let asked = request(&[("backupMode", given)]);
        assert_eq!((asked.mode.as_str(), asked.on_base), (mode, on_base));
    }
    for (given, bytes) in [("2Mi", 2 << 20), ("16Mi", 16 << 20), ("2097152", 2 << 20)] {
        assert_eq!(request(&[("backupBlockSize", given)]).block_size, bytes);
    }
    for given in ["none", "gzip", "lz4"] {
        assert_eq!(request(&[("backupCompression", given)]).compression, given);
    }
    let target = request(&[("backupTargetName", "nightly")]).target.unwrap();
    assert_eq!(target.name, "nightly");
    for bad in [
        ("backupMode", "Full"),
        ("backupMode", "on_base"),
        ("backupBlockSize", "4Mi"),
        ("backupBlockSize", "2M"),
        ("backupBlockSize", "0"),
        ("backupBlockSize", "two"),
        ("backupCompression", "zstd"),
        ("backupTargetName", "a/b"),
        ("backupTargetName", "../x"),
        ("backupTargetName", " x"),
    ] {
        let error = class(&[bad], &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}");
        assert!(error.to_string().contains(bad.0), "{error}");
    }
}

#[test]
fn a_secret_has_the_address_of_its_store() {
    let key = ("AWS_SECRET_ACCESS_KEY", "hunter2");
    let address = ("BACKUP_TARGET", " s3://bucket@region/path/ \n");
    let registry = [("username", "me"), ("password", "hunter3")];
    let own = secrets(&[key, address, registry[0], registry[1]]);
    let text = format!("{own:?}");
    assert!(!text.contains("hunter"), "{text}");
    let target = own.clone().target("").unwrap();
    assert_eq!(target.address, "s3://bucket@region/path/");
    assert_eq!(
        target.credentials.len(),
        1,
        "those of a registry are for it alone"
    );
    assert_eq!(target.credentials["AWS_SECRET_ACCESS_KEY"], "hunter2");
    // Which of the two would it be?
    assert!(own.target("nightly").is_err());
    for name in ["", "nightly"] {
        let error = secrets(&[key]).target(name).unwrap_err().to_string();
        assert!(
            error.contains("BACKUP_TARGET") && !error.contains("hunter2"),
            "{error}"
        );
        let without = secrets(&registry).target(name).unwrap();
        assert_eq!(without, BackupTarget::named(name));
    }
    let large = map(&[("AWS_CERT", &"x".repeat(SECRETS_BYTES))]);
    assert!(Secrets::parse(large).is_err());
}

#[test]
fn a_restore_is_asked_for_by_the_store_and_the_name_of_the_backup() {
    use wire::source::Source;
    let source = |restore: Restore| match restore.source() {
        Source::Backup(source) => source,
        other => panic!("{other:?}"),
    };
    let id = |text: &str| BackupId::parse(text).unwrap();
    let by_id = Restore::of_id(id("bak://vol/back"), "nightly", secrets(&[])).unwrap();
    assert_eq!(by_id.shown, "bak://vol/back");
    let by_id = source(by_id);
    assert_eq!(
        (by_id.volume.as_str(), by_id.backup.as_str()),
        ("vol", "back")
    );
    assert_eq!(by_id.target.unwrap().name, "nightly");
    let named = Restore::of_id(id("bak://vol/back?target=own"), "nightly", secrets(&[]));
    assert_eq!(source(named.unwrap()).target.unwrap().name, "own");

    let key = ("AWS_ACCESS_KEY_ID", "AKIA");
    let at = "s3://bucket@region/path/?backup=back&volume=vol";
    let by_address = Restore::of_address(address(at).unwrap(), secrets(&[key])).unwrap();
    let by_address = source(by_address);
    assert_eq!(
        (by_address.volume.as_str(), by_address.backup.as_str()),
        ("vol", "back")
    );
    let target = by_address.target.unwrap();
    assert!(
        target.address.starts_with("s3://bucket@region/path"),
        "{target:?}"
    );
    assert_eq!(target.credentials["AWS_ACCESS_KEY_ID"], "AKIA");
    let image = address("s3://bucket@region/path/?backingImage=parrot").unwrap();
    let image = source(Restore::of_address(image, secrets(&[])).unwrap());
    assert_eq!(
        (image.volume.as_str(), image.backing_image.as_str()),
        ("", "parrot")
    );

    for bad in [
        "s3://bucket@region/path/",
        "s3://bucket@region/path/?volume=vol",
        "bak://vol/back",
        "backup",
    ] {
        let error = address(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        assert!(error.to_string().contains("fromBackup"), "{error}");
    }
}
