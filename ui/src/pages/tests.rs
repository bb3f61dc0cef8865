//! Tests of the pages: what is in them, and what must never be.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::node_wire::{Exposed, NodeInfo, Target, TargetSession};
use client::wire;
use types::ErrorKind;

use super::*;
use crate::seen::{Filter, Seen, SeenDisk, SeenNode};

/// A text that breaks out of whatever does not escape it.
const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;";

fn frame() -> Frame {
    Frame {
        person: HOSTILE.to_owned(),
        signed_in: true,
        backups: true,
        now: "2026-11-30T12:00:00Z".parse().unwrap(),
        answered: 2,
        asked: 3,
        failed: vec![HOSTILE.to_owned()],
        driver: "driver.longhorn.io".to_owned(),
    }
}

fn image(name: &str, state: wire::State) -> wire::BackingImage {
    wire::BackingImage {
        name: name.to_owned(),
        uuid: HOSTILE.to_owned(),
        state: state.into(),
        message: HOSTILE.to_owned(),
        format: "qcow2".to_owned(),
        size: 312 << 20,
        virtual_size: 4 << 30,
        total_size: 312 << 20,
        processed_size: 31 << 20,
        progress: 10,
        source: HOSTILE.to_owned(),
        manifest_digest: "sha256:0123".to_owned(),
        content: Some(wire::Content {
            kind: wire::content::Kind::FileSystem.into(),
            r#type: "ext4".to_owned(),
            label: HOSTILE.to_owned(),
            refused: HOSTILE.to_owned(),
            ..Default::default()
        }),
        created_at: "2026-11-30T11:00:00Z".to_owned(),
        ..Default::default()
    }
}

fn volume(name: &str) -> wire::Volume {
    wire::Volume {
        name: name.to_owned(),
        size: 4 << 30,
        real_size: 8192,
        image_name: "base".to_owned(),
        fs_type: HOSTILE.to_owned(),
        made_by: "reflink".to_owned(),
        degraded: HOSTILE.to_owned(),
        parameters: [(HOSTILE.to_owned(), HOSTILE.to_owned())].into(),
        replicas: vec![wire::Replica {
            node_id: "node-1".to_owned(),
            disk_uuid: "uuid-1".to_owned(),
            path: format!("volumes/{name}/volume"),
        }],
        published: vec![wire::Publication {
            node_id: "node-1".to_owned(),
            r#use: wire::Use::Target.into(),
            ..Default::default()
        }],
        created_at: "2026-11-29T11:00:00Z".to_owned(),
        ..Default::default()
    }
}

/// A cluster in which every text that can be somebody else's is hostile.
fn seen() -> Seen {
    let snapshot = wire::BackingImage {
        source_volume: "v1".to_owned(),
        ..image("snap", wire::State::Ready)
    };
    let images = vec![
        image("base", wire::State::Ready),
        image("pulled", wire::State::InProgress),
        image(HOSTILE, wire::State::Failed),
        snapshot,
    ];
    Seen {
        disks: vec![SeenDisk {
            disk: wire::Disk {
                uuid: "uuid-1".to_owned(),
                node_id: "node-1".to_owned(),
                path: HOSTILE.to_owned(),
                file_system: HOSTILE.to_owned(),
                size: 1 << 40,
                available: 1 << 39,
                warning: HOSTILE.to_owned(),
                ..Default::default()
            },
            images: Arc::new(images),
            volumes: Arc::new(vec![volume("v1"), volume("new"), volume(HOSTILE)]),
        }],
        asked: 3,
        failed: vec![HOSTILE.to_owned()],
        nodes: vec![SeenNode {
            info: NodeInfo {
                node_id: "node-1".to_owned(),
                lacks: vec![HOSTILE.to_owned()],
                ..Default::default()
            },
            exposed: vec![Exposed {
                volume: "v1".to_owned(),
                troubles: vec![HOSTILE.to_owned()],
                target: Some(Target {
                    name: "iqn.2019-10.io.longhorn:v1".to_owned(),
                    portal: "10.0.0.5:3260".to_owned(),
                    lun: 1,
                    initiator_names: vec![HOSTILE.to_owned()],
                    sessions: vec![TargetSession {
                        initiator_name: HOSTILE.to_owned(),
                        address: HOSTILE.to_owned(),
                    }],
                    ..Default::default()
                }),
                ..Default::default()
            }],
        }],
        silent_nodes: vec![HOSTILE.to_owned()],
    }
}

