//! The requests of ssync, Longhorn's way to push a file: read and written.
//!
//! | request | means |
//! |---|---|
//! | `GET open?begin=0&directIO=BOOL&end=SIZE` | a file of SIZE bytes comes; answers `false`: there was none |
//! | `POST writeData?begin&end` | the body is the bytes of that range |
//! | `POST sendHole?begin&end` | that range is a hole |
//! | `GET getChecksum?begin&end` | the SHA-512 of a range that is data, else `null` |
//! | `GET getRecordedMetadata` | of snapshots only |
//! | `POST close?checksum=&checksumMethod=` | the sender is done, whether it succeeded or not |
//!
//! Parameters arrive in any order. This file knows neither sockets nor files.

use std::fmt::Write as _;
use std::ops::Range;

use chunks::IMAGE_SIZE_MAX;

/// What every path begins with.
pub const PREFIX: &str = "/v1-ssync/";

/// The longest range of one `writeData`. The Go sender's batches have 2 MiB; bodies are streamed, so
/// that this bounds no memory, only how much one lost request costs.
pub const WRITE_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A file of this size comes.
    Open {
        /// Bytes of the file.
        size: u64,
        /// Whether the sender reads it past the page cache; of no meaning here.
        direct_io: bool,
    },
    /// The range is a hole.
    SendHole(Range<u64>),
    /// The body holds the bytes of the range.
    WriteData(Range<u64>),
    /// The sender wants to know whether it may leave the range out.
    GetChecksum(Range<u64>),
    /// The recorded checksum of a whole snapshot.
    GetRecordedMetadata,
    /// The sender is done.
    Close,
}

/// Why a request is refused: a status code and words for the sender's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub why: String,
}

impl Refusal {
    /// A request that can never work.
    pub fn bad(why: impl Into<String>) -> Self {
        Self {
            status: 400,
            why: why.into(),
        }
    }

    /// A request that does not agree with those before it.
    pub fn conflict(why: impl Into<String>) -> Self {
        Self {
            status: 409,
            why: why.into(),
        }
    }

    pub fn failed(why: impl Into<String>) -> Self {
        Self {
            status: 500,
            why: why.into(),
        }
    }
}

impl Call {
    /// Reads a request line.
    pub fn parse(method: &str, path: &str, query: Option<&str>) -> Result<Self, Refusal> {
        let not_found = || Refusal {
            status: 404,
            why: "404 page not found".to_owned(),
        };
        let name = path.strip_prefix(PREFIX).ok_or_else(not_found)?;
        let query = query.unwrap_or_default();
        let expected = match name {
            "open" | "getChecksum" | "getRecordedMetadata" => "GET",
            "sendHole" | "writeData" | "close" => "POST",
            _ => return Err(not_found()),
        };
        if method != expected {
            return Err(Refusal {
                status: 405,
                why: format!("the request for {name} needs {expected}"),
            });
        }
        match name {
            "open" => {
                let range = range(query)?;
                if range.start != 0 || range.end == 0 {
                    return Err(Refusal::bad("a file begins at 0 and is not empty"));
                }
                let direct_io = parameter(query, "directIO").is_some_and(|value| value == "true");
                Ok(Self::Open {
                    size: range.end,
                    direct_io,
                })
            }
            "sendHole" => Ok(Self::SendHole(range(query)?)),
            "writeData" => {
                let range = range(query)?;
                if range.end - range.start > WRITE_MAX {
                    return Err(Refusal {
                        status: 413,
                        why: format!("one request carries at most {WRITE_MAX} bytes"),
                    });
                }
                Ok(Self::WriteData(range))
            }
            "getChecksum" => Ok(Self::GetChecksum(range(query)?)),
            "getRecordedMetadata" => Ok(Self::GetRecordedMetadata),
            _ => Ok(Self::Close),
        }
    }

    /// The method that the request is made with.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Open { .. } | Self::GetChecksum(_) | Self::GetRecordedMetadata => "GET",
            Self::SendHole(_) | Self::WriteData(_) | Self::Close => "POST",
        }
    }

    /// Path and query, its parameters in alphabetical order as Go writes them.
    pub fn path_and_query(&self) -> String {
        let mut text = PREFIX.to_owned();
        let written = match self {
            Self::Open { size, direct_io } => {
                write!(text, "open?begin=0&directIO={direct_io}&end={size}")
            }
            Self::SendHole(range) => {
                write!(text, "sendHole?begin={}&end={}", range.start, range.end)
            }
            Self::WriteData(range) => {
                write!(text, "writeData?begin={}&end={}", range.start, range.end)
            }
            Self::GetChecksum(range) => {
                write!(text, "getChecksum?begin={}&end={}", range.start, range.end)
            }
            Self::GetRecordedMetadata => write!(text, "getRecordedMetadata"),
            Self::Close => write!(text, "close?checksum=&checksumMethod="),
        };
        written.expect("a String takes all that is written to it");
        text
    }
}

