//! `inspect`, `pull` and `create volume`: what is made of a container image, and on which disk.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use client::{Member, wire};
use serde_json::json;
use types::{ByteSize, DiskUuid, ImageName, NodeId, VolumeName, parse_quantity};
use wire::source::Source;

use crate::change::{self, AccessArgs};
use crate::error::{Error, Result};
use crate::outcome::{done, failed, finished};
use crate::output::{Form, note, print, size, tame, written};
use crate::reach::{Managers, Reach};
use crate::view::holds;

/// A docker `config.json` has a few kilobytes.
const AUTH_MAX: u64 = 1 << 20;

/// A container image, and how to get it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImageArgs {
    /// Platform to select from a multi-platform image [default: linux on the architecture of the node]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Credentials for this pull, in the format of `docker login`; never stored
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
}

/// Where something is made.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlaceArgs {
    /// Node whose disk is used [default: the disk with the most room]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeId>,
    /// UUID of the disk that is used
    #[arg(long, value_name = "UUID")]
    pub(crate) disk: Option<DiskUuid>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The container image, for example rancher/longhorn-test:baseimage-ext4
    reference: String,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Output format: table, json or yaml
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The container image, for example rancher/longhorn-test:baseimage-ext4
    reference: String,
    /// Name of the backing image [default: derived from the reference]
    #[arg(long)]
    name: Option<ImageName>,
    /// Expected SHA-512 of the disk image
    #[arg(
        long,
        value_name = "SUM",
        default_value = "",
        hide_default_value = true
    )]
    checksum: String,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Wait until the image is ready, and show progress
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeArgs {
    /// Name of the volume
    name: VolumeName,
    /// The container image that it is made of [default: none, for a blank volume]
    #[arg(long, value_name = "REF", conflicts_with = "image_name")]
    base_image: Option<String>,
    /// A backing image or snapshot that is there already
    #[arg(long = "image", value_name = "NAME")]
    image_name: Option<ImageName>,
    /// Minimum size, for example 4Gi [default: that of the image, or 1Gi]
    #[arg(long, value_parser = parse_quantity)]
    size: Option<ByteSize>,
    /// Number of the partition that is mounted [default: the whole volume]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    partition: u32,
    /// How it is used
    #[arg(long, value_enum, default_value = "pods")]
    access: For,
    #[command(flatten)]
    target: AccessArgs,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Who a new volume is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum For {
    /// Pods: a PersistentVolume names it
    Pods,
    /// Programs on its node, as /dev/longhorn/NAME
    Blockdev,
    /// Initiators in the network
    Iscsi,
}

impl ImageArgs {
    fn source(&self, reference: &str) -> Result<Source> {
        let docker_config_json = match &self.auth_file {
            Some(path) => read_bounded(path)?,
            None => Vec::new(),
        };
        Ok(Source::Registry(wire::RegistrySource {
            reference: reference.to_owned(),
            platform: self.platform.clone().unwrap_or_default(),
            docker_config_json,
        }))
    }
}

fn read_bounded(path: &PathBuf) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::file("open", path))?;
    file.take(AUTH_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::file("read", path))?;
    if bytes.len() as u64 > AUTH_MAX {
        let path = path.display();
        return Err(Error::Refused(format!(
            "{path} has more than {AUTH_MAX} bytes: it is no config.json of docker login"
        )));
    }
    Ok(bytes)
}

/// The disk for something new: the one that is named, else of those that are ready the one with the most room.
///
/// # Errors
/// None fits; the error says which there are.
pub(crate) fn choose(mut members: Vec<Member>, place: &PlaceArgs) -> Result<Member> {
    let all: Vec<String> = members
        .iter()
        .map(|member| format!("{} on {}", member.disk.uuid, member.disk.node_id))
        .collect();
    members.retain(|member| {
        let node = place
            .node
            .as_ref()
            .is_none_or(|node| member.disk.node_id == node.as_str());
        let disk = place
            .disk
            .as_ref()
            .is_none_or(|disk| member.disk.uuid == disk.as_str());
        node && disk
    });
    let room = |member: &Member| {
        let disk = &member.disk;
        (
            disk.not_ready.is_empty(),
            disk.creatable.unwrap_or(disk.available),
        )
    };
    let best = members.into_iter().max_by_key(room);
    best.ok_or_else(|| {
        let all = all.join(", ");
        Error::NotFound(format!(
            "no disk that answers is the one of --node and --disk; there are: {all}"
        ))
    })
}

async fn place(managers: &Managers, place: &PlaceArgs) -> Result<Member> {
    let answers = managers.disks().await?;
    if place.node.is_some() || place.disk.is_some() {
        answers.say_silent();
    }
    choose(
        answers
            .members
            .into_iter()
            .map(|(member, ())| member)
            .collect(),
        place,
    )
}

