//! What the store of backups has.

use client::wire;
use maud::{Markup, html};

use super::table::{By, filter_form, head, pager, region};
use super::words::{age, size, state};
use super::{Frame, path};
use crate::seen::{Filter, Tone};

/// A store, as a manager lists it.
#[derive(Debug, Clone, Default)]
pub struct Backups {
    /// Its backups, by volume and name.
    pub backups: Vec<wire::Backup>,
    /// What is wrong with the rest of it.
    pub problems: Vec<String>,
}

/// The page of all backups; or why there is no list.
pub fn backups(frame: &Frame, found: Result<&Backups, &str>, filter: &Filter) -> Markup {
    let body = match found {
        Err(why) => html! { p.error { (why) } },
        Ok(found) => listed(frame, found, filter),
    };
    frame.page("/backups", "Backups", &body)
}

fn listed(frame: &Frame, found: &Backups, filter: &Filter) -> Markup {
    let by = [By::Text("q", "Volume or name")];
    let page = filter.page(found.backups.iter().collect(), |backup: &&wire::Backup| {
        filter.q.is_empty() || backup.name.contains(&filter.q) || backup.volume.contains(&filter.q)
    });
    html! {
        (filter_form("/backups", filter, &by))
        @for problem in found.problems.iter().take(20) {
            div.notice { p { (state(Tone::Warning, problem)) } }
        }
        @if page.all == 0 {
            p.empty { "The store has no backups. Make one: " code { "backing-image-manager backup create" } "." }
        } @else {
            (region("Backups", &html! {
                table {
                    caption { "Backups" }
                    (head(&["Name", "Volume", "State", "Size", "Uploaded", "Snapshot", "Base image", "Address", "Age"]))
                    tbody {
                        @for backup in &page.rows {
                            @let (tone, word) = backup_state(backup);
                            tr {
                                th scope="row" { (backup.name) }
                                td { a href=(path("volumes", &backup.volume)) { (backup.volume) } }
                                td { (state(tone, word)) @if !backup.message.is_empty() { " " (backup.message) } }
                                td { (size(backup.volume_size)) }
                                td { (size(backup.uploaded_size)) }
                                td { (backup.snapshot) }
                                td { (backup.base_image) }
                                td { code.copy { (backup.address) } }
                                td { (age(&backup.created_at, frame.now)) }
                            }
                        }
                    }
                }
            }))
        }
        (pager("/backups", filter, &page))
    }
}

fn backup_state(backup: &wire::Backup) -> (Tone, &'static str) {
    let state = backup.state();
    let tone = match state {
        wire::BackupState::Complete => Tone::Good,
        wire::BackupState::Failed => Tone::Bad,
        wire::BackupState::Incomplete | wire::BackupState::Unspecified => Tone::Warning,
        wire::BackupState::Pending
        | wire::BackupState::Comparing
        | wire::BackupState::Uploading
        | wire::BackupState::Finishing => Tone::Busy,
    };
    (tone, client::backup_state_name(state))
}
