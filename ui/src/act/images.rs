//! What is done with images: pulled, downloaded, copied to disks, deleted.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use client::{Client, PullSecret, parameters, wire};
use types::{ImageName, ImageUuid};
use wire::source::Source;

use super::create::invalid;
use super::refused::{Answered, refusal, status_of_form};
use super::{App, Fields, Refused, once, see};
use crate::access::Person;
use crate::look::Now;
use crate::pages::{self, CopyForm, Doomed, ImageForm, Refusal};
use crate::seen::SeenImage;

/// POST /images: pull, or from a URL.
pub async fn create_image(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    fields: Fields,
) -> Response {
    let text = |name| fields.text(name).to_owned();
    let form = ImageForm {
        from: text("from"),
        name: text("name"),
        source: text("source"),
        username: text("username"),
        platform: text("platform"),
        checksum: text("checksum"),
        disk: text("disk"),
    };
    let now = app.look.now().await;
    let asked = request(&form, fields.raw("password"));
    let asked = asked.and_then(|request| Ok((manager(&now, &form.disk)?, request)));
    let (manager, request) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return app.image_again(&person, &now, &form, &refusal),
    };
    let object = if form.name.is_empty() {
        &form.source
    } else {
        &form.name
    };
    let making = app.done(&person, ("Create image", object), async move {
        manager.create_image(request).await
    });
    match making.await {
        Ok(image) => see(&pages::path("images", &image.name)),
        Err(error) => {
            let refusal = refusal("source", &error);
            app.image_again(&person, &now, &form, &refusal)
        }
    }
}

impl App {
    /// The forms of new images again, with what is wrong with one.
    pub fn image_again(
        &self,
        person: &Person,
        now: &Now,
        form: &ImageForm,
        refusal: &Refusal,
    ) -> Response {
        let page = pages::new_image(&self.frame(person, now), &now.seen, form, Some(refusal));
        once(status_of_form(refusal.kind), &page)
    }
}

/// The manager of the disk that was chosen.
pub fn manager(now: &Now, disk: &str) -> Result<Client, Refusal> {
    let manager = now.manager(disk).cloned();
    manager.ok_or_else(|| match now.seen.failed.first() {
        Some(sentence) => Refusal {
            field: "disk",
            sentence: sentence.clone(),
            kind: types::ErrorKind::Unavailable,
        },
        None => invalid(
            "disk",
            "choose a disk of the list: no manager of another one answers",
        ),
    })
}

fn request(form: &ImageForm, password: &str) -> Result<wire::CreateBackingImageRequest, Refusal> {
    let source = match form.from.as_str() {
        "pull" => {
            let reference = parameters::base_image(&form.source);
            let reference = reference.map_err(|why| invalid("source", why))?;
            let mut secrets = HashMap::new();
            for (name, value) in [("username", form.username.as_str()), ("password", password)] {
                if !value.is_empty() {
                    secrets.insert(name.to_owned(), value.to_owned());
                }
            }
            let secret = PullSecret::parse(&secrets, Some(&reference));
            let secret = secret.map_err(|why| invalid("password", why))?;
            Source::Registry(wire::RegistrySource {
                reference,
                platform: form.platform.clone(),
                docker_config_json: secret.into_bytes(),
            })
        }
        "url" => Source::Url(wire::UrlSource {
            url: form.source.clone(),
            username: form.username.clone(),
            password: password.to_owned(),
            ..Default::default()
        }),
        _ => return Err(invalid("", "choose one of the three forms")),
    };
    Ok(wire::CreateBackingImageRequest {
        name: form.name.clone(),
        source: Some(wire::Source {
            source: Some(source),
        }),
        expected_checksum: form.checksum.clone(),
        ..Default::default()
    })
}

