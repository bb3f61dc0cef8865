//! Domain values to wire messages and back: the only place that knows both. Images are here, volumes in
//! `volumes.rs`, backups in `backups.rs`.

mod backups;
mod volumes;

use fetch::{Credentials, Platform, Reference};
use image::Format;
use proto::storage::v1 as pb;
use types::{Checksum, ImageName, ImageUuid, Sha512, VolumeName};

use catalog::source::{Download, DownloadRequest, Local, Peers, Pieces, Source};
use catalog::{Error, Result};
use catalog::{Existing, Lifecycle, Look, NewImage, Status, Usage};
use store::Snapshot;
use store::{Content, ContentKind};
use sync::protocol::PEERS_MAX;

pub(crate) use self::backups::stored;
pub(super) use self::backups::{asked, backup_key, damaged, new_backup, restored, running};
pub(super) use self::volumes::{new_volume, owner, publication, users, volume};

/// `Some` checked text, or `None` for an empty field.
pub(super) fn optional<T, E>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>>
where
    Error: From<E>,
{
    if text.is_empty() {
        Ok(None)
    } else {
        Ok(Some(parse(text)?))
    }
}

/// The same with the errors of backups.
pub(super) fn checked<T, E>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> backup_jobs::Result<Option<T>>
where
    backup_jobs::Error: From<E>,
{
    if text.is_empty() {
        Ok(None)
    } else {
        Ok(Some(parse(text)?))
    }
}

fn invalid(field: &'static str, why: impl std::fmt::Display) -> Error {
    Error::InvalidField {
        field,
        why: why.to_string(),
    }
}

pub(super) fn image_key(name: &str, uuid: &str) -> Result<(ImageName, Option<ImageUuid>)> {
    Ok((ImageName::new(name)?, optional(uuid, ImageUuid::new)?))
}

/// An upload is told by its uuid from one of the same name that was there before it.
pub(super) fn upload_key(name: &str, uuid: &str) -> Result<(ImageName, ImageUuid)> {
    if uuid.is_empty() {
        let why = "give the UUID of the image, as CreateBackingImage answered it";
        return Err(invalid("uuid", why));
    }
    Ok((ImageName::new(name)?, ImageUuid::new(uuid)?))
}

/// The image that a request asks for. `restore` gives the source that a backup is, and the name of the image
/// that it becomes.
pub(super) fn new_image(
    request: pb::CreateBackingImageRequest,
    restore: impl FnOnce(pb::BackupSource) -> backup_jobs::Result<(Source, ImageName)>,
) -> Result<NewImage> {
    let source = request
        .source
        .and_then(|source| source.source)
        .ok_or_else(|| invalid("source", "it is missing; give the source of the image"))?;
    let (mut source, derived) = match source {
        pb::source::Source::Backup(backup) => {
            let (source, name) = restore(backup)?;
            (source, Some(name))
        }
        source => (new_source(source)?, None),
    };
    let expected = checksum(&request.expected_checksum, &mut source)?;
    Ok(NewImage {
        name: optional(&request.name, ImageName::new)?.or(derived),
        uuid: optional(&request.uuid, ImageUuid::new)?,
        size: match &source {
            Source::Pieces(pieces) => pieces.size(),
            _ => 0,
        },
        source: Some(source),
        expected,
        format: format(&request.format)?,
        for_volumes: request.for_volumes,
        existing: Existing::Join,
    })
}

/// The source that is to be looked at.
pub(super) fn looked_at(source: Option<pb::source::Source>) -> Result<Source> {
    use pb::source::Source as Wire;
    match source {
        Some(
            source @ (Wire::Registry(_)
            | Wire::Url(_)
            | Wire::File(_)
            | Wire::Archive(_)
            | Wire::OciLayout(_)),
        ) => new_source(source),
        _ => Err(invalid(
            "source",
            "give a registry reference, a URL, a file, an archive or an OCI layout",
        )),
    }
}

/// What was seen of a source.
pub(super) fn looked(look: Look) -> pb::InspectSourceResponse {
    pb::InspectSourceResponse {
        name: look.name.map(String::from).unwrap_or_default(),
        source: look.source,
        manifest_digest: look.manifest_digest,
        platform: look.platform,
        format: look
            .format
            .map(|format| format.to_string())
            .unwrap_or_default(),
        size: look.size,
        virtual_size: look.virtual_size,
        transfer_size: look.transfer_size,
        content: look.content.as_ref().map(content),
        partitions: look.partitions.iter().map(partition).collect(),
        state: look
            .state
            .as_ref()
            .map_or(pb::State::Unspecified, state)
            .into(),
        notes: look.notes,
    }
}

fn partition(partition: &image::beginning::Partition) -> pb::Partition {
    pb::Partition {
        number: partition.number,
        offset: partition.start,
        length: partition.len,
    }
}

