//! The FlexVolume executable against a real manager: the calls of the kubelet, and each failure of
//! the first driver as a test that passes.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::Write as _;
use std::path::Path;

use e2e::baseimage::{Build, PARTY_WIZARD, WIZARD, web_page};
use e2e::flexvolume::{Driver, mount_arguments, options_of};
use e2e::manager::{NODE, Options, init_disk};
use e2e::{
    Disk, FileSystem, Manager, Need, Registry, Sandbox, command, documents, leftovers, needs,
    programs,
};

const MIB: u64 = 1 << 20;

/// What the original documentation calls its image.
const DOCUMENTED_IMAGE: &str = "rancher/longhorn-test:baseimage-ext4";

/// Everything that a volume needs, in the order in which it is ended.
struct Rig {
    driver: Driver,
    manager: Manager,
    registry: Registry,
    disk: Disk,
}

/// Whether the manager knows the registry's password.
#[derive(PartialEq)]
enum Password {
    Known,
    Unknown,
}

impl Rig {
    fn new(sandbox: &Sandbox, more: &str) -> Self {
        Self::with_password(sandbox, more, &Password::Known)
    }

    fn with_password(sandbox: &Sandbox, more: &str, password: &Password) -> Self {
        let disk = Disk::new(sandbox, "disk", FileSystem::Xfs, 1 << 30);
        let registry = Registry::start(sandbox);
        init_disk(disk.dir());
        // The documentation's name leads to this registry, as a mirror of Docker's.
        let config = format!(
            "[[registry]]\nlocation = \"{address}\"\nca-file = \"{ca}\"\n\
             [[registry]]\nlocation = \"docker.io\"\n\
             [[registry.mirror]]\nlocation = \"{address}\"\nca-file = \"{ca}\"\n",
            address = registry.address(),
            ca = registry.ca.display(),
        );
        let config = sandbox.write("mirror.toml", config);
        let mut options = Options::new(disk.dir())
            .with("--registry-config", config)
            .with("--allow-address", "127.0.0.0/8");
        if *password == Password::Known {
            options = options.with("--auth-file", &registry.docker_config);
        }
        let manager = Manager::start(sandbox, &options);
        let driver =
            Driver::install_with(sandbox, &manager.address().to_string(), disk.dir(), more);
        Self {
            driver,
            manager,
            registry,
            disk,
        }
    }

    /// Pushes an image with the documentation's web page; gives its reference.
    fn push(&self, sandbox: &Sandbox, fs: &str, name: &str) -> String {
        let page = web_page(sandbox);
        let build = Build {
            from: (fs != "none").then_some(&*page),
            fs: Some(fs),
            size: Some(if fs == "xfs" { "300Mi" } else { "32Mi" }),
            options: &[],
        };
        build.push(&self.registry, name)
    }

    /// Pushes an image of these bytes.
    fn push_bytes(&self, sandbox: &Sandbox, bytes: &[u8], name: &str) -> String {
        let file = sandbox.write(format!("{name}.raw"), bytes);
        let build = Build {
            from: Some(&file),
            fs: None,
            size: None,
            options: &[],
        };
        build.push(&self.registry, name)
    }

    #[track_caller]
    fn assert_nothing_left(&self, sandbox: &Sandbox) {
        self.driver.assert_nothing_left(sandbox, self.disk.dir());
        for volume in self.manager.list_volumes().unwrap() {
            assert!(volume.published.is_empty(), "{volume:?}");
        }
    }
}

macro_rules! needs_registry {
    () => {
        needs!(
            Need::Root,
            Need::FileSystem("xfs"),
            Need::Tool("docker-registry"),
            Need::Tool("htpasswd")
        )
    };
}

fn write(path: &Path, bytes: &[u8]) {
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

fn is_mount(path: &Path) -> bool {
    leftovers::mounts_below(path)
        .iter()
        .any(|mount| mount == path)
}

/// The options of the documentation's pod, as a kubelet merges those of the example that people apply
/// with its own.
fn documented(pod: &str) -> String {
    let example =
        documents::read(&programs::sources().join("examples/flexvolume/example_baseimage.yaml"));
    let (_, volume) = example.split_once("flexVolume:").unwrap();
    let lines = volume.lines().skip(1).take_while(|line| *line != "---");
    let pairs: Vec<(&str, &str)> = lines
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(key, value)| (key, value.trim_matches('"')))
        .collect();
    let expected = [
        ("driver", "rancher.io/longhorn"),
        ("fsType", "ext4"),
        ("size", "32Mi"),
        ("numberOfReplicas", "3"),
        ("staleReplicaTimeout", "20"),
        ("fromBackup", ""),
        ("baseImage", DOCUMENTED_IMAGE),
    ];
    assert_eq!(
        pairs, expected,
        "the example is the original documentation's"
    );
    let options: Vec<_> = [("kubernetes.io/fsType", pairs[1].1)]
        .into_iter()
        .chain(pairs[2..].iter().copied())
        .collect();
    options_of(pod, "flexvol", &options)
}

