//! Create Volume: the form, its card, and what it asks for.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use client::{Client, PullSecret, parameters, wire};
use types::{ErrorKind, VolumeName, parse_quantity};

use super::creation::{Begun, Job};
use super::exposure::{self, made_up_secret};
use super::refused::status_of_form;
use super::{App, Fields, once, see};
use crate::access::{Person, Resource, Verb};
use crate::auth::May;
use crate::look::Now;
use crate::pages::{self, Card, Refusal, VolumeForm};
use crate::seen::room;

/// GET /volumes/new: an empty form, or one for a volume of an image that is there.
pub async fn new_volume(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    RawQuery(query): RawQuery,
) -> Response {
    let mut form = VolumeForm {
        chap_secret: made_up_secret(),
        ..VolumeForm::default()
    };
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let value: String = value.chars().take(1024).collect();
        match &*name {
            "image" => form.image = value,
            "base_image" => form.base_image = value,
            _ => {}
        }
    }
    let now = app.look.now().await;
    let card = app.card(&person, &now, &form, PullSecret::default()).await;
    let frame = app.frame(&person, &now);
    once(
        StatusCode::OK,
        &pages::new_volume(&frame, &now.seen, &form, &card, None),
    )
}

/// POST /fragments/base-image: the card, while somebody types.
pub async fn base_image(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    fields: Fields,
) -> Response {
    let form = form(&fields);
    let now = app.look.now().await;
    let card = match secret(&fields) {
        Ok(secret) => app.card(&person, &now, &form, secret).await,
        Err(refusal) => Card::NotFound(refusal),
    };
    once(StatusCode::OK, &pages::base_image(&form, &card))
}

/// POST /volumes.
pub async fn create(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Extension(may): Extension<May>,
    fields: Fields,
) -> Response {
    let form = form(&fields);
    let now = app.look.now().await;
    let secret = match secret(&fields) {
        Ok(secret) => secret,
        Err(refusal) => return app.again(&person, &now, &form, &Card::Empty, Some(&refusal)),
    };
    let card = app.card(&person, &now, &form, secret.clone()).await;
    if fields.text("do") == "look" {
        return app.again(&person, &now, &form, &card, None);
    }
    // The route asks for the right to create. To give access is another one.
    if exposure::is_wanted(&form)
        && let Some(refused) = may.refusal(Verb::Expose, Resource::Volumes).await
    {
        return refused;
    }
    let job = match job(&person, &now, &form, &card, secret) {
        Ok(job) => job,
        Err(refusal) => return app.again(&person, &now, &form, &card, Some(&refusal)),
    };
    let name = job.volume.name.clone();
    match app.creations.begin(job, &app.journal, &app.look).await {
        Begun::Shown => see(&pages::path("volumes", &name)),
        Begun::Refused(refusal) if refusal.field == "access" => {
            // The volume is there: its own page has the form for this.
            app.refused_on_page(&person, &name, "expose", &refusal)
                .await
        }
        Begun::Refused(refusal) => app.again(&person, &now, &form, &card, Some(&refusal)),
    }
}

impl App {
    /// The form again, with what is wrong with it.
    fn again(
        &self,
        person: &Person,
        now: &Now,
        form: &VolumeForm,
        card: &Card,
        refused: Option<&Refusal>,
    ) -> Response {
        let status = refused.map_or(StatusCode::OK, |why| status_of_form(why.kind));
        let frame = self.frame(person, now);
        once(
            status,
            &pages::new_volume(&frame, &now.seen, form, card, refused),
        )
    }

    /// What the base image is.
    async fn card(
        &self,
        person: &Person,
        now: &Now,
        form: &VolumeForm,
        secret: PullSecret,
    ) -> Card {
        if form.base_image.is_empty() {
            return Card::Empty;
        }
        let reference = match parameters::base_image(&form.base_image) {
            Ok(reference) => reference,
            Err(why) => return Card::NotFound(invalid("base_image", why)),
        };
        let Some(manager) = place(now, form) else {
            return Card::NotFound(nobody(now));
        };
        let looked = self
            .inspector
            .look(&person.name, manager, &reference, secret);
        match looked.await {
            Ok(found) => Card::Found {
                ready: now.seen.disks_with(&found.manifest_digest),
                disks: now.seen.disks.len(),
                found: Box::new((*found).clone()),
            },
            Err(refusal) => Card::NotFound(refusal),
        }
    }
}

/// What was typed.
fn form(fields: &Fields) -> VolumeForm {
    let text = |name| fields.text(name).to_owned();
    VolumeForm {
        name: text("name"),
        base_image: text("base_image"),
        image: text("image"),
        username: text("username"),
        checksum: text("checksum"),
        size: text("size"),
        size_unit: text("size_unit"),
        fs_type: text("fs_type"),
        partition: text("partition"),
        access: text("access"),
        initiators: text("initiators"),
        chap_user: text("chap_user"),
        chap_secret: text("chap_secret"),
        disk: text("disk"),
    }
}

