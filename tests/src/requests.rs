//! Requests for images, one function for each kind of source.

use std::net::SocketAddr;
use std::path::Path;

use proto::storage::v1 as pb;

/// The request for an image from a container image of a registry.
pub fn from_registry(name: &str, reference: &str) -> pb::CreateBackingImageRequest {
    let registry = pb::RegistrySource {
        reference: reference.into(),
        ..Default::default()
    };
    request(name, pb::source::Source::Registry(registry))
}

/// The request for an image from a disk image in a file of an import directory.
pub fn from_file(name: &str, path: &Path) -> pb::CreateBackingImageRequest {
    let path = path.display().to_string();
    request(name, pb::source::Source::File(pb::FileSource { path }))
}

/// The request for a snapshot of a volume.
pub fn from_volume(name: &str, volume: &str) -> pb::CreateBackingImageRequest {
    let name_of = volume.into();
    request(
        name,
        pb::source::Source::Volume(pb::VolumeSource { name: name_of }),
    )
}

/// The request for an image from a URL.
pub fn from_url(name: &str, url: &str) -> pb::CreateBackingImageRequest {
    request(
        name,
        pb::source::Source::Url(pb::UrlSource {
            url: url.into(),
            ..Default::default()
        }),
    )
}

/// The request for an image whose bytes come in pieces.
pub fn from_upload(name: &str, size: usize) -> pb::CreateBackingImageRequest {
    let upload = pb::UploadSource {
        size: size as u64,
        file_name: "disk.raw".into(),
    };
    request(name, pb::source::Source::Upload(upload))
}

/// The request for a copy of an image that other managers have, by the addresses of their sync servers.
pub fn from_peers(name: &str, uuid: &str, peers: &[SocketAddr]) -> pb::CreateBackingImageRequest {
    let addresses = peers.iter().map(ToString::to_string).collect();
    let peers = pb::PeersSource { addresses, size: 0 };
    pb::CreateBackingImageRequest {
        uuid: uuid.into(),
        ..request(name, pb::source::Source::Peers(peers))
    }
}

fn request(name: &str, source: pb::source::Source) -> pb::CreateBackingImageRequest {
    pb::CreateBackingImageRequest {
        name: name.into(),
        source: Some(pb::Source {
            source: Some(source),
        }),
        ..Default::default()
    }
}
