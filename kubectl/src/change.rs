//! `grow`, `snapshot`, `expose`, `unexpose` and `delete`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::{Args, Subcommand, ValueEnum};
use client::{node_wire, wire};
use ring::rand::{SecureRandom as _, SystemRandom};
use types::{ByteSize, ImageName, VolumeName, parse_quantity};
use wire::source::Source;

use crate::error::{Error, Result};
use crate::exposed::Exposed;
use crate::get::place;
use crate::kubernetes::text;
use crate::outcome::finished;
use crate::output::{note, print, size};
use crate::reach::{Managers, Reach, missing};
use crate::view::Volume;

#[derive(Debug, Args)]
pub(crate) struct GrowArgs {
    /// Name of the volume
    name: VolumeName,
    /// Minimum size, for example 20Gi
    #[arg(long, value_parser = parse_quantity)]
    size: ByteSize,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// Name of the volume
    volume: VolumeName,
    /// Name of the snapshot
    #[arg(long)]
    name: ImageName,
}

/// How a volume is used without a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Access {
    /// As /dev/longhorn/NAME on its node
    Blockdev,
    /// As an iSCSI target at the address of its node
    Iscsi,
}

/// What a target asks of its initiators.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AccessArgs {
    /// Name of an initiator that may connect: iqn.…, eui.… or naa.…; repeatable
    #[arg(long, value_name = "IQN", value_delimiter = ',')]
    initiator: Vec<String>,
    /// User of CHAP
    #[arg(long, value_name = "NAME", default_value = "longhorn")]
    chap_user: String,
    /// File with the secret of CHAP, 12 to 16 characters; /dev/stdin for one that is piped [default: one is made and
    /// shown once]
    #[arg(long, value_name = "FILE", conflicts_with = "without_chap")]
    chap_secret: Option<std::path::PathBuf>,
    /// Let initiators connect by their name alone, which they choose themselves
    #[arg(long)]
    without_chap: bool,
    /// Nothing is written through it
    #[arg(long)]
    read_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExposeArgs {
    /// Name of the volume
    name: VolumeName,
    /// How
    #[arg(long, value_enum)]
    access: Access,
    #[command(flatten)]
    target: AccessArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UnexposeArgs {
    /// Name of the volume
    name: VolumeName,
    /// End the sessions of initiators that are connected
    #[arg(long)]
    disconnect: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(subcommand)]
    what: Delete,
    /// Do not ask
    #[arg(long, short, global = true)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum Delete {
    /// A volume that nobody uses
    Volume {
        /// Its name
        name: VolumeName,
    },
    /// An image without volumes, on every disk that has it
    Image {
        /// Its name
        name: ImageName,
    },
    /// A snapshot; volumes made of it stay
    Snapshot {
        /// Its name
        name: ImageName,
    },
}

pub(crate) async fn grow(reach: &Reach, args: GrowArgs) -> Result<()> {
    let (member, volume) = reach.managers().await?.volume(&args.name).await?;
    let owner = volume.owner.unwrap_or_default();
    if owner.driver() == wire::Driver::Csi && !owner.claim.is_empty() {
        let (namespace, claim) = (owner.namespace, owner.claim);
        return Err(Error::Refused(format!(
            "volume {} belongs to claim {namespace}/{claim}, which would not know of it: raise \
             spec.resources.requests.storage of the claim",
            args.name
        )));
    }
    let volume = member
        .client
        .grow_volume(&args.name, args.size, None)
        .await?;
    if !volume.published.is_empty() {
        note("who uses it sees the new size after it is exposed again: the same `expose` command");
    }
    Ok(print(&format!(
        "volume/{} has {}\n",
        volume.name,
        size(volume.size)
    ))?)
}

pub(crate) async fn snapshot(reach: &Reach, args: SnapshotArgs) -> Result<()> {
    let (member, _) = reach.managers().await?.volume(&args.volume).await?;
    let request = wire::CreateBackingImageRequest {
        name: args.name.to_string(),
        source: Some(wire::Source {
            source: Some(Source::Volume(wire::VolumeSource {
                name: args.volume.to_string(),
            })),
        }),
        ..Default::default()
    };
    let image = member.client.create_image(request).await?;
    let image = finished(&member.client, image).await?;
    Ok(print(&format!(
        "snapshot/{} {}\n",
        image.name,
        client::state_name(image.state())
    ))?)
}