/// The credentials, which belong to this request.
fn secret(fields: &Fields) -> Result<PullSecret, Refusal> {
    let (username, password) = (fields.text("username"), fields.raw("password"));
    let mut secrets = HashMap::new();
    for (name, value) in [("username", username), ("password", password)] {
        if !value.is_empty() {
            secrets.insert(name.to_owned(), value.to_owned());
        }
    }
    let base_image = fields.text("base_image");
    PullSecret::parse(&secrets, Some(base_image)).map_err(|why| invalid("password", why))
}

/// What the form asks for, as requests.
fn job(
    person: &Person,
    now: &Now,
    form: &VolumeForm,
    card: &Card,
    secret: PullSecret,
) -> Result<Job, Refusal> {
    let name = VolumeName::new(&form.name).map_err(|error| Refusal {
        field: "name",
        sentence: error.to_string(),
        kind: ErrorKind::InvalidArgument,
    })?;
    let size = match form.size.as_str() {
        "" => 0,
        number => parse_quantity(&format!("{number}{}", form.size_unit))
            .map_err(|error| invalid("size", &error.to_string()))?
            .bytes(),
    };
    let partition = match form.partition.as_str() {
        "" => 0,
        number => number
            .parse()
            .map_err(|_| invalid("partition", "the number of a partition is a whole number"))?,
    };
    fits(size, card)?;
    let access = exposure::wanted(form)?;
    let manager = place(now, form).ok_or_else(|| nobody(now))?.clone();
    let base_image = !form.base_image.is_empty();
    let (origin, parameters, image) = if base_image {
        let reference = parameters::base_image(&form.base_image);
        let reference = reference.map_err(|why| invalid("base_image", why))?;
        let known = HashMap::from([(parameters::BASE_IMAGE.to_owned(), reference.clone())]);
        (None, known, Some(pull(reference, &form.checksum, secret)))
    } else if form.image.is_empty() {
        (Some(client::origin::blank()), HashMap::new(), None)
    } else {
        let origin = client::origin::image(form.image.as_str(), "");
        (Some(origin), HashMap::new(), None)
    };
    let blank = !base_image && form.image.is_empty();
    let volume = wire::CreateVolumeRequest {
        name: name.to_string(),
        required_bytes: size,
        origin,
        number_of_replicas: 1,
        fs_type: if blank {
            form.fs_type.clone()
        } else {
            String::new()
        },
        parameters,
        partition,
        ..Default::default()
    };
    let access = match access {
        None => None,
        Some(access) => Some(exposure::request(now, &manager, &name, access)?),
    };
    Ok(Job {
        who: person.name.clone(),
        manager,
        image,
        volume,
        access,
    })
}

/// The image of a base image. It is for the volume: it may go when no volume uses it any more.
fn pull(reference: String, checksum: &str, secret: PullSecret) -> wire::CreateBackingImageRequest {
    let source = wire::source::Source::Registry(wire::RegistrySource {
        reference,
        platform: String::new(),
        docker_config_json: secret.into_bytes(),
    });
    wire::CreateBackingImageRequest {
        source: Some(wire::Source {
            source: Some(source),
        }),
        expected_checksum: checksum.to_owned(),
        for_volumes: true,
        ..Default::default()
    }
}

/// Refuses a size that the image is larger than, before anything is pulled; and an image that is not there.
fn fits(size: u64, card: &Card) -> Result<(), Refusal> {
    match card {
        Card::Found { found, .. } if size > 0 && size < found.virtual_size => Err(Refusal {
            field: "size",
            sentence: format!(
                "the disk in {} has {} bytes; ask for at least that, or leave the size empty",
                found.source, found.virtual_size
            ),
            kind: ErrorKind::OutOfRange,
        }),
        // Only what creating it would say as well. That it cannot be looked at now does not keep a volume from an
        // image that is there.
        Card::NotFound(refusal) if refusal.kind == ErrorKind::InvalidArgument => {
            Err(refusal.clone())
        }
        _ => Ok(()),
    }
}

/// The manager that the volume is, or shall be, at: where it is already, where the person wants it, or where there
/// is the most room.
fn place<'a>(now: &'a Now, form: &VolumeForm) -> Option<&'a Client> {
    if let Some(seen) = now.seen.volume(&form.name) {
        return now.manager(&seen.disk.uuid);
    }
    if !form.disk.is_empty() {
        return now.manager(&form.disk);
    }
    if let Some(image) = now.seen.image(&form.image) {
        let ready = (image.copies.iter())
            .filter(|(_, copy)| copy.state() == wire::State::Ready)
            .max_by_key(|(disk, _)| room(disk));
        let (disk, _) = ready.or(image.copies.first())?;
        return now.manager(&disk.uuid);
    }
    now.manager(&now.seen.roomy().first()?.uuid)
}

fn nobody(now: &Now) -> Refusal {
    let sentence = match now.seen.failed.first() {
        Some(sentence) => sentence.clone(),
        None => "no manager of such a disk answers; look at the page of disks".to_owned(),
    };
    Refusal {
        field: "disk",
        sentence,
        kind: ErrorKind::Unavailable,
    }
}

pub(super) fn invalid(field: &'static str, why: &str) -> Refusal {
    Refusal {
        field,
        sentence: why.to_owned(),
        kind: ErrorKind::InvalidArgument,
    }
}
