//! One call at a time for each volume or snapshot: a second call fails immediately and never waits.
//!
//! The CSI specification lets the caller try again after ABORTED; waiting here would only pile up
//! calls behind one that hangs.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// The names of what calls work on right now: of volumes, or of snapshots.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashSet<String>>>);

/// A name is ours until this is dropped. It moves into the thread that does the work, so that a
/// caller who goes away does not let the next one in too early.
#[derive(Debug)]
pub(crate) struct Guard {
    names: InFlight,
    name: String,
}

impl InFlight {
    /// Takes a name, or says that another call has it.
    pub(crate) fn enter(&self, name: &impl ToString) -> Result<Guard> {
        let name = name.to_string();
        if self.lock().insert(name.clone()) {
            let names = self.clone();
            Ok(Guard { names, name })
        } else {
            Err(Error::InFlight { name })
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        // A set is whole between any two operations on it, also after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.names.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind, VolumeName};

    use super::*;

    #[test]
    fn a_second_call_is_aborted_until_the_first_is_done() {
        let volumes = InFlight::default();
        let (a, b) = (VolumeName::new("a").unwrap(), VolumeName::new("b").unwrap());
        let first = volumes.enter(&a).unwrap();
        assert_eq!(volumes.enter(&a).unwrap_err().kind(), ErrorKind::Aborted);
        volumes.enter(&b).unwrap();
        drop(first);
        volumes.enter(&a).unwrap();
    }
}
