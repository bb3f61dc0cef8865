//! How long blocking work learns that nobody waits for it any more.

use std::fmt;
use std::sync::Arc;

/// A question that blocking work asks between two pieces of itself: "is this still wanted?"
///
/// The caller brings the answer, so that crates without an async runtime need none. Cheap to clone.
#[derive(Clone)]
pub struct Cancel(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Cancel {
    /// Work that nothing ends early.
    pub fn never() -> Self {
        Self(None)
    }

    /// Work that ends soon after `cancelled` says `true`. It is asked often: for each MiB or more.
    pub fn when(cancelled: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(cancelled)))
    }

    /// Whether the work is to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.as_ref().is_some_and(|cancelled| cancelled())
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}
