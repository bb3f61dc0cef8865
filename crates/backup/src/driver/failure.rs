//! From what the client of the object stores says to an error for people.

use types::report;

use super::http::Refusal;
use crate::Error;

/// Codes of a request that was not believed: the key, its secret, or the time.
const NOT_BELIEVED: [&str; 8] = [
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "RequestTimeTooSkewed",
    "ExpiredToken",
    "InvalidToken",
    "AuthFailure",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
];
/// Codes of a bucket that is somewhere else.
const ELSEWHERE: [&str; 4] = [
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
];
/// Codes of a store without space.
const FULL: [&str; 4] = [
    "XMinioStorageFull",
    "QuotaExceeded",
    "InsufficientCapacity",
    "EntityTooLarge",
];

/// What went wrong with `operation` on `key`.
pub(super) fn error(operation: &'static str, key: &str, error: &object_store::Error) -> Error {
    let key = key.to_owned();
    let text = report(error).to_string();
    let Some(Refusal { status, code }) = Refusal::in_text(&text) else {
        return match error {
            object_store::Error::NotFound { .. } => Error::NoObject { key },
            // No answer, or one that is none.
            _ => Error::Unavailable {
                operation,
                key,
                why: innermost(error),
            },
        };
    };
    let word = code.as_deref().unwrap_or_default();
    let why = match status {
        _ if NOT_BELIEVED.contains(&word) => {
            return Error::Unauthenticated {
                operation,
                key,
                code,
            };
        }
        _ if FULL.contains(&word) => return Error::Full { operation, key },
        507 => return Error::Full { operation, key },
        _ if ELSEWHERE.contains(&word) => {
            format!(
                "the bucket is in another region or at another endpoint ({word}); correct the address"
            )
        }
        404 if word == "NoSuchBucket" || word == "ContainerNotFound" => {
            "the bucket does not exist; create it, or correct the address".to_owned()
        }
        404 => return Error::NoObject { key },
        401 => {
            return Error::Unauthenticated {
                operation,
                key,
                code,
            };
        }
        403 => {
            return Error::Denied {
                operation,
                key,
                code,
            };
        }
        300..=399 => {
            format!(
                "the store answered with a redirect ({status}); correct the endpoint or the region"
            )
        }
        408 | 429 | 500 | 502..=504 => {
            let why = said(status, word);
            return Error::Unavailable {
                operation,
                key,
                why,
            };
        }
        405 | 501 => format!(
            "the store cannot do this: it answered with {}",
            said(status, word)
        ),
        _ => format!("the store answered with {}", said(status, word)),
    };
    Error::Answer {
        operation,
        key,
        why,
    }
}

fn said(status: u16, code: &str) -> String {
    match code {
        "" => format!("status {status}"),
        code => format!("status {status} ({code})"),
    }
}

/// The cause of all: what is around it names the client's own parts.
fn innermost(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string().chars().take(200).collect()
}
