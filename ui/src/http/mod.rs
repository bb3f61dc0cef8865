//! Answers of HTTP.

use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse as _, Response};
use maud::Markup;

/// A page or a part of one.
pub fn answer(_: &HeaderMap, markup: Markup) -> Response {
    Html(markup.into_string()).into_response()
}
