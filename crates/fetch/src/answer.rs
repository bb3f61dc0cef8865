//! What an answer means by its status, and reading its body within bounds.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::RETRY_AFTER;

use crate::{Error, Result};

/// What a status that is not a success means; the body is not read.
pub(crate) fn status_error(what: &str, response: &Response) -> Error {
    let (what, code) = (what.to_owned(), None);
    let length = response.content_length();
    let status = response.status().as_u16();
    match status {
        403 => Error::Denied { what, code },
        404 | 410 => Error::NotFound { what, code },
        408 | 425 | 429 | 500 | 502..=504 => {
            let seconds = response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok());
            let seconds = seconds.and_then(|text| text.trim().parse().ok());
            Error::Unavailable {
                what,
                status,
                length,
                code,
                retry_after: seconds.map(Duration::from_secs),
            }
        }
        _ => Error::Status {
            what,
            status,
            length,
            code,
        },
    }
}

/// The most time that a small body may take: one that drips is not waited for.
const SMALL_BODY_TIME: Duration = Duration::from_mins(1);

/// Reads a whole small body, at most `limit` bytes of it.
pub(crate) async fn small_body(
    what: &str,
    mut response: Response,
    limit: u64,
    stall: Duration,
) -> Result<Vec<u8>> {
    let too_large = || Error::TooLarge {
        what: what.to_owned(),
        limit,
    };
    if response
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(too_large());
    }
    let read = async {
        let mut body = Vec::new();
        loop {
            match next_chunk(what, &mut response, body.len() as u64, stall).await? {
                None => return Ok(body),
                Some(chunk) if (body.len() + chunk.len()) as u64 > limit => return Err(too_large()),
                Some(chunk) => body.extend_from_slice(&chunk),
            }
        }
    };
    match tokio::time::timeout(SMALL_BODY_TIME, read).await {
        Ok(body) => body,
        Err(_) => Err(Error::Stalled {
            what: what.to_owned(),
            after: SMALL_BODY_TIME,
        }),
    }
}

/// The next bytes of a body, within the time that a stall takes.
pub(crate) async fn next_chunk(
    what: &str,
    response: &mut Response,
    received: u64,
    stall: Duration,
) -> Result<Option<bytes::Bytes>> {
    match tokio::time::timeout(stall, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(error)) => {
            let (what, source) = (what.to_owned(), Some(error.without_url()));
            Err(Error::Interrupted {
                what,
                received,
                source,
            })
        }
        Err(_) => Err(Error::Stalled {
            what: what.to_owned(),
            after: stall,
        }),
    }
}
