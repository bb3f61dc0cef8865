//! The reason of a registry for a rejection, limited to well-known codes.
//!
//! The body of a rejection is never shown: otherwise a user who can name a registry could read data
//! that only this program can reach. The codes in the list below reveal only what the authors of
//! the registry intended.

use reqwest::Response;
use serde::Deserialize;

use crate::Error;
use crate::answer::{small_body, status_error};
use crate::network::Tuning;

/// The most bytes of a body that are looked at.
const BODY_MAX: u64 = 64 << 10;

/// The OCI distribution specification 1.1 ("Error Codes"), then what Docker's registry and Harbor say
/// besides.
const CODES: [&str; 30] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
    "MANIFEST_UNVERIFIED",
    "PAGINATION_NUMBER_INVALID",
    "RANGE_INVALID",
    "TAG_INVALID",
    "UNAVAILABLE",
    "UNKNOWN",
    "BAD_REQUEST",
    "CONFLICT",
    "FORBIDDEN",
    "INTERNAL_SERVER_ERROR",
    "METHOD_NOT_ALLOWED",
    "NOT_FOUND",
    "PRECONDITION",
    "PROJECTPOLICYVIOLATION",
    "QUOTA_EXCEEDED",
    "TAG_IMMUTABLE",
];

/// What an answer that is no success means. Reads its body, within bounds; one that cannot be read says
/// nothing.
pub(super) async fn refused(what: &str, response: Response, tuning: Tuning) -> Error {
    let error = status_error(what, &response);
    let body = small_body(what, response, BODY_MAX, tuning.stall_timeout).await;
    error.with_code(body.ok().as_deref().and_then(code))
}

/// The first code of a body that is one of the list.
fn code(body: &[u8]) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: serde_json::Value,
    }
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<One>,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let mut said = body.errors.iter().filter_map(|one| one.code.as_str());
    said.find_map(|said| CODES.into_iter().find(|code| *code == said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_170_only_known_codes_are_repeated() {
        let of = |text: &str| code(text.as_bytes());
        let one = r#"{"errors":[{"code":"TAG_INVALID","message":"hunter2","detail":{}}]}"#;
        assert_eq!(of(one), Some("TAG_INVALID"));
        let second = r#"{"errors":[{"code":null},{"message":"x"},{"code":"DENIED"}]}"#;
        assert_eq!(of(second), Some("DENIED"));
        for nothing in [
            "",
            "<Error><Code>AccessDenied</Code></Error>",
            r#"{"errors":[]}"#,
            r#"{"errors":null}"#,
            r#"{"errors":[{"code":"hunter2"}]}"#,
            r#"{"errors":[{"code":"tag_invalid"}]}"#,
            r#"{"errors":[{"code":7}]}"#,
            r#"{"code":"DENIED"}"#,
        ] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }
}
