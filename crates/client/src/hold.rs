//! Getting the certificate of a program from where its options say.

use std::time::SystemTime;

use trust::{Error, Held, Result, Source, files, renew};
use types::report;

use zeroize::Zeroizing;

use crate::certificates::Authority;

/// The credential of a command that ends soon.
///
/// # Errors
/// The files are of no use, or the controller does not issue one.
pub async fn hold_once(source: Source) -> Result<Held> {
    let held = Held::awaited("this program has just started");
    match source {
        Source::Files(directory) => {
            let credential = files::load(&directory)?;
            // Said here, because a daemon that does not believe it closes the connection without a word.
            credential
                .verify(SystemTime::now())
                .map_err(|error| Error::File {
                    why: format!(
                        "{}; make a new one: backing-image-manager certs issue",
                        report(&error)
                    ),
                    path: directory,
                })?;
            held.set(credential)?;
        }
        Source::Authority {
            address,
            bundle,
            token,
        } => renew::once(&held, &Authority::new(address, token), &bundle).await?,
    }
    Ok(held)
}

/// The credential of a command that ends soon, from the controller at `HOST:PORT`, by a token that was just made.
/// Everything stays in memory. The controller is believed when one of `roots_pem` certified it.
///
/// # Errors
/// The controller does not issue one.
pub async fn hold_by_token(
    address: String,
    token: Zeroizing<String>,
    roots_pem: &str,
) -> Result<Held> {
    let held = Held::awaited("this program has just started");
    renew::once_by(&held, &Authority::with_token(address, token), roots_pem).await?;
    Ok(held)
}

/// A credential that is got and replaced by the future for as long as that runs: it never ends.
pub fn hold(source: Source) -> (Held, impl Future<Output = ()> + Send + 'static) {
    let held = Held::awaited("this program has just started");
    let kept = held.clone();
    let keeping = async move {
        match source {
            Source::Files(directory) => files::watch(kept, directory).await,
            Source::Authority {
                address,
                bundle,
                token,
            } => renew::keep(kept, Authority::new(address, token), bundle).await,
        }
    };
    (held, keeping)
}