pub(crate) async fn inspect(reach: &Reach, args: InspectArgs) -> Result<()> {
    let source = args.image.source(&args.reference)?;
    let member = place(&reach.managers().await?, &args.place).await?;
    let found = member.client.inspect_source(source).await?;
    let content = holds(found.content.as_ref());
    let state = match found.state() {
        wire::State::Unspecified => "not there",
        state => client::state_name(state),
    };
    if matches!(args.output, Form::Json | Form::Yaml) {
        let partitions: Vec<_> = found
            .partitions
            .iter()
            .map(|one| json!({"number": one.number, "offset": one.offset, "length": one.length}))
            .collect();
        let value = json!({"name": found.name, "source": found.source, "manifestDigest": found.manifest_digest,
            "platform": found.platform, "format": found.format, "size": found.size,
            "virtualSize": found.virtual_size, "transferSize": found.transfer_size, "holds": content,
            "partitions": partitions, "state": state, "notes": found.notes});
        return Ok(print(&written(&value, args.output))?);
    }
    let known = |bytes: u64| {
        if bytes == 0 {
            String::new()
        } else {
            size(bytes)
        }
    };
    let partitions: Vec<_> = found
        .partitions
        .iter()
        .map(|one| format!("{} ({})", one.number, size(one.length)))
        .collect();
    let lines = [
        ("Image", found.source.clone()),
        ("Name", found.name.clone()),
        ("Digest", found.manifest_digest.clone()),
        ("Platform", found.platform.clone()),
        (
            "Disk",
            format!("{} {}", known(found.virtual_size), found.format),
        ),
        ("To pull", known(found.transfer_size)),
        ("Holds", content),
        ("Partitions", partitions.join(", ")),
        ("Here", format!("{state} on node {}", member.disk.node_id)),
    ];
    let mut text = String::new();
    for (key, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "{:<12}{}", format!("{key}:"), tame(value));
    }
    for said in &found.notes {
        let _ = writeln!(text, "Note:       {}", tame(said));
    }
    Ok(print(&text)?)
}

pub(crate) async fn pull(reach: &Reach, args: PullArgs) -> Result<()> {
    let source = args.image.source(&args.reference)?;
    let member = place(&reach.managers().await?, &args.place).await?;
    let request = wire::CreateBackingImageRequest {
        name: args.name.map(String::from).unwrap_or_default(),
        source: Some(wire::Source {
            source: Some(source),
        }),
        expected_checksum: args.checksum,
        ..Default::default()
    };
    let image = member.client.create_image(request).await?;
    let image = if args.wait {
        finished(&member.client, image).await?
    } else {
        failed(image)?
    };
    done(&image, &member)
}

pub(crate) async fn volume(reach: &Reach, args: VolumeArgs) -> Result<()> {
    let access = match args.access {
        For::Pods => None,
        For::Blockdev => Some(
            args.target
                .request(args.name.as_str(), change::Access::Blockdev)?,
        ),
        For::Iscsi => Some(
            args.target
                .request(args.name.as_str(), change::Access::Iscsi)?,
        ),
    };
    let managers = reach.managers().await?;
    let member = match &args.image_name {
        Some(name) => having_image(&managers, name, &args.place).await?,
        None => place(&managers, &args.place).await?,
    };
    let origin = match (&args.base_image, &args.image_name) {
        (Some(reference), _) => {
            let request = wire::CreateBackingImageRequest {
                source: Some(wire::Source {
                    source: Some(args.image.source(reference)?),
                }),
                ..Default::default()
            };
            let image = member.client.create_image(request).await?;
            let image = finished(&member.client, image).await?;
            client::origin::image(image.name, image.uuid)
        }
        (None, Some(name)) => client::origin::image(name.to_string(), ""),
        (None, None) => client::origin::blank(),
    };
    let driver = match args.access {
        For::Pods => wire::Driver::Csi,
        For::Blockdev | For::Iscsi => wire::Driver::Api,
    };
    let request = wire::CreateVolumeRequest {
        name: args.name.to_string(),
        required_bytes: args.size.map_or(0, ByteSize::bytes),
        origin: Some(origin),
        partition: args.partition,
        owner: Some(wire::Owner {
            driver: driver.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let volume = member.client.create_volume_of_origin(request).await?;
    let node = &member.disk.node_id;
    print(&format!(
        "volume/{} created on node {node}, {}\n",
        volume.name,
        size(volume.size)
    ))?;
    match access {
        None => {
            note(
                "to use it in pods, create a PersistentVolume with its name as volumeHandle: docs/kubectl.md",
            );
            Ok(())
        }
        Some(request) => change::exposed(reach, node, request).await,
    }
}

/// The manager that has an image, ready if there is one.
async fn having_image(managers: &Managers, name: &ImageName, place: &PlaceArgs) -> Result<Member> {
    let answers = managers
        .ask(|client| {
            let name = name.clone();
            async move { client::there(client.image(&name, None).await) }
        })
        .await?;
    let having: Vec<Member> = answers
        .members
        .into_iter()
        .filter(|(_, image)| {
            image
                .as_ref()
                .is_some_and(|image| image.state() == wire::State::Ready)
        })
        .map(|(member, _)| member)
        .collect();
    if having.is_empty() {
        return Err(crate::reach::missing(
            &format!("image {name} that is ready"),
            &answers.silent,
        ));
    }
    choose(having, place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Client;

    fn member(node: &str, creatable: u64, not_ready: &str) -> Member {
        let address = "unix:/nonexistent/manager.sock".parse().unwrap();
        Member {
            client: Client::new(address, &trust::Dialer::Plain).unwrap(),
            disk: wire::Disk {
                uuid: format!("disk-{node}"),
                node_id: node.to_owned(),
                creatable: Some(creatable),
                not_ready: not_ready.to_owned(),
                ..Default::default()
            },
        }
    }

    #[tokio::test]
    async fn what_is_new_goes_where_there_is_room_or_where_it_is_told() {
        let all = || {
            vec![
                member("n1", 5, ""),
                member("n2", 9, ""),
                member("n3", 99, "no disk"),
            ]
        };
        let chosen = |place: PlaceArgs| choose(all(), &place).map(|member| member.disk.node_id);
        assert_eq!(chosen(PlaceArgs::default()).unwrap(), "n2");
        let named = PlaceArgs {
            node: Some(NodeId::new("n1").unwrap()),
            disk: None,
        };
        assert_eq!(chosen(named).unwrap(), "n1");
        let nowhere = PlaceArgs {
            node: Some(NodeId::new("n9").unwrap()),
            disk: None,
        };
        let error = chosen(nowhere).unwrap_err().to_string();
        assert!(error.contains("disk-n2 on n2"), "{error}");
    }
}
