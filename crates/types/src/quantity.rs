//! Kubernetes quantities (`32Mi`, `1.5G`, `1e9`) as whole bytes.
//!
//! The grammar is that of `k8s.io/apimachinery/pkg/api/resource`: a decimal number with an optional
//! binary suffix (`Ki`…`Ei`), decimal suffix (`n u m k M G T P E`) or exponent. A fraction of a byte
//! rounds up, as it does there.

use crate::ByteSize;

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("size {text:?} is not valid: {why}; write for example 32Mi, 10Gi or 1073741824")]
pub struct InvalidQuantity {
    text: String,
    why: &'static str,
}

/// Reads a Kubernetes quantity as bytes, rounding a fraction up. Zero is a size here; whether it
/// makes sense is the caller's to say.
pub fn parse_quantity(text: &str) -> Result<ByteSize, InvalidQuantity> {
    parse(text).map(ByteSize).map_err(|why| InvalidQuantity {
        text: crate::shown(text),
        why,
    })
}

fn parse(text: &str) -> Result<u64, &'static str> {
    if text.len() > 64 {
        return Err("it is too long");
    }
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err("it does not start with a number");
    }
    if fraction.contains('.') {
        return Err("it contains '..'");
    }
    // The value is digits × 10^-places × 2^binary × 10^decimal.
    let digits = format!("{whole}{fraction}");
    let digits: u128 = digits.parse().map_err(|_| "it is too large")?;
    let places = i32::try_from(fraction.len()).map_err(|_| "it is too long")?;
    let (binary, decimal) = multiplier(suffix)?;
    let exponent = decimal - places;

    let mut value = digits
        .checked_shl(binary)
        .filter(|v| v >> binary == digits)
        .ok_or(TOO_LARGE)?;
    if exponent >= 0 {
        let power = 10u128
            .checked_pow(exponent.unsigned_abs())
            .ok_or(TOO_LARGE)?;
        value = value.checked_mul(power).ok_or(TOO_LARGE)?;
    } else if value > 0 {
        // A divisor past u128 leaves less than one byte, and that rounds up to one.
        value = match 10u128.checked_pow(exponent.unsigned_abs()) {
            Some(power) => value.div_ceil(power),
            None => 1,
        };
    }
    u64::try_from(value)
        .ok()
        .filter(|v| i64::try_from(*v).is_ok())
        .ok_or(TOO_LARGE)
}

/// Sizes travel as `int64` in CSI, so that is the bound.
const TOO_LARGE: &str = "it is more than 8 EiB";

/// A suffix as powers of (2, 10).
fn multiplier(suffix: &str) -> Result<(u32, i32), &'static str> {
    Ok(match suffix {
        "" => (0, 0),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        _ => {
            let exponent = suffix
                .strip_prefix(['e', 'E'])
                .ok_or("its unit is unknown")?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || digits.len() > 2 || !digits.bytes().all(|b| b.is_ascii_digit())
            {
                return Err("its exponent is not valid");
            }
            (
                0,
                exponent.parse().map_err(|_| "its exponent is not valid")?,
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_kubernetes() {
        for (text, bytes) in [
            ("0", 0),
            ("32Mi", 32 << 20),
            ("1073741824", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("2G", 2_000_000_000),
            ("1e9", 1_000_000_000),
            ("12E2", 1200),
            ("1E", 1_000_000_000_000_000_000),
            ("100m", 1),
            ("1n", 1),
            (".5Ki", 512),
            ("5.", 5),
            ("7Ei", 7 << 60),
        ] {
            assert_eq!(parse_quantity(text), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            "Mi",
            "-1",
            "+1",
            " 1",
            "1 ",
            "1mi",
            "1KiB",
            "1..2",
            "0x10",
            "1e",
            "1e999",
            "8Ei",
            "99999999999999999999999999999999999999999",
            "1e99",
            "１",
        ] {
            assert!(parse_quantity(text).is_err(), "{text:?} was taken");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[0-9.eEkKMGTPinum+-]{0,70}") {
            let _ = parse_quantity(&text);
        }
    }
}