#[test]
fn the_volume_of_the_documentation_from_mount_to_unmount() {
    needs_registry!();
    let sandbox = Sandbox::new("flex-docs");
    let rig = Rig::new(&sandbox, "");
    rig.push(&sandbox, "ext4", "rancher/longhorn-test:baseimage-ext4");
    let driver = &rig.driver;

    let init = driver.call(["init"]).success();
    assert_eq!(init["capabilities"]["attach"], false);
    let target = driver.target("pod-1", "flexvol");
    let json = documented("pod-1");
    // The first driver: 4.1 to 4.8 s.
    driver.call(mount_arguments(&target, &json)).success();
    assert!(is_mount(&target));
    assert!(fs::read(target.join(WIZARD)).unwrap() == PARTY_WIZARD);
    let volume = rig.manager.volume("flexvol").unwrap();
    assert_eq!(volume.size, 32 * MIB);
    assert_eq!(
        (volume.number_of_replicas, volume.stale_replica_timeout),
        (3, 20)
    );
    assert_eq!(volume.published.len(), 1);

    // Row 103; the first driver: Failure, "Device … is already existed".
    driver.call(mount_arguments(&target, &json)).success();
    let mounts = leftovers::mounts_below(driver.kubelet_dir());
    assert_eq!(mounts, vec![target.clone()], "once");
    write(&target.join("mine"), b"kept");

    driver.unmount("pod-1", "flexvol").success();
    assert!(!is_mount(&target));
    rig.assert_nothing_left(&sandbox);
    // Again, and of what never was.
    driver.unmount("pod-1", "flexvol").success();
    driver.unmount("never", "was").success();
    driver.call(["unmount", "/no/such/directory"]).success();

    // The next pod of that name finds what the last one wrote.
    let target = driver.target("pod-2", "flexvol");
    driver
        .call(mount_arguments(&target, &documented("pod-2")))
        .success();
    assert_eq!(fs::read(target.join("mine")).unwrap(), b"kept");
    driver.unmount("pod-2", "flexvol").success();
    rig.assert_nothing_left(&sandbox);
}

/// What can never be mounted, and what the first driver did with it.
fn assert_refusals(rig: &Rig, sandbox: &Sandbox, xfs: &str) {
    let driver = &rig.driver;
    let blank = rig.push(sandbox, "none", "flex/blank:v1");
    let mut table = vec![0; 4 << 20];
    // A DOS partition table with one Linux partition from sector 2048.
    table[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 24, 0, 0]);
    table[510..512].copy_from_slice(&[0x55, 0xaa]);
    let partitioned = rig.push_bytes(sandbox, &table, "flex/partitioned:v1");

    // Row 73; the first driver was right here: both types are named.
    let ext4 = ("kubernetes.io/fsType", "ext4");
    let (_, answer) = driver.mount("pod", "mismatch", &[("baseImage", xfs), ext4]);
    answer.failure(&["ext4", "xfs"]);
    // Row 74; the first driver's message was no JSON.
    let (_, answer) = driver.mount("pod", "partitioned", &[("baseImage", &partitioned)]);
    answer.failure(&["partition table"]);
    // Row 74; the first driver called mkfs without a type. An image is never formatted.
    for asked in ["", "ext4"] {
        let options = [
            ("baseImage", blank.as_str()),
            ("kubernetes.io/fsType", asked),
        ];
        let (_, answer) = driver.mount("pod", "blank-image", &options);
        answer.failure(&["blank", "not formatted"]);
    }
    // Row 79: only file systems of the list, and no options smuggled in with them.
    for fs_type in [
        "overlay",
        "fuse.sshfs",
        "ext4 -o suid",
        "ext4,loop=/dev/sda",
        "x-y;reboot",
    ] {
        let options = [("size", "32Mi"), ("kubernetes.io/fsType", fs_type)];
        driver
            .mount("pod", "odd-type", &options)
            .1
            .failure(&["kubernetes.io/fsType"]);
    }
    // The first driver let quotes of a value add keys to its request.
    let injected = "32Mi\", \"numberOfReplicas\": \"1";
    driver
        .mount("pod", "injected", &[("size", injected)])
        .1
        .failure(&["option size"]);
    driver
        .mount("pod", "no-size", &[])
        .1
        .failure(&["size is missing"]);
    assert_eq!(
        rig.manager.list_volumes().unwrap(),
        Vec::new(),
        "what failed left no volume"
    );
}

