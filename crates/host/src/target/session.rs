//! Who is connected to a target.

use std::fmt;

/// A session of an initiator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub initiator: String,
    /// From where.
    pub address: String,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.initiator, self.address)
    }
}
