//! `Content-Range` (RFC 9110 section 14.4): which part of a resource was sent.

use reqwest::header::HeaderValue;

/// `bytes FIRST-LAST/TOTAL`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    first: u64,
    last: u64,
    /// Absent when the server wrote `*`.
    pub(crate) total: Option<u64>,
}

impl ContentRange {
    pub(crate) fn parse(value: &HeaderValue) -> Option<Self> {
        let text = value
            .to_str()
            .ok()?
            .trim()
            .strip_prefix("bytes")?
            .trim_start();
        let (range, total) = text.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = match total.trim() {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last && total.is_none_or(|total| last < total)).then_some(Self {
            first,
            last,
            total,
        })
    }

    /// Whether it goes on at `offset` of a thing of `size` bytes; with an unknown size any will do.
    pub(crate) fn fits(&self, offset: u64, size: Option<u64>) -> bool {
        let whole =
            size.is_none_or(|size| self.last < size && self.total.is_none_or(|t| t == size));
        self.first == offset && whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_range_that_continues_exactly_fits() {
        let fits = |text: &'static str| {
            ContentRange::parse(&HeaderValue::from_static(text))
                .is_some_and(|r| r.fits(10, Some(100)))
        };
        assert!(fits("bytes 10-99/100") && fits("bytes 10-99/*") && fits("bytes 10-49/100"));
        for bad in [
            "bytes 9-99/100",
            "bytes 11-99/100",
            "bytes 10-100/101",
            "bytes 10-99/101",
            "bytes */100",
            "",
            "bytes 10-9/100",
            "items 10-99/100",
            "bytes 10-/100",
            "bytes -10/100",
            "bytes 10-100/100",
        ] {
            assert!(!fits(bad), "{bad:?} was taken");
        }
    }
}