#[test]
fn every_failure_of_the_first_driver_is_an_answer_here() {
    needs_registry!();
    let sandbox = Sandbox::new("flex-table");
    let rig = Rig::new(&sandbox, "");
    let driver = &rig.driver;
    let xfs = rig.push(&sandbox, "xfs", "flex/xfs:v1");
    assert_refusals(&rig, &sandbox, &xfs);
    rig.assert_nothing_left(&sandbox);

    // A blank volume without an image gets a file system; the first driver's `fsType ""` failed.
    let (target, answer) = driver.mount("pod", "made", &[("size", "64Mi")]);
    answer.success();
    write(&target.join("file"), b"hello");
    driver.unmount("pod", "made").success();
    // The first driver mounted `ro` for writing.
    let (target, answer) = driver.mount("pod", "made", &[("kubernetes.io/readwrite", "ro")]);
    answer.success();
    assert_eq!(fs::read(target.join("file")).unwrap(), b"hello");
    assert!(
        fs::File::create(target.join("other")).is_err(),
        "it is read-only"
    );
    driver
        .mount("pod", "made", &[])
        .1
        .failure(&["read-only", "unmount it first"]);
    driver.unmount("pod", "made").success();
    // The first driver split a JSON with spaces into several arguments.
    let json = options_of(
        "pod",
        "made",
        &[("kubernetes.io/serviceAccount.name", "a  b \" c")],
    );
    let json = json.replace(':', " : ");
    driver
        .call(mount_arguments(&driver.target("pod", "made"), &json))
        .success();
    driver.unmount("pod", "made").success();
    // Larger is grown; smaller is left as it is.
    driver.mount("pod", "made", &[("size", "96Mi")]).1.success();
    assert_eq!(rig.manager.volume("made").unwrap().size, 96 * MIB);
    driver.unmount("pod", "made").success();
    driver.mount("pod", "made", &[("size", "32Mi")]).1.success();
    driver.unmount("pod", "made").success();
    // Another image under the name is another volume.
    driver
        .mount("pod", "made", &[("baseImage", &xfs)])
        .1
        .failure(&["baseImage", "another name"]);
    rig.assert_nothing_left(&sandbox);
    // The first driver logged only where a log was already.
    assert!(driver.log().contains("xfs"), "{}", driver.log());
}

#[test]
fn two_pods_of_one_inline_name_never_get_each_others_data() {
    needs_registry!();
    let sandbox = Sandbox::new("flex-share");
    let rig = Rig::new(&sandbox, "");
    let driver = &rig.driver;
    let image = rig.push(&sandbox, "ext4", "flex/ext4:v1");

    let options = [("size", "64Mi"), ("baseImage", image.as_str())];
    driver.mount("pod-a", "same", &options).1.success();
    let (target, answer) = driver.mount("pod-b", "same", &options);
    answer.failure(&["in use by pod default/pod-a", "share"]);
    assert!(!is_mount(&target));
    // Nor one after the other, in another namespace.
    driver.unmount("pod-a", "same").success();
    let elsewhere = ("kubernetes.io/pod.namespace", "elsewhere");
    let (_, answer) = driver.mount("pod-b", "same", &[options[0], options[1], elsewhere]);
    answer.failure(&["namespace \"default\"", "\"elsewhere\""]);
    // A pod's own options cannot name another volume than the path does, or another pod.
    let target = driver.target("pod-b", "mine");
    let json = options_of("pod-b", "same", &options);
    driver
        .call(mount_arguments(&target, &json))
        .failure(&["cannot replace those of the kubelet"]);
    let json = options_of("pod-a", "mine", &options);
    driver
        .call(mount_arguments(&target, &json))
        .failure(&["cannot replace those of the kubelet"]);

    // Readers that all say so share, also across namespaces.
    let share = [
        ("baseImage", image.as_str()),
        ("share", "read-only"),
        ("kubernetes.io/readwrite", "ro"),
    ];
    let (a, answer) = driver.mount("pod-a", "shared", &share);
    answer.success();
    let elsewhere: Vec<_> = share.iter().copied().chain([elsewhere]).collect();
    let (b, answer) = driver.mount("pod-b", "shared", &elsewhere);
    answer.success();
    for target in [&a, &b] {
        assert!(fs::read(target.join(WIZARD)).unwrap() == PARTY_WIZARD);
        assert!(fs::File::create(target.join("x")).is_err(), "read-only");
    }
    driver
        .mount("pod-c", "shared", &[])
        .1
        .failure(&["in use by pod"]);
    driver.unmount("pod-a", "shared").success();
    assert!(
        fs::read(b.join(WIZARD)).unwrap() == PARTY_WIZARD,
        "the other stays"
    );
    driver.unmount("pod-b", "shared").success();
    rig.assert_nothing_left(&sandbox);

    // What somebody else mounted is neither used nor taken away.
    let target = driver.target("pod-a", "foreign");
    command::run(
        "mount",
        ["-t", "tmpfs", "none", &target.display().to_string()],
    );
    driver
        .mount("pod-a", "foreign", &[("size", "32Mi")])
        .1
        .failure(&["foreign mount"]);
    driver
        .unmount("pod-a", "foreign")
        .failure(&["foreign mount"]);
    command::run("umount", [&target]);
    assert!(
        rig.manager.volume("foreign").is_err(),
        "the failed mount left no volume"
    );
    rig.assert_nothing_left(&sandbox);
}

