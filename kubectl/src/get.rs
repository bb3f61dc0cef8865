//! `get`: lists of all disks and nodes that answer.

use std::collections::BTreeMap;

use client::{Client, Member, wire};
use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::exposed::{self, Exposed};
use crate::options::{GetArgs, Kind};
use crate::output::{List, note};
use crate::reach::Reach;
use crate::view::{self, Disk, Image, Replica, Volume};

/// Volumes asked for in one call.
const PAGE: u32 = 1_000;

pub(crate) async fn run(reach: &Reach, args: &GetArgs) -> Result<()> {
    let mut list = match args.what {
        Kind::Volumes => volumes(reach).await?,
        Kind::Images => images(reach, false).await?,
        Kind::Snapshots => images(reach, true).await?,
        Kind::Disks => disks(reach).await?,
        Kind::Exposed => exposed(reach).await?,
    };
    if !args.names.is_empty() {
        list.rows.retain(|row| args.names.contains(&row.name));
        let lacking = args
            .names
            .iter()
            .find(|name| !list.rows.iter().any(|row| row.name == **name));
        if let Some(name) = lacking {
            let kind = list.kind;
            return Err(Error::NotFound(format!(
                "there is no {kind} {name} among those that answer; see all: get {kind}s"
            )));
        }
    }
    list.print(args.output)
}

/// The disk of a manager.
pub(crate) fn place(member: &Member) -> Replica {
    Replica {
        node: member.disk.node_id.clone(),
        disk: member.disk.uuid.clone(),
    }
}

/// All volumes of a manager.
pub(crate) async fn volumes_of(client: Client) -> client::Result<Vec<wire::Volume>> {
    let mut volumes: Vec<wire::Volume> = Vec::new();
    loop {
        let last = volumes.last();
        let after = last.map(|volume| volume.name.clone()).unwrap_or_default();
        let (page, more) = client.list_volumes(PAGE, &after).await?;
        // One that says "more" and sends none would be asked forever.
        let is_end = !more || page.is_empty();
        volumes.extend(page);
        if is_end {
            return Ok(volumes);
        }
    }
}

async fn volumes(reach: &Reach) -> Result<List> {
    let answers = reach.managers().await?.ask(volumes_of).await?;
    answers.say_silent();
    let mut all: BTreeMap<(String, String), Volume> = BTreeMap::new();
    for (member, volumes) in answers.members {
        for volume in volumes {
            // Replicas of one volume are one; others of one name are not.
            let apart = if volume.is_replica {
                ""
            } else {
                &*member.disk.uuid
            };
            let key = (volume.name.clone(), apart.to_owned());
            let volume = Volume::new(volume, place(&member));
            match all.get_mut(&key) {
                Some(known) => known.join(volume),
                None => drop(all.insert(key, volume)),
            }
        }
    }
    let now = Timestamp::now();
    Ok(List {
        kind: "volume",
        head: &view::VOLUME,
        narrow: 9,
        rows: all.values().map(|volume| volume.row(now)).collect(),
        empty: "There are no volumes. Create one: kubectl longhorn-image create volume NAME --base-image REF",
    })
}

async fn images(reach: &Reach, snapshots: bool) -> Result<List> {
    let ask = |client: Client| async move { client.list_images().await };
    let answers = reach.managers().await?.ask(ask).await?;
    answers.say_silent();
    let disks = answers.members.len();
    let mut all: BTreeMap<(String, String), Image> = BTreeMap::new();
    for (member, images) in answers.members {
        let wanted = |image: &wire::BackingImage| image.source_volume.is_empty() != snapshots;
        for image in images.into_iter().filter(wanted) {
            let image = Image::new(image, place(&member));
            // Other bytes of the same name are another image.
            let key = (image.name.clone(), same(&image));
            match all.get_mut(&key) {
                Some(known) => known.join(image),
                None => drop(all.insert(key, image)),
            }
        }
    }
    let now = Timestamp::now();
    Ok(if snapshots {
        List {
            kind: "snapshot",
            head: &view::SNAPSHOT,
            narrow: 6,
            rows: all.values().map(|image| image.snapshot_row(now)).collect(),
            empty: "There are no snapshots. Take one: kubectl longhorn-image snapshot VOLUME --name NAME",
        }
    } else {
        List {
            kind: "image",
            head: &view::IMAGE,
            narrow: 10,
            rows: all.values().map(|image| image.row(now, disks)).collect(),
            empty: "There are no images. Pull one: kubectl longhorn-image pull REF --name NAME",
        }
    })
}

/// What makes two images of one name the same: a container image, or a source, or their uuid.
fn same(image: &Image) -> String {
    let marks = [&image.manifest_digest, &image.source, &image.uuid];
    let mark = marks.into_iter().find(|mark| !mark.is_empty());
    mark.cloned().unwrap_or_default()
}

async fn disks(reach: &Reach) -> Result<List> {
    let answers = reach.managers().await?.disks().await?;
    answers.say_silent();
    let members = answers.members.iter();
    Ok(List {
        kind: "disk",
        head: &view::DISK,
        narrow: 9,
        rows: members
            .map(|(member, ())| Disk::from(&member.disk).row())
            .collect(),
        empty: "There are no disks.",
    })
}

/// What every node exposes that answers, and who does not.
pub(crate) async fn all_exposed(reach: &Reach) -> Result<(Vec<Exposed>, Vec<String>)> {
    let (services, mut silent) = reach.services().await?;
    let mut found = Vec::new();
    for service in services {
        let node = match &*service.node {
            "" => service.client.info().await.map(|info| info.node_id),
            node => Ok(node.to_owned()),
        };
        let asked = match node {
            Ok(node) => service.client.exposed().await.map(|list| (node, list)),
            Err(error) => Err(error),
        };
        match asked {
            Ok((node, list)) => {
                found.extend(list.into_iter().map(|exposed| Exposed::new(exposed, &node)));
            }
            Err(error) => silent.push(types::report(&error).to_string()),
        }
    }
    found.sort_by(|a, b| (&a.volume, &a.node).cmp(&(&b.volume, &b.node)));
    Ok((found, silent))
}

async fn exposed(reach: &Reach) -> Result<List> {
    let (found, silent) = all_exposed(reach).await?;
    if !silent.is_empty() {
        note(&format!(
            "note: not all node services answered: {}",
            silent.join("; ")
        ));
    }
    Ok(List {
        kind: "exposed",
        head: &exposed::EXPOSED,
        narrow: 6,
        rows: found.iter().map(Exposed::row).collect(),
        empty: "Nothing is exposed. Expose a volume: kubectl longhorn-image expose NAME --access blockdev",
    })
}
