//! The fields of a tar header: checksums, numbers and texts.

use super::{BLOCK, TarError};

/// The sum of all bytes, those of the sum itself counted as spaces. Some old tools sum signed bytes.
pub(super) fn check_sum(header: &[u8; BLOCK]) -> Result<(), TarError> {
    let bytes = || header[..148].iter().chain(&[b' '; 8]).chain(&header[156..]);
    let unsigned: i64 = bytes().map(|byte| i64::from(*byte)).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    let said = numeric(&header[148..156])?;
    if i64::try_from(said).is_ok_and(|said| said == unsigned || said == signed) {
        Ok(())
    } else {
        Err("the checksum of a header is wrong".into())
    }
}

/// A number in a header: octal digits, or binary where the first bit is set.
pub(super) fn numeric(field: &[u8]) -> Result<u64, TarError> {
    const BAD: &str = "a number in a header is not valid";
    if field[0] & 0x80 != 0 {
        let (first, rest) = (field[0] & 0x7f, &field[1..]);
        let mut digits = [first].into_iter().chain(rest.iter().copied());
        return digits
            .try_fold(0u64, |sum, byte| {
                sum.checked_mul(256)?.checked_add(byte.into())
            })
            .ok_or(TarError::Invalid(BAD));
    }
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    let text = field[..end].trim_ascii();
    text.iter()
        .try_fold(0u64, |sum, byte| match byte {
            b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
            _ => None,
        })
        .ok_or(TarError::Invalid(BAD))
}

/// The bytes before the first NUL.
pub(super) fn text_of(field: &[u8]) -> Vec<u8> {
    field
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default()
        .to_vec()
}

/// The path in a header: POSIX archives may have the first part of it in a field of its own.
pub(super) fn path_of(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = text_of(&header[..100]);
    let prefix = text_of(&header[345..500]);
    if &header[257..265] != b"ustar\x0000" || prefix.is_empty() {
        return name;
    }
    [prefix, name].join(&b'/')
}
