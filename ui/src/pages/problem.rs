//! The page that is shown in place of another.

use axum::http::StatusCode;
use maud::{Markup, html};

use super::document;

/// A page that says why there is no other: `sentence` is of who refused, unchanged.
pub fn problem(status: StatusCode, sentence: &str) -> Markup {
    let title = status.canonical_reason().unwrap_or("Error");
    document(
        title,
        &html! {
            header { a.brand href="/" { "Longhorn base images" } }
            main #main tabindex="-1" {
                h1 { (title) }
                p.error { (sentence) }
                p { "HTTP status " (status.as_u16()) "." }
                p {
                    a href="/" { "Go to the overview" }
                    @if status == StatusCode::UNAUTHORIZED {
                        " or " a href="/login" { "sign in" }
                    }
                    "."
                }
            }
        },
    )
}
