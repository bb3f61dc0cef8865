//! Getting a certificate from whoever issues them, and another one in time: at two thirds of its life, so that an
//! issuer may be away for hours. Meanwhile, and while there is none, the reason is kept for whoever asks.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::{info, warn};
use types::report;

use crate::credential::KeyRequest;
use crate::held::Held;
use crate::{Error, Result, files};

/// After a failure: doubled each time, from the first to the last.
const RETRY: std::ops::Range<Duration> = Duration::from_millis(500)..Duration::from_secs(30);
/// How often the bundle is read, and the clock looked at: it may have been set, or the machine asleep.
const LOOK: Duration = Duration::from_secs(5);

/// What an issuer gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, and those between it and the root.
    pub chain_pem: String,
    /// Who is to be believed from now on.
    pub bundle_pem: String,
}

/// Whoever issues certificates to this program.
pub trait Issuer: Send + Sync {
    /// Asks for a certificate. The issuer itself is believed when one of `roots_pem` certified it.
    fn issue(&self, csr_pem: &str, roots_pem: &str) -> impl Future<Output = Result<Issued>> + Send;
}

/// Keeps `held` certified as long as the program runs. `bundle` is the file in which the issuer publishes who is to
/// be believed; it may be missing or empty at first.
pub async fn keep<I: Issuer>(held: Held, issuer: I, bundle: PathBuf) {
    let mut published = String::new();
    let mut pause = RETRY.start;
    let mut said = String::new();
    loop {
        look(&held, &bundle, &mut published).await;
        let due = held
            .credential()
            .is_none_or(|credential| credential.renew_at() <= SystemTime::now());
        if !due {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match certify(&held, &issuer, &bundle, &published).await {
            Ok(()) => {
                pause = RETRY.start;
                said.clear();
            }
            Err(error) => {
                let why = report(&error).to_string();
                held.failed(why.clone());
                if why != said {
                    warn!("no new certificate: {why}");
                    said = why;
                }
                tokio::time::sleep(spread(pause)).await;
                pause = (pause * 2).min(RETRY.end);
            }
        }
    }
}

/// Gets a certificate for a program that ends soon.
///
/// # Errors
/// The bundle is not there, or the issuer does not issue.
pub async fn once<I: Issuer>(held: &Held, issuer: &I, bundle: &Path) -> Result<()> {
    let mut published = String::new();
    look(held, bundle, &mut published).await;
    certify(held, issuer, bundle, &published).await
}

/// The same with the text of a bundle: no file has it.
///
/// # Errors
/// The issuer does not issue.
pub async fn once_by<I: Issuer>(held: &Held, issuer: &I, roots_pem: &str) -> Result<()> {
    certify(held, issuer, Path::new("(given)"), roots_pem).await
}

/// Takes over a bundle that has changed since the last look. One that cannot be read or is empty changes nothing.
async fn look(held: &Held, bundle: &Path, published: &mut String) {
    let path = bundle.to_owned();
    let Ok(Ok(text)) = tokio::task::spawn_blocking(move || files::read(&path)).await else {
        return;
    };
    if text.trim().is_empty() || text == *published {
        return;
    }
    match held.believe(&text) {
        Ok(true) => info!(
            "the certificate authorities in {} have changed",
            bundle.display()
        ),
        Ok(false) => {}
        Err(error) => warn!("{} is not used: {}", bundle.display(), report(&error)),
    }
    *published = text;
}

async fn certify<I: Issuer>(held: &Held, issuer: &I, bundle: &Path, published: &str) -> Result<()> {
    let known = held.credential();
    let roots = known.as_ref().map_or(published, |known| known.roots_pem());
    if roots.is_empty() {
        return Err(Error::File {
            path: bundle.to_owned(),
            why: "the certificate authority has not been published there yet: the controller does that when \
                  it starts"
                .to_owned(),
        });
    }
    let request = KeyRequest::new()?;
    let issued = issuer.issue(request.csr_pem(), roots).await?;
    let credential = request.complete(&issued.chain_pem, &issued.bundle_pem)?;
    // Others would say it less clearly: the clock of this machine is wrong, for example.
    credential.verify(SystemTime::now())?;
    info!(identity = %credential.identity(), "certified");
    held.set(credential)
}

/// Between half and all of a time, so that programs that failed together do not come back together.
fn spread(time: Duration) -> Duration {
    // The hasher is seeded by the system's random numbers.
    let random = RandomState::new().hash_one(0_u8) % 1024;
    time / 2 + time / 2 * u32::try_from(random).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::authority::{LEAF_LIFE, Lineage};
    use crate::{Identity, Role};

    fn write(path: &Path, text: impl AsRef<[u8]>) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(path).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    /// An authority in memory that is away for its first calls.
    struct Small {
        lineage: Mutex<Lineage>,
        away: u32,
        calls: AtomicU32,
    }

    impl Issuer for &Small {
        async fn issue(&self, csr_pem: &str, _roots_pem: &str) -> Result<Issued> {
            if self.calls.fetch_add(1, Ordering::Relaxed) < self.away {
                return Err(Error::NotIssued {
                    from: "controller:8003".into(),
                    why: "it does not answer".into(),
                });
            }
            let lineage = self.lineage.lock().unwrap();
            let now = SystemTime::now();
            let identity = Identity::new(Role::Cli, None, "x")?;
            Ok(Issued {
                chain_pem: lineage
                    .signer(None, now)
                    .sign(csr_pem, &identity, LEAF_LIFE, now)?,
                bundle_pem: lineage.bundle("", now)?,
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_says_why_and_is_certified_when_the_issuer_is_back() {
        let root = tempfile::tempdir().unwrap();
        let bundle = root.path().join("ca.crt");
        let lineage = Lineage::create(SystemTime::now()).unwrap();
        let published = lineage.bundle("", SystemTime::now()).unwrap();
        let small = Small {
            lineage: Mutex::new(lineage),
            away: 3,
            calls: AtomicU32::new(0),
        };
        let held = Held::awaited("just started");
        let trouble = || held.trouble(SystemTime::now()).unwrap_or_default();
        let keeping = keep(held.clone(), &small, bundle.clone());
        tokio::pin!(keeping);
        let until = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        tokio::select! { () = &mut keeping => {}, () = until(2) => {} }
        assert!(trouble().contains("not been published"), "{}", trouble());
        write(&bundle, published);
        tokio::select! { () = &mut keeping => {}, () = held.ready() => {} }
        assert_eq!(trouble(), "");
        assert_eq!(small.calls.load(Ordering::Relaxed), 4);
        // What is published next is believed, and what is damaged is not.
        let next = Lineage::create(SystemTime::now()).unwrap();
        let text = next.bundle("", SystemTime::now()).unwrap();
        write(&bundle, &text);
        tokio::select! { () = &mut keeping => {}, () = until(20) => {} }
        assert_eq!(held.credential().unwrap().roots_pem(), text);
        write(&bundle, "nonsense");
        tokio::select! { () = &mut keeping => {}, () = until(20) => {} }
        assert_eq!(held.credential().unwrap().roots_pem(), text);
    }
}
