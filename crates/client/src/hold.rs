//! Getting the certificate of a program from where its options say.

use trust::{Held, Result, Source, files, renew};

use crate::certificates::Authority;

/// The credential of a command that ends soon.
///
/// # Errors
/// The files are of no use, or the controller does not issue one.
pub async fn hold_once(source: Source) -> Result<Held> {
    let held = Held::awaited("this program has just started");
    match source {
        Source::Files(directory) => held.set(files::load(&directory)?)?,
        Source::Authority {
            address,
            bundle,
            token,
        } => renew::once(&held, &Authority::new(address, token), &bundle).await?,
    }
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
