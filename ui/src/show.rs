//! The pages that are looked at: GET handlers. Each asks for a look at the cluster and draws it.

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use maud::Markup;
use types::report;

use crate::access::Person;
use crate::act::{App, Refused, made_up_secret, once};
use crate::http::answer;
use crate::look::Now;
use crate::pages::{self, Coming, CopyForm, Doomed, Frame, ImageForm, VolumePage};
use crate::seen::{Filter, Seen};

type Answered = Result<Response, Refused>;

/// What every handler of a list needs.
struct Asked {
    now: Now,
    frame: Frame,
    filter: Filter,
}

impl App {
    async fn asked(&self, person: &Person, query: Option<String>) -> Asked {
        let now = self.look.now().await;
        Asked {
            frame: self.frame(person, &now),
            filter: Filter::parse(&query.unwrap_or_default()),
            now,
        }
    }
}

/// A handler of a list that is drawn of what is seen alone.
macro_rules! list {
    ($(#[$doc:meta])* $name:ident, $page:path) => {
        $(#[$doc])*
        pub async fn $name(
            State(app): State<App>,
            Extension(person): Extension<Person>,
            RawQuery(query): RawQuery,
            headers: HeaderMap,
        ) -> Response {
            let asked = app.asked(&person, query).await;
            answer(&headers, $page(&asked.frame, &asked.now.seen, &asked.filter))
        }
    };
}

list!(/// GET /images.
    images, pages::images);
list!(/// GET /fragments/images.
    images_rows, pages::images_rows);
list!(/// GET /snapshots.
    snapshots, pages::snapshots);
list!(/// GET /fragments/snapshots.
    snapshots_rows, pages::snapshots_rows);
list!(/// GET /disks.
    disks, pages::disks);
list!(/// GET /fragments/disks.
    disks_rows, pages::disks_rows);

/// The overview has no filter.
fn overview_page(frame: &Frame, seen: &Seen, _: &Filter) -> Markup {
    pages::overview(frame, seen)
}

fn overview_part(frame: &Frame, seen: &Seen, _: &Filter) -> Markup {
    pages::overview_facts(frame, seen)
}

list!(/// GET /.
    overview, overview_page);
list!(/// GET /fragments/overview.
    overview_facts, overview_part);

/// GET /volumes.
pub async fn volumes(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let asked = app.asked(&person, query).await;
    let coming = app.creations.names();
    let page = pages::volumes(&asked.frame, &asked.now.seen, &asked.filter, &coming);
    answer(&headers, page)
}

/// GET /fragments/volumes.
pub async fn volumes_rows(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let asked = app.asked(&person, query).await;
    let coming = app.creations.names();
    let rows = pages::volumes_rows(&asked.frame, &asked.now.seen, &asked.filter, &coming);
    answer(&headers, rows)
}

/// What is under way for a volume, with the image as it is now.
fn coming(app: &App, now: &Now, name: &str) -> Option<Coming> {
    let (mut coming, image) = app.creations.coming(name)?;
    let image = now.seen.image(&image);
    coming.image = image.map(|image| image.best().clone());
    Some(coming)
}

/// GET /volumes/{name}.
pub async fn volume(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
) -> Answered {
    let now = app.look.now().await;
    let coming = coming(&app, &now, &name);
    let secret = made_up_secret();
    let page = VolumePage {
        name: &name,
        seen: now.seen.volume(&name),
        coming: coming.as_ref(),
        refused: None,
        secret: &secret,
    };
    if page.seen.is_none() && page.coming.is_none() {
        return Err(missing("volume", &name, &now));
    }
    // It holds a secret that is shown once.
    let markup = pages::volume(&app.frame(&person, &now), &page);
    Ok(once(axum::http::StatusCode::OK, &markup))
}

/// GET /fragments/volumes/{name}.
pub async fn volume_facts(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let now = app.look.now().await;
    let coming = coming(&app, &now, &name);
    let page = VolumePage {
        name: &name,
        seen: now.seen.volume(&name),
        coming: coming.as_ref(),
        refused: None,
        secret: "",
    };
    let markup = pages::volume_facts(&app.frame(&person, &now), &page);
    answer(&headers, markup)
}

/// GET /volumes/{name}/delete.
pub async fn doomed_volume(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answered {
    let now = app.look.now().await;
    let seen = now
        .seen
        .volume(&name)
        .ok_or_else(|| missing("volume", &name, &now))?;
    let frame = app.frame(&person, &now);
    let page = pages::delete_volume(&frame, &now.seen, &seen, Doomed::default());
    Ok(answer(&headers, page))
}

/// GET /images/new.
pub async fn new_image(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    headers: HeaderMap,
) -> Response {
    let now = app.look.now().await;
    let frame = app.frame(&person, &now);
    let page = pages::new_image(&frame, &now.seen, &ImageForm::default(), None);
    answer(&headers, page)
}

/// GET /images/{name}.
pub async fn image(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answered {
    let now = app.look.now().await;
    let image = now
        .seen
        .image(&name)
        .ok_or_else(|| missing("image", &name, &now))?;
    let frame = app.frame(&person, &now);
    let page = pages::image(&frame, &now.seen, &image, &CopyForm::default());
    Ok(answer(&headers, page))
}

/// GET /fragments/images/{name}.
pub async fn image_facts(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answered {
    let now = app.look.now().await;
    let image = now
        .seen
        .image(&name)
        .ok_or_else(|| missing("image", &name, &now))?;
    let frame = app.frame(&person, &now);
    Ok(answer(
        &headers,
        pages::image_facts(&frame, &now.seen, &image),
    ))
}

/// GET /images/{name}/delete.
pub async fn doomed_image(
    state: State<App>,
    person: Extension<Person>,
    name: Path<String>,
    headers: HeaderMap,
) -> Answered {
    doomed(state, person, name, &headers, false).await
}

/// GET /snapshots/{name}/delete.
pub async fn doomed_snapshot(
    state: State<App>,
    person: Extension<Person>,
    name: Path<String>,
    headers: HeaderMap,
) -> Answered {
    doomed(state, person, name, &headers, true).await
}

async fn doomed(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    headers: &HeaderMap,
    snapshot: bool,
) -> Answered {
    let now = app.look.now().await;
    let found = now
        .seen
        .image(&name)
        .filter(|image| image.is_snapshot() == snapshot);
    let what = if snapshot { "snapshot" } else { "image" };
    let image = found.ok_or_else(|| missing(what, &name, &now))?;
    let frame = app.frame(&person, &now);
    let page = pages::delete_image(&frame, &now.seen, &image, Doomed::default());
    Ok(answer(headers, page))
}

/// GET /backups.
pub async fn backups(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let asked = app.asked(&person, query).await;
    let found = app.look.backups(&asked.now).await;
    let found = found.map_err(|error| report(&error).to_string());
    let found = found.as_deref().map_err(String::as_str);
    answer(&headers, pages::backups(&asked.frame, found, &asked.filter))
}

/// GET /events.
pub async fn events(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let asked = app.asked(&person, query).await;
    let events = app.journal.events();
    answer(
        &headers,
        pages::events(&asked.frame, &events, &asked.filter),
    )
}

/// GET /fragments/events.
pub async fn events_rows(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let asked = app.asked(&person, query).await;
    let events = app.journal.events();
    answer(
        &headers,
        pages::events_rows(&asked.frame, &events, &asked.filter),
    )
}

/// There is none; or nobody knows, because managers are silent.
fn missing(what: &str, name: &str, now: &Now) -> Refused {
    if now.seen.disks.len() < now.seen.asked {
        let why = format!(
            "no {what} {:?} at the {} of {} managers that answered; the others may have it",
            types::shown(name),
            now.seen.disks.len(),
            now.seen.asked
        );
        return Refused::new(types::ErrorKind::Unavailable, why);
    }
    Refused::missing(what, name)
}
