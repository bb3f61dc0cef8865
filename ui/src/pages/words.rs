//! Sizes, times and states as people read them.

use jiff::Timestamp;
use maud::{Markup, html};
use types::ErrorKind;

use crate::seen::Tone;

/// A size: `4 GiB`, with the bytes in its title.
pub fn size(bytes: u64) -> Markup {
    html! { span title=(format!("{bytes} bytes")) { (size_text(bytes)) } }
}

/// The same without markup.
pub fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (bytes.max(1).ilog2() / 10) as usize;
    let shift = 10 * unit;
    if bytes.trailing_zeros() as usize >= shift || unit == 0 {
        return format!("{} {}", bytes >> shift, UNITS[unit]);
    }
    // Tenths, rounded down: what is said to be free must be there.
    let tenths = (u128::from(bytes) * 10) >> shift;
    match tenths {
        1000.. => format!("{} {}", tenths / 10, UNITS[unit]),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

/// How long ago something was, coarse enough for a page to stay the same for a while.
pub fn age(then: &str, now: Timestamp) -> Markup {
    let Ok(at) = then.parse::<Timestamp>() else {
        return html! { (then) };
    };
    html! { time datetime=(then) title=(utc(at)) { (age_text(at, now)) } }
}

/// The moment itself, with its age.
pub fn moment(then: &str, now: Timestamp) -> Markup {
    let Ok(at) = then.parse::<Timestamp>() else {
        return html! { (then) };
    };
    html! { time datetime=(then) { (utc(at)) " (" (age_text(at, now)) ")" } }
}

fn utc(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn age_text(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(at.as_second());
    match seconds {
        ..60 => "just now".to_owned(),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A state: a word beside a symbol, never a colour alone.
pub fn state(tone: Tone, word: &str) -> Markup {
    let (class, symbol) = match tone {
        Tone::Good => ("good", "✔"),
        Tone::Idle => ("idle", "○"),
        Tone::Busy => ("busy", "↻"),
        Tone::Warning => ("warning", "⚠"),
        Tone::Bad => ("bad", "✖"),
    };
    html! { span class={ "state " (class) } { span aria-hidden="true" { (symbol) } " " (word) } }
}

/// The name of an error's code, as documents and other programs write it.
pub fn code(kind: ErrorKind) -> String {
    let mut name = String::new();
    for letter in kind.to_string().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// A list of words, or what is said where there is none.
pub fn or(text: &str, none: &str) -> String {
    match text {
        "" => none.to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short_and_never_say_more_than_there_is() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (4 << 30, "4 GiB"),
            ((4 << 30) - 1, "3.9 GiB"),
            (1536 << 20, "1.5 GiB"),
            ((1000 << 20) + 1, "1000 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size_text(bytes), text, "{bytes}");
        }
        let markup = size(4 << 30).into_string();
        assert_eq!(markup, "<span title=\"4294967296 bytes\">4 GiB</span>");
    }

    #[test]
    fn ages_are_coarse_and_times_are_utc() {
        let now: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        for (then, text) in [
            ("2026-11-30T11:59:30Z", "just now"),
            ("2026-11-30T12:05:00Z", "just now"),
            ("2026-11-30T11:45:00Z", "15 min"),
            ("2026-11-30T01:00:00+01:00", "12 h"),
            ("2026-11-20T12:00:00Z", "10 d"),
        ] {
            let markup = age(then, now).into_string();
            assert!(markup.contains(&format!(">{text}<")), "{markup}");
            assert!(markup.contains(&format!("datetime=\"{then}\"")), "{markup}");
        }
        assert_eq!(age("<soon>", now).into_string(), "&lt;soon&gt;");
    }

    #[test]
    fn codes_are_written_as_everywhere_else() {
        assert_eq!(code(ErrorKind::FailedPrecondition), "FAILED_PRECONDITION");
        assert_eq!(code(ErrorKind::NotFound), "NOT_FOUND");
    }
}
