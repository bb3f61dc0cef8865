//! Extended headers: the PAX records of the next entry.

use super::sparse::{Map, number};
use super::{BAD_MAP, TarError};

/// What extended headers said of the next entry.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) sparse: SparseRecords,
}

#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    /// Set by PAX 1.0, whose map lies before the data.
    pub(super) major: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) map: Option<Map>,
    /// PAX 0.0: an offset that waits for its length.
    pub(super) offset: Option<u64>,
}

/// PAX records: `LENGTH KEY=VALUE\n`.
pub(super) fn records(mut content: &[u8], extended: &mut Extended) -> Result<(), TarError> {
    const BAD: &str = "an extended header is not valid";
    while !content.is_empty() {
        let space = content
            .iter()
            .take(21)
            .position(|byte| *byte == b' ')
            .ok_or(BAD)?;
        let length = std::str::from_utf8(&content[..space])
            .ok()
            .and_then(number)
            .ok_or(BAD)?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length > space + 1)
            .ok_or(BAD)?;
        let record = content
            .get(space + 1..length)
            .and_then(|r| r.strip_suffix(b"\n"))
            .ok_or(BAD)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(BAD)?;
        apply(&record[..equals], &record[equals + 1..], extended)?;
        content = &content[length..];
    }
    Ok(())
}

fn apply(key: &[u8], value: &[u8], extended: &mut Extended) -> Result<(), TarError> {
    let decimal = || {
        let number = std::str::from_utf8(value).ok().and_then(number);
        number.ok_or(TarError::Invalid(
            "a number in an extended header is not valid",
        ))
    };
    let sparse = &mut extended.sparse;
    match key {
        b"path" => extended.path = Some(value.to_vec()),
        b"linkpath" => extended.link = Some(value.to_vec()),
        b"size" => extended.size = Some(decimal()?),
        b"GNU.sparse.name" => sparse.name = Some(value.to_vec()),
        b"GNU.sparse.major" => sparse.major = Some(decimal()?),
        b"GNU.sparse.size" | b"GNU.sparse.realsize" => sparse.size = Some(decimal()?),
        b"GNU.sparse.map" => {
            let text = std::str::from_utf8(value).map_err(|_| BAD_MAP)?;
            sparse.map = Some(Map::from_list(text)?);
        }
        b"GNU.sparse.offset" => sparse.offset = Some(decimal()?),
        b"GNU.sparse.numbytes" => {
            let offset = sparse.offset.take().ok_or(BAD_MAP)?;
            sparse
                .map
                .get_or_insert_default()
                .push(offset, decimal()?)?;
        }
        _ => {}
    }
    Ok(())
}
