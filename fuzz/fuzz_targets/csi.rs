//! Requests to the CSI plugin with any content: no panic, and a refusal is one of the codes that the
//! specification has for it.
//!
//! The first byte selects how the rest is read: as a message in wire format, or as the parameters
//! of a volume, one `key=value` per line, which reaches the values much sooner.

#![no_main]

use csi::fuzzing;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::csi::v1 as wire;
use types::ErrorKind;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let refusal = match kind % 4 {
        0 => wire::CreateVolumeRequest::decode(rest).ok().and_then(fuzzing::create_volume),
        1 => wire::NodeStageVolumeRequest::decode(rest).ok().and_then(fuzzing::stage_volume),
        2 => wire::CreateSnapshotRequest::decode(rest)
            .ok()
            .and_then(|request| fuzzing::create_snapshot(&request)),
        _ => fuzzing::create_volume(with_parameters(&String::from_utf8_lossy(rest))),
    };
    let allowed = [
        ErrorKind::InvalidArgument,
        ErrorKind::NotFound,
        ErrorKind::OutOfRange,
        ErrorKind::FailedPrecondition,
    ];
    assert!(refusal.is_none_or(|kind| allowed.contains(&kind)), "{refusal:?}");
});

/// A request that is right but for what these lines say.
fn with_parameters(lines: &str) -> wire::CreateVolumeRequest {
    use wire::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
    let pairs = lines.lines().filter_map(|line| line.split_once('='));
    let capability = wire::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    };
    wire::CreateVolumeRequest {
        name: "volume".to_owned(),
        volume_capabilities: vec![capability],
        parameters: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        ..Default::default()
    }
}
