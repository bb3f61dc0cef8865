//! The web UI as its users find it: every page and action, with a real manager, plugin and registry. It is asked as a
//! browser asks; who may ask is in `ui_auth.rs`.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use e2e::baseimage::{Build, web_page};
use e2e::manager::{NODE, Options, from_url, init_disk};
use e2e::ui::{Answer, Ui};
use e2e::{Disk, FileSystem, Manager, Need, Node, Registry, Sandbox, needs, wait};
use proto::storage::v1 as pb;

const MIB: u64 = 1 << 20;
/// A piece of an upload.
const PIECE: usize = 1 << 20;

/// A manager on a plain directory, and a UI of it for whoever is on this machine.
struct Small {
    ui: Ui,
    manager: Manager,
    options: Options,
}

impl Small {
    fn new(sandbox: &Sandbox) -> Self {
        let disk = sandbox.make_dir("disk");
        init_disk(&disk);
        let options = Options::new(&disk);
        let manager = Manager::start(sandbox, &options);
        let ui = start(sandbox, &[&manager.address().to_string()], &[]);
        Self {
            ui,
            manager,
            options,
        }
    }

    fn disk(&self) -> String {
        self.manager.disk().unwrap().uuid
    }
}

fn start(sandbox: &Sandbox, managers: &[&str], more: &[&str]) -> Ui {
    let managers = managers.join(",");
    let mut arguments = vec!["--auth", "none", "--manager", &managers];
    arguments.extend(more);
    Ui::start(sandbox, "ui", &arguments, &[])
}

/// A form as a browser writes it.
fn form(fields: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let pairs = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn get(ui: &Ui, path: &str) -> Answer {
    ui.ask("GET", path, &[], "")
}

fn post(ui: &Ui, path: &str, fields: &[(&str, &str)]) -> Answer {
    ui.ask("POST", path, &[], &form(fields))
}

#[track_caller]
fn holds(answer: &Answer, status: u16, words: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.body);
    for word in words {
        assert!(answer.body.contains(word), "no {word:?} in {}", answer.body);
    }
}

/// Where an action sends the browser.
#[track_caller]
fn sent_to(answer: &Answer, path: &str) {
    let to = answer.header("location");
    assert_eq!((answer.status, to), (303, Some(path)), "{}", answer.body);
}

/// A disk image of so many bytes that is text all the way.
fn raw(size: usize) -> String {
    let line = |number: usize| format!("{number:015}\n");
    (0..size / 16).map(line).collect()
}

#[test]
fn row_461_every_page_is_served_and_kept_by_its_tag() {
    let sandbox = Sandbox::new("ui-pages");
    let small = Small::new(&sandbox);
    let ui = &small.ui;
    small.manager.create_volume("v1", "", MIB).unwrap();
    let pages = [
        ("/", "Overview"),
        ("/volumes", "Volumes"),
        ("/images", "Images"),
        ("/snapshots", "Snapshots"),
        ("/disks", "Disks"),
        ("/events", "Events"),
    ];
    for (path, title) in pages {
        wait::until("the page shows the volume or is as it was", || {
            let page = get(ui, path);
            holds(
                &page,
                200,
                &[&format!("<h1>{title}</h1>"), "Skip to the content"],
            );
            let tag = page.header("etag").unwrap().to_owned();
            let again = ui.ask("GET", path, &[("If-None-Match", &tag)], "");
            // Something may have changed meanwhile: then it is sent.
            (again.status == 304 && again.body.is_empty()).then_some(())
        });
    }
    for part in [
        "overview",
        "volumes",
        "images",
        "snapshots",
        "disks",
        "events",
    ] {
        let part = get(ui, &format!("/fragments/{part}"));
        holds(&part, 200, &["hx-trigger=\"every "]);
        assert!(!part.body.contains("<html"), "{}", part.body);
    }
    for path in [
        "/volumes/new",
        "/images/new",
        "/volumes/v1",
        "/fragments/volumes/v1",
        "/volumes/v1/delete",
    ] {
        holds(&get(ui, path), 200, &[]);
    }
    for path in [
        "/nothing",
        "/volumes/none",
        "/images/none",
        "/snapshots/none/delete",
        "/assets/none",
        "/images/none/download",
    ] {
        holds(&get(ui, path), 404, &[]);
    }
    // What changes something is not asked for by a link.
    for path in ["/volumes/v1/grow", "/volumes/v1/snapshot", "/images/a/copy"] {
        assert!([404, 405].contains(&get(ui, path).status), "{path}");
    }
    // Without a target for backups there is no entry in the menu, and its page says why.
    holds(&get(ui, "/backups"), 200, &["class=\"error\""]);
    assert!(!get(ui, "/").body.contains("href=\"/backups\""));
    for (path, kind) in [
        ("/assets/ui.css", "text/css"),
        ("/assets/htmx.min.js", "text/javascript"),
        ("/favicon.ico", "image/svg+xml"),
    ] {
        let file = get(ui, path);
        assert!(
            file.header("content-type").unwrap().starts_with(kind),
            "{file:?}"
        );
    }
}

