//! The configuration files of a store, each one line of JSON with types of its own.

pub(crate) mod backing_image;
pub(crate) mod backup;
mod document;
mod fields;
pub(crate) mod volume;

#[cfg(test)]
mod tests;
