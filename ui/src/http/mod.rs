//! Answers of HTTP: headers, entity tags, pages in place of others, bounds of a request, and TLS.
//!
//! What a page shows, and who may see it, is not known here.

mod answer;
mod headers;
mod outer;
mod tls;

pub use answer::{answer, problem};
pub use outer::{outer, serve};
pub use tls::{Files, watch};