/// The SHA-512 that is expected; a SHA-256 is the download's own matter.
fn checksum(text: &str, source: &mut Source) -> Result<Option<Sha512>> {
    let parsed = optional(text, |text| {
        text.parse()
            .map_err(|error| invalid("expected_checksum", error))
    })?;
    match (parsed, source) {
        (None, _) => Ok(None),
        (Some(Checksum::Sha512(sum)), _) => Ok(Some(sum)),
        (Some(Checksum::Sha256(sum)), Source::Url(download)) => {
            download.sha256 = Some(sum);
            Ok(None)
        }
        (Some(Checksum::Sha256(_)), _) => Err(invalid(
            "expected_checksum",
            "a SHA-256 is accepted for downloads only; give the SHA-512",
        )),
    }
}

fn format(text: &str) -> Result<Option<Format>> {
    optional(text, |text| {
        text.parse().map_err(|error| invalid("format", error))
    })
}

fn platform(text: &str) -> Result<Platform> {
    let parsed = optional(text, |text| {
        text.parse().map_err(|error| invalid("platform", error))
    })?;
    Ok(parsed.unwrap_or_else(Platform::host))
}

fn new_source(source: pb::source::Source) -> Result<Source> {
    let local = |path: String, reference: String, platform_text: &str| {
        Ok::<_, Error>(Local {
            path: absolute(path)?,
            reference: (!reference.is_empty()).then_some(reference),
            platform: platform(platform_text)?,
        })
    };
    Ok(match source {
        pb::source::Source::Registry(registry) => Source::Registry {
            reference: registry.reference.parse::<Reference>()?,
            platform: platform(&registry.platform)?,
            credentials: if registry.docker_config_json.is_empty() {
                None
            } else {
                Some(Credentials::from_docker_config(
                    &registry.docker_config_json,
                )?)
            },
        },
        pb::source::Source::OciLayout(l) => {
            Source::OciLayout(local(l.path, l.reference, &l.platform)?)
        }
        pb::source::Source::Archive(a) => Source::Archive(local(a.path, a.reference, &a.platform)?),
        pb::source::Source::File(file) => Source::File(absolute(file.path)?),
        pb::source::Source::Url(url) => Source::Url(Box::new(download(url)?)),
        pb::source::Source::Volume(volume) => {
            let volume = VolumeName::new(&volume.name)?;
            Source::Volume(Snapshot {
                volume,
                group: None,
                backup_store: None,
            })
        }
        pb::source::Source::Peers(peers) => Source::Peers(new_peers(&peers)?),
        pb::source::Source::Backup(_) => {
            return Err(invalid("source.backup", "it is no source here"));
        }
        pb::source::Source::Upload(upload) => {
            Source::Pieces(Pieces::new(upload.size, upload.file_name)?)
        }
    })
}

fn new_peers(peers: &pb::PeersSource) -> Result<Peers> {
    if !(1..=PEERS_MAX).contains(&peers.addresses.len()) {
        return Err(invalid("addresses", format!("name 1 to {PEERS_MAX} peers")));
    }
    let parsed = |address: &String| {
        let parsed = address.parse::<sync::PeerAddress>();
        parsed.map_err(|error| invalid("addresses", error))
    };
    let addresses = peers.addresses.iter().map(parsed);
    Ok(Peers {
        addresses: addresses.collect::<Result<_>>()?,
        size: (peers.size > 0).then_some(peers.size),
        chosen_here: false,
    })
}

/// A download as a message asks for it, checked.
fn download(source: pb::UrlSource) -> Result<Download> {
    let headers = source.headers.into_iter();
    let request = DownloadRequest {
        url: source.url,
        headers: headers.map(|header| (header.name, header.value)).collect(),
        username: source.username,
        password: source.password,
        bearer_token: source.bearer_token,
        ca_certificates: source.ca_certificates,
        proxy: source.proxy,
        decompress: source.decompress,
        idle_timeout_seconds: source.idle_timeout_seconds,
    };
    request.try_into()
}

fn absolute(path: String) -> Result<std::path::PathBuf> {
    if path.len() > 4096 || path.contains('\0') {
        return Err(invalid(
            "path",
            "it is longer than 4096 bytes or holds a NUL",
        ));
    }
    let path = std::path::PathBuf::from(path);
    if !path.is_absolute() {
        return Err(invalid(
            "path",
            "it must be absolute, as the manager sees it",
        ));
    }
    Ok(path)
}

