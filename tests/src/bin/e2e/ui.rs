//! The web UI on the cluster: a person with a token makes a base image a volume that an iSCSI initiator reads; nobody
//! does without.

use std::fs;

use e2e::baseimage::{PARTY_WIZARD, WIZARD};
use e2e::cluster::Cluster;
use e2e::{Sandbox, wait};

use crate::examples::nothing_is_left;
use crate::stranger::Shell;

const PORT: u16 = 9503;
const VOLUME: &str = "party";
const INITIATOR: &str = "iqn.2026-01.org.example:wizard";
const SECRET: &str = "abracadabra-42";

/// A browser, as far as requests go: with its cookies, in the network of node 1.
struct Browser<'a> {
    shell: &'a Shell,
    cookies: String,
}

impl Browser<'_> {
    /// The status, and the page.
    fn ask(&self, path: &str, fields: &[(&str, &str)]) -> (String, String) {
        let mut command = format!(
            "curl -sS -b {jar} -c {jar} -w '\\n%{{http_code}}' -H 'Sec-Fetch-Site: same-origin'",
            jar = self.cookies
        );
        for (name, value) in fields {
            command.push_str(" --data-urlencode '");
            command.push_str(name);
            command.push('=');
            command.push_str(value);
            command.push('\'');
        }
        command.extend([" http://localhost:", &PORT.to_string(), path]);
        let answer = self.shell.in_network(&command);
        let (page, status) = answer.rsplit_once('\n').unwrap_or_default();
        (status.to_owned(), page.to_owned())
    }
}

/// What stands after a term in a list of facts.
fn fact(page: &str, term: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("<dt>{term}</dt>"))?;
    let (_, rest) = rest.split_once("<code")?;
    let (_, rest) = rest.split_once('>')?;
    rest.split_once("</code>").map(|(text, _)| text.to_owned())
}

/// Row 519.
pub(crate) fn row_519_a_person_with_a_token_and_a_browser(cluster: &Cluster) {
    for app in ["longhorn-ui", "longhorn-target"] {
        cluster.kubectl(&format!(
            "-n longhorn-system wait --for=condition=Ready pod -l app={app} --timeout=120s"
        ));
    }
    let shell = Shell::new();
    let sandbox = Sandbox::new("k8s-ui");
    shell.run(
        "kubectl create serviceaccount wizard && kubectl create serviceaccount muggle && \
         kubectl create clusterrolebinding wizard --clusterrole=longhorn-base-image-editor --serviceaccount=default:wizard",
    );
    let forward = format!("-n longhorn-system port-forward deployment/longhorn-ui {PORT}:{PORT}");
    let _forward = shell.start("port-forward", &forward);
    let browser = |name: &str| Browser {
        shell: &shell,
        cookies: sandbox.path(name).display().to_string(),
    };
    let stranger = browser("stranger");
    wait::until("the UI answers", || {
        let status = stranger.shell.try_in_network(&format!(
            "curl -sS -o /dev/null -w '%{{http_code}}' http://localhost:{PORT}/login"
        ));
        (status.trim() == "200").then_some(())
    });
    let volume = [
        ("name", VOLUME),
        ("base_image", "rancher/longhorn-test:baseimage-ext4"),
        ("access", "target"),
        ("initiators", INITIATOR),
        ("chap_user", "wizard"),
        ("chap_secret", SECRET),
        ("do", "create"),
    ];
    nobody_does_it_without(&shell, &stranger, &browser("muggle"), &volume);

    // Four actions: sign in, Volume, Create Volume, the filled form.
    let person = browser("person");
    sign_in(&shell, &person, "wizard");
    let (status, page) = person.ask("/volumes", &[]);
    assert!(status == "200" && page.contains("Create Volume"), "{page}");
    let (status, page) = person.ask("/volumes/new", &[]);
    assert!(status == "200" && page.contains("Base Image"), "{page}");
    let (status, page) = person.ask("/volumes", &volume);
    assert_eq!(status, "303", "{page}");
    let url = format!("/volumes/{VOLUME}");
    let page = wait::until("the volume is a target", || {
        let (_, page) = person.ask(&url, &[]);
        assert!(!page.contains("role=\"alert\""), "{page}");
        fact(&page, "IQN").map(|_| page)
    });
    let (portal, iqn) = (fact(&page, "Target address"), fact(&page, "IQN"));
    an_initiator_sees_the_wizard(&shell, &sandbox, &portal.unwrap(), &iqn.unwrap());

    let (status, page) = person.ask(&format!("{url}/take-back"), &[("disconnect", "yes")]);
    assert_eq!(status, "303", "{page}");
    let (status, page) = person.ask(&format!("{url}/delete"), &[("sure", "yes")]);
    assert_eq!(status, "303", "{page}");
    shell.run(
        "kubectl delete clusterrolebinding wizard && kubectl delete serviceaccount wizard muggle",
    );
    nothing_is_left(cluster);
}

fn sign_in(shell: &Shell, browser: &Browser<'_>, account: &str) {
    let token = shell.run(&format!("kubectl create token {account}"));
    let (status, page) = browser.ask("/login", &[("token", token.trim()), ("next", "/volumes")]);
    assert_eq!(status, "303", "{page}");
}

/// Without a token everything leads to the page that asks for one; with one without rights nothing is done.
fn nobody_does_it_without(
    shell: &Shell,
    stranger: &Browser<'_>,
    muggle: &Browser<'_>,
    volume: &[(&str, &str)],
) {
    let asked: [(&str, &[(&str, &str)]); 5] = [
        ("/volumes", &[]),
        ("/volumes/new", &[]),
        ("/fragments/base-image", &volume[1..2]),
        ("/volumes", volume),
        ("/volumes/party/expose", &volume[2..6]),
    ];
    for (path, fields) in asked {
        let (status, page) = stranger.ask(path, fields);
        assert!(
            ["303", "401"].contains(&status.as_str()),
            "{path}: {status}"
        );
        assert!(!page.contains("Create volume"), "{path}: {page}");
    }
    let (status, _) = stranger.ask("/login", &[("token", "abracadabra"), ("next", "/")]);
    assert!(["401", "403", "422"].contains(&status.as_str()), "{status}");
    sign_in(shell, muggle, "muggle");
    for (path, fields) in asked {
        let (status, page) = muggle.ask(path, fields);
        assert_eq!(status, "403", "{path}: {page}");
    }
}

/// An initiator that is no code of ours reads the whole disk, and mounts what it has read.
fn an_initiator_sees_the_wizard(shell: &Shell, sandbox: &Sandbox, portal: &str, iqn: &str) {
    let (disk, mounted) = (sandbox.path("disk.img"), sandbox.make_dir("mounted"));
    let (disk, mounted) = (disk.display(), mounted.display());
    let from = |secret: &str| {
        format!(
            "qemu-img convert -O raw --image-opts driver=iscsi,transport=tcp,portal={portal},target={iqn},lun=1,\
             user=wizard,password={secret},initiator-name={INITIATOR} {disk}"
        )
    };
    let refused = shell.try_in_network(&format!("{} 2>&1 || echo refused", from("not-the-secret")));
    assert!(refused.contains("refused"), "{refused}");
    shell.in_network(&from(SECRET));
    shell.run(&format!("mount -o ro,loop {disk} {mounted}"));
    let gif = fs::read(sandbox.path("mounted").join(WIZARD));
    shell.run(&format!("umount {mounted}"));
    assert!(gif.unwrap() == PARTY_WIZARD);
}
