//! What is done with a volume that is there.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use client::{Client, wire};
use types::{ErrorKind, ImageName, VolumeName, parse_quantity};

use super::create::invalid;
use super::exposure::made_up_secret;
use super::refused::{Answered, refusal, status_of_form};
use super::{App, Fields, Refused, once, see};
use crate::access::Person;
use crate::look::Now;
use crate::pages::{self, Doomed, Refusal, VolumePage};

/// A volume, and the manager of its disk.
struct Found {
    name: VolumeName,
    /// In bytes, as it was seen.
    size: u64,
    manager: Client,
}

/// The volume of this name, for something that its manager alone decides.
fn find(now: &Now, name: &str) -> Answered<Found> {
    let seen = now
        .seen
        .volume(name)
        .ok_or_else(|| Refused::missing("volume", name))?;
    let checked = VolumeName::new(name).map_err(|_| Refused::missing("volume", name))?;
    if seen.volume.is_replica {
        let why = format!(
            "volume {name} is replicated: the controller of the cluster alone changes it; use its claim (kubectl)"
        );
        return Err(Refused::new(ErrorKind::FailedPrecondition, why));
    }
    let manager = now.manager(&seen.disk.uuid).cloned();
    let manager = manager.ok_or_else(|| Refused::missing("manager of volume", name))?;
    Ok(Found {
        name: checked,
        size: seen.volume.size,
        manager,
    })
}

/// POST /volumes/{name}/snapshot.
pub async fn snapshot(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    fields: Fields,
) -> Answered {
    let now = app.look.now().await;
    let found = find(&now, &name)?;
    let snapshot = match ImageName::new(fields.text("name")) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let refusal = invalid("name", &error.to_string());
            return Ok(app
                .refused_on_page(&person, &name, "snapshot", &refusal)
                .await);
        }
    };
    let source = wire::source::Source::Volume(wire::VolumeSource { name: name.clone() });
    let request = wire::CreateBackingImageRequest {
        name: snapshot.to_string(),
        source: Some(wire::Source {
            source: Some(source),
        }),
        ..Default::default()
    };
    let taking = app.done(&person, ("Snapshot", &name), async move {
        found.manager.create_image(request).await
    });
    match taking.await {
        Ok(image) => Ok(see(&pages::path("images", &image.name))),
        Err(error) => {
            let refusal = refusal(field("name", &error), &error);
            Ok(app
                .refused_on_page(&person, &name, "snapshot", &refusal)
                .await)
        }
    }
}

/// POST /volumes/{name}/clone.
pub async fn clone(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    fields: Fields,
) -> Answered {
    let now = app.look.now().await;
    let found = find(&now, &name)?;
    let new = match VolumeName::new(fields.text("name")) {
        Ok(new) => new,
        Err(error) => {
            let refusal = invalid("name", &error.to_string());
            return Ok(app.refused_on_page(&person, &name, "clone", &refusal).await);
        }
    };
    let request = wire::CreateVolumeRequest {
        name: new.to_string(),
        origin: Some(client::origin::volume(name.as_str())),
        number_of_replicas: 1,
        ..Default::default()
    };
    let cloning = app.done(&person, ("Clone", &name), async move {
        found.manager.create_volume_of_origin(request).await
    });
    match cloning.await {
        Ok(volume) => Ok(see(&pages::path("volumes", &volume.name))),
        Err(error) => {
            let refusal = refusal(field("name", &error), &error);
            Ok(app.refused_on_page(&person, &name, "clone", &refusal).await)
        }
    }
}

/// POST /volumes/{name}/grow.
pub async fn grow(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    fields: Fields,
) -> Answered {
    let now = app.look.now().await;
    let found = find(&now, &name)?;
    let size = match parse_quantity(&fields.quantity("size").unwrap_or_default()) {
        Ok(size) => size,
        Err(error) => {
            let refusal = invalid("size", &error.to_string());
            return Ok(app.refused_on_page(&person, &name, "grow", &refusal).await);
        }
    };
    let has = found.size;
    if size.bytes() < has {
        // A manager answers a smaller size as done: it may be a repeated call. A person means something by it.
        let refusal = Refusal {
            kind: ErrorKind::OutOfRange,
            ..invalid(
                "size",
                &format!("the volume has {has} bytes, and volumes never shrink; ask for more"),
            )
        };
        return Ok(app.refused_on_page(&person, &name, "grow", &refusal).await);
    }
    let growing = app.done(&person, ("Grow", &name), async move {
        found.manager.grow_volume(&found.name, size, None).await
    });
    match growing.await {
        Ok(_) => Ok(see(&pages::path("volumes", &name))),
        Err(error) => {
            let refusal = refusal("size", &error);
            Ok(app.refused_on_page(&person, &name, "grow", &refusal).await)
        }
    }
}

/// POST /volumes/{name}/delete.
pub async fn delete_volume(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
) -> Answered {
    let now = app.look.now().await;
    app.creations.forget(&name);
    if now.seen.volume(&name).is_none() && now.seen.disks.len() == now.seen.asked {
        // Somebody has deleted it already.
        return Ok(see("/volumes"));
    }
    let found = find(&now, &name)?;
    let deleting = app.done(&person, ("Delete volume", &name), async move {
        found.manager.delete_volume(&found.name).await
    });
    let Err(error) = deleting.await else {
        return Ok(see("/volumes"));
    };
    let refusal = refusal("", &error);
    let now = app.look.now().await;
    let seen = now
        .seen
        .volume(&name)
        .ok_or_else(|| Refused(refusal.clone()))?;
    let doomed = Doomed {
        refused: Some(&refusal),
    };
    let page = pages::delete_volume(&app.frame(&person, &now), &now.seen, &seen, doomed);
    Ok(once(status_of_form(refusal.kind), &page))
}

/// A refusal of what was asked for is of a field; one of the volume, or of its manager, is of none.
fn field(name: &'static str, error: &client::Error) -> &'static str {
    use types::Classify as _;
    match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::AlreadyExists => name,
        _ => "",
    }
}

impl App {
    /// The page of a volume, with what was refused beside its field.
    pub(super) async fn refused_on_page(
        &self,
        person: &Person,
        name: &str,
        form: &str,
        refusal: &Refusal,
    ) -> Response {
        let now = self.look.now().await;
        let secret = made_up_secret();
        let page = VolumePage {
            name,
            seen: now.seen.volume(name),
            coming: None,
            refused: Some((form, refusal)),
            secret: &secret,
        };
        let markup = pages::volume(&self.frame(person, &now), &page);
        once(status_of_form(refusal.kind), &markup)
    }
}
