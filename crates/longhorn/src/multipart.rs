//! The form of an upload: multipart/form-data whose part `chunk` contains the image. Browsers, curl
//! and Longhorn's own clients send it. Other parts are skipped.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use futures_util::StreamExt as _;
use multer::Multipart;
use types::report;

use crate::error::{Error, Result};
use catalog::source::Bringer;

/// The part that holds the image.
const PART: &str = "chunk";
/// Parts that are looked at: a form has a few.
const PARTS_MAX: usize = 64;
/// What is read behind the image, so that a client gets the answer and not a broken connection.
const REST_MAX: usize = 1 << 20;

/// A form that is being sent.
pub struct Form<'a>(Multipart<'a>);

impl std::fmt::Debug for Form<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Form").finish_non_exhaustive()
    }
}

fn wrong(why: String) -> Error {
    Error::InvalidField { field: "body", why }
}

fn broken(error: &multer::Error) -> Error {
    wrong(format!("the form broke off: {}", report(error)))
}

impl Form<'_> {
    /// The form that a request's body is.
    pub fn new(headers: &HeaderMap, body: Body) -> Result<Self> {
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let boundary = content_type.and_then(|value| multer::parse_boundary(value).ok());
        let boundary = boundary.ok_or_else(|| {
            wrong(format!(
                "it must be multipart/form-data with a part {PART:?}, as `curl -F {PART}=@FILE` \
                 sends it"
            ))
        })?;
        Ok(Self(Multipart::new(body.into_data_stream(), boundary)))
    }

    /// Brings the part that holds the image.
    pub async fn bring(mut self, mut bringer: Bringer) -> Result<()> {
        for _ in 0..PARTS_MAX {
            let field = self.0.next_field().await.map_err(|error| broken(&error))?;
            let Some(mut field) = field else { break };
            if field.name() != Some(PART) {
                continue;
            }
            while let Some(bytes) = field.next().await {
                bringer
                    .bring(bytes.map_err(|error| broken(&error))?)
                    .await?;
            }
            drop(field);
            bringer.end().await?;
            self.drain().await;
            return Ok(());
        }
        Err(wrong(format!("the form has no part {PART:?}")))
    }

    /// Reads on for a while; what comes behind the image is of no matter.
    async fn drain(mut self) {
        let mut rest = 0;
        while let Ok(Some(mut field)) = self.0.next_field().await {
            while let Some(Ok(bytes)) = field.next().await {
                rest += Bytes::len(&bytes);
                if rest > REST_MAX {
                    return;
                }
            }
        }
    }
}