#[test]
fn the_secret_of_a_pod_opens_a_private_registry_and_is_told_nobody() {
    needs_registry!();
    let sandbox = Sandbox::new("flex-secret");
    let rig = Rig::with_password(&sandbox, "", &Password::Unknown);
    let driver = &rig.driver;
    let image = rig.push(&sandbox, "ext4", "flex/private:v1");
    let base64 = |text: &str| {
        let file = sandbox.write("secret", text);
        command::run("base64", ["--wrap=0".as_ref(), file.as_os_str()])
    };
    let image = ("baseImage", image.as_str());
    let (user, password) = (base64(e2e::registry::USER), base64(e2e::registry::PASSWORD));
    let user = ("kubernetes.io/secret/username", user.as_str());

    driver
        .mount("pod", "private", &[image])
        .1
        .failure(&["cannot get base image"]);
    let wrong = base64("guessed-wrong");
    let wrong = ("kubernetes.io/secret/password", wrong.as_str());
    let said = driver
        .mount("pod", "private", &[image, user, wrong])
        .1
        .failure(&["base image"]);
    assert!(!said.contains("guessed-wrong"), "{said}");
    driver
        .mount("pod", "private", &[image, user])
        .1
        .failure(&["both username and password"]);
    let password = ("kubernetes.io/secret/password", password.as_str());
    driver
        .mount("pod", "private", &[image, user, password])
        .1
        .success();
    driver.unmount("pod", "private").success();
    let config = base64(&fs::read_to_string(&rig.registry.docker_config).unwrap());
    rig.manager.delete_volume("private").unwrap();
    for image in rig.manager.list_images().unwrap() {
        rig.manager.delete_image(&image.name).unwrap();
    }
    let config = ("kubernetes.io/secret/.dockerconfigjson", config.as_str());
    driver.mount("pod", "private", &[image, config]).1.success();
    driver.unmount("pod", "private").success();
    let logs = [driver.log(), rig.manager.process.log()].concat();
    for secret in [
        e2e::registry::PASSWORD,
        password.1,
        config.1,
        wrong.1,
        "guessed-wrong",
    ] {
        assert!(!logs.contains(secret), "a secret is in the logs");
    }
    rig.assert_nothing_left(&sandbox);
}

/// Grows the attached volume `pv`, which a pod has mounted.
fn assert_grows(driver: &Driver, json: &str, global: &str) {
    let device = "/dev/longhorn/pv";
    // Growing: by the controller, then on the node, in use, which ext4 allows to fewer processes.
    let (new, old) = ((400 * MIB).to_string(), (320 * MIB).to_string());
    let grown = driver
        .call(["expandvolume", json, device, &new, &old])
        .success();
    assert_eq!(grown["volumeNewSize"], 400 * MIB);
    let target = driver.target("pod", "pv");
    for path in [target.display().to_string().as_str(), global] {
        let arguments = ["expandfs", json, device, path, &new, &old];
        driver.call(arguments).success();
    }
    let stat = rustix::fs::statvfs(&target).unwrap();
    assert!(
        stat.f_blocks * stat.f_frsize > 300 * MIB,
        "the file system has grown"
    );
    let more = (500 * MIB).to_string();
    let arguments = ["expandfs", json, device, global, &more, &old];
    driver.call(arguments).failure(&["the request requires"]);
}

