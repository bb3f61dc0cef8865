//! One transfer: its position, whether it may be resumed, and when it is complete.

use bytes::Bytes;
use futures_util::{Stream, stream};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Method, Response, StatusCode};

use super::Source;
use crate::answer::{next_chunk, status_error};
use crate::network::{Ask, Network};
use crate::range::ContentRange;
use crate::retry::Retry;
use crate::{Error, Result};

/// A download under way.
#[derive(Debug)]
pub struct Download {
    network: Network,
    source: Source,
    name: String,
    limit: u64,
    size: Option<u64>,
    content_type: Option<String>,
    validator: Option<Validator>,
    offset: u64,
    response: Option<Response>,
    /// Bytes at the start of the response that we have already.
    skip: u64,
    ended: bool,
    retry: Retry,
}

/// What tells one version of a thing from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Validator {
    header: HeaderName,
    value: HeaderValue,
}

impl Validator {
    /// A strong `ETag`, else a date.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let strong = headers
            .get(ETAG)
            .filter(|value| value.as_bytes().starts_with(b"\""));
        let tag = strong.map(|value| Self {
            header: ETAG,
            value: value.clone(),
        });
        let date = headers.get(LAST_MODIFIED);
        tag.or_else(|| {
            date.map(|value| Self {
                header: LAST_MODIFIED,
                value: value.clone(),
            })
        })
    }
}

/// Whether a body is what its URL names, by its `Content-Encoding`. Some words there change nothing:
/// stores repeat `aws-chunked`, which was how the object came to them. `gzip`: it may be said of a .gz
/// file that is sent as it is.
fn is_as_it_is(headers: &HeaderMap, gzip: bool) -> bool {
    let all = headers.get_all(CONTENT_ENCODING).iter();
    let words = all.map(|value| value.to_str().unwrap_or("unreadable"));
    let words = words.flat_map(|text| text.split(',').map(|word| word.trim().to_ascii_lowercase()));
    let mut real =
        words.filter(|word| !matches!(word.as_str(), "" | "identity" | "none" | "aws-chunked"));
    match real.next() {
        None => true,
        Some(word) => gzip && matches!(word.as_str(), "gzip" | "x-gzip") && real.next().is_none(),
    }
}

impl Download {
    /// Connects and reads the head of the answer. More than `limit` bytes are refused, at once where
    /// the server announces them.
    pub async fn start(network: &Network, source: &Source, limit: u64) -> Result<Self> {
        let mut download = Self {
            retry: Retry::new(network.tuning()),
            network: network.clone(),
            source: source.clone(),
            name: source.to_string(),
            limit,
            size: None,
            content_type: None,
            validator: None,
            offset: 0,
            response: None,
            skip: 0,
            ended: false,
        };
        loop {
            match download.connect().await {
                Ok(()) => return Ok(download),
                Err(error) => download.retry.after(&download.name, error).await?,
            }
        }
    }

    /// How many bytes the server announced.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// How many bytes have come.
    pub const fn received(&self) -> u64 {
        self.offset
    }

