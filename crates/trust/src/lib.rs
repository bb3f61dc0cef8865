//! Trust between the programs of a cluster: who a program is, how it proves that, and what it may call.
//!
//! | module | owns |
//! |---|---|
//! | [`identity`] | the role, node and instance of a program, as a URI in its certificate |
//! | [`access`] | the table of who may call each method |
//! | [`authority`] | the certificate authority: its key, what it signs, and its renewal |
//! | [`credential`] | the certificate, key and roots of one program |
//! | [`held`] | the credential that a running program holds now, and TLS with it |
//! | [`longhorn`] | TLS by Longhorn's own certificates |
//! | [`dial`] | connections to other programs, with TLS or without |
//! | [`verify`] | what is checked of the other side's certificate |
//! | [`renew`] | getting a credential and replacing it in time |
//! | [`files`] | certificates in directories |
//! | [`options`] | the command line options of a program that holds a credential |
//!
//! It knows nothing of gRPC, HTTP or Kubernetes: it is given bytes and asked questions.
#![warn(missing_docs)]

pub mod access;
pub mod authority;
pub mod credential;
pub mod dial;
mod error;
pub mod files;
pub mod held;
pub mod identity;
pub mod longhorn;
pub mod options;
pub mod renew;
pub mod verify;
mod x509;

pub use access::{Caller, Open, Policy};
pub use authority::{Authority, Lineage};
pub use credential::{Credential, KeyRequest};
pub use dial::{Dialer, Stream};
pub use error::{Error, Result};
pub use held::{Held, Peer};
pub use identity::{Identity, Role};
pub use longhorn::LonghornTls;
pub use options::{Options, Source};
pub use renew::{Issued, Issuer};
pub use verify::Expected;
