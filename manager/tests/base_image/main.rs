//! `base-image build` and `base-image inspect`, as users run them, with other people's tools as second
//! readers: skopeo, qemu-img and Debian's registry.
#![expect(clippy::disallowed_methods, reason = "tests need no durable writes")]

mod build;
mod by_hand;
mod registry;
mod support;
