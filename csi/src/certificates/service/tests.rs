//! Against a small API server (`e2e::ApiServer`); against the real one: `tests/tests/authority_kubernetes.rs`.

use e2e::api_server::{PodToken, jwt};
use e2e::{ApiServer, Sandbox};
use kubernetes::Api;
use serde_json::json;
use tonic::Code;
use trust::{KeyRequest, Role};

use super::*;
use crate::config::Place;

const MANAGER: &str = "backing-image-manager";

async fn cluster(name: &str) -> (Sandbox, ApiServer, CertificatesService) {
    let sandbox = Sandbox::new(name);
    let server = ApiServer::start(&sandbox);
    server.put("secrets/ca", &[]);
    server.put("configmaps/ca", &[]);
    let api = Api::at(server.url(), server.account()).await.unwrap();
    let place = Place {
        secret: "ca".to_owned(),
        owned: true,
        config_map: "ca".to_owned(),
    };
    let identity = Identity::new(Role::Controller, None, "c").unwrap();
    let keeper = Keeper::new(api, place, identity);
    keeper.look().await;
    (sandbox, server, CertificatesService::new(keeper))
}

async fn ask_with(
    service: &CertificatesService,
    authorization: Option<&str>,
    csr_pem: &str,
) -> Result<IssueCertificateResponse, Status> {
    let csr_pem = csr_pem.to_owned();
    let mut request = Request::new(IssueCertificateRequest { csr_pem });
    if let Some(value) = authorization {
        let value = value.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let answer = service.issue_certificate(request).await?;
    Ok(answer.into_inner())
}

/// The identity in the certificate that a token gets.
async fn ask(service: &CertificatesService, token: &str) -> Result<String, Status> {
    let request = KeyRequest::new().unwrap();
    let token = format!("Bearer {token}");
    let answer = ask_with(service, Some(&token), request.csr_pem()).await?;
    let credential = request.complete(&answer.chain_pem, &answer.bundle_pem);
    Ok(credential.unwrap().identity().to_string())
}

#[tokio::test]
async fn a_pod_gets_the_role_of_its_account_and_its_own_node_and_name() {
    let (_sandbox, server, service) = cluster("service-roles").await;
    for (account, expected) in [
        (MANAGER, "manager/n1/pod-1"),
        ("longhorn-csi-plugin", "node/n1/pod-1"),
        ("longhorn-ui", "ui/pod-1"),
    ] {
        let of = PodToken::of(account, "pod-1", "n1");
        let identity = ask(&service, &server.token(&of)).await.unwrap();
        assert_eq!(
            identity,
            format!("spiffe://base-image.longhorn.io/{expected}")
        );
    }
}

#[tokio::test]
async fn a_person_is_certified_by_the_account_of_persons_alone() {
    let (_sandbox, server, service) = cluster("service-person").await;
    let token = server.token_without_pod("longhorn-system:longhorn-base-image-cli");
    assert_eq!(
        ask(&service, &token).await.unwrap(),
        "spiffe://base-image.longhorn.io/cli/longhorn-base-image-cli"
    );
    // Each command of a person asks for one, and all persons are one account: they are not counted as a pod.
    for _ in 0..2 * rate::MOST {
        ask(&service, &token).await.unwrap();
    }
    // Another namespace may have an account of that name, and a pod has another proof.
    let token = server.token_without_pod("default:longhorn-base-image-cli");
    let status = ask(&service, &token).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let pod = PodToken::of("longhorn-base-image-cli", "pod-1", "n1");
    let status = ask(&service, &server.token(&pod)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
}

#[tokio::test]
async fn row_233_each_wrong_token_is_refused_with_its_reason() {
    let (_sandbox, server, service) = cluster("service-tokens").await;
    let with = |change: fn(&mut PodToken)| {
        let mut of = PodToken::of(MANAGER, "pod-1", "n1");
        change(&mut of);
        server.token(&of)
    };
    let elsewhere = with(|of| of.namespace = "default");
    let audience = with(|of| of.audience = "vault");
    let account = with(|of| of.account = "longhorn-csi-controller");
    let expired = jwt(&json!({"aud": ["longhorn-base-image"], "exp": 1000}));
    let forged = jwt(&json!({"aud": ["longhorn-base-image"], "exp": 4_000_000_000_u64}));
    for (token, code, words) in [
        ("", Code::Unauthenticated, "has no token"),
        ("nonsense", Code::Unauthenticated, "has no token"),
        (
            &*elsewhere,
            Code::PermissionDenied,
            "of the namespace default",
        ),
        (
            &audience,
            Code::Unauthenticated,
            "not for the audience longhorn-base-image",
        ),
        (
            &account,
            Code::PermissionDenied,
            "longhorn-csi-controller has no role",
        ),
        (
            &expired,
            Code::Unauthenticated,
            "s ago by the clock of the controller",
        ),
        (&forged, Code::Unauthenticated, "does not accept the token"),
        (
            &server.token_without_pod("longhorn-system:backing-image-manager"),
            Code::PermissionDenied,
            "of no pod",
        ),
    ] {
        let status = ask(&service, token).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{words}: {status}");
        assert!(token.len() < 10 || !status.message().contains(token));
    }
    let status = ask_with(&service, None, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // A pod that is gone while its token is still good, and one whose token is not.
    for tokens in [true, false] {
        let of = PodToken::of(MANAGER, "pod-2", "n1");
        let token = server.token(&of);
        ask(&service, &token).await.unwrap();
        server.delete_pod("pod-2", tokens);
        let status = ask(&service, &token).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("pod-2"), "{status}");
        // Another pod of the same name has another token.
        let again = server.token(&of);
        ask(&service, &again).await.unwrap();
        assert!(ask(&service, &token).await.is_err());
    }
}

#[tokio::test]
async fn row_234_what_is_asked_for_is_not_what_counts() {
    let (_sandbox, server, service) = cluster("service-requests").await;
    let token = server.token(&PodToken::of(MANAGER, "pod-1", "n1"));
    let token = format!("Bearer {token}");
    for csr in ["", "nonsense", &"x".repeat(9 << 10)] {
        let status = ask_with(&service, Some(&token), csr).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}

#[tokio::test]
async fn row_234_a_pod_that_asks_again_and_again_and_an_authority_that_is_not_there() {
    let (_sandbox, server, service) = cluster("service-bounds").await;
    let token = server.token(&PodToken::of(MANAGER, "pod-1", "n1"));
    for _ in 0..rate::MOST {
        ask(&service, &token).await.unwrap();
    }
    let status = ask(&service, &token).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let other = server.token(&PodToken::of(MANAGER, "pod-2", "n1"));
    ask(&service, &other).await.unwrap();
    server.set_away(true);
    let status = ask(&service, &other).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("503"), "{status}");
    server.set_away(false);
    let api = Api::at(server.url(), server.account()).await.unwrap();
    let place = Place {
        secret: "missing".to_owned(),
        owned: true,
        config_map: "ca".to_owned(),
    };
    let keeper = Keeper::new(
        api,
        place,
        Identity::new(Role::Controller, None, "c").unwrap(),
    );
    keeper.look().await;
    let status = ask(&CertificatesService::new(keeper), &other)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(
        status.message().contains("missing does not exist"),
        "{status}"
    );
}

#[tokio::test]
async fn a_hundred_pods_at_once_are_asked_for_sixteen_at_a_time() {
    let (_sandbox, server, service) = cluster("service-hundred").await;
    server.slow_reviews(Duration::from_millis(20));
    let started = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..100 {
        let token = server.token(&PodToken::of(MANAGER, format!("pod-{n}"), "n1"));
        let service = service.clone();
        asking.spawn(async move { ask(&service, &token).await.unwrap() });
    }
    let certified: std::collections::HashSet<String> =
        asking.join_all().await.into_iter().collect();
    assert_eq!(certified.len(), 100);
    assert!((2..=AT_ONCE).contains(&server.most_reviews()));
    assert!(started.elapsed() < Duration::from_secs(10));
}
