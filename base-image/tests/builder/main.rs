//! `base-image build` and `base-image inspect`, as users run them, with other people's tools as second
//! readers: skopeo, qemu-img and Debian's registry.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics, prints, and needs no durable writes"
)]

mod build;
mod by_hand;
mod foreign;
mod registry;
mod support;
mod trees;
