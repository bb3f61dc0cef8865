//! Against a small API server (`e2e::ApiServer`).

use std::time::SystemTime;

use e2e::{ApiServer, Sandbox};
use trust::Authority;
use trust::Role;
use trust::authority::OVERLAP;

use super::*;

const SECRET: &str = "secrets/ca";
const MAP: &str = "configmaps/ca";
const DAY: Duration = Duration::from_hours(24);

async fn keeper(server: &ApiServer, owned: bool) -> Keeper {
    let api = Api::at(server.url(), server.account()).await.unwrap();
    let place = Place {
        secret: "ca".to_owned(),
        owned,
        config_map: "ca".to_owned(),
    };
    let identity = Identity::new(Role::Controller, None, "c").unwrap();
    Keeper::new(api, place, identity)
}

fn cluster(name: &str) -> (Sandbox, ApiServer) {
    let sandbox = Sandbox::new(name);
    let server = ApiServer::start(&sandbox);
    server.put(SECRET, &[]);
    server.put(MAP, &[]);
    (sandbox, server)
}

fn bundle(server: &ApiServer) -> String {
    server.entries(MAP).remove(BUNDLE).unwrap_or_default()
}

fn certificates(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

/// What a program would get, and whether those who believe `roots` believe it.
fn issued_is_believed_by(keeper: &Keeper, roots: &str, now: SystemTime) -> bool {
    let request = KeyRequest::new().unwrap();
    let identity = Identity::new(Role::Ui, None, "u").unwrap();
    let issued = keeper.issue(request.csr_pem(), &identity, now).unwrap();
    let chain = issued.unwrap().chain_pem;
    request.complete(&chain, roots).is_ok()
}

#[tokio::test]
async fn the_first_controller_makes_the_authority_and_the_second_takes_it() {
    let (_sandbox, server) = cluster("keeper-first");
    let (one, two) = (keeper(&server, true).await, keeper(&server, true).await);
    let now = SystemTime::now();
    assert!(one.held().trouble(now).is_some());
    let (first, second) = tokio::join!(one.0.round(now), two.0.round(now));
    first.unwrap();
    second.unwrap();
    for keeper in [&one, &two] {
        assert_eq!(keeper.held().trouble(now), None);
        assert!(issued_is_believed_by(keeper, &bundle(&server), now));
    }
    assert_eq!(certificates(&bundle(&server)), 1);
    let stored = server.entries(SECRET);
    assert_eq!(stored["tls.crt"].trim(), bundle(&server).trim());
    // Later looks change nothing.
    let before = server.asked().len();
    one.0.round(now).await.unwrap();
    two.0.round(now).await.unwrap();
    assert!(
        server.asked()[before..]
            .iter()
            .all(|line| line.starts_with("GET"))
    );
}

#[tokio::test]
async fn row_231_a_secret_that_is_emptied_is_written_back_from_memory() {
    let (_sandbox, server) = cluster("keeper-emptied");
    let keeper = keeper(&server, true).await;
    let now = SystemTime::now();
    keeper.0.round(now).await.unwrap();
    let (stored, published) = (server.entries(SECRET), bundle(&server));
    // Missing: said, and everything goes on.
    server.remove(SECRET);
    let why = keeper.0.round(now).await.unwrap_err();
    assert!(
        why.contains("Secret longhorn-system/ca does not exist"),
        "{why}"
    );
    assert!(issued_is_believed_by(&keeper, &published, now));
    // Applied again, empty.
    server.put(SECRET, &[("note", "of somebody else")]);
    server.put(MAP, &[]);
    keeper.0.round(now).await.unwrap();
    assert_eq!(server.entries(SECRET)["tls.key"], stored["tls.key"]);
    assert_eq!(server.entries(SECRET)["note"], "of somebody else");
    assert_eq!(bundle(&server), published);
}

#[tokio::test]
async fn row_231_a_new_controller_without_the_secret_keeps_believing_the_old_authority() {
    let (_sandbox, server) = cluster("keeper-lost");
    let now = SystemTime::now();
    keeper(&server, true).await.0.round(now).await.unwrap();
    let old = bundle(&server);
    server.put(SECRET, &[]);
    let keeper = keeper(&server, true).await;
    keeper.0.round(now).await.unwrap();
    let both = bundle(&server);
    assert_eq!(certificates(&both), 2);
    assert!(both.contains(old.trim()));
    assert!(issued_is_believed_by(&keeper, &both, now));
    // When it has expired, it is believed no more.
    let later = now + trust::authority::AUTHORITY_LIFE - DAY;
    keeper.0.round(later).await.unwrap();
    keeper.0.round(later + 2 * DAY).await.unwrap();
    assert!(!bundle(&server).contains(old.trim()));
}

#[tokio::test]
async fn row_231_a_damaged_secret_is_left_as_it_is() {
    let (_sandbox, server) = cluster("keeper-damaged");
    let damaged = [("tls.crt", "nonsense"), ("tls.key", "s3cret")];
    server.put(SECRET, &damaged);
    let keeper = keeper(&server, true).await;
    let now = SystemTime::now();
    let why = keeper.0.round(now).await.unwrap_err();
    assert!(why.contains("holds no certificate authority"), "{why}");
    assert!(!why.contains("s3cret"), "{why}");
    assert_eq!(server.entries(SECRET)["tls.key"], "s3cret");
    assert!(keeper.issue("", keeper.identity(), now).is_none());
    let waiting = keeper.held().trouble(now).unwrap();
    assert!(
        waiting.starts_with("waiting for a certificate"),
        "{waiting}"
    );
}

#[tokio::test]
async fn row_232_the_next_authority_is_published_before_it_signs() {
    let (_sandbox, server) = cluster("keeper-next");
    let keeper = keeper(&server, true).await;
    let start = SystemTime::now();
    keeper.0.round(start).await.unwrap();
    let old = bundle(&server);
    let due = start + trust::authority::AUTHORITY_LIFE - trust::authority::SUCCESSION + DAY;
    keeper.0.round(due).await.unwrap();
    assert_eq!(certificates(&bundle(&server)), 2);
    for (after, old_signs) in [
        (Duration::ZERO, true),
        (OVERLAP / 2, true),
        (OVERLAP, false),
    ] {
        let now = due + after;
        keeper.0.round(now).await.unwrap();
        assert_eq!(signed_by(&keeper, &old, now), old_signs, "{after:?}");
    }
    assert_eq!(keeper.held().trouble(due), None);
    // A controller that has just started has not seen for how long it is published.
    let another = self::keeper(&server, true).await;
    another.0.round(due + OVERLAP).await.unwrap();
    assert!(signed_by(&another, &old, due + OVERLAP));
    assert!(!signed_by(&another, &old, due + 2 * OVERLAP));
}

/// Whether a certificate that is issued now is signed by the authority in `pem`.
fn signed_by(keeper: &Keeper, pem: &str, now: SystemTime) -> bool {
    let reign = keeper.0.reign();
    let reign = reign.as_ref().unwrap();
    let signer = reign.lineage.signer(reign.published, now);
    signer.certificate_pem().trim() == pem.trim()
}

#[tokio::test]
async fn row_232_an_authority_of_somebody_else_is_only_read_and_published_before_it_signs() {
    let (_sandbox, server) = cluster("keeper-foreign");
    let keeper = keeper(&server, false).await;
    let now = SystemTime::now();
    let why = keeper.0.round(now).await.unwrap_err();
    assert!(why.contains("is empty"), "{why}");
    let put = |authority: &Authority| {
        let key = authority.key_pem();
        let entries = [("tls.crt", authority.certificate_pem()), ("tls.key", &key)];
        server.put(SECRET, &entries);
    };
    // It may be of any age: what counts is since when it is published.
    let (one, two) = (
        Authority::create(now - 2 * DAY),
        Authority::create(now - DAY),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    put(&one);
    keeper.0.round(now).await.unwrap();
    assert!(signed_by(&keeper, one.certificate_pem(), now));
    put(&two);
    server.forbid("configmaps/ca");
    keeper.0.round(now).await.unwrap_err();
    assert!(
        signed_by(&keeper, one.certificate_pem(), now + DAY),
        "it is not published"
    );
    server.permit();
    keeper.0.round(now).await.unwrap();
    assert_eq!(certificates(&bundle(&server)), 2);
    assert!(signed_by(&keeper, one.certificate_pem(), now + OVERLAP / 2));
    assert!(signed_by(&keeper, two.certificate_pem(), now + OVERLAP));
    assert!(
        !server
            .asked()
            .iter()
            .any(|line| line == "PATCH /api/v1/namespaces/longhorn-system/secrets/ca")
    );
}

#[tokio::test]
async fn what_is_missing_or_forbidden_is_said() {
    let (_sandbox, server) = cluster("keeper-forbidden");
    let keeper = keeper(&server, true).await;
    let now = SystemTime::now();
    server.set_away(true);
    let why = keeper.0.round(now).await.unwrap_err();
    assert!(why.contains("answers 503"), "{why}");
    server.set_away(false);
    server.remove(MAP);
    let why = keeper.0.round(now).await.unwrap_err();
    assert!(
        why.contains("ConfigMap longhorn-system/ca does not exist"),
        "{why}"
    );
    // There is an authority all the same, and this controller is certified.
    assert_eq!(keeper.held().trouble(now), None);
    server.forbid("secrets/ca");
    let why = keeper.0.round(now).await.unwrap_err();
    assert!(why.contains("resourceNames: [ca], verbs: [get]"), "{why}");
}
