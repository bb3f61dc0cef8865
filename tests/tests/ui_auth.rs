//! Who may use the UI, asked of the program itself and of a real API server.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::process::Command;

use e2e::documents::read;
use e2e::kube_api::{KubeApi, NAMESPACE};
use e2e::programs::{self, sources};
use e2e::ui::Ui;
use e2e::{Need, Sandbox, needs, wait};

/// A route of the table in `ui/src/access.rs`.
#[derive(Debug)]
struct Route {
    method: String,
    path: String,
    /// `list volumes`; empty: none is asked for.
    right: String,
    /// Nobody needs to be signed in.
    open: bool,
}

/// The table, read as text: the harness knows no program's insides.
fn routes() -> Vec<Route> {
    let text = read(&sources().join("ui/src/access.rs"));
    let (_, table) = text.split_once("pub const ROUTES: &[Route] = &[").unwrap();
    let (table, _) = table.split_once("];").unwrap();
    let lines = table.split(");").flat_map(|part| part.split("),\n"));
    let routes = lines.filter_map(|line| {
        let line = line.trim();
        let (method, rest) = line.split_once("(\"")?;
        let (path, need) = rest.split_once("\",")?;
        let right = need.trim().strip_prefix("may(").map(|right| {
            let right = right.trim_end_matches([')', ',', '\n', ' ']);
            right.replace(',', "").to_lowercase()
        });
        Some(Route {
            method: method.to_uppercase(),
            path: path.replace(['{', '}'], ""),
            right: right.unwrap_or_default(),
            open: need.contains("Need::Nothing"),
        })
    });
    routes.collect()
}

/// An API server on which ada may do everything, bob look at volumes, cat create them, and eve nothing.
fn people(sandbox: &Sandbox) -> KubeApi {
    let api = KubeApi::start(sandbox);
    let component = sources().join("deploy/kustomize/components/ui");
    for file in ["people", "rbac", "ui"] {
        let manifest = component.join(format!("{file}.yaml")).display().to_string();
        api.kubectl(&["apply", "-f", &manifest], "");
    }
    for name in ["ada", "bob", "cat", "eve"] {
        api.kubectl(&["create", "serviceaccount", name], "");
    }
    let ada = format!("--serviceaccount={NAMESPACE}:ada");
    let editor = "--clusterrole=longhorn-base-image-editor";
    api.kubectl(&["create", "clusterrolebinding", "ada", editor, &ada], "");
    let rule = r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"looks"},
        "rules":[{"apiGroups":["baseimage.longhorn.io"],"resources":["volumes"],"verbs":["get","list"]}]}"#;
    api.kubectl(&["create", "-f", "-"], rule);
    let rule = r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"creates"},
        "rules":[{"apiGroups":["baseimage.longhorn.io"],"resources":["volumes"],"verbs":["create"]}]}"#;
    api.kubectl(&["create", "-f", "-"], rule);
    for (name, role) in [("bob", "looks"), ("cat", "creates")] {
        let account = format!("--serviceaccount={NAMESPACE}:{name}");
        let role = format!("--clusterrole={role}");
        api.kubectl(&["create", "clusterrolebinding", name, &role, &account], "");
    }
    api
}

/// The UI as its pod: with the account of the manifests, which may do nothing but ask.
fn start(sandbox: &Sandbox, api: &KubeApi, more: &[&str]) -> Ui {
    let token = api.kubectl(&["create", "token", "longhorn-ui"], "");
    for file in ["namespace", "ca.crt"] {
        let bytes = fs::read(api.account().join(file)).unwrap();
        sandbox.write(format!("account/{file}"), bytes);
    }
    sandbox.write("account/token", token);
    let account = sandbox.path("account").display().to_string();
    let mut arguments = vec!["--service-account", &account, "--manager", "127.0.0.1:1"];
    arguments.extend(more);
    let environment = api.environment();
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    Ui::start(sandbox, "ui", &arguments, &environment)
}

fn token(api: &KubeApi, name: &str) -> String {
    api.kubectl(&["create", "token", name], "")
        .trim()
        .to_owned()
}

fn sign_in(ui: &Ui, token: &str) -> String {
    let answer = ui.ask(
        "POST",
        "/login",
        &[],
        &format!("token={token}&next=/volumes"),
    );
    assert_eq!(answer.status, 303, "{answer:?}");
    assert_eq!(answer.header("location"), Some("/volumes"));
    answer.cookie()
}

