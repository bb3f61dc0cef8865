//! The pages: functions from what is known to HTML.
//!
//! No I/O and no clock: the moment is part of the frame. All text is escaped where it is put in; nothing here is
//! marked as escaped before.

mod backups;
mod delete;
mod disks;
mod events;
mod form;
mod image;
mod images;
mod login;
mod manifest;
mod new_image;
mod new_volume;
mod overview;
mod problem;
mod snapshots;
mod table;
mod volume;
mod volumes;
mod words;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

pub use backups::{Backups, backups};
pub use delete::{Doomed, delete_image, delete_volume};
pub use disks::{disks, disks_rows};
pub use events::{Event, events, events_rows};
pub use form::Refusal;
pub use image::{CopyForm, file_name, image, image_facts};
pub use images::{images, images_rows};
pub use login::login;
pub use new_image::{ImageForm, new_image};
pub use new_volume::{Card, VolumeForm, base_image, new_volume};
pub use overview::{overview, overview_facts};
pub use problem::problem;
pub use snapshots::{snapshots, snapshots_rows};
pub use volume::{Coming, VolumePage, volume, volume_facts};
pub use volumes::{volumes, volumes_rows};
pub use words::code;

/// What surrounds a page.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Who looks at it; empty: nobody is signed in.
    pub person: String,
    /// Whether they can sign out.
    pub signed_in: bool,
    /// Whether there is a place for backups.
    pub backups: bool,
    /// The moment.
    pub now: Timestamp,
    /// Managers that answered, and that were asked. Nothing is said where all did.
    pub answered: usize,
    /// See [`Self::answered`].
    pub asked: usize,
    /// What is said of those that did not.
    pub failed: Vec<String>,
    /// Names in certificates, and so on, that manifests are written for.
    pub driver: String,
}

/// The entries of the menu: the path, and its word.
const MENU: &[(&str, &str)] = &[
    ("/", "Overview"),
    ("/volumes", "Volume"),
    ("/images", "Images"),
    ("/snapshots", "Snapshots"),
    ("/backups", "Backups"),
    ("/disks", "Disks"),
    ("/events", "Events"),
];

/// htmx's settings: no styles and no code made by it, nothing kept of pages, and answers to wrong forms are shown.
const HTMX: &str = "{\"includeIndicatorStyles\":false,\"allowEval\":false,\"historyCacheSize\":0,\
     \"selfRequestsOnly\":true,\"responseHandling\":[{\"code\":\"204\",\"swap\":false},\
     {\"code\":\"[23]..\",\"swap\":true},{\"code\":\"422\",\"swap\":true},\
     {\"code\":\"[45]..\",\"swap\":false,\"error\":true}]}";

impl Frame {
    /// A whole page; `here` is the entry of the menu that it belongs to.
    fn page(&self, here: &str, title: &str, body: &Markup) -> Markup {
        document(
            title,
            &html! {
                header {
                    a.brand href="/" { "Longhorn base images" }
                    nav aria-label="Main" {
                        ul {
                            @for (path, word) in MENU {
                                @if *path != "/backups" || self.backups {
                                    li {
                                        a href=(path) aria-current=[(*path == here).then_some("page")] {
                                            (word)
                                        }
                                    }
                                }
                            }
                        }
                    }
                    @if !self.person.is_empty() {
                        div.person {
                            span { (self.person) }
                            @if self.signed_in {
                                form method="post" action="/logout" {
                                    button type="submit" { "Sign out" }
                                }
                            }
                        }
                    }
                }
                main #main tabindex="-1" {
                    h1 { (title) }
                    (self.incomplete())
                    (body)
                }
            },
        )
    }

    /// Who did not answer; nothing where all did.
    fn incomplete(&self) -> Markup {
        html! {
            @if self.answered < self.asked {
                div.notice role="status" {
                    p {
                        (words::state(crate::seen::Tone::Warning, "incomplete"))
                        ": " (self.answered) " of " (self.asked) " managers answered."
                    }
                    @for sentence in self.failed.iter().take(10) {
                        p { (sentence) }
                    }
                }
            }
        }
    }
}

/// A document with this in its body.
fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=(HTMX);
                title { (title) " – Longhorn base images" }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/ui.css";
                script src="/assets/htmx.min.js" defer {}
                script src="/assets/ui.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (body)
            }
        }
    }
}

/// The path of one thing below a list. `new` is a page of its own there, so a thing of that name has its first
/// letter escaped, which a browser leaves as it is.
pub fn path(list: &str, name: &str) -> String {
    let name = match name {
        "new" => "%6Eew".to_owned(),
        name => {
            let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
            name.replace('+', "%20")
        }
    };
    format!("/{list}/{name}")
}

#[cfg(test)]
mod tests;
