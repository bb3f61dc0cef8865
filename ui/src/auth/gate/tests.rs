use axum::Extension;
use axum::body::Body;
use axum::http::header::{COOKIE, HOST, LOCATION, SET_COOKIE};
use axum::routing::MethodRouter;
use tower::ServiceExt as _;

use super::*;
use crate::access::{ROUTES, Route};
use crate::auth::users::hash_line;
use crate::http::outer;

const PASSWORD: &str = "correct horse";
const OWN: [&str; 3] = ["/healthz", "/login", "/logout"];

/// A router with each route of the table, and one that is not in it; a handler says who asks.
fn router(gate: Gate) -> Router {
    async fn who(person: Option<Extension<Person>>) -> String {
        person.map_or_else(|| "nobody".to_owned(), |person| person.0.name)
    }
    let mut router = Router::new().route("/forgotten", axum::routing::get(who));
    for route in ROUTES.iter().filter(|route| !OWN.contains(&route.path)) {
        let method = axum::routing::MethodFilter::try_from(route.method.clone()).unwrap();
        router = router.route(route.path, MethodRouter::new().on(method, who));
    }
    outer(protect(router, gate))
}

fn basic() -> Router {
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines = [
        hash_line("ada", PASSWORD).unwrap(),
        hash_line("bob", PASSWORD).unwrap() + ":read-only",
    ];
    crate::written(file.path(), lines.join("\n"));
    let users = Users::open(file.path().to_owned()).unwrap();
    router(Gate::new(Mode::Basic(users), Hosts::default(), false))
}

fn open() -> Router {
    router(Gate::new(Mode::Nobody, Hosts::default(), false))
}

fn path(route: &Route) -> String {
    route.path.replace(['{', '}'], "")
}

fn request(route: &Route) -> axum::http::request::Builder {
    let request = Request::builder().method(&route.method).uri(path(route));
    request.header(HOST, "localhost:8080")
}

fn same_origin(request: axum::http::request::Builder) -> axum::http::request::Builder {
    request.header("sec-fetch-site", "same-origin")
}

async fn ask(router: &Router, request: axum::http::request::Builder, body: &str) -> Response {
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let headers = response.headers();
    for header in [
        "content-security-policy",
        "x-content-type-options",
        "referrer-policy",
    ] {
        assert!(headers.contains_key(header), "{headers:?}");
    }
    response
}

async fn sign_in(router: &Router, body: &str) -> Response {
    let form = Request::post("/login").header(HOST, "localhost:8080");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    ask(router, same_origin(form), body).await
}

async fn cookie(router: &Router, name: &str) -> String {
    let body = format!("user={name}&password=correct+horse&next=/volumes");
    let response = sign_in(router, &body).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()[LOCATION], "/volumes");
    let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn no_route_is_served_to_nobody() {
    let router = basic();
    for route in ROUTES {
        let status = ask(&router, same_origin(request(route)), "").await.status();
        let looks = route.method == Method::GET;
        match route.need {
            Need::Nothing => assert_ne!(status, StatusCode::NOT_FOUND, "{}", route.path),
            _ if looks => assert_eq!(status, StatusCode::SEE_OTHER, "{}", route.path),
            _ => assert_eq!(status, StatusCode::UNAUTHORIZED, "{}", route.path),
        }
        let part = same_origin(request(route)).header("hx-request", "true");
        let status = ask(&router, part, "").await.status();
        assert!(
            route.need == Need::Nothing || status == StatusCode::UNAUTHORIZED,
            "{} {status}",
            route.path
        );
    }
}

#[tokio::test]
async fn every_route_asks_for_its_right() {
    let router = basic();
    for name in ["ada", "bob"] {
        let cookie = cookie(&router, name).await;
        for route in ROUTES.iter().filter(|route| !OWN.contains(&route.path)) {
            let request = same_origin(request(route)).header(COOKIE, &cookie);
            let status = ask(&router, request, "").await.status();
            let Need::May(verb, _) = route.need else {
                assert_eq!(status, StatusCode::OK, "{}", route.path);
                continue;
            };
            let may = name == "ada" || [Verb::Get, Verb::List].contains(&verb);
            let expected = if may {
                StatusCode::OK
            } else {
                StatusCode::FORBIDDEN
            };
            assert_eq!(status, expected, "{name}: {} {}", route.method, route.path);
        }
    }
}

