//! The fields of a form, as a browser sends them.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use types::ErrorKind;

use super::Refused;

/// Bytes of a form; more is refused.
pub const FORM_BYTES: usize = 64 << 10;
/// Fields of one form, and bytes of one value.
const FIELDS_MAX: usize = 256;
const VALUE_BYTES: usize = 8 << 10;

/// The fields of a form. Their `Debug` tells names alone: values may be secrets.
#[derive(Clone, Default)]
pub struct Fields(Vec<(String, String)>);

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Fields {
    /// Reads them from the body of a request.
    ///
    /// # Errors
    /// There are too many, or one is too long.
    pub fn parse(body: &[u8]) -> Result<Self, Refused> {
        let mut fields = Vec::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            if fields.len() == FIELDS_MAX || name.len() > 64 || value.len() > VALUE_BYTES {
                return Err(Refused::new(
                    ErrorKind::InvalidArgument,
                    "the form holds more than its fields can; fill it in again",
                ));
            }
            fields.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(fields))
    }

    /// The value of a field without the spaces around it; empty where it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// The value as it is: a password may begin with a space.
    pub fn raw(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// All values of a field that is there several times.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let of_name = self.0.iter().filter(move |(known, _)| known == name);
        of_name.map(|(_, value)| value.trim())
    }

    /// Whether a box is checked.
    pub fn is_checked(&self, name: &str) -> bool {
        self.text(name) == "yes"
    }

    /// A number with the unit that is beside it, as a quantity.
    pub fn quantity(&self, name: &str) -> Option<String> {
        let number = self.text(name);
        let unit = self.text(&format!("{name}_unit"));
        (!number.is_empty()).then(|| format!("{number}{unit}"))
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let kind = request.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/x-www-form-urlencoded") {
            let why = "this is for forms: application/x-www-form-urlencoded";
            return Err(Refused::new(ErrorKind::InvalidArgument, why).into_response());
        }
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| {
            let why = format!("the form could not be read: {error}");
            Refused::new(ErrorKind::InvalidArgument, why).into_response()
        })?;
        Self::parse(&body).map_err(Refused::into_response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_browsers_send_them_and_bounded() {
        let fields = Fields::parse(b"name=+v1+&size=4&size_unit=Gi&disk=a&disk=b&ok=yes").unwrap();
        assert_eq!((fields.text("name"), fields.raw("name")), ("v1", " v1 "));
        assert_eq!(fields.quantity("size").as_deref(), Some("4Gi"));
        assert_eq!(fields.quantity("other"), None);
        assert_eq!(fields.all("disk").collect::<Vec<_>>(), ["a", "b"]);
        assert!(fields.is_checked("ok") && !fields.is_checked("name"));
        assert!(Fields::parse("a=1&".repeat(300).as_bytes()).is_err());
        assert!(Fields::parse(format!("a={}", "x".repeat(10_000)).as_bytes()).is_err());
    }

    #[test]
    fn their_debug_tells_no_value() {
        let fields = Fields::parse(b"password=hunter2").unwrap();
        assert_eq!(format!("{fields:?}"), "[\"password\"]");
    }
}
