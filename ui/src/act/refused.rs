//! An answer that says why something was not done.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use types::{Classify, ErrorKind, report};

use super::once;
use crate::pages::{self, Refusal};

/// Why something was not done, on a page of its own.
#[derive(Debug, Clone)]
pub struct Refused(pub Refusal);

/// The result of a handler.
pub type Answered<T = Response> = Result<T, Refused>;

impl Refused {
    /// For this reason, of no field.
    pub fn new(kind: ErrorKind, sentence: impl Into<String>) -> Self {
        let sentence = sentence.into();
        Self(Refusal {
            field: "",
            sentence,
            kind,
        })
    }

    /// There is nothing of that name.
    pub fn missing(what: &str, name: &str) -> Self {
        let sentence = format!(
            "there is no {what} {:?}; look at the list",
            types::shown(name)
        );
        Self::new(ErrorKind::NotFound, sentence)
    }
}

impl From<client::Error> for Refused {
    fn from(error: client::Error) -> Self {
        Self(refusal("", &error))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = status_of(self.0.kind);
        let sentence = format!("{} ({})", self.0.sentence, pages::code(self.0.kind));
        once(status, &pages::problem(status, &sentence))
    }
}

/// What an error says, beside a field.
pub fn refusal(field: &'static str, error: &(impl Classify + 'static)) -> Refusal {
    Refusal {
        field,
        sentence: report(error).to_string(),
        kind: error.kind(),
    }
}

/// The HTTP status of a kind of error.
pub const fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidArgument | ErrorKind::OutOfRange | ErrorKind::AlreadyExists => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::FailedPrecondition | ErrorKind::Aborted => StatusCode::CONFLICT,
        ErrorKind::ResourceExhausted => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        // Of a registry, or of this program at a manager: the person is signed in, and may.
        ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => StatusCode::BAD_GATEWAY,
        ErrorKind::DataLoss | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The status of a form that is drawn again: it was refused for what is in it, unless nobody answered.
pub const fn status_of_form(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}
