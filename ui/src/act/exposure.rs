//! Access to volumes without pods: given and taken back by the node service of the volume's node.

use axum::Extension;
use axum::extract::{Path, State};
use client::node_wire::{BlockDeviceAccess, ExposeVolumeRequest, TargetAccess};
use client::{Client, Node, node_wire};
use node_wire::expose_volume_request::Access;
use ring::rand::{SecureRandom as _, SystemRandom};
use types::{ErrorKind, VolumeName};

use super::create::invalid;
use super::refused::{Answered, refusal};
use super::{App, Fields, Refused, see};
use crate::access::Person;
use crate::look::Now;
use crate::pages::{self, Refusal, VolumeForm};

/// Characters of a secret that is made up: letters and digits that nobody confuses, 32 of them.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Characters of a secret.
const SECRET: std::ops::RangeInclusive<usize> = 12..=16;

/// A CHAP secret that nobody guesses: 80 bits. Empty where the system has no randomness: the person types one then.
pub fn made_up_secret() -> String {
    let mut bytes = [0; 16];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => bytes
            .iter()
            .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
            .collect(),
        Err(_) => String::new(),
    }
}

/// POST /volumes/{name}/expose.
pub async fn expose(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    fields: Fields,
) -> Answered {
    let text = |name: &str| fields.text(name).to_owned();
    let form = VolumeForm {
        access: text("access"),
        initiators: text("initiators"),
        chap_user: text("chap_user"),
        chap_secret: text("chap_secret"),
        ..VolumeForm::default()
    };
    let now = app.look.now().await;
    let (volume, disk) = {
        let seen = now
            .seen
            .volume(&name)
            .ok_or_else(|| Refused::missing("volume", &name))?;
        let volume = VolumeName::new(&name).map_err(|_| Refused::missing("volume", &name))?;
        (volume, seen.disk.uuid.clone())
    };
    let asked = wanted(&form).and_then(|access| {
        let access =
            access.ok_or_else(|| invalid("access", "choose a block device or a target"))?;
        let manager = now.manager(&disk).ok_or_else(|| silent(&now))?;
        request(&now, manager, &volume, access)
    });
    let (node, mut asked) = match asked {
        Ok(asked) => asked,
        Err(refusal) => {
            return Ok(app
                .refused_on_page(&person, &name, "expose", &refusal)
                .await);
        }
    };
    asked.read_only = fields.is_checked("read_only");
    let exposing = app.done(&person, ("Expose", &name), async move {
        node.expose(asked).await
    });
    match exposing.await {
        Ok(_) => {
            app.creations.forget(&name);
            Ok(see(&pages::path("volumes", &name)))
        }
        Err(error) => {
            let refusal = refusal("", &error);
            Ok(app
                .refused_on_page(&person, &name, "expose", &refusal)
                .await)
        }
    }
}

/// POST /volumes/{name}/take-back.
pub async fn take_back(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    fields: Fields,
) -> Answered {
    let now = app.look.now().await;
    let volume = VolumeName::new(&name).map_err(|_| Refused::missing("volume", &name))?;
    let node = (now.seen.nodes.iter())
        .find(|node| node.exposed.iter().any(|one| one.volume == name))
        .and_then(|node| now.nodes.get(&node.info.node_id));
    let Some(node) = node.cloned() else {
        // Taken back already, or its node is silent.
        let why = "no node that answers exposes this volume; look at the page of disks for nodes that are silent";
        return Err(Refused::new(ErrorKind::NotFound, why));
    };
    let disconnect = fields.is_checked("disconnect");
    let taking = app.done(&person, ("Take back", &name), async move {
        node.unexpose(&volume, disconnect).await
    });
    match taking.await {
        Ok(()) => Ok(see(&pages::path("volumes", &name))),
        Err(error) => {
            let refusal = refusal("", &error);
            Ok(app
                .refused_on_page(&person, &name, "take-back", &refusal)
                .await)
        }
    }
}

/// Whether a form asks for more than pods have.
pub(super) fn is_wanted(form: &VolumeForm) -> bool {
    !matches!(form.access.as_str(), "" | "pods")
}

