//! The form of an upload without scripts: `multipart/form-data` (RFC 7578) with the file as its last part.
//!
//! The size of the file must be known before its first byte is passed on. It follows from the length of the body:
//! what comes before the file has been read, and what follows it is the last boundary alone.

/// Bytes before the file: the other fields.
pub(super) const HEAD_BYTES: usize = 64 << 10;

/// What comes before the bytes of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The other fields, and their values.
    pub(super) fields: Vec<(String, String)>,
    /// The name of the file.
    pub(super) file_name: String,
    /// Where in the body the file begins.
    pub(super) file_at: usize,
}

/// The boundary that a `Content-Type` names (RFC 2046, section 5.1.1).
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let (_, rest) = content_type.split_once("boundary=")?;
    let boundary = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split(';').next()?.trim(),
    };
    let length = (1..=70).contains(&boundary.len());
    (length && boundary.bytes().all(|byte| byte.is_ascii_graphic())).then_some(boundary)
}

/// What follows the file.
pub(super) fn tail(boundary: &str) -> Vec<u8> {
    format!("\r\n--{boundary}--\r\n").into_bytes()
}

/// Reads the beginning of a body. `Ok(None)`: more of it is needed.
///
/// # Errors
/// It is no such form.
pub(super) fn head(body: &[u8], boundary: &str) -> Result<Option<Head>, &'static str> {
    const ODD: &str = "the form is not multipart/form-data with a file as its last field";
    let first = format!("--{boundary}\r\n");
    let next = format!("\r\n--{boundary}\r\n");
    if body.len() < first.len() {
        return Ok(None);
    }
    let mut at = first.len();
    if body[..at] != *first.as_bytes() {
        return Err(ODD);
    }
    let mut fields = Vec::new();
    loop {
        let Some(end) = find(&body[at..], b"\r\n\r\n") else {
            return Ok(None);
        };
        let headers = std::str::from_utf8(&body[at..at + end]).map_err(|_| ODD)?;
        let value_at = at + end + 4;
        let disposition = headers.split("\r\n").find(|line| {
            line.to_ascii_lowercase()
                .starts_with("content-disposition:")
        });
        let disposition = disposition.ok_or(ODD)?;
        let name = parameter(disposition, "name").ok_or(ODD)?;
        if let Some(file_name) = parameter(disposition, "filename") {
            return Ok(Some(Head {
                fields,
                file_name,
                file_at: value_at,
            }));
        }
        let Some(length) = find(&body[value_at..], next.as_bytes()) else {
            return Ok(None);
        };
        let value = std::str::from_utf8(&body[value_at..value_at + length]).map_err(|_| ODD)?;
        if fields.len() == 16 {
            return Err(ODD);
        }
        fields.push((name, value.to_owned()));
        at = value_at + length + next.len();
    }
}

/// A quoted parameter of a header. Browsers write `"` in names as `%22`.
fn parameter(header: &str, name: &str) -> Option<String> {
    let start = format!("; {name}=\"");
    let (_, rest) = header.split_once(&start)?;
    Some(rest.split('"').next()?.to_owned())
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] =
        b"--x1\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nbase\r\n--x1\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a;b.img\"\r\n\
        Content-Type: application/octet-stream\r\n\r\nBYTES\r\n--x1--\r\n";

    #[test]
    fn the_head_is_found_however_it_is_cut() {
        let expected = Head {
            fields: vec![("name".to_owned(), "base".to_owned())],
            file_name: "a;b.img".to_owned(),
            file_at: BODY.len() - b"BYTES\r\n--x1--\r\n".len(),
        };
        for length in 0..=BODY.len() {
            let read = head(&BODY[..length], "x1").unwrap();
            if length >= expected.file_at {
                assert_eq!(read.as_ref(), Some(&expected), "{length}");
            } else {
                assert_eq!(read, None, "{length}");
            }
        }
        assert!(BODY.ends_with(&tail("x1")));
    }

    #[test]
    fn what_is_no_such_form_is_refused() {
        for body in [
            &b"--x2\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n"[..],
            b"--x1\r\nX: y\r\n\r\n",
            b"--x1\r\nContent-Disposition: form-data\r\n\r\n",
            b"--x1\r\n\xff\r\n\r\n",
        ] {
            assert!(head(body, "x1").is_err(), "{body:?}");
        }
    }

    #[test]
    fn boundaries_are_read_as_browsers_write_them() {
        for (text, expected) in [
            (
                "multipart/form-data; boundary=----WebKitFormBoundaryA1",
                Some("----WebKitFormBoundaryA1"),
            ),
            ("multipart/form-data; boundary=\"a b\"", None),
            (
                "multipart/form-data; boundary=\"ab\"; charset=utf-8",
                Some("ab"),
            ),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
        ] {
            assert_eq!(boundary(text), expected, "{text}");
        }
    }
}