fn card() -> Card {
    Card::Found {
        found: Box::new(wire::InspectSourceResponse {
            source: HOSTILE.to_owned(),
            manifest_digest: "sha256:0123".to_owned(),
            platform: HOSTILE.to_owned(),
            format: "qcow2".to_owned(),
            virtual_size: 4 << 30,
            transfer_size: 312 << 20,
            content: image("x", wire::State::Ready).content,
            partitions: vec![wire::Partition {
                number: 1,
                offset: 1 << 20,
                length: 1 << 30,
            }],
            notes: vec![HOSTILE.to_owned()],
            ..Default::default()
        }),
        ready: 2,
        disks: 6,
    }
}

/// All pages, each with its name.
fn all() -> Vec<(&'static str, String)> {
    let (frame, seen, filter) = (frame(), seen(), Filter::default());
    let hostile = Filter {
        q: HOSTILE.to_owned(),
        ..Filter::default()
    };
    let refusal = |field| Refusal {
        field,
        sentence: HOSTILE.to_owned(),
        kind: ErrorKind::AlreadyExists,
    };
    let coming = Coming {
        name: "v2".to_owned(),
        image: Some(image("pulled", wire::State::InProgress)),
        step: "waiting for the image".to_owned(),
        failed: None,
    };
    let failed = Coming {
        failed: Some(refusal("base_image")),
        ..coming.clone()
    };
    let grow = refusal("size");
    let page = |name, refused, coming| VolumePage {
        name,
        seen: seen.volume(name),
        coming,
        refused,
        secret: "abcdefghijkmnpqr",
    };
    let form = VolumeForm {
        name: HOSTILE.to_owned(),
        base_image: HOSTILE.to_owned(),
        initiators: HOSTILE.to_owned(),
        chap_secret: "abcdefghijkmnpqr".to_owned(),
        ..VolumeForm::default()
    };
    let of_image = VolumeForm {
        image: HOSTILE.to_owned(),
        ..VolumeForm::default()
    };
    let image_form = ImageForm {
        from: "url".to_owned(),
        source: HOSTILE.to_owned(),
        ..ImageForm::default()
    };
    let events_of = [Event {
        at: "2026-11-30T11:00:00Z".to_owned(),
        who: HOSTILE.to_owned(),
        what: "Grow",
        object: HOSTILE.to_owned(),
        refused: Some(HOSTILE.to_owned()),
        busy: false,
    }];
    let store = Backups {
        backups: vec![wire::Backup {
            name: HOSTILE.to_owned(),
            volume: HOSTILE.to_owned(),
            address: HOSTILE.to_owned(),
            ..Default::default()
        }],
        problems: vec![HOSTILE.to_owned()],
    };
    let found = |name: &str| seen.image(name).unwrap();
    let doomed = Doomed {
        refused: Some(&grow),
    };
    let pages = vec![
        ("overview", overview(&frame, &seen)),
        (
            "volumes",
            volumes(&frame, &seen, &filter, &["v2".to_owned()]),
        ),
        (
            "no volumes",
            volumes(&frame, &Seen::default(), &filter, &[]),
        ),
        ("volumes filtered", volumes(&frame, &seen, &hostile, &[])),
        (
            "volume",
            volume_of(&frame, &page("v1", Some(("grow", &grow)), None)),
        ),
        (
            "volume, not exposed",
            volume_of(&frame, &page("new", None, None)),
        ),
        (
            "volume, coming",
            volume_of(&frame, &page("v2", None, Some(&coming))),
        ),
        (
            "volume, failed",
            volume_of(&frame, &page("v2", None, Some(&failed))),
        ),
        (
            "volume, hostile",
            volume_of(&frame, &page(HOSTILE, None, None)),
        ),
        (
            "new volume",
            new_volume(&frame, &seen, &form, &card(), Some(&refusal("name"))),
        ),
        (
            "new volume, blank",
            new_volume(&frame, &seen, &VolumeForm::default(), &Card::Empty, None),
        ),
        (
            "new volume, of an image",
            new_volume(
                &frame,
                &seen,
                &of_image,
                &Card::Empty,
                Some(&refusal("image")),
            ),
        ),
        (
            "new volume, not found",
            new_volume(
                &frame,
                &seen,
                &form,
                &Card::NotFound(refusal("base_image")),
                Some(&refusal("access")),
            ),
        ),
        ("card", base_image(&form, &card())),
        ("images", images(&frame, &seen, &filter)),
        ("no images", images(&frame, &Seen::default(), &filter)),
        (
            "image",
            super::image(
                &frame,
                &seen,
                &found("base"),
                &CopyForm::refused(refusal("")),
            ),
        ),
        (
            "image, hostile",
            super::image(&frame, &seen, &found(HOSTILE), &CopyForm::default()),
        ),
        (
            "new image",
            new_image(&frame, &seen, &image_form, Some(&refusal("source"))),
        ),
        ("snapshots", snapshots(&frame, &seen, &filter)),
        ("backups", backups(&frame, Ok(&store), &filter)),
        ("no backups", backups(&frame, Err(HOSTILE), &filter)),
        ("disks", disks(&frame, &seen, &filter)),
        ("events", events(&frame, &events_of, &filter)),
        (
            "delete volume",
            delete_volume(&frame, &seen, &seen.volume("v1").unwrap(), doomed),
        ),
        (
            "delete image",
            delete_image(&frame, &seen, &found("base"), doomed),
        ),
        (
            "delete snapshot",
            delete_image(&frame, &seen, &found("snap"), Doomed::default()),
        ),
        ("login", login(false, Some(HOSTILE), HOSTILE)),
        ("login by password", login(true, None, "/")),
        (
            "problem",
            problem(axum::http::StatusCode::NOT_FOUND, HOSTILE),
        ),
    ];
    let drawn = pages.into_iter();
    drawn
        .map(|(name, page)| (name, page.into_string()))
        .collect()
}

