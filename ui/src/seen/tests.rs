//! Tests of what is seen, and of its filters.

use super::*;

/// A disk of a node with images and volumes.
fn on(node: &str, images: Vec<wire::BackingImage>, volumes: Vec<wire::Volume>) -> SeenDisk {
    SeenDisk {
        disk: wire::Disk {
            uuid: format!("uuid-{node}"),
            node_id: node.to_owned(),
            ..Default::default()
        },
        images: Arc::new(images),
        volumes: Arc::new(volumes),
    }
}

fn image(name: &str, state: wire::State, progress: u32) -> wire::BackingImage {
    wire::BackingImage {
        name: name.to_owned(),
        state: state.into(),
        progress,
        manifest_digest: "sha256:1".to_owned(),
        ..Default::default()
    }
}

fn volume(name: &str, image: &str) -> wire::Volume {
    wire::Volume {
        name: name.to_owned(),
        image_name: image.to_owned(),
        ..Default::default()
    }
}

#[test]
fn an_image_on_several_disks_is_one_row_and_shows_its_best_copy() {
    let seen = Seen {
        disks: vec![
            on(
                "n1",
                vec![image("a", wire::State::InProgress, 40)],
                Vec::new(),
            ),
            on("n2", vec![image("a", wire::State::Ready, 100)], Vec::new()),
            on("n3", vec![image("a", wire::State::Failed, 0)], Vec::new()),
        ],
        ..Default::default()
    };
    let images = seen.images();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].best().state(), wire::State::Ready);
    assert_eq!((images[0].ready(), images[0].copies.len()), (1, 3));
    assert!(images[0].is_busy() && seen.is_busy());
    assert_eq!(seen.disks_with("sha256:1"), 1);
    assert_eq!(seen.disks_with(""), 0);
}

#[test]
fn a_list_is_filtered_and_cut_into_pages_that_exist() {
    let volumes = (0..120).map(|number| volume(&format!("v{number:03}"), "base"));
    let seen = Seen {
        disks: vec![on("n1", Vec::new(), volumes.collect())],
        ..Default::default()
    };
    let page = |q: &str, page: &str| {
        let filter = Filter {
            q: q.to_owned(),
            page: page.to_owned(),
            ..Default::default()
        };
        let page = filter.volumes(&seen);
        (
            page.rows.len(),
            page.number,
            page.pages,
            page.found,
            page.all,
        )
    };
    assert_eq!(page("", ""), (50, 1, 3, 120, 120));
    assert_eq!(page("", "3"), (20, 3, 3, 120, 120));
    assert_eq!(page("", "99999999999999999999"), (50, 1, 3, 120, 120));
    assert_eq!(page("", "7"), (20, 3, 3, 120, 120));
    assert_eq!(page("V01", ""), (10, 1, 1, 10, 120));
    assert_eq!(page("no such", "2"), (0, 1, 1, 0, 120));
}

#[test]
fn a_filter_is_in_the_url_and_escaped() {
    let filter = Filter {
        q: "a&b=\"<".to_owned(),
        node: "n 1".to_owned(),
        ..Default::default()
    };
    assert_eq!(filter.query(2), "?q=a%26b%3D%22%3C&node=n+1&page=2");
    assert_eq!(Filter::default().query(1), "");
    let read = Filter::parse(&filter.query(2)[1..]);
    assert_eq!(
        (read.q, read.node, read.page),
        (filter.q, filter.node, "2".to_owned())
    );
    let long = "a".repeat(10_000);
    assert_eq!(Filter::parse(&format!("q={long}&no=1&q=%ff")).q, "\u{fffd}");
    assert_eq!(Filter::parse(&format!("q={long}")).q.len(), 256);
}
