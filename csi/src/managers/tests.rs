use std::collections::BTreeSet;

use types::{ByteSize, Classify as _, ErrorKind};

use super::placement::choose;
use super::*;
use crate::request::Page;

fn member(uuid: &str, available: u64) -> Member {
    Member {
        client: Client::new(
            "unix:/nonexistent/manager.sock".parse().unwrap(),
            &trust::Dialer::Plain,
        )
        .unwrap(),
        disk: wire::Disk {
            uuid: uuid.to_owned(),
            available,
            ..Default::default()
        },
    }
}

fn chosen(members: &[Member], name: &str) -> String {
    let name = VolumeName::new(name).unwrap();
    let members: Vec<&Member> = members.iter().collect();
    let chosen = choose(&members, &name, ByteSize(100), |_| None);
    chosen.unwrap().disk.uuid.clone()
}

#[tokio::test]
async fn a_volume_goes_where_its_pod_is_to_run_if_there_is_room() {
    let members = [member("a", 1000), member("b", 1000), member("full", 10)];
    let members: Vec<&Member> = members.iter().collect();
    let order = ["full", "b", "a"];
    let preference = |member: &Member| order.iter().position(|uuid| *uuid == member.disk.uuid);
    for number in 0..8 {
        let name = VolumeName::new(&format!("pvc-{number}")).unwrap();
        let chosen = choose(&members, &name, ByteSize(100), preference);
        assert_eq!(chosen.unwrap().disk.uuid, "b");
    }
}

#[tokio::test]
async fn a_repeated_call_chooses_the_same_disk_and_volumes_spread() {
    let mut members = vec![member("a", 1000), member("b", 1000), member("c", 10)];
    let names: Vec<String> = (0..32).map(|number| format!("pvc-{number}")).collect();
    let first: Vec<String> = names.iter().map(|name| chosen(&members, name)).collect();
    members.reverse();
    let again: Vec<String> = names.iter().map(|name| chosen(&members, name)).collect();
    assert_eq!(first, again);
    let used: BTreeSet<&str> = first.iter().map(String::as_str).collect();
    assert_eq!(
        used,
        BTreeSet::from(["a", "b"]),
        "and none where there is no room"
    );
}

#[tokio::test]
async fn a_name_that_stands_for_nobody_is_no_empty_cluster() {
    let cluster = Cluster::new(
        ["no-such-name.invalid:1".parse().unwrap()],
        &trust::Dialer::Plain,
    )
    .unwrap();
    let managers = Managers::new(cluster, "k/node".to_owned(), Duration::ZERO);
    let name = VolumeName::new("v").unwrap();
    let error = managers.of_volume(&name).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let page = Page {
        max_entries: 0,
        after: String::new(),
    };
    assert!(managers.list(&page).await.is_err());
}
