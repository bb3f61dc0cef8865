//! A long reading of a file: how it ends early, and who learns how far it is.

use types::Cancel;

/// A long reading: who ends it, and who wants to know how far it is.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    pub cancel: &'a Cancel,
    /// Is told how many of how many bytes were read.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

impl std::fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}

impl<'a> Reading<'a> {
    /// A reading whose progress nobody wants to know.
    pub fn silent(cancel: &'a Cancel) -> Self {
        Self {
            cancel,
            progress: &|_, _| {},
        }
    }
}
