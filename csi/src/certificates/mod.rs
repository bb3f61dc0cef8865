//! The controller as the certificate authority of the cluster: it alone reads the authority's key, and the
//! other pods get their certificates of it.
//!
//! ```text
//!   Secret (key and certificate) ◀── keeper ──▶ ConfigMap (certificates that are believed) ──▶ all pods
//!                                      │
//!   pod ── token, request ──▶ service ─┴─ sign ──▶ certificate
//!                                │
//!                                └── TokenReview: which pod is it, on which node
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`keeper`] | the authority in memory, the Secret and the ConfigMap in step with it, our own certificate |
//! | [`decision`] | what a look at the Secret means: a pure function |
//! | [`service`] | the call by which a pod is certified |
//! | [`token`] | what a token says of itself, for the text of an error |
//! | [`start`] | from the options to all of this |
//! | [`refusal`] | why a pod is not certified |
//!
//! Neither a key nor a token is in any text.

mod decision;
mod keeper;
mod rate;
mod refusal;
mod service;
mod start;
mod token;

pub(crate) use self::start::{Started, start};