use super::volume as volume_of;
use super::volumes as volumes_page;

/// A start tag: its name, and its attributes with their values as they are written.
#[derive(Debug)]
struct Tag<'a> {
    name: &'a str,
    attributes: Vec<(&'a str, &'a str)>,
}

impl Tag<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let mut attributes = self.attributes.iter();
        let found = attributes.find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    }
}

/// All start tags of a page that maud wrote: attributes are quoted by `"`, and quotes in them are escaped.
fn tags(html: &str) -> Vec<Tag<'_>> {
    let mut tags = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if rest.starts_with(['/', '!']) {
            continue;
        }
        let end = rest.find([' ', '>']).unwrap();
        let name = &rest[..end];
        rest = &rest[end..];
        let mut attributes = Vec::new();
        while let Some(attribute) = rest.strip_prefix(' ') {
            let end = attribute.find(['=', ' ', '>']).unwrap();
            let key = &attribute[..end];
            rest = &attribute[end..];
            let mut value = "";
            if let Some(quoted) = rest.strip_prefix("=\"") {
                let end = quoted.find('"').unwrap();
                value = &quoted[..end];
                rest = &quoted[end + 1..];
            }
            attributes.push((key, value));
        }
        assert!(rest.starts_with('>'), "no end of a tag {name}: {rest:.60}");
        tags.push(Tag { name, attributes });
    }
    tags
}

