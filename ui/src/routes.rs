//! The routes, each as in [`crate::access::ROUTES`], and what answers where there is none.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use crate::act::{self, App, FORM_BYTES, once};
use crate::upload::PIECE;
use crate::{assets, download, pages, show, upload};

/// All pages, fragments and actions. Handlers take the [`crate::access::Person`] of the request's extensions.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/assets/{file}", get(assets::file))
        .route("/favicon.ico", get(assets::favicon))
        .merge(lists())
        .merge(volumes())
        .merge(images())
        .fallback(nothing)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .with_state(app)
}

fn lists() -> Router<App> {
    Router::new()
        .route("/", get(show::overview))
        .route("/fragments/overview", get(show::overview_facts))
        .route("/fragments/volumes", get(show::volumes_rows))
        .route("/fragments/images", get(show::images_rows))
        .route("/snapshots", get(show::snapshots))
        .route("/fragments/snapshots", get(show::snapshots_rows))
        .route("/backups", get(show::backups))
        .route("/disks", get(show::disks))
        .route("/fragments/disks", get(show::disks_rows))
        .route("/events", get(show::events))
        .route("/fragments/events", get(show::events_rows))
}

fn volumes() -> Router<App> {
    Router::new()
        .route("/volumes", get(show::volumes).post(act::create))
        .route("/volumes/new", get(act::new_volume))
        .route("/fragments/base-image", post(act::base_image))
        .route("/volumes/{name}", get(show::volume))
        .route("/fragments/volumes/{name}", get(show::volume_facts))
        .route("/volumes/{name}/snapshot", post(act::snapshot))
        .route("/volumes/{name}/clone", post(act::clone))
        .route("/volumes/{name}/grow", post(act::grow))
        .route("/volumes/{name}/expose", post(act::expose))
        .route("/volumes/{name}/take-back", post(act::take_back))
        .route(
            "/volumes/{name}/delete",
            get(show::doomed_volume).post(act::delete_volume),
        )
}

fn images() -> Router<App> {
    Router::new()
        .route("/images", get(show::images).post(act::create_image))
        .route("/images/new", get(show::new_image))
        .route("/images/{name}", get(show::image))
        .route("/fragments/images/{name}", get(show::image_facts))
        .route("/images/{name}/copy", post(act::copy))
        .route("/images/{name}/download", get(download::download))
        .route(
            "/images/{name}/delete",
            get(show::doomed_image).post(act::delete_image),
        )
        .route(
            "/snapshots/{name}/delete",
            get(show::doomed_snapshot).post(act::delete_snapshot),
        )
        .route("/uploads", post(upload::begin))
        .route(
            "/uploads/{disk}/{name}/{uuid}",
            get(upload::offset)
                .put(upload::piece)
                .layer(DefaultBodyLimit::max(PIECE)),
        )
}

async fn nothing() -> Response {
    let status = StatusCode::NOT_FOUND;
    once(status, &pages::problem(status, "there is no such page")).into_response()
}

async fn not_so() -> Response {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    once(
        status,
        &pages::problem(status, "this page is not for that method"),
    )
    .into_response()
}
