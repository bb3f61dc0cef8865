//! Pages as answers.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use maud::Markup;

use crate::pages;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// Kept by the browser of who has asked, and asked for again each time.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("private, no-cache");

/// A page or a part of one, or 304 for whoever has it already (RFC 9110, section 13.1.2).
pub fn answer(asked: &HeaderMap, markup: Markup) -> Response {
    let body = markup.into_string();
    // Weak: the bytes are compressed for some.
    let tag = format!("W/\"{}\"", digest(body.as_bytes()));
    let mut response = if is_known(asked, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, HTML)], body).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, ASK_AGAIN);
    if let Ok(tag) = tag.try_into() {
        headers.insert(ETAG, tag);
    }
    response
}

/// A page in place of another one, with the sentence of whoever refuses.
pub fn problem(status: StatusCode, sentence: &str) -> Response {
    let body = pages::problem(status, sentence).into_string();
    (status, [(CONTENT_TYPE, HTML)], body).into_response()
}

/// Half of SHA-256 in hexadecimal digits: nobody gains by a page that looks like another one.
fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut text = String::new();
    for byte in &digest.as_ref()[..16] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn is_known(asked: &HeaderMap, tag: &str) -> bool {
    let opaque = tag.trim_start_matches("W/");
    let listed = asked.get_all(IF_NONE_MATCH).into_iter();
    listed
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| one.trim() == "*" || one.trim().trim_start_matches("W/") == opaque)
}

#[cfg(test)]
mod tests {
    use maud::html;

    use super::*;

    #[test]
    fn whoever_has_a_page_gets_304_and_a_changed_page_is_sent() {
        let first = answer(&HeaderMap::new(), html! { p { "4 GiB" } });
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.headers()[CACHE_CONTROL], ASK_AGAIN);
        let mut asked = HeaderMap::new();
        asked.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        let again = answer(&asked, html! { p { "4 GiB" } });
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[ETAG], first.headers()[ETAG]);
        assert!(again.headers().get(CONTENT_TYPE).is_none());
        let changed = answer(&asked, html! { p { "8 GiB" } });
        assert_eq!(changed.status(), StatusCode::OK);
        let both = format!("\"x\", {}", first.headers()[ETAG].to_str().unwrap());
        asked.insert(IF_NONE_MATCH, both.try_into().unwrap());
        let known = answer(&asked, html! { p { "4 GiB" } });
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    }
}
