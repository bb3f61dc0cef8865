//! Prints an error with all its causes, once, on one line.

use std::error::Error;
use std::fmt;

/// Displays an error chain as `outer: cause: root`.
#[derive(Clone, Copy)]
pub struct Report<'a>(&'a (dyn Error + 'a));

/// The error and its causes, outermost first. A cause whose text its parent already ends with is
/// not said twice.
pub fn report<'a>(error: &'a (dyn Error + 'a)) -> Report<'a> {
    Report(error)
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text from outside as an error may repeat it: cut, so that no error carries a megabyte.
pub fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot seal the image")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_whole_chain_is_shown_once() {
        let error = Outer(std::io::Error::other("disk on fire"));
        assert_eq!(
            report(&error).to_string(),
            "cannot seal the image: disk on fire"
        );
    }
}