/// The access that a form asks for; `None`: pods, which get it by CSI.
pub(super) fn wanted(form: &VolumeForm) -> Result<Option<Access>, Refusal> {
    if !is_wanted(form) {
        return Ok(None);
    }
    match form.access.as_str() {
        "device" => Ok(Some(Access::BlockDevice(BlockDeviceAccess {}))),
        "target" => {
            let names = form.initiators.split([' ', ',', '\n', '\r', '\t']);
            let names: Vec<String> = names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect();
            if names.is_empty() {
                let why = "name the initiators that may connect; on Linux: cat /etc/iscsi/initiatorname.iscsi";
                return Err(invalid("initiators", why));
            }
            if form.chap_user.is_empty() {
                return Err(invalid("chap_user", "a target needs a CHAP user"));
            }
            let secret = &form.chap_secret;
            if !SECRET.contains(&secret.len())
                || !secret.bytes().all(|byte| byte.is_ascii_graphic())
            {
                let why = "a CHAP secret has 12 to 16 printable characters without spaces";
                return Err(invalid("chap_secret", why));
            }
            Ok(Some(Access::Target(TargetAccess {
                initiator_names: names,
                chap_user: form.chap_user.clone(),
                chap_secret: secret.clone(),
                without_chap: false,
            })))
        }
        _ => Err(invalid("access", "choose pods, a block device or a target")),
    }
}

/// The request for the node that has the disk of this manager.
pub(super) fn request(
    now: &Now,
    manager: &Client,
    volume: &VolumeName,
    access: Access,
) -> Result<(Node, ExposeVolumeRequest), Refusal> {
    let disk = (now.managers.iter())
        .find(|(_, known)| known.address() == manager.address())
        .and_then(|(uuid, _)| now.seen.disk(uuid));
    let disk = &disk.ok_or_else(|| silent(now))?.disk;
    let Some(node) = now.nodes.get(&disk.node_id) else {
        let why = match now.seen.silent_nodes.first() {
            Some(sentence) => sentence.clone(),
            None => format!(
                "no node service of node {} is known, which gives access without a pod; check --node-service of this program",
                disk.node_id
            ),
        };
        return Err(Refusal {
            field: "access",
            sentence: why,
            kind: ErrorKind::Unavailable,
        });
    };
    let request = ExposeVolumeRequest {
        volume: volume.to_string(),
        disk_uuid: disk.uuid.clone(),
        read_only: false,
        access: Some(access),
    };
    Ok((node.clone(), request))
}

fn silent(now: &Now) -> Refusal {
    let sentence = now.seen.failed.first().cloned();
    Refusal {
        field: "access",
        sentence: sentence
            .unwrap_or_else(|| "the manager of the volume does not answer; try again".to_owned()),
        kind: ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_made_up_is_one_that_targets_take() {
        let (one, other) = (made_up_secret(), made_up_secret());
        assert_ne!(one, other);
        assert_eq!(one.len(), 16);
        let form = VolumeForm {
            access: "target".to_owned(),
            initiators: "iqn.2026-01.org.example:a  iqn.2026-01.org.example:b".to_owned(),
            chap_user: "longhorn".to_owned(),
            chap_secret: one,
            ..Default::default()
        };
        let Ok(Some(Access::Target(target))) = wanted(&form) else {
            panic!("{form:?} was refused");
        };
        assert_eq!(target.initiator_names.len(), 2);
        for (field, form) in [
            (
                "initiators",
                VolumeForm {
                    initiators: String::new(),
                    ..form.clone()
                },
            ),
            (
                "chap_user",
                VolumeForm {
                    chap_user: String::new(),
                    ..form.clone()
                },
            ),
            (
                "chap_secret",
                VolumeForm {
                    chap_secret: "short".to_owned(),
                    ..form.clone()
                },
            ),
            (
                "chap_secret",
                VolumeForm {
                    chap_secret: "with a space in".to_owned(),
                    ..form.clone()
                },
            ),
        ] {
            assert_eq!(wanted(&form).unwrap_err().field, field);
        }
    }
}
