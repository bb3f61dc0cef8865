//! Certificates of the test's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A certificate authority, and a certificate by it for 127.0.0.1 and localhost.
pub(crate) struct Certificates {
    pub(crate) directory: tempfile::TempDir,
}

impl Certificates {
    /// Makes them with openssl; `None`, with a word why, when that is not there.
    pub(crate) fn make() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            println!("skipped: needs openssl");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let ext = "subjectAltName=IP:127.0.0.1,DNS:localhost";
        for arguments in [
            "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=test-ca -keyout ca.key -out ca.crt \
             -addext basicConstraints=critical,CA:TRUE",
            "req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout tls.key -out tls.csr",
            "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out tls.crt",
        ] {
            std::os::unix::fs::FileExt::write_all_at(
                &std::fs::File::create(directory.path().join("ext")).unwrap(),
                ext.as_bytes(),
                0,
            )
            .unwrap();
            let mut command = Command::new("openssl");
            command
                .args(arguments.split_whitespace())
                .current_dir(directory.path());
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        Some(Self { directory })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.file("ca.crt")
    }

    /// Serves with the certificate.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let read = |path: &Path| std::fs::read(path).unwrap();
        let pem = read(&self.file("tls.crt"));
        let certificates = CertificateDer::pem_slice_iter(&pem)
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_slice(&read(&self.file("tls.key"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
