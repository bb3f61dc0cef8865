//! The files that pages need: they are part of the program.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

/// A file: its name, its type, its bytes.
const FILES: &[(&str, &str, &[u8])] = &[
    (
        "htmx.min.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../assets/htmx.min.js"),
    ),
    (
        "ui.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../assets/ui.js"),
    ),
    (
        "ui.css",
        "text/css; charset=utf-8",
        include_bytes!("../assets/ui.css"),
    ),
    ("icon.svg", "image/svg+xml", ICON),
];

const ICON: &[u8] = include_bytes!("../assets/icon.svg");

/// A file by its name.
pub async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, bytes)) => served(kind, bytes),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What browsers ask for by themselves: without it each page has an error on its console.
pub async fn favicon() -> Response {
    served("image/svg+xml", ICON)
}

/// Not for long: a new version of the program has new files under the same names.
fn served(kind: &'static str, bytes: &'static [u8]) -> Response {
    let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "max-age=300")];
    (headers, bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of the files of others, as LICENSES.md names them.
    const FOREIGN: &[(&str, &str)] = &[(
        "htmx.min.js",
        "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    )];

    #[test]
    fn files_of_others_are_the_ones_that_were_looked_at() {
        for (name, expected) in FOREIGN {
            let (_, _, bytes) = FILES.iter().find(|(known, ..)| known == name).unwrap();
            let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
            let hex: String = digest
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(hex, *expected, "{name}");
            assert!(include_str!("../assets/LICENSES.md").contains(name));
        }
    }

    #[test]
    fn our_script_makes_no_code_and_takes_none() {
        let script = include_str!("../assets/ui.js");
        for word in ["eval(", "innerHTML", "Function(", "document.write"] {
            assert!(!script.contains(word), "{word}");
        }
    }
}
