//! What a new volume begins with, as [`CreateVolumeRequest`](wire::CreateVolumeRequest) says it.

use proto::storage::v1 as wire;

pub use wire::create_volume_request::Origin;

/// Zeros.
pub const fn blank() -> Origin {
    Origin::Blank(wire::BlankOrigin {})
}

/// A clone of an image; an empty `uuid`: of the only one of that name. Without a name it is the image that
/// the parameters of the request name, which is enough to find a volume.
pub fn image(name: impl Into<String>, uuid: impl Into<String>) -> Origin {
    let (name, uuid) = (name.into(), uuid.into());
    Origin::Image(wire::ImageOrigin { name, uuid })
}

/// A clone of what another volume holds.
pub fn volume(name: impl Into<String>) -> Origin {
    let name = name.into();
    Origin::Volume(wire::VolumeOrigin { name })
}