pub(super) fn image(status: &Status, has_raw_form: bool, usage: Option<Usage>) -> pb::BackingImage {
    let (source_volume, snapshot_group, backup_store) = match status.provenance.snapshot().cloned()
    {
        Some(Snapshot {
            volume,
            group,
            backup_store,
        }) => (volume.into(), group.map(String::from), backup_store),
        None => (String::new(), None, None),
    };
    let mut image = pb::BackingImage {
        name: status.id.name.to_string(),
        uuid: status.id.uuid.to_string(),
        state: state(&status.state).into(),
        source_volume,
        snapshot_group: snapshot_group.unwrap_or_default(),
        backup_store: backup_store.unwrap_or_default(),
        source: status.provenance.to_string(),
        manifest_digest: status.manifest_digest.clone(),
        expected_checksum: status.expected.map(String::from).unwrap_or_default(),
        has_raw_form,
        repaired_at: status
            .repaired_at
            .map(|at| at.to_string())
            .unwrap_or_default(),
        volumes: usage.map_or(0, |usage| usage.volumes),
        unused_since: usage
            .and_then(|usage| usage.unused_since)
            .map(|since| since.to_string())
            .unwrap_or_default(),
        ..Default::default()
    };
    match &status.state {
        Lifecycle::Pending | Lifecycle::Starting => image.message = before(status),
        Lifecycle::InProgress(progress) => {
            image.message = before(status);
            image.processed_size = progress.processed;
            image.total_size = progress.total;
            image.progress = progress.percent();
        }
        Lifecycle::Ready(sealed) => {
            let sidecar = &sealed.sidecar();
            image.size = sidecar.size;
            image.virtual_size = sidecar.virtual_size;
            image.real_size = sidecar.real_size;
            image.format = sealed.format().to_string();
            image.current_checksum.clone_from(&sidecar.current_checksum);
            image.unverified = sealed.seal().unverified;
            if sealed.seal().checksum_unproven {
                let message = if sidecar.current_checksum.is_empty() {
                    "its checksum is being computed"
                } else {
                    "its checksum comes from its source and is not verified yet"
                };
                message.clone_into(&mut image.message);
            }
            image
                .source_checksums
                .clone_from(&sealed.seal().source_checksums);
            image.processed_size = sidecar.size;
            image.total_size = sidecar.size;
            image.progress = 100;
            image.content = Some(content(&sealed.seal().content));
            image.created_at.clone_from(&sealed.seal().created_at);
        }
        Lifecycle::Failed(failure) => {
            image.message.clone_from(&failure.message);
            image.failure_code = client::code_of(failure.kind) as u32;
        }
        Lifecycle::Unknown(why) => image.message.clone_from(why),
    }
    image
}

/// Why an image on its way is on its way again: who waits for it learns the cause meanwhile.
fn before(status: &Status) -> String {
    if status.last_failure.is_empty() {
        return String::new();
    }
    format!("the last attempt failed: {}", status.last_failure)
}

fn state(state: &Lifecycle) -> pb::State {
    match state {
        Lifecycle::Pending => pb::State::Pending,
        Lifecycle::Starting => pb::State::Starting,
        Lifecycle::InProgress(_) => pb::State::InProgress,
        Lifecycle::Ready(_) => pb::State::Ready,
        Lifecycle::Failed(_) => pb::State::Failed,
        Lifecycle::Unknown(_) => pb::State::Unknown,
    }
}

fn content(content: &Content) -> pb::Content {
    let kind = match content.kind {
        ContentKind::Unspecified => pb::content::Kind::Unspecified,
        ContentKind::FileSystem => pb::content::Kind::FileSystem,
        ContentKind::PartitionTable => pb::content::Kind::PartitionTable,
        ContentKind::Other => pb::content::Kind::Other,
        ContentKind::Ambiguous => pb::content::Kind::Ambiguous,
        ContentKind::Unknown => pb::content::Kind::Unknown,
        ContentKind::Blank => pb::content::Kind::Blank,
    };
    pb::Content {
        kind: kind.into(),
        r#type: content.what.clone(),
        label: content.label.clone(),
        uuid: content.uuid.clone(),
        refused: content.refused.clone(),
    }
}

/// The members of a group of snapshots, as requests for images.
pub(super) fn group(request: pb::SnapshotGroupRequest) -> Result<(ImageName, Vec<NewImage>)> {
    let group = ImageName::new(&request.group)?;
    if request.members.is_empty() || request.members.len() > GROUP_MAX {
        return Err(invalid(
            "members",
            format!("a group has 1 to {GROUP_MAX} volumes"),
        ));
    }
    let mut members = Vec::new();
    for member in request.members {
        let snapshot = Snapshot {
            volume: VolumeName::new(&member.volume)?,
            group: Some(group.clone()),
            backup_store: None,
        };
        members.push(NewImage {
            name: Some(ImageName::new(&member.name)?),
            uuid: None,
            source: Some(Source::Volume(snapshot)),
            size: 0,
            existing: Existing::Join,
            expected: None,
            format: Some(Format::Raw),
            for_volumes: false,
        });
    }
    Ok((group, members))
}

/// Volumes of one group: as many as a pod has at the most.
const GROUP_MAX: usize = 64;
