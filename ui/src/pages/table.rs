//! What all lists have: the part that is asked for again and again, the filter, the pages.

use maud::{Markup, html};

use crate::seen::{Filter, Page};

/// How soon a part of a page is asked for again: soon while something is under way.
const SOON: &str = "every 2s";
const LATER: &str = "every 10s";

/// A part of a page that replaces itself: what it is asked for at, and whether something is under way in it.
pub(super) fn live(id: &str, url: &str, busy: bool, body: &Markup) -> Markup {
    let trigger = if busy { SOON } else { LATER };
    html! {
        div id=(id) hx-get=(url) hx-trigger=(trigger) hx-swap="outerHTML" { (body) }
    }
}

/// A wide table, which scrolls in itself. It is outside of the part that is replaced, so that it stays where it is.
pub(super) fn region(label: &str, body: &Markup) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(label) { (body) }
    }
}

/// The head of a table.
pub(super) fn head(columns: &[&str]) -> Markup {
    html! {
        thead {
            tr {
                @for column in columns {
                    th scope="col" { (column) }
                }
            }
        }
    }
}

/// How many rows there are, and the way to the others.
pub(super) fn pager<T>(path: &str, filter: &Filter, page: &Page<T>) -> Markup {
    html! {
        p.count {
            @if page.found == page.all { (page.all) " in all." }
            @else { (page.found) " of " (page.all) " pass the filter." }
        }
        @if page.pages > 1 {
            nav.pager aria-label="Pages" {
                @if page.number > 1 {
                    a #previous-page href={ (path) (filter.query(page.number - 1)) } rel="prev" { "Previous" }
                }
                span { "Page " (page.number) " of " (page.pages) }
                @if page.number < page.pages {
                    a #next-page href={ (path) (filter.query(page.number + 1)) } rel="next" { "Next" }
                }
            }
        }
    }
}

/// What can be filtered by.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'a> {
    /// A text in this field of the filter: its name and label.
    Text(&'static str, &'static str),
    /// One of these: its name, its label, what there is.
    OneOf(&'static str, &'static str, &'a [&'a str]),
}

/// The form of a filter, which is in the URL.
pub(super) fn filter_form(path: &str, filter: &Filter, by: &[By<'_>]) -> Markup {
    let value = |name: &str| match name {
        "q" => &filter.q,
        "image" => &filter.image,
        "node" => &filter.node,
        _ => &filter.state,
    };
    html! {
        form.filter method="get" action=(path) role="search" aria-label="Filter" {
            @for one in by {
                @match one {
                    By::Text(name, label) => {
                        div {
                            label for={ "filter-" (name) } { (label) }
                            input id={ "filter-" (name) } name=(name) value=(value(name)) maxlength="256"
                                autocomplete="off";
                        }
                    }
                    By::OneOf(name, label, values) => {
                        div {
                            label for={ "filter-" (name) } { (label) }
                            select id={ "filter-" (name) } name=(name) {
                                option value="" { "all" }
                                @for one in *values {
                                    option value=(one) selected[value(name) == one] { (one) }
                                }
                            }
                        }
                    }
                }
            }
            button type="submit" { "Filter" }
            @if !filter.is_empty() {
                a href=(path) { "Show all" }
            }
        }
    }
}
