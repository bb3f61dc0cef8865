//! The table of `why`: facts, and the sentence.

use super::*;

fn event(reason: &str, message: &str) -> Event {
    Event {
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// A claim of our class that waits for the provisioner.
fn pending() -> Facts {
    Facts {
        driver: "driver.longhorn.io".to_owned(),
        driver_installed: true,
        controller_ready: true,
        claim: Claim {
            namespace: "shop".to_owned(),
            name: "data".to_owned(),
            class: Some("site".to_owned()),
            ..Default::default()
        },
        class: Some(Class {
            provisioner: "driver.longhorn.io".to_owned(),
            base_image: "rancher/vm-ubuntu:16.04".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// One that is bound, with a pod on n1 that is not there yet.
fn starting() -> Facts {
    let mut facts = pending();
    facts.claim.phase = Phase::Bound;
    facts.claim.volume = "pvc-1".to_owned();
    facts.volume = Some(Volume {
        driver: "driver.longhorn.io".to_owned(),
    });
    facts.pods.push(Pod {
        name: "web".to_owned(),
        node: "n1".to_owned(),
        ..Default::default()
    });
    facts.attachments.push(Attachment {
        node: "n1".to_owned(),
        attached: true,
        error: String::new(),
    });
    facts
}

fn changed(mut facts: Facts, change: impl FnOnce(&mut Facts)) -> Facts {
    change(&mut facts);
    facts
}

fn provisioning(code: &str, said: &str) -> Facts {
    let message = format!(
        "failed to provision volume with StorageClass \"site\": rpc error: code = {code} desc = {said}"
    );
    changed(pending(), |facts| {
        facts
            .claim
            .events
            .push(event("ProvisioningFailed", &message));
        facts.claim.events.push(event(
            "Provisioning",
            "External provisioner is provisioning volume",
        ));
    })
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<(Facts, bool, &'static str)> {
    let unscheduled = |why: &str| {
        changed(pending(), |facts| {
            facts.class.as_mut().unwrap().waits_for_pod = true;
            facts.pods.push(Pod {
                name: "web".to_owned(),
                unscheduled: Some(why.to_owned()),
                ..Default::default()
            });
        })
    };
    let image = |state: &'static str, message: &str| {
        changed(pending(), |facts| {
            facts.images.push(Image {
                node: "n2".to_owned(),
                name: "ubuntu".to_owned(),
                state,
                progress: "37 % (37 of 100 bytes)".to_owned(),
                source: "docker.io/rancher/vm-ubuntu:16.04".to_owned(),
                message: message.to_owned(),
            });
        })
    };
    let unbound = vec![
        (
            changed(pending(), |f| f.claim.class = None),
            true,
            "no default one: set spec.storageClassName",
        ),
        (
            changed(pending(), |f| f.claim.class = Some(String::new())),
            true,
            "a PersistentVolume that somebody creates",
        ),
        (
            changed(pending(), |f| f.class = None),
            true,
            "StorageClass site, which does not exist: create it",
        ),
        (
            changed(pending(), |f| {
                f.class.as_mut().unwrap().provisioner = "rancher.io/longhorn".to_owned();
            }),
            true,
            "install the alias",
        ),
        (
            changed(pending(), |f| {
                f.class.as_mut().unwrap().provisioner = "other.io".to_owned();
            }),
            true,
            "other.io, the provisioner of class site, which is not driver.longhorn.io: ask that one",
        ),
        (
            changed(pending(), |f| {
                f.class.as_mut().unwrap().waits_for_pod = true;
            }),
            true,
            "its first consumer, as its class says: create a pod that uses it",
        ),
        (
            unscheduled("0/2 nodes are available: 2 Insufficient cpu."),
            true,
            "pod web to get a node: 0/2 nodes are available: 2 Insufficient cpu; change what the pod asks for",
        ),
        (
            unscheduled("0/2 nodes are available: 2 node(s) did not have enough free storage."),
            true,
            "did not have enough free storage; free space, or add a disk",
        ),
        (
            changed(pending(), |f| f.driver_installed = false),
            true,
            "driver driver.longhorn.io, which is not installed",
        ),
        (
            changed(pending(), |f| f.controller_ready = false),
            true,
            "the controller, of which no pod is ready",
        ),
        (
            image("in-progress", ""),
            true,
            "image ubuntu on node n2, which is in-progress, 37 % (37 of 100 bytes)",
        ),
        (
            image("failed", "the registry answers 401"),
            true,
            "failed on node n2: the registry answers 401",
        ),
        (
            provisioning("NotFound", "cannot get image a/b:c: no such image"),
            true,
            "a volume that cannot be made: cannot get image a/b:c: no such image; correct the name",
        ),
        (
            provisioning("InvalidArgument", "fsType xfs, and the image has ext4"),
            true,
            "fsType xfs, and the image has ext4; correct its StorageClass",
        ),
        (
            provisioning("ResourceExhausted", "the disk can promise 5 bytes more"),
            true,
            "the disk can promise 5 bytes more; free space, or add a disk",
        ),
        (
            changed(pending(), |f| f.silent.push("n2 is away".to_owned())),
            true,
            "a manager that does not answer: n2 is away; look at kubectl longhorn-image doctor",
        ),
        (
            pending(),
            true,
            "the provisioner, which has said nothing yet",
        ),
    ];
    let bound = vec![
        (
            changed(starting(), |f| f.pods.clear()),
            false,
            "waits for nothing: it is bound, and no pod uses it",
        ),
        (
            changed(starting(), |f| f.pods[0].running = true),
            false,
            "waits for nothing: pod web uses it on node n1",
        ),
        (
            changed(starting(), |f| {
                f.attachments[0].attached = false;
                f.attachments[0].error =
                    "rpc error: code = FailedPrecondition desc = volume pvc-1 is exposed on n2"
                        .to_owned();
            }),
            true,
            "its attachment to node n1: volume pvc-1 is exposed on n2;",
        ),
        (
            changed(starting(), |f| f.attachments[0].attached = false),
            true,
            "the attacher is at it",
        ),
        (
            changed(starting(), |f| f.attachments[0].node = "n2".to_owned()),
            true,
            "node n2 to let it go before pod web can have it on node n1",
        ),
        (
            changed(starting(), |f| f.lacks.push("install mkfs.ext4".to_owned())),
            true,
            "node n1, which cannot mount it: install mkfs.ext4",
        ),
        (
            changed(starting(), |f| {
                f.pods[0].events.push(event(
                    "FailedMount",
                    "MountVolume.SetUp failed: rpc error: code = Internal desc = mount: wrong superblock",
                ));
            }),
            true,
            "its mount in pod web on node n1: mount: wrong superblock;",
        ),
        (
            starting(),
            true,
            "nothing says that the volume is in its way",
        ),
        (
            changed(starting(), |f| f.claim.deleting = true),
            true,
            "pod web to end, because it is being deleted",
        ),
        (
            changed(starting(), |f| f.claim.phase = Phase::Lost),
            true,
            "PersistentVolume pvc-1, which is gone",
        ),
        (
            changed(starting(), |f| {
                f.pods[0].running = true;
                f.claim
                    .conditions
                    .push("FileSystemResizePending".to_owned());
            }),
            true,
            "a pod that mounts it, so that its file system grows",
        ),
    ];
    [unbound, bound].concat()
}

#[test]
fn row_503_each_state_of_a_claim_has_its_sentence() {
    for (facts, waits, part) in cases() {
        let verdict = verdict(&facts);
        assert_eq!(verdict.waits, waits, "{}", verdict.text);
        assert!(verdict.text.contains(part), "{} lacks {part}", verdict.text);
        assert!(
            verdict.text.starts_with("claim shop/data waits for "),
            "{}",
            verdict.text
        );
        assert!(!verdict.text.contains('\n'), "one sentence");
    }
}

#[test]
fn an_image_that_still_comes_counts_more_than_an_old_failure() {
    let mut facts = provisioning("Unavailable", "it does not answer");
    facts.images.push(Image {
        node: "n1".to_owned(),
        name: "ubuntu".to_owned(),
        state: "in-progress",
        source: "docker.io/rancher/vm-ubuntu:16.04".to_owned(),
        ..Default::default()
    });
    let text = verdict(&facts).text;
    assert!(
        text.contains("image ubuntu on node n1, which is in-progress"),
        "{text}"
    );
}
