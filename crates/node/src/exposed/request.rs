//! The requests, checked.

use host::target::{Chap, Initiator};
use proto::node::v1 as wire;
use types::{DiskUuid, VolumeName};

use super::record::{Access, Account};
use crate::error::{Error, Result};

/// How many initiators may use a target.
const INITIATORS: std::ops::RangeInclusive<usize> = 1..=16;

/// A volume that shall be used without a pod.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) volume: VolumeName,
    /// `None`: the only disk that has it.
    pub(super) disk: Option<DiskUuid>,
    pub(super) read_only: bool,
    pub(super) access: Access,
}

impl Asked {
    pub(super) fn parse(request: wire::ExposeVolumeRequest) -> Result<Self> {
        use wire::expose_volume_request::Access as Wire;
        let disk = match request.disk_uuid.as_str() {
            "" => None,
            uuid => Some(DiskUuid::new(uuid).map_err(|source| Error::Name {
                field: "disk_uuid",
                source,
            })?),
        };
        let access = match request.access {
            Some(Wire::BlockDevice(_)) => Access::Device,
            Some(Wire::Target(target)) => of_target(&target)?,
            None => return Err(field("access", "say block_device or target")),
        };
        Ok(Self {
            volume: volume(&request.volume)?,
            disk,
            read_only: request.read_only,
            access,
        })
    }
}

pub(super) fn volume(name: &str) -> Result<VolumeName> {
    VolumeName::new(name).map_err(|source| Error::Name {
        field: "volume",
        source,
    })
}

fn of_target(target: &wire::TargetAccess) -> Result<Access> {
    if !INITIATORS.contains(&target.initiator_names.len()) {
        return Err(field("initiator_names", "1 to 16 are expected"));
    }
    let mut initiators = Vec::new();
    for name in &target.initiator_names {
        let initiator: Initiator = name.parse()?;
        initiators.push(initiator.as_str().to_owned());
    }
    initiators.sort();
    initiators.dedup();
    let given = !(target.chap_user.is_empty() && target.chap_secret.is_empty());
    let chap = match (given, target.without_chap) {
        (true, true) => {
            let why = "there is a CHAP account too; give one of the two";
            return Err(field("without_chap", why));
        }
        (false, false) => {
            let why = "it is required; or set without_chap, and anybody who says the name of an initiator may connect";
            return Err(field("chap_user", why));
        }
        (true, false) => {
            let chap = Chap::new(&target.chap_user, &target.chap_secret)?;
            Some(Account::from(&chap))
        }
        (false, true) => None,
    };
    Ok(Access::Target { initiators, chap })
}

fn field(field: &'static str, why: &str) -> Error {
    Error::Field {
        field,
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn asked(target: wire::TargetAccess) -> Result<Asked> {
        Asked::parse(wire::ExposeVolumeRequest {
            volume: "v".to_owned(),
            access: Some(wire::expose_volume_request::Access::Target(target)),
            ..Default::default()
        })
    }

    #[test]
    fn a_target_has_initiators_and_a_secret_unless_it_is_said() {
        let good = wire::TargetAccess {
            initiator_names: vec!["iqn.2026-01.org.example:host".to_owned()],
            chap_user: "user".to_owned(),
            chap_secret: "geheimgeheim".to_owned(),
            without_chap: false,
        };
        let parsed = asked(good.clone()).unwrap();
        assert!(!format!("{parsed:?}").contains("geheim"));
        let bad: [fn(&mut wire::TargetAccess); 4] = [
            |it| it.initiator_names.clear(),
            |it| it.initiator_names = vec![it.initiator_names[0].clone(); 17],
            |it| it.without_chap = true,
            |it| (it.chap_user, it.chap_secret) = Default::default(),
        ];
        for change in bad {
            let mut target = good.clone();
            change(&mut target);
            let refused = asked(target).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
            assert!(!refused.to_string().contains("geheim"));
        }
        let none = Asked::parse(wire::ExposeVolumeRequest {
            volume: "v".to_owned(),
            ..Default::default()
        });
        assert_eq!(none.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