impl AccessArgs {
    /// The request, checked before anything is made. The manager and the node service have the last word.
    pub(crate) fn request(
        &self,
        volume: &str,
        access: Access,
    ) -> Result<node_wire::ExposeVolumeRequest> {
        use node_wire::expose_volume_request::Access as Wire;
        let access = match access {
            Access::Blockdev => Wire::BlockDevice(node_wire::BlockDeviceAccess {}),
            Access::Iscsi if self.initiator.is_empty() => {
                return Err(Error::Missing(
                    "an iSCSI target needs the names of its initiators: add --initiator iqn.… (on a Linux host: \
                     /etc/iscsi/initiatorname.iscsi)"
                        .to_owned(),
                ));
            }
            Access::Iscsi => Wire::Target(node_wire::TargetAccess {
                initiator_names: self.initiator.clone(),
                chap_user: if self.without_chap {
                    String::new()
                } else {
                    self.chap_user.clone()
                },
                chap_secret: self.secret()?,
                without_chap: self.without_chap,
            }),
        };
        Ok(node_wire::ExposeVolumeRequest {
            volume: volume.to_owned(),
            disk_uuid: String::new(),
            read_only: self.read_only,
            access: Some(access),
        })
    }

    fn secret(&self) -> Result<String> {
        use std::io::Read as _;
        if self.without_chap {
            return Ok(String::new());
        }
        let Some(path) = &self.chap_secret else {
            let secret = made_up()?;
            note(&format!(
                "CHAP user: {}\nCHAP secret, shown this once: {secret}",
                self.chap_user
            ));
            return Ok(secret);
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(Error::file("open", path))?;
        file.take(1024)
            .read_to_string(&mut text)
            .map_err(Error::file("read", path))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// A secret of 16 characters that people can tell apart: 80 random bits.
fn made_up() -> Result<String> {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789A";
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).map_err(|_| {
        Error::Refused("the system has no random numbers: give --chap-secret".to_owned())
    })?;
    Ok(random
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte & 31)]))
        .collect())
}

pub(crate) async fn expose(reach: &Reach, args: ExposeArgs) -> Result<()> {
    let (member, _) = reach.managers().await?.volume(&args.name).await?;
    let mut request = args.target.request(args.name.as_str(), args.access)?;
    request.disk_uuid.clone_from(&member.disk.uuid);
    exposed(reach, &member.disk.node_id, request).await
}

/// Asks the node of a volume, and says where the volume is then.
pub(crate) async fn exposed(
    reach: &Reach,
    node: &str,
    request: node_wire::ExposeVolumeRequest,
) -> Result<()> {
    let found = reach.service(node).await?.expose(request).await?;
    let found = Exposed::new(found, node);
    for trouble in &found.troubles {
        note(&format!("note: {trouble}"));
    }
    Ok(print(&format!(
        "volume/{} exposed on node {node}: {}\n",
        found.volume,
        found.at()
    ))?)
}

pub(crate) async fn unexpose(reach: &Reach, args: UnexposeArgs) -> Result<()> {
    // Not the managers are asked where it is: taking back works also when its manager does not answer.
    let (all, silent) = crate::get::all_exposed(reach).await?;
    let name = args.name.as_str();
    let nodes: Vec<_> = all
        .iter()
        .filter(|one| one.volume == name)
        .map(|one| &one.node)
        .collect();
    if nodes.is_empty() {
        if silent.is_empty() {
            return Ok(print(&format!("volume/{name} is not exposed\n"))?);
        }
        return Err(Error::Nobody(format!(
            "no node service that answers exposes {name}, and one that does not answer may: {}",
            silent.join("; ")
        )));
    }
    for node in nodes {
        let service = reach.service(node).await?;
        service.unexpose(&args.name, args.disconnect).await?;
        print(&format!(
            "volume/{name} is no longer exposed on node {node}\n"
        ))?;
    }
    Ok(())
}

pub(crate) async fn delete(reach: &Reach, args: DeleteArgs) -> Result<()> {
    let managers = reach.managers().await?;
    match args.what {
        Delete::Volume { name } => volume(reach, &managers, &name, args.yes).await,
        Delete::Image { name } => image(&managers, &name, false, args.yes).await,
        Delete::Snapshot { name } => image(&managers, &name, true, args.yes).await,
    }
}