/// The first value of a parameter.
fn parameter(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// `begin` and `end`, which must be a range of a file that can be an image.
fn range(query: &str) -> Result<Range<u64>, Refusal> {
    let number = |name| {
        let text = parameter(query, name).ok_or_else(|| Refusal::bad(format!("no {name}")))?;
        let number = text.parse::<i64>();
        let number = number.ok().and_then(|number| u64::try_from(number).ok());
        number
            .filter(|number| *number <= IMAGE_SIZE_MAX)
            .ok_or_else(|| {
                Refusal::bad(format!("{name} is not a number from 0 to {IMAGE_SIZE_MAX}"))
            })
    };
    let (begin, end) = (number("begin")?, number("end")?);
    if begin > end {
        return Err(Refusal::bad(format!("{begin} to {end} is not a range")));
    }
    Ok(begin..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(method: &str, target: &str) -> Result<Call, Refusal> {
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        Call::parse(method, path, query)
    }

    #[test]
    fn parameters_come_in_any_order_and_unknown_ones_are_no_matter() {
        let open = Call::Open {
            size: 8_388_608,
            direct_io: true,
        };
        for query in [
            "begin=0&directIO=true&end=8388608",
            "end=8388608&begin=0&directIO=true",
            "directIO=true&x=y&end=8388608&end=1&begin=%30",
        ] {
            assert_eq!(
                parse("GET", &format!("/v1-ssync/open?{query}")),
                Ok(open.clone())
            );
        }
        assert_eq!(
            parse("POST", "/v1-ssync/writeData?end=9&begin=4"),
            Ok(Call::WriteData(4..9))
        );
        assert_eq!(
            parse("POST", "/v1-ssync/close?checksumMethod=crc32&checksum=ab"),
            Ok(Call::Close)
        );
        assert_eq!(parse("POST", "/v1-ssync/close"), Ok(Call::Close));
    }

    /// Row 52: wrong offsets, negative holes, endless ranges.
    #[test]
    fn row_52_hostile_ranges_are_refused() {
        let huge = u64::MAX.to_string();
        for query in [
            "",
            "begin=0",
            "end=5",
            "begin=-4096&end=0",
            "begin=0&end=-1",
            "begin=9&end=8",
            "begin=x&end=8",
            "begin=0x10&end=20",
            "begin=0&end=9223372036854775807",
            &format!("begin=0&end={huge}"),
            "begin=+&end=8",
            "begin=&end=",
        ] {
            for name in ["sendHole", "writeData"] {
                let refused = parse("POST", &format!("/v1-ssync/{name}?{query}"));
                assert_eq!(refused.unwrap_err().status, 400, "{query}");
            }
        }
        for query in ["begin=1&end=8", "begin=0&end=0"] {
            assert!(
                parse("GET", &format!("/v1-ssync/open?{query}")).is_err(),
                "{query}"
            );
        }
        let long = format!("/v1-ssync/writeData?begin=0&end={}", WRITE_MAX + 1);
        assert_eq!(parse("POST", &long).unwrap_err().status, 413);
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        for (method, target, status) in [
            ("GET", "/", 404),
            ("GET", "/v1-ssync/", 404),
            ("GET", "/v1-ssync/writeMetaFile", 404),
            ("GET", "/v1-ssync/../v1/files", 404),
            ("GET", "/v1-ssync/close", 405),
            ("POST", "/v1-ssync/open?begin=0&end=1", 405),
        ] {
            assert_eq!(
                parse(method, target).unwrap_err().status,
                status,
                "{target}"
            );
        }
    }

    /// As the incumbent's sender wrote them in the recorded session.
    #[test]
    fn what_is_written_is_what_was_recorded() {
        let recorded = [
            (
                Call::Open {
                    size: 8_388_608,
                    direct_io: false,
                },
                "GET /v1-ssync/open?begin=0&directIO=false&end=8388608",
            ),
            (
                Call::WriteData(0..8192),
                "POST /v1-ssync/writeData?begin=0&end=8192",
            ),
            (
                Call::SendHole(5_259_264..8_388_608),
                "POST /v1-ssync/sendHole?begin=5259264&end=8388608",
            ),
            (
                Call::Close,
                "POST /v1-ssync/close?checksum=&checksumMethod=",
            ),
        ];
        for (call, line) in recorded {
            assert_eq!(format!("{} {}", call.method(), call.path_and_query()), line);
        }
    }

    proptest! {
        #[test]
        fn any_request_line_is_read_or_refused(method in "GET|POST|PUT", name in "\\PC{0,12}", query in "\\PC{0,64}") {
            let _ = Call::parse(&method, &format!("{PREFIX}{name}"), Some(&query));
        }

        #[test]
        fn what_is_written_is_read_back(begin in 0..1_u64 << 40, length in 0..WRITE_MAX) {
            for call in [Call::WriteData(begin..begin + length), Call::SendHole(begin..begin + length)] {
                prop_assert_eq!(parse(call.method(), &call.path_and_query()), Ok(call));
            }
        }
    }
}
