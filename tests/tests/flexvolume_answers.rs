//! Row 102: whatever happens to the executable, the kubelet reads one JSON object; and how the
//! executable gets to where the kubelet runs it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::flexvolume::{Answer, Driver, mount_arguments, options_of};
use e2e::{Need, Sandbox, command, needs, programs, wait};

/// A driver whose manager is not there.
fn alone(sandbox: &Sandbox) -> Driver {
    Driver::install_with(
        sandbox,
        "127.0.0.1:1",
        &sandbox.make_dir("disk"),
        "call-timeout = \"5s\"",
    )
}

#[test]
fn row_102_every_command_line_gets_one_object() {
    let sandbox = Sandbox::new("flex-answers");
    let driver = alone(&sandbox);
    let target = driver.target("pod", "v").display().to_string();
    let json = options_of("pod", "v", &[("size", "32Mi")]);
    let (target, json) = (target.as_str(), json.as_str());
    let long = format!("{{\"size\": \"{}\"}}", "9".repeat(100_000));
    let table: &[(&[&str], &str)] = &[
        (&["init"], "Success"),
        (&["init", "more"], "Success"),
        (&["version"], "Success"),
        (&["help"], "Success"),
        (&["getvolumename", json], "Not supported"),
        (&["attach", json, "node"], "Not supported"),
        (&["detach", "v", "node"], "Not supported"),
        (&["waitforattach", "/dev/longhorn/v", json], "Not supported"),
        (&["isattached", json, "node"], "Not supported"),
        (
            &["mountdevice", target, "/dev/longhorn/v", json],
            "Not supported",
        ),
        (&["unmountdevice", target], "Not supported"),
        (&["frobnicate"], "Not supported"),
        (&[""], "Not supported"),
        (&["$(reboot)", "; reboot"], "Not supported"),
        (&[], "Failure"),
        (&["mount"], "Failure"),
        (&["mount", target], "Failure"),
        (&["mount", target, ""], "Failure"),
        (&["mount", target, "{}"], "Failure"),
        (&["mount", target, "{\"a\": 1}"], "Failure"),
        (&["mount", target, "[] garbage \u{1b}[31m"], "Failure"),
        (&["mount", target, &long], "Failure"),
        (&["mount", "", json], "Failure"),
        (&["mount", "relative", json], "Failure"),
        (&["mount", "/a/../b", json], "Failure"),
        (&["mount", target, json], "Failure"),
        (&["unmount", "/"], "Failure"),
        (&["unmount", target], "Success"),
        (&["expandvolume", json, "/dev/x", "many", "0"], "Failure"),
        (&["expandvolume", json, "/dev/x", "4096", "0"], "Failure"),
        (
            &["expandfs", json, "/dev/x", target, "4096", "0"],
            "Failure",
        ),
        (&["install"], "Failure"),
    ];
    for (arguments, status) in table {
        let answer = driver.call(*arguments);
        assert_eq!(
            answer.status(),
            *status,
            "{arguments:?}: {}",
            answer.message()
        );
        assert!(answer.message().len() < 5000, "{arguments:?}");
    }
    let no_text = OsString::from_vec(b"\xff\xfe".to_vec());
    driver
        .call(["mount".into(), target.into(), no_text.clone()])
        .failure(&["UTF-8"]);
    driver
        .call(["unmount".into(), OsString::from_vec(b"/\xff".to_vec())])
        .failure(&["UTF-8"]);
    assert_eq!(driver.call([no_text]).status(), "Not supported");
    // Every beginning of a good object, as a kubelet that is killed while it writes would pass it.
    for end in (0..json.len()).step_by(9) {
        driver.call(["mount", target, &json[..end]]).failure(&[]);
    }
    assert_eq!(
        fs::read_dir(driver.state_dir().join("targets"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_person_at_a_terminal_reads_text() {
    needs!(Need::Tool("script"));
    let program = programs::flexvolume().display().to_string();
    let at_terminal = |arguments: &str| {
        let line = format!("{program} {arguments}");
        let output = command::output(
            "script",
            ["--quiet", "--return", "--command", &line, "/dev/null"],
        );
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (code, said) = at_terminal("help");
    assert_eq!(code, Some(0), "{said}");
    for words in [
        "EXAMPLES\r\n",
        "install --plugin-dir DIR",
        "docs/flexvolume.md",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    let (code, said) = at_terminal("install");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("longhorn help") && !said.contains('{'),
        "{said}"
    );
    let json = Answer::of(&command::output(&program, ["help"])).success();
    assert!(json["message"].as_str().unwrap().contains("EXAMPLES"));
}

#[test]
fn row_102_neither_a_signal_nor_a_panic_nor_a_closed_pipe_is_an_answer() {
    needs!(Need::Root, Need::Failpoints);
    let sandbox = Sandbox::new("flex-signals");
    let driver = alone(&sandbox);
    let target = driver.target("pod", "v");
    let json = options_of("pod", "v", &[("size", "32Mi")]);

    // Another call works on the volume, so that this one waits.
    let lock = sandbox.write("state/locks/volume-v", "");
    let held = fs::File::open(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let waiting = driver
        .command(mount_arguments(&target, &json))
        .spawn()
        .unwrap();
    wait::until("the call has its other lock", || {
        let locks = fs::read_dir(driver.state_dir().join("locks")).unwrap();
        (locks.count() == 2).then_some(())
    });
    let pid = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    Answer::of(&waiting.wait_with_output().unwrap()).failure(&["ended by a signal"]);
    drop(held);

    for point in [
        "flexvolume.call.started=panic",
        "flexvolume.call.blocking=panic",
    ] {
        let panics = driver.with_failpoint(point);
        panics
            .call(["unmount".as_ref(), target.as_os_str()])
            .failure(&["panic"]);
    }
    assert!(
        driver.log().contains("panicked"),
        "the log has it: {}",
        driver.log()
    );

    let closed = "exec \"$0\" init >&-";
    let status = Command::new("sh")
        .args(["-c", closed])
        .arg(driver.executable())
        .status()
        .unwrap();
    assert!(status.code().is_some(), "{status}");
    // Nobody reads: the write fails, and the call with it.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = driver.command(["init"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
    // A configuration that cannot be is told by `init` already.
    let config = driver.executable().with_file_name("longhorn.toml");
    sandbox.write(
        config.strip_prefix(sandbox.dir()).unwrap(),
        "manager = \"a-name:8000\"\n",
    );
    driver
        .call(["init"])
        .failure(&["longhorn.toml", "names are not resolved"]);
}

fn install(plugins: &Path, more: &[&str]) -> Answer {
    let plugins = plugins.display().to_string();
    let arguments = ["install", "--plugin-dir", &plugins]
        .into_iter()
        .chain(more.iter().copied());
    Answer::of(&command::output(
        &programs::flexvolume().display().to_string(),
        arguments,
    ))
}

#[test]
fn row_102_an_installation_is_never_seen_half_done() {
    let sandbox = Sandbox::new("flex-install");
    let plugins = sandbox.make_dir("exec");
    let directory = plugins.join("rancher.io~longhorn");
    let executable = directory.join("longhorn");
    // In place of the first driver, which is somebody else's.
    sandbox.write(
        "exec/rancher.io~longhorn/longhorn",
        "#!/bin/bash\necho '{}'\n",
    );
    install(&plugins, &["--uninstall"]).failure(&["is not this driver"]);
    assert!(
        install(&plugins, &[]).success()["message"]
            .as_str()
            .unwrap()
            .contains("in place of another driver")
    );
    assert_eq!(
        fs::metadata(&executable).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    assert!(
        install(&plugins, &[]).success()["message"]
            .as_str()
            .unwrap()
            .contains("installed already")
    );
    // The missing exec bit is put right.
    fs::set_permissions(&executable, fs::Permissions::from_mode(0o644)).unwrap();
    install(&plugins, &[]).success();

    // A wrong configuration never replaces one that works.
    let config = sandbox.write("good.toml", "manager = \"127.0.0.1:8000\"\n");
    install(&plugins, &["--config", &config.display().to_string()]).success();
    let config = sandbox.write("bad.toml", "manger = \"127.0.0.1:8000\"\n");
    install(&plugins, &["--config", &config.display().to_string()]).failure(&["manger"]);
    let kept = fs::read_to_string(directory.join("longhorn.toml")).unwrap();
    assert!(kept.contains("manager"));

    for _ in 0..2 {
        install(&plugins, &["--uninstall"]).success();
        assert_eq!(fs::read_dir(&plugins).unwrap().count(), 0);
    }
    install(&plugins, &["--vendor", "example.com"]).success();
    assert!(plugins.join("example.com~longhorn/longhorn").is_file());
}

#[test]
fn row_102_a_version_is_replaced_under_a_kubelet_that_runs_it() {
    let sandbox = Sandbox::new("flex-upgrade");
    let plugins = sandbox.make_dir("exec");
    let executable = plugins.join("rancher.io~longhorn/longhorn");
    install(&plugins, &[]).success();
    // An older version is replaced under a kubelet that runs it all the time; a newer one is kept.
    let stop = AtomicBool::new(false);
    let other = |version: &str| {
        let mut bytes = fs::read(programs::flexvolume()).unwrap();
        let mark = format!(
            "longhorn-flexvolume version {}\n",
            env!("CARGO_PKG_VERSION")
        );
        let new = format!("longhorn-flexvolume version {version}\n");
        assert_eq!(mark.len(), new.len());
        let places: Vec<_> = bytes
            .windows(mark.len())
            .enumerate()
            .filter_map(|(at, window)| (window == mark.as_bytes()).then_some(at))
            .collect();
        assert!(
            !places.is_empty(),
            "the executable is marked with its version"
        );
        for at in places {
            bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
        }
        let path = sandbox.write("other", bytes);
        // Another process writes what will be run, as an installer does: a descriptor of ours, open for
        // writing, could be held by the child of another test between fork and exec (ETXTBSY of execve(2)).
        let ready = sandbox.path("ready");
        let copied = Command::new("install")
            .args(["-m", "755"])
            .args([&path, &ready])
            .status();
        assert!(copied.unwrap().success());
        fs::rename(ready, &executable).unwrap();
    };
    std::thread::scope(|scope| {
        let kubelet = scope.spawn(|| {
            let mut calls = 0;
            while !stop.load(Ordering::SeqCst) || calls < 5 {
                Answer::of(&Command::new(&executable).arg("init").output().unwrap()).success();
                calls += 1;
            }
        });
        for _ in 0..3 {
            other("0.0.9");
            assert!(
                install(&plugins, &[]).success()["message"]
                    .as_str()
                    .unwrap()
                    .contains("version 0.0.9")
            );
        }
        stop.store(true, Ordering::SeqCst);
        kubelet.join().unwrap();
    });
    other("9.9.9");
    install(&plugins, &[]).failure(&["9.9.9", "--allow-downgrade"]);
    install(&plugins, &["--allow-downgrade"]).success();
}

#[test]
fn row_102_an_installer_that_is_killed_leaves_the_old_driver() {
    needs!(Need::Failpoints);
    let sandbox = Sandbox::new("flex-install-kill");
    let plugins = sandbox.make_dir("exec");
    sandbox.write("exec/rancher.io~longhorn/longhorn", "#!/bin/bash\n");
    let status = Command::new(programs::flexvolume())
        .args(["install", "--plugin-dir"])
        .arg(&plugins)
        .env("FAILPOINTS", "flexvolume.install.written=return")
        .status()
        .unwrap();
    assert_eq!(status.code(), None, "killed");
    let executable = plugins.join("rancher.io~longhorn/longhorn");
    assert_eq!(fs::read(&executable).unwrap(), b"#!/bin/bash\n");
    install(&plugins, &[]).success();
    let names: Vec<_> = fs::read_dir(plugins.join("rancher.io~longhorn"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["longhorn"]);
}
