use super::*;
use crate::{KeyRequest, Role};

fn now() -> SystemTime {
    SystemTime::now()
}

fn cli() -> Identity {
    Identity::new(Role::Cli, None, "laptop").unwrap()
}

#[test]
fn what_is_signed_is_the_identity_and_nothing_that_was_asked_for() {
    let authority = Authority::create(now()).unwrap();
    let request = KeyRequest::new().unwrap();
    let chain = authority
        .sign(request.csr_pem(), &cli(), LEAF_LIFE, now())
        .unwrap();
    let credential = request
        .complete(&chain, authority.certificate_pem())
        .unwrap();
    assert_eq!(credential.identity(), &cli());
    let life = credential
        .not_after()
        .duration_since(credential.not_before());
    assert_eq!(life.unwrap(), LEAF_LIFE + CLOCK_SKEW);
}

#[test]
fn a_request_that_names_others_or_rights_gets_neither() {
    let authority = Authority::create(now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["manager.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    // A request for a certificate that may sign others is refused by the library, or ignored by us.
    if let Ok(chain) = authority.sign(&csr, &cli(), LEAF_LIFE, now()) {
        let leaf = x509::certificates(&chain).unwrap().swap_remove(0);
        assert!(!x509::is_authority(&leaf).unwrap());
        assert_eq!(x509::identity(&leaf).unwrap(), cli());
    }
}

#[test]
fn requests_that_are_none_are_refused() {
    let authority = Authority::create(now()).unwrap();
    let large = "x".repeat(CSR_MAX + 1);
    let certificate = authority.certificate_pem().to_owned();
    for csr in ["", "nonsense", &large, &certificate] {
        assert!(authority.sign(csr, &cli(), LEAF_LIFE, now()).is_err());
    }
    // Signed by another key than the one it holds: nobody has shown that he has that one.
    let mine = KeyRequest::new().unwrap();
    let mut broken = mine.csr_pem().to_owned();
    let at = broken.len() - 60;
    let other = if broken.as_bytes()[at] == b'A' {
        "B"
    } else {
        "A"
    };
    broken.replace_range(at..=at, other);
    assert!(authority.sign(&broken, &cli(), LEAF_LIFE, now()).is_err());
}

#[test]
fn an_authority_is_read_back_and_takes_no_other_key() {
    let (one, two) = (
        Authority::create(now()).unwrap(),
        Authority::create(now()).unwrap(),
    );
    let read = Authority::from_pem(one.certificate_pem(), &one.key_pem()).unwrap();
    assert_eq!(read.not_after(), one.not_after());
    let error = Authority::from_pem(one.certificate_pem(), &two.key_pem()).unwrap_err();
    assert!(error.to_string().contains("not the key"), "{error}");
    let request = KeyRequest::new().unwrap();
    let leaf = one
        .sign(request.csr_pem(), &cli(), LEAF_LIFE, now())
        .unwrap();
    let error = Authority::from_pem(&leaf, &request.key_pem()).unwrap_err();
    assert!(error.to_string().contains("CA:TRUE"), "{error}");
}

#[test]
fn a_new_authority_is_believed_before_it_signs_and_the_old_one_until_it_ends() {
    let start = now();
    let mut lineage = Lineage::create(start).unwrap();
    assert!(!lineage.is_due(start + AUTHORITY_LIFE - SUCCESSION - DAY));
    let due = start + AUTHORITY_LIFE - SUCCESSION + DAY;
    assert!(lineage.is_due(due));
    let old = lineage.newest.certificate_pem().to_owned();
    let published = lineage.bundle("", start).unwrap();
    lineage = lineage.succeed(due).unwrap();
    let signs_old = |published, at| lineage.signer(published, at).certificate_pem() == old;
    assert!(signs_old(Some(due), due) && signs_old(Some(due), due + OVERLAP / 2));
    assert!(!signs_old(Some(due), due + OVERLAP));
    // Not published, it does not sign as long as the old one can.
    assert!(signs_old(None, due + SUCCESSION - 3 * DAY));
    assert!(!signs_old(None, due + SUCCESSION));
    assert!(!lineage.is_due(due));
    let bundle = lineage.bundle(&published, due).unwrap();
    assert_eq!(x509::certificates(&bundle).unwrap().len(), 2);
    // Without its key too, and then no longer.
    let alone = Lineage::create(due).unwrap();
    let count = |at| {
        x509::certificates(&alone.bundle(&bundle, at).unwrap())
            .unwrap()
            .len()
    };
    assert_eq!(count(due), 3);
    assert_eq!(count(start + AUTHORITY_LIFE + DAY), 2);
}

#[test]
fn an_authority_without_a_predecessor_signs_at_once() {
    let start = now();
    let lineage = Lineage::create(start).unwrap();
    let newest = lineage.newest.certificate_pem();
    assert_eq!(lineage.signer(None, start).certificate_pem(), newest);
}
