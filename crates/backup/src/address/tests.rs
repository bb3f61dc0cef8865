use proptest::prelude::*;

use super::*;

fn address(text: &str) -> Address {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn why(text: &str) -> String {
    text.parse::<Address>().unwrap_err().to_string()
}

#[test]
fn the_bucket_is_where_a_user_is_and_is_shown() {
    let Address { store, item } =
        address("s3://bucket@eu-central-1/some//path?volume=vol-1&backup=backup-01");
    assert_eq!(
        (store.bucket.as_str(), store.host.as_str()),
        ("bucket", "eu-central-1")
    );
    assert_eq!(store.path, "some/path");
    assert_eq!(store.to_string(), "s3://bucket@eu-central-1/some/path/");
    let backup = Item::Backup {
        volume: "vol-1".parse().unwrap(),
        backup: "backup-01".parse().unwrap(),
    };
    assert_eq!(item, Some(backup.clone()));
    let item = Some(backup);
    assert_eq!(
        Address { store, item }.to_string(),
        "s3://bucket@eu-central-1/some/path/?backup=backup-01&volume=vol-1"
    );
}

#[test]
fn every_form_is_read_and_printed_in_one_way() {
    for (text, canonical) in [
        ("s3://bucket/", "s3://bucket/"),
        ("s3://bucket@auto//", "s3://bucket@auto/"),
        (
            "azblob://box@core.windows.net/a",
            "azblob://box@core.windows.net/a/",
        ),
        ("azblob://box/a/", "azblob://box/a/"),
        ("vfs:///var/store/", "vfs:///var/store"),
        (
            "nfs://server.site:/export/dir/",
            "nfs://server.site:/export/dir",
        ),
        ("nfs://[fd00::1]:/export", "nfs://[fd00::1]:/export"),
        ("cifs://server/share/dir/", "cifs://server/share/dir"),
        ("vfs:///a%20b%3fc/é", "vfs:///a%20b%3Fc/%C3%A9"),
        ("vfs:///dir?volume=ab", "vfs:///dir?volume=ab"),
        (
            "vfs:///dir?x=1&backingImage=img-a",
            "vfs:///dir?backingImage=img-a&x=1",
        ),
    ] {
        assert_eq!(address(text).to_string(), canonical);
        assert_eq!(address(canonical), address(text));
    }
}

#[test]
fn options_of_a_share_belong_to_the_store_whatever_is_named_in_it() {
    let store: StoreAddress = "nfs://server:/export?nfsOptions=soft,timeo=30"
        .parse()
        .unwrap();
    for text in [
        "nfs://server:/export?backup=b-1&nfsOptions=soft,timeo=30&volume=vol",
        "nfs://server:/export?volume=vol&backup=b-1&nfsOptions=soft&nfsOptions=timeo%3D30",
        "nfs://server:/export?nfsOptions=soft%2Ctimeo=30&backingImage=img-a",
        "nfs://server:/export?nfsOptions=,soft,,timeo=30,&volume=vol",
    ] {
        assert_eq!(address(text).store, store, "{text}");
    }
    assert_eq!(store.mount().unwrap().attempts, ["soft,timeo=30"]);
    let other: StoreAddress = "nfs://server:/export".parse().unwrap();
    assert_ne!(store, other);
}

#[test]
fn an_ampersand_that_was_escaped_is_one_again() {
    let expected = address("nfs://s:/e?backup=b-1&nfsOptions=soft&volume=vol");
    for text in [
        r"nfs://s:/e?backup=b-1\u0026nfsOptions=soft\u0026volume=vol",
        "nfs://s:/e?backup=b-1u0026nfsOptions=softu0026volume=vol",
        "nfs://s:/e?backup=b-1&nfsOptions=softu0026volume=vol",
    ] {
        assert_eq!(address(text), expected, "{text}");
    }
    // A name may look so.
    let Some(Item::Volume(volume)) = address("vfs:///d?volume=u0026vol").item else {
        panic!("no volume");
    };
    assert_eq!(volume.as_str(), "u0026vol");
}

#[test]
fn shares_are_mounted_as_longhorn_mounts_them() {
    let nfs: StoreAddress = "nfs://nas.site.example:/export/dir".parse().unwrap();
    let mount = nfs.mount().unwrap();
    assert_eq!(
        (mount.source.as_str(), mount.fs_type),
        ("nas.site.example:/export/dir", "nfs4")
    );
    assert_eq!(mount.point, PathBuf::from("nas_site_example/export/dir"));
    assert_eq!(
        mount.attempts,
        [
            "nfsvers=4.2,actimeo=1,soft,timeo=300,retry=2",
            "nfsvers=4.1,actimeo=1,soft,timeo=300,retry=2",
            "nfsvers=4.0,actimeo=1,soft,timeo=300,retry=2",
        ]
    );
    let cifs: StoreAddress = "cifs://nas/share/dir?cifsOptions=vers=3.1.1,rsize=65536"
        .parse()
        .unwrap();
    let mount = cifs.mount().unwrap();
    assert_eq!(
        (mount.source.as_str(), mount.fs_type),
        ("//nas/share/dir", "cifs")
    );
    assert_eq!(mount.attempts, ["vers=3.1.1,rsize=65536"]);
    let cifs: StoreAddress = "cifs://nas/share".parse().unwrap();
    assert_eq!(cifs.mount().unwrap().attempts, ["soft"]);
    let v6: StoreAddress = "nfs://[fd00::1]:/export".parse().unwrap();
    assert_eq!(v6.mount().unwrap().point, PathBuf::from("_fd00__1_/export"));
}

#[test]
fn what_is_no_address_is_refused_with_the_reason() {
    for (text, reason) in [
        ("/some/dir", "no scheme"),
        ("http://server/x", "its scheme is none"),
        ("s3://bucket@region", "at least a slash"),
        ("s3://@region/path", "bucket or container is missing"),
        ("s3://bucket@/path", "nothing follows"),
        ("nfs://server/export", "colon"),
        ("nfs://server:2049/export", "colon"),
        ("nfs://server:", "exported directory is missing"),
        ("cifs://server/", "share is missing"),
        ("cifs:///share", "server is missing"),
        ("vfs://host/dir", "three slashes"),
        ("vfs:///", "directory is missing"),
        ("vfs:///a/../b", "contains . or .."),
        ("vfs:///a/%2e%2e/b", "contains . or .."),
        ("vfs:///a%0ab", "control character"),
        ("vfs:///a?backup=b-1", "add &volume=NAME"),
        ("vfs:///a?volume=vol&backingImage=img", "both"),
        ("vfs:///a?volume=vol&volume=vol", "twice"),
        ("vfs:///a?volume=v", "fewer than two"),
        ("vfs:///a?volume=..%2f..", "must begin with"),
        ("vfs:///a?volume", "no value"),
        ("vfs:///a#b", "fragment"),
        ("vfs:///a%zz", "percent sign"),
        ("vfs:///a b", "white space"),
        ("nfs://s:/e?nfsOptions=soft,a+b", "white space"),
    ] {
        let why = why(text);
        assert!(why.contains(reason), "{text}: {why}");
    }
    let of_item = "vfs:///a?volume=vol"
        .parse::<StoreAddress>()
        .unwrap_err()
        .to_string();
    assert!(of_item.contains("leave out"), "{of_item}");
}

#[test]
fn no_error_shows_what_may_be_a_secret() {
    for text in [
        "s3://AKIA:hunter2@region/path",
        "cifs://server/share?cifsOptions=password=hunter2",
        "cifs://server/share?password=hunter2",
        "azblob://box/path?sig=hunter2",
        "s3://bucket:hunter2@region@region/path",
        "http://user:hunter2@host/path",
    ] {
        let why = why(text);
        assert!(!why.contains("hunter2"), "{why}");
    }
}

proptest! {
    #[test]
    fn an_address_that_is_printed_is_read_as_the_same(
        scheme in 0..5usize,
        path in "[a-zA-Z0-9 %?#&+=.,;é/]{0,40}",
        options in "[a-z0-9=,.&%+]{0,30}",
        name in "[a-zA-Z0-9][a-zA-Z0-9_.-]{1,30}",
        item in 0..4usize,
    ) {
        let path = encoded_for_test(&path);
        let place = ["s3://bucket@region/", "azblob://box/", "nfs://server:/", "cifs://host/", "vfs:///"][scheme];
        let key = ["other", "other", "nfsOptions", "cifsOptions", "other"][scheme];
        let named = ["", "&volume=N", "&backup=N&volume=N", "&backingImage=N"][item].replace('N', &name);
        let text = format!("{place}{path}?{key}={}{named}", encoded_for_test(&options));
        if let Ok(address) = text.parse::<Address>() {
            let printed = address.to_string();
            prop_assert_eq!(printed.parse::<Address>().unwrap(), address.clone(), "{}", printed);
            prop_assert_eq!(address.item.is_some(), item > 0);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,80}") {
        let _ = text.parse::<Address>();
        let _ = format!("s3://{text}").parse::<Address>();
        let _ = format!("nfs://s:/{text}").parse::<Address>();
    }
}

fn encoded_for_test(text: &str) -> String {
    query_text(text)
}