#[test]
fn row_462_what_people_type_and_managers_say_stays_text() {
    let sandbox = Sandbox::new("ui-text");
    let small = Small::new(&sandbox);
    let ui = &small.ui;
    let evil = "\"'><script>alert(1)</script>";
    let query = form(&[("q", evil), ("image", evil), ("node", evil), ("page", evil)]);
    // The source of an image is shown as its maker wrote it.
    let refused = small
        .manager
        .create_image(from_url("evil", &format!("http://127.0.0.1:1/{evil}")));
    drop(refused);
    let answers = [
        get(ui, &format!("/volumes?{query}")),
        get(ui, &format!("/images?{query}")),
        get(ui, "/images"),
        get(ui, "/volumes/%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E"),
        get(ui, &format!("/volumes/new?{query}")),
        post(
            ui,
            "/volumes",
            &[
                ("name", evil),
                ("base_image", evil),
                ("size", evil),
                ("initiators", evil),
            ],
        ),
        post(
            ui,
            "/images",
            &[
                ("from", "url"),
                ("source", evil),
                ("name", evil),
                ("disk", &small.disk()),
            ],
        ),
        get(ui, "/events"),
    ];
    for answer in answers {
        assert!(!answer.body.contains("<script>"), "{}", answer.body);
        assert!(
            answer.status == 200 || answer.status == 404 || answer.status == 422,
            "{}",
            answer.body
        );
    }
    // Too much is refused, and nothing breaks.
    let long = "x".repeat(100_000);
    let fields: Vec<(&str, &str)> = (0..300).map(|_| ("a", "b")).collect();
    for answer in [
        post(ui, "/volumes", &[("name", &long)]),
        post(ui, "/volumes", &fields),
    ] {
        assert!([413, 422].contains(&answer.status), "{}", answer.body);
    }
    let kind = [("Content-Type", "application/json")];
    holds(
        &ui.ask("POST", "/volumes", &kind, "{}"),
        422,
        &["INVALID_ARGUMENT"],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one thing after the other")]
fn row_463_a_volume_is_made_changed_and_deleted_and_each_refusal_is_beside_its_field() {
    let sandbox = Sandbox::new("ui-volumes");
    let small = Small::new(&sandbox);
    let ui = &small.ui;
    let manager = &small.manager;
    // The name is refused by the rule of the managers, and what was typed is still there.
    let refused = post(
        ui,
        "/volumes",
        &[("name", "-v"), ("size", "3"), ("size_unit", "Mi")],
    );
    holds(
        &refused,
        422,
        &[
            "id=\"volume-name-error\"",
            "volume name &quot;-v&quot; is not valid",
            "value=\"3\"",
        ],
    );
    let refused = post(
        ui,
        "/volumes",
        &[("name", "v1"), ("size", "many"), ("size_unit", "Mi")],
    );
    holds(&refused, 422, &["id=\"volume-size-error\""]);
    let fields = [
        ("name", "v1"),
        ("size", "3"),
        ("size_unit", "Mi"),
        ("fs_type", "ext4"),
        ("access", "pods"),
    ];
    sent_to(&post(ui, "/volumes", &fields), "/volumes/v1");
    // Sent again it is the same volume; another of the name is refused beside it.
    sent_to(&post(ui, "/volumes", &fields), "/volumes/v1");
    let other = post(
        ui,
        "/volumes",
        &[("name", "v1"), ("size", "9"), ("size_unit", "Mi")],
    );
    holds(&other, 422, &["id=\"volume-name-error\"", "ALREADY_EXISTS"]);
    let volume = manager.volume("v1").unwrap();
    assert_eq!((volume.size, volume.fs_type.as_str()), (3 * MIB, "ext4"));
    assert_eq!(volume.owner.unwrap().driver(), pb::Driver::Api);
    let page = get(ui, "/volumes/v1");
    holds(
        &page,
        200,
        &[
            "<dd>nobody</dd>",
            "3 MiB",
            NODE,
            "kind: PersistentVolume\n",
            "fsType: &quot;ext4&quot;",
        ],
    );
    assert_eq!(
        page.header("cache-control"),
        Some("no-store"),
        "the page holds a secret"
    );
    // Grow.
    sent_to(
        &post(
            ui,
            "/volumes/v1/grow",
            &[("size", "5"), ("size_unit", "Mi")],
        ),
        "/volumes/v1",
    );
    assert_eq!(manager.volume("v1").unwrap().size, 5 * MIB);
    let refused = post(
        ui,
        "/volumes/v1/grow",
        &[("size", "1000000"), ("size_unit", "Ti")],
    );
    holds(&refused, 422, &["id=\"grow-size-error\""]);
    // What a manager takes for a repeated call, a person meant.
    let refused = post(
        ui,
        "/volumes/v1/grow",
        &[("size", "1"), ("size_unit", "Mi")],
    );
    holds(&refused, 422, &["id=\"grow-size-error\"", "never shrink"]);
    // Clone and snapshot: the disk is a plain directory, so the manager may refuse the one in its own words.
    sent_to(
        &post(ui, "/volumes/v1/clone", &[("name", "v2")]),
        "/volumes/v2",
    );
    assert_eq!(manager.volume("v2").unwrap().source_volume, "v1");
    let refused = post(ui, "/volumes/v1/clone", &[("name", "..")]);
    holds(&refused, 422, &["id=\"clone-name-error\""]);
    sent_to(
        &post(ui, "/volumes/v1/snapshot", &[("name", "s1")]),
        "/images/s1",
    );
    manager.wait_image("s1").unwrap();
    holds(
        &get(ui, "/images/s1"),
        200,
        &["Snapshot s1", "href=\"/snapshots/s1/delete\""],
    );
    wait::until("the snapshot is in its list", || {
        get(ui, "/snapshots")
            .body
            .contains("href=\"/images/s1\"")
            .then_some(())
    });
    assert!(
        !get(ui, "/images").body.contains(">s1<"),
        "a snapshot is no image of the list"
    );
    // A volume of it.
    let form = get(ui, "/volumes/new?image=s1");
    holds(&form, 200, &["name=\"image\" value=\"s1\" readonly"]);
    let fields = [("name", "v3"), ("image", "s1")];
    sent_to(&post(ui, "/volumes", &fields), "/volumes/v3");
    assert_eq!(manager.volume("v3").unwrap().source_snapshot, "s1");
    // Delete: first a page that asks, then what stands against it.
    holds(
        &get(ui, "/volumes/v1/delete"),
        200,
        &["nobody can bring it back", "5 MiB"],
    );
    manager.publish_volume("v1", NODE).unwrap();
    wait::until("the page knows", || {
        get(ui, "/volumes/v1/delete")
            .body
            .contains(&format!("pods on {NODE}"))
            .then_some(())
    });
    let refused = post(ui, "/volumes/v1/delete", &[]);
    holds(&refused, 422, &["FAILED_PRECONDITION", "v1"]);
    manager.unpublish_volume("v1", NODE).unwrap();
    sent_to(&post(ui, "/volumes/v1/delete", &[]), "/volumes");
    assert!(manager.volume("v1").is_err());
    sent_to(&post(ui, "/volumes/v1/delete", &[]), "/volumes");
    // Images and snapshots are deleted by their own routes alone.
    holds(&post(ui, "/images/s1/delete", &[]), 404, &[]);
    sent_to(&post(ui, "/snapshots/s1/delete", &[]), "/snapshots");
    assert!(manager.image("s1").is_err());
    let events = get(ui, "/events");
    holds(
        &events,
        200,
        &[
            "Create Volume",
            "Grow",
            "Delete volume",
            "refused",
            "local user",
        ],
    );
}

/// The place of an upload, and how much of it has come.
#[track_caller]
fn begin(small: &Small, name: &str, size: usize) -> (String, usize) {
    let (disk, size) = (small.disk(), size.to_string());
    let fields = [
        ("name", name),
        ("size", size.as_str()),
        ("file_name", "disk.img"),
        ("disk", disk.as_str()),
    ];
    let begun = post(&small.ui, "/uploads", &fields);
    assert_eq!(begun.status, 201, "{}", begun.body);
    let place = begun.header("location").unwrap().to_owned();
    (place, offset(&begun).unwrap())
}

fn offset(answer: &Answer) -> Option<usize> {
    answer.header("upload-offset")?.parse().ok()
}

fn put(ui: &Ui, place: &str, at: usize, bytes: &str) -> Answer {
    let kind = [("Content-Type", "application/octet-stream")];
    ui.ask("PUT", &format!("{place}?offset={at}"), &kind, bytes)
}

#[test]
fn row_464_an_upload_that_breaks_goes_on_where_it_was() {
    let sandbox = Sandbox::new("ui-upload");
    let mut small = Small::new(&sandbox);
    let image = raw(3 * PIECE);
    let (place, at) = begin(&small, "up", image.len());
    assert_eq!(at, 0);
    let piece = |at: usize| &image[at..(at + PIECE).min(image.len())];
    assert_eq!(offset(&put(&small.ui, &place, 0, piece(0))), Some(PIECE));
    // A piece at a place that is not expected says the one that is.
    let wrong = put(&small.ui, &place, 0, piece(0));
    assert_eq!(
        (wrong.status, offset(&wrong)),
        (409, Some(PIECE)),
        "{}",
        wrong.body
    );
    // A connection that breaks in the middle of a piece leaves it out.
    let head = format!(
        "PUT {place}?offset={PIECE} HTTP/1.1\r\nHost: localhost:{}\r\nSec-Fetch-Site: same-origin\r\n\
         Content-Length: {PIECE}\r\n\r\n",
        small.ui.address().port()
    );
    let mut broken = TcpStream::connect(small.ui.address()).unwrap();
    broken.write_all(head.as_bytes()).unwrap();
    broken
        .write_all(&piece(PIECE).as_bytes()[..PIECE / 2])
        .unwrap();
    drop(broken);
    let asked = small.ui.ask("HEAD", &place, &[], "");
    assert_eq!((asked.status, offset(&asked)), (200, Some(PIECE)));
    // Too much at once, and what is no piece.
    assert_eq!(
        put(&small.ui, &place, PIECE, &image[..PIECE + 16]).status,
        413
    );
    holds(&small.ui.ask("PUT", &place, &[], "x"), 422, &["offset="]);
    assert_eq!(
        small.ui.ask("HEAD", &format!("{place}x"), &[], "").status,
        404
    );
    // The page reloaded, and the manager started anew: the same file goes on.
    small.manager.process.kill_9();
    let unavailable = put(&small.ui, &place, PIECE, piece(PIECE));
    assert!(unavailable.status >= 500, "{}", unavailable.body);
    small.manager = Manager::start(&sandbox, &small.options);
    small.ui = start(&sandbox, &[&small.manager.address().to_string()], &[]);
    let (again, mut at) = begin(&small, "up", image.len());
    assert_eq!(again, place);
    // What was told and not synced may be gone, and no more than that.
    assert!(at <= PIECE, "{at}");
    while at < image.len() {
        let next = put(&small.ui, &place, at, piece(at));
        let come = offset(&next).unwrap_or_else(|| panic!("at {at}: {}", next.body));
        assert!(come > at, "{come} after {at}");
        at = come;
    }
    let made = small.manager.wait_image("up").unwrap();
    assert_eq!(made.state(), pb::State::Ready, "{made:?}");
    assert!(made.unverified);
    // The same bytes come back, under a name of their own.
    let file = wait::until("the image can be downloaded", || {
        let file = get(&small.ui, "/images/up/download");
        (file.status == 200).then_some(file)
    });
    assert_eq!(
        file.header("content-disposition"),
        Some("attachment; filename=\"up.img\"")
    );
    assert!(
        file.body == image,
        "{} bytes of {}",
        file.body.len(),
        image.len()
    );
    sent_to(&post(&small.ui, "/images/up/delete", &[]), "/images");
}

/// A form with a file, as browsers write it.
fn multipart(fields: &[(&str, &str)], file: &str) -> String {
    let mut body = String::new();
    for (name, value) in fields {
        body.extend([
            "--x-1\r\nContent-Disposition: form-data; name=\"",
            name,
            "\"\r\n\r\n",
            value,
            "\r\n",
        ]);
    }
    body + "--x-1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"disk.img\"\r\n\
        Content-Type: application/octet-stream\r\n\r\n"
        + file
        + "\r\n--x-1--\r\n"
}

#[test]
fn row_465_a_browser_without_scripts_uploads_by_one_form() {
    let sandbox = Sandbox::new("ui-form");
    let small = Small::new(&sandbox);
    let (ui, disk) = (&small.ui, small.disk());
    let kind = [("Content-Type", "multipart/form-data; boundary=x-1")];
    // Longer than a piece, and than what other forms may be.
    let image = raw(2 * PIECE + 4096);
    let body = multipart(
        &[("name", "whole"), ("checksum", ""), ("disk", &disk)],
        &image,
    );
    sent_to(&ui.ask("POST", "/uploads", &kind, &body), "/images/whole");
    let made = small.manager.wait_image("whole").unwrap();
    assert_eq!(
        (made.state(), made.size),
        (pb::State::Ready, image.len() as u64),
        "{made:?}"
    );
    let file = wait::until("the image can be downloaded", || {
        let file = get(ui, "/images/whole/download");
        (file.status == 200).then_some(file)
    });
    assert!(file.body == image);
    // What the manager refuses is said beside the form, with what was typed.
    let body = multipart(&[("name", "../x"), ("disk", &disk)], &image);
    let refused = ui.ask("POST", "/uploads", &kind, &body);
    holds(
        &refused,
        422,
        &["id=\"upload-name-error\"", "value=\"../x\""],
    );
    let empty = multipart(&[("name", "none"), ("disk", &disk)], "");
    holds(
        &ui.ask("POST", "/uploads", &kind, &empty),
        422,
        &["the file is empty"],
    );
    let cut = multipart(&[("name", "cut"), ("disk", &disk)], &image).replace("--x-1--", "--x-1-?");
    holds(
        &ui.ask("POST", "/uploads", &kind, &cut),
        422,
        &["does not end after its file"],
    );
    assert!(
        small.manager.image("cut").is_err(),
        "what was passed on is not the file"
    );
    holds(
        &ui.ask("POST", "/uploads", &kind, "nothing of it"),
        422,
        &["multipart"],
    );
}

#[test]
fn row_466_one_silent_manager_takes_nothing_from_the_pages_of_the_others() {
    let sandbox = Sandbox::new("ui-silent");
    let mut managers = ["n1", "n2"].map(|node| {
        let disk = sandbox.make_dir(node);
        init_disk(&disk);
        Manager::start(&sandbox, &Options::new(&disk).on_node(node))
    });
    managers[0].create_volume("v1", "", MIB).unwrap();
    managers[1].create_volume("v2", "", MIB).unwrap();
    let addresses = managers.each_ref().map(|one| one.address().to_string());
    let ui = start(&sandbox, &addresses.each_ref().map(String::as_str), &[]);
    let both = get(&ui, "/volumes");
    holds(
        &both,
        200,
        &["href=\"/volumes/v1\"", "href=\"/volumes/v2\""],
    );
    assert!(!both.body.contains("managers answered"));
    managers[1].process.kill_9();
    wait::until("the page says who is missing", || {
        let page = get(&ui, "/volumes");
        holds(&page, 200, &["href=\"/volumes/v1\""]);
        page.body.contains("1 of 2 managers answered").then_some(())
    });
    // Nobody says that the volume of the silent one is not there.
    holds(&get(&ui, "/volumes/v2"), 503, &["1 of 2", "UNAVAILABLE"]);
    sent_to(
        &post(
            &ui,
            "/volumes/v1/grow",
            &[("size", "2"), ("size_unit", "Mi")],
        ),
        "/volumes/v1",
    );
    managers[0].process.kill_9();
    wait::until("no manager is left", || {
        get(&ui, "/disks")
            .body
            .contains("No manager answers")
            .then_some(())
    });
    let refused = post(&ui, "/volumes", &[("name", "v3")]);
    holds(&refused, 503, &["does not answer"]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one thing after the other")]
fn row_467_a_base_image_becomes_a_volume_that_a_device_shows_without_a_pod() {
    needs!(
        Need::Root,
        Need::FileSystem("xfs"),
        Need::FileSystem("ext4"),
        Need::Tool("docker-registry"),
        Need::Tool("htpasswd")
    );
    let sandbox = Sandbox::new("ui-base-image");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Xfs, 1 << 30);
    let registry = Registry::start(&sandbox);
    let node = Node::start(&sandbox, disk, |options| {
        options
            .with("--registry-config", &registry.registry_config)
            .with("--allow-address", "127.0.0.0/8")
    });
    let page = web_page(&sandbox);
    let build = Build {
        from: Some(&page),
        fs: Some("ext4"),
        size: Some("64Mi"),
        options: &[],
    };
    let reference = build.push(&registry, "e2e/site:v1");
    let services = format!("unix:{}", node.plugin.node_socket().display());
    let address = node.manager.address().to_string();
    let ui = start(&sandbox, &[&address], &["--node-service", &services]);
    let base = [("base_image", reference.as_str())];
    let secret = [
        ("username", e2e::registry::USER),
        ("password", e2e::registry::PASSWORD),
    ];
    // While somebody types: what it is, or the registry's own reason.
    let card = post(&ui, "/fragments/base-image", &base);
    holds(&card, 200, &["Not found"]);
    let card = post(
        &ui,
        "/fragments/base-image",
        &[base, [secret[0]], [secret[1]]].concat(),
    );
    holds(
        &card,
        200,
        &[
            "Found",
            "64 MiB",
            "ext4",
            "sha256:",
            "0 of 1 disks",
            "A base image is never formatted.",
        ],
    );
    assert!(!card.body.contains(e2e::registry::PASSWORD));
    // Too small is refused before anything is pulled, with the card and without the password.
    let name = [("name", "site")];
    let fields = [name, base, [secret[0]], [secret[1]], [("access", "device")]].concat();
    let small = [fields.clone(), vec![("size", "1"), ("size_unit", "Mi")]].concat();
    let refused = post(&ui, "/volumes", &small);
    holds(
        &refused,
        422,
        &["id=\"volume-size-error\"", "OUT_OF_RANGE", "Found"],
    );
    assert!(!refused.body.contains(e2e::registry::PASSWORD));
    assert_eq!(node.manager.list_images().unwrap(), Vec::new());
    // Created: the page may be left at once.
    sent_to(&post(&ui, "/volumes", &fields), "/volumes/site");
    let device = wait::until("the volume is there and exposed", || {
        let page = get(&ui, "/fragments/volumes/site");
        let (_, rest) = page
            .body
            .split_once("<dt>Device</dt><dd><code class=\"copy\">")?;
        Some(rest.split('<').next()?.to_owned())
    });
    let volume = node.manager.volume("site").unwrap();
    assert_eq!(volume.published[0].r#use(), pb::Use::Device, "{volume:?}");
    // It is the image: ext4 has its magic number at 1080.
    let bytes = fs::File::open(&device).and_then(|mut device| {
        let mut bytes = vec![0; 4096];
        device.read_exact(&mut bytes).map(|()| bytes)
    });
    assert_eq!(bytes.unwrap()[1080..1082], [0x53, 0xef], "{device}");
    holds(
        &get(&ui, "/volumes/site"),
        200,
        &[
            "block device on",
            "href=\"/volumes/site/delete\"",
            "Take back",
        ],
    );
    holds(&get(&ui, "/images"), 200, &["ext4", "1 of 1"]);
    // The same form again joins what is there.
    sent_to(&post(&ui, "/volumes", &fields), "/volumes/site");
    // In use it is not deleted; taken back it is.
    holds(
        &post(&ui, "/volumes/site/delete", &[]),
        422,
        &["FAILED_PRECONDITION"],
    );
    sent_to(&post(&ui, "/volumes/site/take-back", &[]), "/volumes/site");
    assert!(fs::symlink_metadata(&device).is_err());
    // A target needs to know who may connect.
    let refused = post(
        &ui,
        "/volumes/site/expose",
        &[("access", "target"), ("chap_user", "u")],
    );
    holds(&refused, 422, &["id=\"expose-initiators-error\""]);
    sent_to(&post(&ui, "/volumes/site/delete", &[]), "/volumes");
    node.assert_empty(&sandbox);
    let log = ui.log();
    assert!(!log.contains(e2e::registry::PASSWORD), "{log}");
}

#[test]
fn row_468_an_image_that_cannot_come_is_said_on_the_page_of_its_volume() {
    needs!(Need::Tool("docker-registry"), Need::Tool("htpasswd"));
    let sandbox = Sandbox::new("ui-no-image");
    let registry = Registry::start(&sandbox);
    let disk = sandbox.make_dir("disk");
    init_disk(&disk);
    let manager = Manager::start(&sandbox, &Options::new(&disk).with_registry(&registry));
    let ui = start(&sandbox, &[&manager.address().to_string()], &[]);
    let reference = registry.reference("e2e/none:v1");
    let fields = [("name", "v1"), ("base_image", reference.as_str())];
    let answer = post(&ui, "/volumes", &fields);
    // Refused at once, beside the field; or on the page, where it took longer.
    if answer.status == 303 {
        let page = wait::until("the page says why", || {
            let page = get(&ui, "/volumes/v1");
            page.body.contains("NOT_FOUND").then_some(page)
        });
        holds(&page, 200, &["Repeat the request"]);
    } else {
        holds(
            &answer,
            422,
            &["id=\"volume-base_image-error\"", "NOT_FOUND"],
        );
    }
    assert_eq!(manager.list_volumes().unwrap(), Vec::new());
    holds(&get(&ui, "/events"), 200, &["Create Volume", "refused"]);
}