async fn volume(reach: &Reach, managers: &Managers, name: &VolumeName, yes: bool) -> Result<()> {
    let (member, found) = managers.volume(name).await?;
    if let Some(kubectl) = reach.kubectl() {
        let volumes = kubectl.list(&["persistentvolumes"]).await?;
        let named = |pv: &&serde_json::Value| {
            text(pv, "/spec/csi/volumeHandle") == name.as_str()
                && text(pv, "/spec/csi/driver") == crate::kubernetes::DRIVER
        };
        if let Some(pv) = volumes.iter().find(named) {
            let pv = text(pv, "/metadata/name");
            return Err(Error::Refused(format!(
                "volume {name} is that of PersistentVolume {pv}, which would point to nothing: delete its claim, or \
                 the PersistentVolume, first"
            )));
        }
    }
    let shown = Volume::new(found, place(&member));
    let node = &member.disk.node_id;
    let (bytes, holds) = (size(shown.real_size), &shown.file_system);
    ask(
        &format!("Volume {name} on node {node} ({holds}, {bytes} of data) will be gone for good."),
        yes,
    )?;
    member.client.delete_volume(name).await?;
    Ok(print(&format!("volume/{name} deleted\n"))?)
}

async fn image(managers: &Managers, name: &ImageName, snapshot: bool, yes: bool) -> Result<()> {
    let answers = managers
        .ask(|client| {
            let name = name.clone();
            async move { client.list_images().await.map(|all| of(all, name.as_str())) }
        })
        .await?;
    let kind = if snapshot { "snapshot" } else { "image" };
    let other = if snapshot { "image" } else { "snapshot" };
    let mut found = Vec::new();
    for (member, images) in answers.members {
        found.extend(images.into_iter().map(|image| (member.clone(), image)));
    }
    let is_kind = |image: &wire::BackingImage| image.source_volume.is_empty() != snapshot;
    if found.iter().any(|(_, image)| !is_kind(image))
        && !found.iter().any(|(_, image)| is_kind(image))
    {
        return Err(Error::Refused(format!(
            "{name} is no {kind}: delete {other} {name}"
        )));
    }
    found.retain(|(_, image)| is_kind(image));
    if found.is_empty() {
        return Err(missing(&format!("{kind} {name}"), &answers.silent));
    }
    let nodes: Vec<_> = found
        .iter()
        .map(|(member, _)| &*member.disk.node_id)
        .collect();
    let nodes = nodes.join(", ");
    ask(
        &format!("The {kind} {name} will be gone from the disks of: {nodes}."),
        yes,
    )?;
    for (member, image) in &found {
        let uuid = types::ImageUuid::new(&image.uuid).ok();
        member.client.delete_image(name, uuid.as_ref()).await?;
    }
    Ok(print(&format!("{kind}/{name} deleted\n"))?)
}

fn of(images: Vec<wire::BackingImage>, name: &str) -> Vec<wire::BackingImage> {
    images
        .into_iter()
        .filter(|image| image.name == name)
        .collect()
}

/// Asks before something is lost.
fn ask(what: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() {
        return Err(Error::Refused(format!(
            "{what} Nobody can be asked here: add --yes"
        )));
    }
    write!(stderr, "{what} Type yes to go on: ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Error::Refused("nothing was deleted".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_502_a_target_has_initiators_and_a_secret_unless_it_is_told_otherwise() {
        use node_wire::expose_volume_request::Access as Wire;
        let none = AccessArgs::default()
            .request("a", Access::Iscsi)
            .unwrap_err();
        assert!(none.to_string().contains("--initiator"), "{none}");
        let mut args = AccessArgs {
            initiator: vec!["iqn.2026-01.org.example:a".to_owned()],
            chap_user: "user".to_owned(),
            ..Default::default()
        };
        let secret = |args: &AccessArgs| match args.request("a", Access::Iscsi).unwrap().access {
            Some(Wire::Target(target)) => (target.chap_secret, target.without_chap),
            access => panic!("{access:?}"),
        };
        let (one, other) = (secret(&args), secret(&args));
        assert_eq!((one.0.len(), one.1), (16, false));
        assert_ne!(one, other, "made up anew each time");
        args.without_chap = true;
        assert_eq!(secret(&args), (String::new(), true));
    }
}
