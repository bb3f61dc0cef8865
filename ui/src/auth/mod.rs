//! Who may ask: before any handler runs, it is decided whether the browser asks for us ([`origin`]), who the person is
//! ([`session`]) and whether they may ([`rights`]). A request whose route has no line in [`crate::access`] is not found.
//!
//! What a page shows is not known here.

mod gate;
mod options;
mod origin;
mod rate;
mod rights;
mod session;
mod sign_in;
mod users;

pub use gate::{Gate, May, protect};
pub use options::{Options, Way};
pub use users::hash_line;