#[test]
fn row_480_no_route_is_served_without_the_right_that_it_asks() {
    if let Some(missing) = KubeApi::missing() {
        return needs::skip(&missing);
    }
    let sandbox = Sandbox::new("ui-auth");
    let api = people(&sandbox);
    let ui = start(&sandbox, &api, &["--auth", "kubernetes"]);
    let routes = routes();
    assert!(routes.len() > 40, "{routes:#?}");
    let cookies = ["ada", "bob", "eve"].map(|name| sign_in(&ui, &token(&api, name)));
    for route in &routes {
        let Route { method, path, .. } = route;
        let name = format!("{method} {path}");
        let own = ["/login", "/logout", "/healthz"].contains(&path.as_str());
        // Nobody.
        let nobody = ui.ask(method, path, &[], "");
        for header in [
            "content-security-policy",
            "x-content-type-options",
            "referrer-policy",
        ] {
            assert!(nobody.header(header).is_some(), "{name}: {nobody:?}");
        }
        let refused = if method == "GET" { 303 } else { 401 };
        assert!(route.open || nobody.status == refused, "{name}: {nobody:?}");
        let part = ui.ask(method, path, &[("HX-Request", "true")], "");
        assert!(route.open || part.status == 401, "{name}: {part:?}");
        // Another site, and another name.
        let cookie = ("Cookie", cookies[0].as_str());
        let elsewhere = [cookie, ("Sec-Fetch-Site", "cross-site")];
        if method != "GET" {
            assert_eq!(ui.ask(method, path, &elsewhere, "").status, 403, "{name}");
            let silent = [cookie, ("Sec-Fetch-Site", "")];
            assert_eq!(ui.ask(method, path, &silent, "").status, 403, "{name}");
        }
        let rebound = ui.ask(method, path, &[cookie, ("Host", "evil.example")], "");
        assert_eq!(rebound.status, 421, "{name}: {rebound:?}");
        // Somebody without the right, and with it.
        if own || route.open {
            continue;
        }
        let status = |cookie: &str| ui.ask(method, path, &[("Cookie", cookie)], "").status;
        let [ada, bob, eve] = cookies.each_ref().map(|cookie| status(cookie));
        assert_eq!(eve, 403, "{name}");
        let looks = ["get volumes", "list volumes"].contains(&route.right.as_str());
        assert_eq!(bob == 403, !looks, "{name} ({}): {bob}", route.right);
        assert!(
            ![401, 403, 303].contains(&ada) || method == "POST",
            "{name}: {ada}"
        );
        assert_ne!(ada, 403, "{name}");
    }
    // A form that asks for two things asks for both rights.
    let cat = sign_in(&ui, &token(&api, "cat"));
    let create = |access: &str| {
        let form = format!("name=v&size=1Mi&access={access}");
        ui.ask("POST", "/volumes", &[("Cookie", &cat)], &form)
    };
    assert_ne!(create("pods").status, 403);
    for access in ["device", "target", "nonsense"] {
        let answer = create(access);
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains("may not expose volumes"), "{answer:?}");
    }
    let said = ui.ask("GET", "/disks", &[("Cookie", &cookies[1])], "");
    assert!(
        said.body.contains("disks.baseimage.longhorn.io"),
        "{}",
        said.body
    );
}

#[test]
fn row_481_what_is_no_token_lets_nobody_in_and_no_secret_is_logged() {
    if let Some(missing) = KubeApi::missing() {
        return needs::skip(&missing);
    }
    let sandbox = Sandbox::new("ui-token");
    let api = people(&sandbox);
    let ui = start(
        &sandbox,
        &api,
        &["--auth", "kubernetes", "--log-level", "debug"],
    );
    let good = token(&api, "ada");
    let other = api.token("ada", None, "somebody-else");
    let other = fs::read_to_string(other).unwrap();
    for wrong in [
        "",
        "x",
        other.trim(),
        &good[..good.len() - 8],
        &"x".repeat(20_000),
    ] {
        let answer = ui.ask("POST", "/login", &[], &format!("token={wrong}"));
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(answer.header("set-cookie").is_none());
        assert!(wrong.len() < 2 || !answer.body.contains(wrong));
    }
    let cookie = sign_in(&ui, &good);
    assert!(cookie.starts_with("session="), "{cookie}");
    assert!(!cookie.contains(&good[..32]));
    // A right that is taken away is gone within moments, whoever is signed in.
    let look = || ui.ask("GET", "/volumes", &[("Cookie", &cookie)], "").status;
    assert_ne!(look(), 403);
    api.kubectl(&["delete", "clusterrolebinding", "ada"], "");
    wait::until("ada may not look any more", || {
        (look() == 403).then_some(())
    });
    let answer = ui.ask("POST", "/logout", &[("Cookie", &cookie)], "");
    assert_eq!(answer.header("location"), Some("/login"));
    assert_eq!(look(), 303);
    let log = ui.log();
    let (_, word) = cookie.split_once('=').unwrap();
    for secret in [good.as_str(), other.trim(), word] {
        assert!(!log.contains(secret), "the log has a secret");
    }
    assert!(
        log.contains("system:serviceaccount:longhorn-system:ada"),
        "{log}"
    );
}

