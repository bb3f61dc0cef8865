//! Placeholder of the pages.
use axum::http::StatusCode;
use maud::{Markup, html};
/// A problem.
pub fn problem(status: StatusCode, sentence: &str) -> Markup {
    html! { h1 { (status) } p { (sentence) } }
}
/// The page to sign in.
pub fn login(by_password: bool, why: Option<&str>, next: &str) -> Markup {
    html! { form { (by_password) (why.unwrap_or_default()) (next) } }
}