/// POST /images/{name}/copy: to the disks that were chosen, from those that have it.
pub async fn copy(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    fields: Fields,
) -> Answered {
    let now = app.look.now().await;
    let image = now
        .seen
        .image(&name)
        .ok_or_else(|| Refused::missing("image", &name))?;
    let best = image.best();
    let having = image
        .copies
        .iter()
        .filter(|(_, copy)| copy.uuid == best.uuid && copy.state() == wire::State::Ready);
    let addresses = having.map(|(disk, _)| disk.sync_address.clone());
    let addresses: Vec<String> = addresses
        .filter(|address| !address.is_empty())
        .take(16)
        .collect();
    let chosen: Vec<&str> = fields.all("disk").take(100).collect();
    let refused = match (addresses.is_empty(), chosen.is_empty()) {
        (true, _) => Some(invalid(
            "",
            "no disk that answers has this image ready; wait for it",
        )),
        (_, true) => Some(invalid("", "choose at least one disk")),
        _ => None,
    };
    let again = |refusal: Refusal| {
        let frame = app.frame(&person, &now);
        let status = status_of_form(refusal.kind);
        once(
            status,
            &pages::image(&frame, &now.seen, &image, &CopyForm::refused(refusal)),
        )
    };
    if let Some(refusal) = refused {
        return Ok(again(refusal));
    }
    let request = wire::CreateBackingImageRequest {
        name: best.name.clone(),
        uuid: best.uuid.clone(),
        source: Some(wire::Source {
            source: Some(Source::Peers(wire::PeersSource {
                addresses,
                size: best.size,
            })),
        }),
        expected_checksum: best.current_checksum.clone(),
        ..Default::default()
    };
    let managers = chosen.iter().map(|disk| manager(&now, disk));
    let managers = match managers.collect::<Result<Vec<Client>, _>>() {
        Ok(managers) => managers,
        Err(refusal) => {
            return Ok(again(Refusal {
                field: "",
                ..refusal
            }));
        }
    };
    let copying = app.done(&person, ("Copy to disks", &name), async move {
        for manager in managers {
            manager.create_image(request.clone()).await?;
        }
        Ok(())
    });
    match copying.await {
        Ok(()) => Ok(see(&pages::path("images", &name))),
        Err(error) => Ok(again(refusal("", &error))),
    }
}

/// POST /images/{name}/delete.
pub async fn delete_image(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
) -> Answered {
    delete(&app, &person, &name, false).await
}

/// POST /snapshots/{name}/delete.
pub async fn delete_snapshot(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
) -> Answered {
    delete(&app, &person, &name, true).await
}

/// The image or snapshot of this name: who may delete the one may not the other.
pub fn found<'a>(now: &'a Now, name: &str, snapshot: bool) -> Answered<SeenImage<'a>> {
    let found = now
        .seen
        .image(name)
        .filter(|image| image.is_snapshot() == snapshot);
    found.ok_or_else(|| Refused::missing(if snapshot { "snapshot" } else { "image" }, name))
}

/// Deletes it on all disks.
async fn delete(app: &App, person: &Person, name: &str, snapshot: bool) -> Answered {
    let now = app.look.now().await;
    let list = if snapshot { "/snapshots" } else { "/images" };
    if now.seen.image(name).is_none() && now.seen.disks.len() == now.seen.asked {
        // Somebody has deleted it already.
        return Ok(see(list));
    }
    let image = found(&now, name, snapshot)?;
    let checked = ImageName::new(name).map_err(|_| Refused::missing("image", name))?;
    let mut copies = Vec::new();
    for (disk, copy) in &image.copies {
        let uuid = ImageUuid::new(&copy.uuid).map_err(|_| Refused::missing("image", name))?;
        copies.extend(
            now.manager(&disk.uuid)
                .cloned()
                .map(|manager| (manager, uuid)),
        );
    }
    let what = if snapshot {
        "Delete snapshot"
    } else {
        "Delete image"
    };
    let deleting = app.done(person, (what, name), async move {
        for (manager, uuid) in copies {
            manager.delete_image(&checked, Some(&uuid)).await?;
        }
        Ok(())
    });
    let Err(error) = deleting.await else {
        return Ok(see(list));
    };
    let refusal = refusal("", &error);
    let now = app.look.now().await;
    let image = found(&now, name, snapshot)?;
    let doomed = Doomed {
        refused: Some(&refusal),
    };
    let page = pages::delete_image(&app.frame(person, &now), &now.seen, &image, doomed);
    Ok(once(status_of_form(refusal.kind), &page))
}