#[tokio::test]
async fn other_sites_and_other_names_reach_no_route() {
    for router in [basic(), open()] {
        for route in ROUTES {
            let elsewhere = request(route).header("sec-fetch-site", "cross-site");
            let status = ask(&router, elsewhere, "").await.status();
            if !route.method.is_safe() {
                assert_eq!(status, StatusCode::FORBIDDEN, "{}", route.path);
                let silent = ask(&router, request(route), "").await.status();
                assert_eq!(silent, StatusCode::FORBIDDEN, "{}", route.path);
            }
            let rebound = Request::builder().method(&route.method).uri(path(route));
            let rebound = same_origin(rebound).header(HOST, "evil.example:8080");
            let status = ask(&router, rebound, "").await.status();
            assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "{}", route.path);
        }
    }
}

#[tokio::test]
async fn a_route_without_a_line_is_not_found_for_anybody() {
    let router = open();
    for (method, path) in [
        (Method::GET, "/forgotten"),
        (Method::GET, "/nothing"),
        (Method::DELETE, "/volumes"),
        (Method::PUT, "/healthz"),
    ] {
        let request = Request::builder().method(&method).uri(path);
        let request = same_origin(request).header(HOST, "localhost");
        let status = ask(&router, request, "").await.status();
        assert_eq!(status, StatusCode::NOT_FOUND, "{method} {path}");
    }
    let head = Request::head("/volumes").header(HOST, "localhost");
    assert_eq!(ask(&router, head, "").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn wrong_passwords_are_refused_and_many_of_them_have_to_wait() {
    let router = basic();
    let wrong = "user=ada&password=wrong";
    assert_eq!(
        sign_in(&router, wrong).await.status(),
        StatusCode::UNAUTHORIZED
    );
    let unread = sign_in(&router, "user=%FF&password").await.status();
    assert!(unread.is_client_error(), "{unread}");
    let mut last = StatusCode::OK;
    for _ in 0..20 {
        last = sign_in(&router, wrong).await.status();
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    // The right one has to wait as well, and others have not.
    let right = sign_in(&router, "user=ada&password=correct+horse").await;
    assert_eq!(right.status(), StatusCode::TOO_MANY_REQUESTS);
    cookie(&router, "bob").await;
}

#[tokio::test]
async fn signing_out_ends_the_session_and_not_the_cookie_alone() {
    let router = basic();
    let cookie = cookie(&router, "ada").await;
    let volumes = || {
        Request::get("/volumes")
            .header(HOST, "localhost")
            .header(COOKIE, &cookie)
    };
    assert_eq!(ask(&router, volumes(), "").await.status(), StatusCode::OK);
    let out = Request::post("/logout")
        .header(HOST, "localhost")
        .header(COOKIE, &cookie);
    let out = ask(&router, same_origin(out), "").await;
    assert_eq!(out.headers()[LOCATION], "/login");
    assert_eq!(
        ask(&router, volumes(), "").await.status(),
        StatusCode::SEE_OTHER
    );
}

#[test]
fn a_proxy_gives_nobody_the_names_of_kubernetes() {
    let who = |lines: &[(&'static str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        named(&headers)
    };
    let ada = who(&[
        (USER, "ada@example.org"),
        (GROUPS, "dev, system:masters,ops"),
    ])
    .unwrap();
    assert_eq!(ada.name, "ada@example.org");
    assert_eq!(ada.groups, ["dev", "ops", "system:authenticated"]);
    assert_eq!(who(&[(USER, "system:admin")]), None);
    assert_eq!(who(&[(USER, "")]), None);
    assert_eq!(who(&[(USER, "ada"), (USER, "bob")]), None);
    assert_eq!(who(&[]), None);
}

#[test]
fn the_secret_of_a_proxy_is_said_once_and_whole() {
    let said = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SECRET, value.parse().unwrap());
        }
        is_secret(&headers, "0123456789abcdef")
    };
    assert!(said(&["0123456789abcdef"]));
    for wrong in [
        &[][..],
        &[""],
        &["0123456789abcde"],
        &["0123456789abcdef", "x"],
    ] {
        assert!(!said(wrong), "{wrong:?}");
    }
}
