//! Being written.

pub mod base_image;
