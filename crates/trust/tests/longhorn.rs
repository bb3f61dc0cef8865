//! A port that serves Longhorn's certificates and ours: who is whom.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use trust::authority::{Authority, LEAF_LIFE};
use trust::held::H2;
use trust::{Dialer, Expected, Held, Identity, KeyRequest, LonghornTls, Role};

/// The name that Longhorn's clients ask for.
const PEER_NAME: &str = "longhorn-backend.longhorn-system";

/// An authority as an operator of Longhorn makes it, and its certificate for both sides.
struct Longhorns {
    ca: String,
    certificate: String,
    key: String,
}

fn longhorns() -> Longhorns {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec![PEER_NAME.to_owned()]).unwrap();
    leaf.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let issuer = Issuer::new(params, ca_key);
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    Longhorns {
        ca: ca.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

impl Longhorns {
    fn write(&self, directory: &Path) {
        for (name, text) in [
            ("ca.crt", &self.ca),
            ("tls.crt", &self.certificate),
            ("tls.key", &self.key),
        ] {
            let mut file = std::fs::File::create(directory.join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
    }

    /// As Go's client does it.
    async fn ask(
        &self,
        address: &str,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> String {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let leaf = CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![leaf], key)
            .unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let asked = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(PEER_NAME.try_into().unwrap(), stream)
            .await;
        let mut said = String::new();
        match asked {
            Ok(mut stream) => match stream.read_to_string(&mut said).await {
                Ok(_) => said,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        }
    }
}

async fn serve(held: Held, longhorn: LonghornTls) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt as _;
            let Ok((mut stream, peer)) = longhorn.accept(Some(&held), stream, H2).await else {
                continue;
            };
            let who = peer.map_or("Longhorn".to_owned(), |peer| peer.identity.to_string());
            stream.write_all(who.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn longhorns_control_plane_and_our_programs_share_a_port() {
    let directory = tempfile::tempdir().unwrap();
    assert!(LonghornTls::find(directory.path()).is_none());
    let theirs = longhorns();
    theirs.write(directory.path());
    let now = SystemTime::now();
    let ours = Authority::create(now).unwrap();
    let identity = Identity::new(Role::Manager, Some("n1".parse().unwrap()), "pod").unwrap();
    let request = KeyRequest::new().unwrap();
    let chain = ours
        .sign(request.csr_pem(), &identity, LEAF_LIFE, now)
        .unwrap();
    let held = Held::awaited("test");
    let credential = request.complete(&chain, ours.certificate_pem()).unwrap();
    held.set(credential).unwrap();
    let longhorn = LonghornTls::find(directory.path()).unwrap();
    let address = serve(held.clone(), longhorn).await;
    for version in [&TLS12, &TLS13] {
        assert_eq!(theirs.ask(&address, version).await, "Longhorn");
    }
    let dialer = Dialer::Proven(held);
    let expected = Expected::role(Role::Manager);
    let (mut stream, _) = dialer.connect(&address, &expected, H2).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, identity.to_string());
    // Certificates of another authority are nobody's.
    let strange = longhorns();
    let said = strange.ask(&address, &TLS13).await;
    assert!(
        said.contains("UnknownIssuer") || said.contains("certificate"),
        "{said}"
    );
}