#[test]
fn a_controller_attaches_and_the_node_mounts() {
    needs_registry!();
    let sandbox = Sandbox::new("flex-attach");
    let rig = Rig::new(&sandbox, "attach = true\nimage-wait = \"2s\"");
    let driver = &rig.driver;
    let image = rig.push(&sandbox, "xfs", "flex/xfs:v1");
    assert_eq!(
        driver.call(["init"]).success()["capabilities"]["attach"],
        true
    );

    let json = options_of("pod", "pv", &[("size", "320Mi"), ("baseImage", &image)]);
    let json = json.as_str();
    let is_attached = || driver.call(["isattached", json, NODE]).success()["attached"].clone();
    assert_eq!(is_attached(), false);
    driver
        .call(["attach", json, "node-elsewhere"])
        .failure(&["node-elsewhere"]);
    assert!(
        rig.manager.volume("pv").is_err(),
        "a failed attach leaves no volume"
    );
    for _ in 0..2 {
        let attached = driver.call(["attach", json, NODE]).success();
        assert_eq!(attached["device"], "/dev/longhorn/pv");
    }
    assert_eq!(is_attached(), true);
    let device = "/dev/longhorn/pv";
    driver
        .call(["waitforattach", "/dev/longhorn/other", json])
        .failure(&["does not belong to"]);
    assert_eq!(
        driver.call(["waitforattach", device, json]).success()["device"],
        device
    );

    let global = driver
        .kubelet_dir()
        .join("plugins/kubernetes.io/flexvolume/rancher.io/longhorn/mounts/pv");
    fs::create_dir_all(&global).unwrap();
    let global_text = global.display().to_string();
    // A pod before its device.
    driver.mount("pod", "pv", &[]).1.failure(&["not staged"]);
    driver
        .call(["mountdevice", &global_text, "/dev/sda", json])
        .failure(&["does not belong to"]);
    for _ in 0..2 {
        driver
            .call(["mountdevice", &global_text, device, json])
            .success();
    }
    for _ in 0..2 {
        driver.mount("pod", "pv", &[]).1.success();
    }
    driver
        .mount("pod-2", "pv", &[])
        .1
        .failure(&["in use by pod"]);
    assert_grows(driver, json, &global_text);

    driver
        .call(["unmountdevice", &global_text])
        .failure(&["still mounted"]);
    for _ in 0..2 {
        driver.unmount("pod", "pv").success();
        assert_eq!(is_attached(), true, "the controller detaches");
    }
    for _ in 0..2 {
        driver.call(["unmountdevice", &global_text]).success();
    }
    for _ in 0..2 {
        driver.call(["detach", "pv", NODE]).success();
    }
    assert_eq!(is_attached(), false);
    driver
        .call(["mountdevice", &global_text, device, json])
        .failure(&["not attached"]);
    driver
        .call(["waitforattach", device, json])
        .failure(&["not attached"]);
    rig.assert_nothing_left(&sandbox);
}

#[test]
fn what_takes_long_is_told_and_goes_on_with_the_next_call() {
    needs_registry!();
    needs!(Need::Failpoints);
    let sandbox = Sandbox::new("flex-slow");
    let mut rig = Rig::new(&sandbox, "image-wait = \"1s\"\ncall-timeout = \"20s\"");
    let driver = rig.driver.clone();
    let image = rig.push(&sandbox, "ext4", "flex/slow:v1");
    // The manager is held for a while when all of the image is there.
    drop(rig.manager);
    let slow = Options::new(rig.disk.dir())
        .with_registry(&rig.registry)
        .with_failpoint("store.seal.synced=sleep(3000)");
    rig.manager = Manager::start(&sandbox, &slow);
    let driver = driver.with_manager(&sandbox, &rig.manager);
    let options = [("size", "64Mi"), ("baseImage", image.as_str())];
    driver
        .mount("pod", "slow", &options)
        .1
        .failure(&["slow:v1 is in-progress", "waited 1 seconds"]);
    rig.assert_nothing_left(&sandbox);
    let pulled = rig.registry.requests(&["GET"]);
    e2e::wait::until("the image is there", || {
        let (_, answer) = driver.mount("pod", "slow", &options);
        (answer.status() == "Success").then_some(())
    });
    assert_eq!(rig.registry.requests(&["GET"]), pulled, "one pull");

    // Without its manager: what is mounted stays and is known; the rest waits for it.
    rig.manager.process.kill_9();
    driver.mount("pod", "slow", &options).1.success();
    driver
        .mount("pod", "other", &[("size", "32Mi")])
        .1
        .failure(&["does not answer"]);
    driver.unmount("pod", "slow").success();
    sandbox.assert_nothing_attached(driver.kubelet_dir());
    rig.manager = Manager::start(&sandbox, &Options::new(rig.disk.dir()));
    let driver = driver.with_manager(&sandbox, &rig.manager);
    driver.unmount("pod", "slow").success();
    rig.assert_nothing_left(&sandbox);
}