#[test]
fn row_482_without_the_api_server_nobody_is_let_in_and_it_is_said() {
    let sandbox = Sandbox::new("ui-away");
    for (file, text) in [("namespace", NAMESPACE), ("token", "x")] {
        sandbox.write(format!("account/{file}"), text);
    }
    let authority = rcgen::generate_simple_self_signed(["api".to_owned()]).unwrap();
    sandbox.write("account/ca.crt", authority.cert.pem());
    let account = sandbox.path("account").display().to_string();
    let port = e2e::ports::free().port().to_string();
    let environment = [
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
        ("KUBERNETES_SERVICE_PORT", port.as_str()),
    ];
    let secret = sandbox
        .write("secret", "0123456789abcdef\n")
        .display()
        .to_string();
    let arguments = [
        "--service-account",
        &account,
        "--manager",
        "127.0.0.1:1",
        "--auth",
        "header",
        "--proxy-secret",
        &secret,
    ];
    let ui = Ui::start(&sandbox, "ui", &arguments, &environment);
    let nobody = ui.ask("GET", "/volumes", &[("X-Forwarded-User", "ada")], "");
    assert_eq!(nobody.status, 401, "{nobody:?}");
    let proxy = [
        ("X-Forwarded-User", "ada"),
        ("X-Forwarded-Secret", "0123456789abcdef"),
    ];
    let away = ui.ask("GET", "/volumes", &proxy, "");
    assert_eq!(away.status, 503, "{away:?}");
    assert!(away.body.contains("does not answer"), "{}", away.body);
    assert!(!ui.log().contains("0123456789abcdef"));
}

#[test]
fn row_483_a_proxy_says_who_somebody_is_and_the_cluster_what_they_may() {
    if let Some(missing) = KubeApi::missing() {
        return needs::skip(&missing);
    }
    let sandbox = Sandbox::new("ui-proxy");
    let api = people(&sandbox);
    let dev = "--group=dev";
    api.kubectl(
        &[
            "create",
            "clusterrolebinding",
            "dev",
            "--clusterrole=looks",
            dev,
        ],
        "",
    );
    let ui = start(&sandbox, &api, &["--auth", "header"]);
    let status = |headers: &[(&str, &str)], path: &str| ui.ask("GET", path, headers, "").status;
    assert_eq!(status(&[], "/volumes"), 401);
    let carol = [
        ("X-Forwarded-User", "carol"),
        ("X-Forwarded-Groups", "dev,system:masters"),
    ];
    assert!(![401, 403].contains(&status(&carol, "/volumes")));
    assert_eq!(status(&carol, "/disks"), 403);
    assert_eq!(
        status(&[("X-Forwarded-User", "system:admin")], "/volumes"),
        401
    );
}

#[test]
fn row_484_the_program_does_not_start_where_everybody_could_do_everything() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(programs::ui())
            .args(arguments)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&["--auth", "none", "--listen", "0.0.0.0:0"]);
    assert!(said.contains("listen at 127.0.0.1"), "{said}");
    let said = refused(&[
        "--auth", "basic", "--users", "/nothing", "--listen", "[::]:0",
    ]);
    assert!(said.contains("in the clear"), "{said}");
}

#[test]
fn row_485_passwords_are_of_a_file_and_a_certificate_is_replaced_while_it_runs() {
    needs!(Need::Tool("curl"));
    let sandbox = Sandbox::new("ui-basic");
    let line = |name: &str| {
        use std::io::Write as _;
        let mut child = Command::new(programs::ui())
            .args(["--hash-password", name])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"correct horse\n")
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = line("ada") + line("bob").trim() + ":read-only\n";
    assert!(!lines.contains("correct horse"));
    let users = sandbox.write("users", lines).display().to_string();
    let certificate = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), name.to_owned()]);
        let made = made.unwrap();
        sandbox.write("tls.key", made.signing_key.serialize_pem());
        sandbox.write("tls.crt", made.cert.pem())
    };
    let first = certificate("first.example");
    let known = fs::read(&first).unwrap();
    let (crt, key) = (
        first.display().to_string(),
        sandbox.path("tls.key").display().to_string(),
    );
    let arguments = [
        "--manager",
        "127.0.0.1:1",
        "--auth",
        "basic",
        "--users",
        &users,
        "--tls-cert",
        &crt,
        "--tls-key",
        &key,
    ];
    let ui = Ui::start(&sandbox, "ui", &arguments, &[]);
    let plain = ui.ask("GET", "/login", &[], "");
    assert_eq!(plain.status, 426, "{plain:?}");
    assert!(plain.body.contains("https://"), "{plain:?}");
    let curl = |authority: &std::path::Path, arguments: &[&str]| {
        let url = format!("https://localhost:{}", ui.address().port());
        let authority = authority.display().to_string();
        let arguments = arguments.iter().map(|one| one.replace("URL", &url));
        let mut all = vec!["-sS".to_owned(), "--cacert".to_owned(), authority];
        all.extend(arguments);
        e2e::command::output("curl", all)
    };
    let before = sandbox.write("before.crt", &known);
    let form = "user=ada&password=correct horse";
    let same = ["-H", "Sec-Fetch-Site: same-origin"];
    let mut ask = vec!["-i", "URL/login", "--data", form];
    ask.extend(same);
    let answer = curl(&before, &ask);
    let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    // Over TLS the cookie is for this very host and for nothing but TLS.
    assert!(
        answer.contains("__Host-session=") && answer.contains("; Secure;"),
        "{answer}"
    );
    let second = certificate("second.example");
    wait::until("the new certificate is shown", || {
        curl(&second, &["URL/healthz"])
            .status
            .success()
            .then_some(())
    });
    assert!(!curl(&before, &["URL/healthz"]).status.success());
}