#[test]
fn row_460_every_page_is_sound_whatever_names_and_sentences_say() {
    for (name, html) in all() {
        assert!(
            !html.contains("<script>") && !html.contains("<img"),
            "{name}: {html}"
        );
        let tags = tags(&html);
        let mut ids = BTreeSet::new();
        for tag in &tags {
            if let Some(id) = tag.get("id") {
                assert!(ids.insert(id), "{name}: the id {id} is there twice");
            }
            for (key, _) in &tag.attributes {
                assert!(
                    !key.starts_with("on") && *key != "style",
                    "{name}: {key} in {tag:?}"
                );
            }
            if tag.name == "script" {
                assert!(tag.get("src").is_some(), "{name}: a script in the page");
            }
        }
        for tag in &tags {
            for key in ["for", "aria-describedby", "aria-labelledby"] {
                for id in tag
                    .get(key)
                    .unwrap_or_default()
                    .split(' ')
                    .filter(|id| !id.is_empty())
                {
                    assert!(
                        ids.contains(id),
                        "{name}: nothing has the id {id} of {tag:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_field_has_a_label_and_every_table_a_caption() {
    for (name, html) in all() {
        let tags = tags(&html);
        let labels: BTreeSet<_> = tags.iter().filter_map(|tag| tag.get("for")).collect();
        for tag in &tags {
            let is_field = ["input", "select", "textarea"].contains(&tag.name);
            if is_field && tag.get("type") != Some("hidden") {
                let id = tag.get("id").unwrap_or_default();
                assert!(labels.contains(id), "{name}: no label of {tag:?}");
                assert!(tag.get("placeholder").is_none(), "{name}: {tag:?}");
            }
            if tag.name == "th" {
                assert!(tag.get("scope").is_some(), "{name}: {tag:?}");
            }
            if tag.name == "form" {
                let method = tag.get("method");
                assert!(matches!(method, Some("post" | "get")), "{name}: {tag:?}");
            }
        }
        let count = |tag: &str| tags.iter().filter(|one| one.name == tag).count();
        assert_eq!(count("table"), count("caption"), "{name}");
        assert_eq!(count("h1"), usize::from(name != "card"), "{name}");
    }
}

/// The page of this name.
fn page(name: &str) -> String {
    let mut all = all().into_iter();
    all.find(|(known, _)| *known == name).unwrap().1
}

#[track_caller]
fn holds(html: &str, parts: &[&str]) {
    for part in parts {
        assert!(html.contains(part), "no {part} in {html}");
    }
}

#[test]
fn pages_say_what_they_are_for_in_the_words_that_people_look_for() {
    holds(
        &page("volumes"),
        &[
            "<title>Volumes – Longhorn base images</title>",
            "aria-current=\"page\">Volume</a>",
            "<a class=\"button\" href=\"/volumes/new\">Create Volume</a>",
            "<span title=\"4294967296 bytes\">4 GiB</span>",
            "<time datetime=\"2026-11-29T11:00:00Z\" title=\"2026-11-29 11:00 UTC\">1 d</time>",
            "<span aria-hidden=\"true\">⚠</span> ",
            "hx-trigger=\"every 2s\"",
            "2 of 3 managers answered",
            "href=\"/volumes/%6Eew\"",
        ],
    );
    holds(&page("no volumes"), &["There are no volumes.", "every 10s"]);
    holds(
        &page("new volume"),
        &[
            "<label for=\"volume-base_image\">Base Image</label>",
            "A Docker image name. Leave empty for a blank volume.",
            "hx-trigger=\"input changed delay:400ms\"",
            "Already on",
            "2 of 6 disks",
            "A base image is never formatted.",
            "<option value=\"1\">1: 1 GiB</option>",
            "id=\"volume-name-error\"",
            "<code>ALREADY_EXISTS</code>",
            "Pods (claim it through CSI)",
        ],
    );
    holds(&page("card"), &["hx-swap-oob=\"true\""]);
    holds(&page("new volume, not found"), &["Not found"]);
    holds(
        &page("volume"),
        &[
            "iqn.2019-10.io.longhorn:v1",
            "10.0.0.5:3260",
            "action=\"/volumes/v1/take-back\"",
            "id=\"grow-size-error\"",
            "kind: PersistentVolume\n",
        ],
    );
    holds(
        &page("volume, coming"),
        &["value=\"10\"", "It goes on when this page is left."],
    );
    holds(
        &page("delete image"),
        &["volume v1 was made from it", "It can come again"],
    );
    assert!(!page("delete snapshot").contains("was made from it"));
    holds(&page("delete volume"), &["iSCSI target on node-1"]);
}

#[test]
fn a_menu_has_no_dead_entries() {
    let without = Frame {
        backups: false,
        ..frame()
    };
    let html = overview(&without, &seen()).into_string();
    assert!(!html.contains("/backups") && page("overview").contains("href=\"/backups\""));
}

/// 1,000 volumes on the disks do not make a page larger than its 50 rows.
#[test]
fn a_page_of_a_large_cluster_is_bounded() {
    let mut seen = seen();
    let volumes = (0..1000).map(|number| volume(&format!("volume-{number:04}")));
    seen.disks[0].volumes = Arc::new(volumes.collect());
    let html = volumes_page(&frame(), &seen, &Filter::default(), &[]).into_string();
    assert_eq!(html.matches("<th scope=\"row\">").count(), 50);
    assert!(html.len() < 200 << 10, "{} bytes", html.len());
}