    /// What the server calls it: an HTML page here is a login page rather than a disk.
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// What the server says that it is when that is no disk: a page for people, an answer for programs,
    /// an archive.
    pub fn is_no_disk(&self) -> Option<&'static str> {
        let said = self.content_type()?.split(';').next()?.trim();
        let said = said.to_ascii_lowercase();
        Some(match said.as_str() {
            "text/html" | "application/xhtml+xml" => "an HTML page, perhaps a login page",
            "application/json" | "application/problem+json" | "text/json" => "JSON",
            "application/xml" | "text/xml" | "application/problem+xml" => "XML",
            "application/zip" | "application/x-zip-compressed" => "a zip archive",
            "application/x-7z-compressed" => "a 7z archive",
            "application/vnd.git-lfs+json" => "a pointer of git-lfs",
            _ => return None,
        })
    }

    /// The next bytes; `None` after the last one, when as many came as were announced.
    ///
    /// A call that is dropped loses nothing.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while !self.ended {
            match self.next().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.response = None;
                    self.retry.after(&self.name, error).await?;
                }
            }
        }
        Ok(None)
    }

    /// All chunks, for [`crate::BlockingReader`] and other consumers of streams.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        stream::try_unfold(self, async |mut download| {
            Ok(download.chunk().await?.map(|chunk| (chunk, download)))
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.response.is_none() {
            self.connect().await?;
        }
        let stall = self.source.options().stall(self.network.tuning());
        let Some(response) = &mut self.response else {
            return Ok(None);
        };
        let Some(mut chunk) = next_chunk(&self.name, response, self.offset, stall).await? else {
            return match self.size {
                Some(size) if self.offset < size => {
                    let (what, received) = (self.name.clone(), self.offset);
                    Err(Error::Interrupted {
                        what,
                        received,
                        source: None,
                    })
                }
                _ => Ok(None),
            };
        };
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        let chunk = chunk.split_off(usize::try_from(skipped).expect("not more than the chunk has"));
        let end = self.offset + chunk.len() as u64;
        if end > self.limit {
            return Err(self.too_large());
        }
        if let Some(size) = self.size
            && end > size
        {
            return Err(Error::Size {
                what: self.name.clone(),
                expected: size,
                actual: end,
            });
        }
        if !chunk.is_empty() {
            self.offset = end;
            self.retry.progressed(chunk.len());
        }
        Ok(Some(chunk))
    }

    /// The first request, or one for the rest.
    async fn connect(&mut self) -> Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.offset > 0 {
            let Some(validator) = &self.validator else {
                return Err(self.changed(
                    "the server sends neither an ETag nor a date to distinguish \
                                  versions",
                ));
            };
            let last = self
                .size
                .map(|size| (size - 1).to_string())
                .unwrap_or_default();
            let range = format!("bytes={}-{last}", self.offset);
            headers.insert(
                RANGE,
                HeaderValue::from_str(&range).expect("digits are ASCII"),
            );
            headers.insert(IF_RANGE, validator.value.clone());
        }
        let options = self.source.options();
        let trust = options.trust(&self.network, self.source.url());
        let ask = Ask {
            what: &self.name,
            method: Method::GET,
            url: self.source.url().clone(),
            headers,
            authorization: self.source.authorization(),
            private: options.headers(),
            trust: &trust,
            proxy: options.proxy(),
            stall: options.stall(self.network.tuning()),
            body: &|| None,
        };
        let response = self.network.ask(ask).await?;
        self.accept(response)
    }

    fn accept(&mut self, response: Response) -> Result<()> {
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            let why = "the server requires a user and a password".to_owned();
            return Err(Error::Unauthenticated {
                what: self.name.clone(),
                why,
            });
        }
        if self.offset > 0 && status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(self.changed("the server no longer has that many bytes"));
        }
        if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Err(status_error(&self.name, &response));
        }
        if !is_as_it_is(response.headers(), self.source.options().takes_gzip()) {
            let why = "it is compressed (Content-Encoding) although the request did not ask for \
                       it; if the file itself is a .gz, use --decompress gzip";
            return Err(Error::Answer {
                what: self.name.clone(),
                why,
            });
        }
        if self.offset > 0 {
            self.accept_rest(response)
        } else {
            self.accept_first(response)
        }
    }

    fn accept_first(&mut self, response: Response) -> Result<()> {
        if response.status() != StatusCode::OK {
            let why = "the server sent a part of the file, and the whole was requested";
            return Err(Error::Answer {
                what: self.name.clone(),
                why,
            });
        }
        let headers = response.headers();
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        self.content_type = content_type.map(|text| text.chars().take(128).collect());
        self.validator = Validator::of(headers);
        self.size = response.content_length();
        if self.size.is_some_and(|size| size > self.limit) {
            return Err(self.too_large());
        }
        self.skip = 0;
        self.response = Some(response);
        Ok(())
    }

    fn accept_rest(&mut self, response: Response) -> Result<()> {
        let headers = response.headers();
        let same = Validator::of(headers);
        let same_version = same == self.validator;
        if response.status() == StatusCode::OK {
            // The whole again: usable only when it is provably the same bytes.
            let strong = same.is_some_and(|validator| validator.header == ETAG);
            if !(same_version && strong && response.content_length() == self.size) {
                return Err(
                    self.changed("the server sends the whole again, and not provably the same")
                );
            }
            self.skip = self.offset;
            self.response = Some(response);
            return Ok(());
        }
        // A 206 may leave its validator out (RFC 9110 section 15.3.7), but not give another.
        if !same_version && Validator::of(headers).is_some() {
            return Err(self.changed("its ETag or date is another one now"));
        }
        let range = headers.get(CONTENT_RANGE).and_then(ContentRange::parse);
        let Some(range) = range.filter(|range| range.fits(self.offset, self.size)) else {
            return Err(self.changed("the server sent a different range than requested"));
        };
        self.size = self.size.or(range.total);
        self.skip = 0;
        self.response = Some(response);
        Ok(())
    }

    fn changed(&self, why: &'static str) -> Error {
        Error::Changed {
            what: self.name.clone(),
            received: self.offset,
            why,
        }
    }

    fn too_large(&self) -> Error {
        Error::TooLarge {
            what: self.name.clone(),
            limit: self.limit,
        }
    }
}
