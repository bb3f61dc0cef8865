//! Handshakes over real sockets: who is let in, who is not, and what a change of certificates does to connections.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use trust::authority::{Authority, CLOCK_SKEW, LEAF_LIFE};
use trust::held::{H2, HTTP1, Proof, connect_unproven};
use trust::{Credential, Dialer, Expected, Held, Identity, KeyRequest, Peer, Role};

const MINUTE: Duration = Duration::from_mins(1);

fn identity(role: Role, node: &str) -> Identity {
    let node = role.has_node().then(|| node.parse().unwrap());
    Identity::new(role, node, "pod").unwrap()
}

fn credential(authority: &Authority, identity: &Identity, at: SystemTime) -> Credential {
    let request = KeyRequest::new().unwrap();
    let csr = request.csr_pem();
    let chain = authority.sign(csr, identity, LEAF_LIFE, at).unwrap();
    request
        .complete(&chain, authority.certificate_pem())
        .unwrap()
}

fn held(credential: Credential) -> Held {
    let held = Held::awaited("test");
    held.set(credential).unwrap();
    held
}

/// Serves one connection after the other: says who came, then echoes. Returns where.
async fn serve(held: Held, proof: Proof) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let held = held.clone();
            tokio::spawn(async move {
                let (mut stream, peer) = held.accept(stream, proof, H2).await?;
                let who = peer.map_or("nobody".into(), |peer: Peer| peer.identity.to_string());
                stream.write_all(format!("{who}\n").as_bytes()).await?;
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

/// The first line that a server says, or why there is none. TLS 1.3 tells a client that it is refused only when it
/// reads.
async fn greeting(client: &Held, address: &str, expected: &Expected) -> io::Result<String> {
    let dialer = Dialer::Proven(client.clone());
    let (mut stream, _) = dialer.connect(address, expected, H2).await?;
    let mut said = String::new();
    loop {
        let byte = stream.read_u8().await?;
        if byte == b'\n' {
            return Ok(said);
        }
        said.push(char::from(byte));
    }
}

fn manager() -> Expected {
    Expected::role(Role::Manager)
}

#[tokio::test]
async fn both_sides_know_who_the_other_is() {
    let (authority, now) = (
        Authority::create(SystemTime::now()).unwrap(),
        SystemTime::now(),
    );
    let server = credential(&authority, &identity(Role::Manager, "n1"), now);
    let client = identity(Role::Controller, "");
    let address = serve(held(server), Proof::Required).await;
    let mine = held(credential(&authority, &client, now));
    let said = greeting(&mine, &address, &manager()).await.unwrap();
    assert_eq!(said, client.to_string());
    let there = Expected {
        role: Role::Manager,
        node: Some("n1".parse().unwrap()),
    };
    greeting(&mine, &address, &there).await.unwrap();
    // Another node's, or another role's, is not who is meant.
    let elsewhere = Expected {
        node: Some("n2".parse().unwrap()),
        ..there
    };
    for expected in [elsewhere, Expected::role(Role::Node)] {
        let error = greeting(&mine, &address, &expected).await.unwrap_err();
        assert!(error.to_string().contains("to be reached"), "{error}");
    }
}

#[tokio::test]
async fn who_is_certified_by_nobody_we_believe_is_refused_on_both_sides() {
    let now = SystemTime::now();
    let (ours, theirs) = (
        Authority::create(now).unwrap(),
        Authority::create(now + MINUTE).unwrap(),
    );
    let server = credential(&ours, &identity(Role::Manager, "n1"), now);
    let address = serve(held(server), Proof::Required).await;
    let cli = identity(Role::Cli, "");
    let stranger = credential(&theirs, &cli, now);
    let error = greeting(&held(stranger.clone()), &address, &manager()).await;
    assert!(error.unwrap_err().to_string().contains("UnknownIssuer"));
    // He believes us, and we do not believe him.
    let credulous = stranger.with_roots(ours.certificate_pem()).unwrap();
    assert!(
        greeting(&held(credulous), &address, &manager())
            .await
            .is_err()
    );
    // Nobody at all.
    let unproven = async {
        let stream = TcpStream::connect(&address).await?;
        let (mut stream, _) =
            connect_unproven(ours.certificate_pem(), stream, &manager(), H2).await?;
        stream.read_u8().await
    };
    assert!(unproven.await.is_err());
}

#[tokio::test]
async fn clocks_may_be_five_minutes_apart_and_certificates_end() {
    let now = SystemTime::now();
    let start = now - LEAF_LIFE * 3;
    let authority = Authority::create(start).unwrap();
    let server = credential(&authority, &identity(Role::Manager, "n1"), now);
    let address = serve(held(server), Proof::Required).await;
    let ask = async |made: SystemTime| {
        let mine = credential(&authority, &identity(Role::Cli, ""), made);
        greeting(&held(mine), &address, &manager()).await
    };
    // Made by a clock that is five minutes ahead, or behind.
    ask(now + 5 * MINUTE).await.unwrap();
    ask(now - 5 * MINUTE).await.unwrap();
    // Not valid yet, and no longer.
    ask(now + CLOCK_SKEW + MINUTE).await.unwrap_err();
    ask(now - LEAF_LIFE - MINUTE).await.unwrap_err();
    // The same of a server.
    let expired = credential(
        &authority,
        &identity(Role::Manager, "n1"),
        now - LEAF_LIFE - MINUTE,
    );
    let expired = held(expired);
    assert!(expired.trouble(now).unwrap().contains("has expired"));
    let address = serve(expired, Proof::Required).await;
    let mine = held(credential(&authority, &identity(Role::Cli, ""), now));
    let error = greeting(&mine, &address, &manager()).await.unwrap_err();
    assert!(error.to_string().contains("xpired"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_names_nobody_is_nobodys() {
    let now = SystemTime::now();
    let authority = Authority::create(now).unwrap();
    let server = credential(&authority, &identity(Role::Manager, "n1"), now);
    let address = serve(held(server), Proof::Required).await;
    // The authority's own certificate is good, and names no program.
    let error = Credential::from_pem(
        authority.certificate_pem(),
        &authority.key_pem(),
        authority.certificate_pem(),
    );
    assert!(error.unwrap_err().to_string().contains("names no program"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let pem = authority.certificate_pem().as_bytes();
    let root = rustls_pki_types::CertificateDer::from_pem_slice(pem).unwrap();
    roots.add(root.clone()).unwrap();
    // TLS 1.2 is not spoken: there is nothing to go down to.
    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(&address).await.unwrap();
    let name = "manager.base-image.longhorn.io".try_into().unwrap();
    let error = tokio_rustls::TlsConnector::from(Arc::new(old))
        .connect(name, stream)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn whoever_has_a_token_needs_no_certificate_where_that_is_allowed() {
    let now = SystemTime::now();
    let authority = Authority::create(now).unwrap();
    let controller = credential(&authority, &identity(Role::Controller, ""), now);
    let address = serve(held(controller), Proof::Optional).await;
    let expected = Expected::role(Role::Controller);
    let stream = TcpStream::connect(&address).await.unwrap();
    let roots = authority.certificate_pem();
    let (mut stream, _) = connect_unproven(roots, stream, &expected, H2)
        .await
        .unwrap();
    let mut said = [0; 7];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"nobody\n");
    // Who shows one has to show a good one.
    let other = Authority::create(now).unwrap();
    let bad = credential(&other, &identity(Role::Cli, ""), now);
    let bad = held(bad.with_roots(roots).unwrap());
    assert!(greeting(&bad, &address, &expected).await.is_err());
}

#[tokio::test]
async fn certificates_are_replaced_under_connections_that_go_on() {
    let now = SystemTime::now();
    let (old, new) = (
        Authority::create(now).unwrap(),
        Authority::create(now).unwrap(),
    );
    let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    let role = identity(Role::Manager, "n1");
    let with_both = |authority| credential(authority, &role, now).with_roots(&both).unwrap();
    let server = held(with_both(&old));
    let address = serve(server.clone(), Proof::Required).await;
    let client = held(with_both(&old));
    let dialer = Dialer::Proven(client.clone());
    let (mut before, _) = dialer.connect(&address, &manager(), H2).await.unwrap();
    before.write_all(b"one").await.unwrap();
    server.set(with_both(&new)).unwrap();
    client.set(with_both(&new)).unwrap();
    before.write_all(b"two").await.unwrap();
    let mut said = vec![0; role.to_string().len() + "\nonetwo".len()];
    before.read_exact(&mut said).await.unwrap();
    assert!(said.ends_with(b"onetwo"));
    // Who still has the old one is believed as long as the bundle says so, and then no longer.
    let late = held(with_both(&old));
    greeting(&late, &address, &manager()).await.unwrap();
    let only_new = credential(&new, &role, now);
    server.set(only_new).unwrap();
    greeting(&late, &address, &manager()).await.unwrap_err();
    greeting(&client, &address, &manager()).await.unwrap();
}

#[tokio::test]
async fn without_a_credential_nobody_is_served_and_nobody_asked() {
    let held = Held::awaited("the controller does not answer");
    let trouble = held.trouble(SystemTime::now()).unwrap();
    assert!(
        trouble.contains("waiting for a certificate: the controller does not"),
        "{trouble}"
    );
    let address = serve(held.clone(), Proof::Required).await;
    let error = greeting(&held, &address, &manager()).await.unwrap_err();
    assert!(error.to_string().contains("no certificate yet"), "{error}");
    // Plain bytes to a port of TLS are no request.
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\n").await.unwrap();
    assert_eq!(plain.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn what_a_port_does_not_speak_it_does_not_offer() {
    let now = SystemTime::now();
    let authority = Authority::create(now).unwrap();
    let server = credential(&authority, &identity(Role::Manager, "n1"), now);
    let address = serve(held(server), Proof::Required).await;
    let mine = held(credential(&authority, &identity(Role::Cli, ""), now));
    let dialer = Dialer::Proven(mine);
    dialer.connect(&address, &manager(), H2).await.unwrap();
    let error = dialer.connect(&address, &manager(), HTTP1).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}
