//! What people do: POST handlers, which ask the managers and node services and say what these answer.
//!
//! Everything may be repeated: a second request finds what the first one has made.

mod create;
mod creation;
mod exposure;
mod fields;
mod images;
mod refused;
mod volumes;

use std::sync::Arc;

use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use maud::Markup;
use types::report;

use crate::access::Person;
use crate::journal::Journal;
use crate::look::{Inspector, Look, Now};
use crate::pages::Frame;

pub use self::create::{base_image, create, new_volume};
pub use self::creation::{Creations, Job};
pub use self::exposure::{expose, made_up_secret, take_back};
pub use self::fields::{FORM_BYTES, Fields};
pub use self::images::{copy, create_image, delete_image, delete_snapshot, manager};
pub use self::refused::Refused;
pub use self::volumes::{clone, delete_volume, grow, snapshot};

/// All that handlers share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    /// The cluster.
    pub look: Look,
    /// Looks at base images.
    pub inspector: Arc<Inspector>,
    /// Volumes that are being created.
    pub creations: Creations,
    /// What was done.
    pub journal: Journal,
    /// How managers are reached, for the bytes of images.
    pub dialer: trust::Dialer,
    /// The name of the CSI driver, for manifests.
    pub driver: Arc<str>,
}

impl App {
    /// What surrounds a page for this person.
    pub fn frame(&self, person: &Person, now: &Now) -> Frame {
        self.look.seek_backups(now);
        Frame {
            person: person.name.clone(),
            signed_in: person.signed_in,
            backups: self.look.has_backups(),
            now: Timestamp::now(),
            answered: now.seen.disks.len(),
            asked: now.seen.asked,
            failed: now.seen.failed.clone(),
            driver: self.driver.to_string(),
        }
    }

    /// Does something for somebody, to its end even where nobody waits for it, and notes how it ended.
    ///
    /// # Errors
    /// What the manager or node service says.
    pub async fn done<T: Send + 'static>(
        &self,
        person: &Person,
        (what, object): (&'static str, &str),
        act: impl Future<Output = client::Result<T>> + Send + 'static,
    ) -> client::Result<T> {
        let begun = self.journal.begin(&person.name, what, object);
        let look = self.look.clone();
        let acting = tokio::spawn(async move {
            let answer = act.await;
            look.changed().await;
            let why = answer.as_ref().err().map(|error| report(error).to_string());
            begun.end(why.as_deref());
            answer
        });
        acting.await.unwrap_or_else(|error| {
            Err(client::Error::Refused {
                kind: types::ErrorKind::Internal,
                message: format!("{what} ended early: {error}"),
            })
        })
    }
}

/// The answer after something was done: the page to look at.
pub fn see(path: &str) -> Response {
    let mut answer = StatusCode::SEE_OTHER.into_response();
    match HeaderValue::from_str(path) {
        Ok(path) => {
            answer.headers_mut().insert(LOCATION, path);
            answer
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A page that holds what is shown once, or a form that was refused: nobody keeps it.
pub fn once(status: StatusCode, markup: &Markup) -> Response {
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (axum::http::header::CONTENT_TYPE, "text/html; charset=utf-8"),
    ];
    (status, headers, markup.0.clone()).into_response()
}
