//! What was done here.

use maud::{Markup, html};

use super::Frame;
use super::table::{By, filter_form, head, live, pager, region};
use super::words::{moment, state};
use crate::seen::{Filter, Tone};

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// RFC 3339.
    pub at: String,
    /// By whom.
    pub who: String,
    /// What: `Create Volume`.
    pub what: &'static str,
    /// With what: its name.
    pub object: String,
    /// How it ended: why it was refused; `None`: it was done.
    pub refused: Option<String>,
    /// It is still under way.
    pub busy: bool,
}

/// The page of the last events.
pub fn events(frame: &Frame, all: &[Event], filter: &Filter) -> Markup {
    let body = html! {
        p.help { "The last 500 things that were done in this program since it was started, the latest first." }
        (filter_form("/events", filter, &[By::Text("q", "Person or object")]))
        (region("Events", &events_rows(frame, all, filter)))
    };
    frame.page("/events", "Events", &body)
}

/// Its table alone.
pub fn events_rows(frame: &Frame, all: &[Event], filter: &Filter) -> Markup {
    let page = filter.page(all.iter().collect(), |event: &&Event| {
        filter.q.is_empty() || event.who.contains(&filter.q) || event.object.contains(&filter.q)
    });
    let url = format!("/fragments/events{}", filter.query(page.number));
    let busy = page.rows.iter().any(|event| event.busy);
    live(
        "events",
        &url,
        busy,
        &html! {
            @if page.all == 0 {
                p.empty { "Nothing was done here yet. " a href="/volumes/new" { "Create Volume" } " is a beginning." }
            } @else {
                table {
                    caption { "Events" }
                    (head(&["Time", "Person", "Action", "Object", "Result"]))
                    tbody {
                        @for event in &page.rows {
                            tr {
                                th scope="row" { (moment(&event.at, frame.now)) }
                                td { (event.who) }
                                td { (event.what) }
                                td { (event.object) }
                                td {
                                    @match (&event.refused, event.busy) {
                                        (Some(why), _) => { (state(Tone::Bad, "refused")) " " (why) }
                                        (None, true) => (state(Tone::Busy, "under way")),
                                        (None, false) => (state(Tone::Good, "done")),
                                    }
                                }
                            }
                        }
                    }
                }
            }
            (pager("/events", filter, &page))
        },
    )
}
