use super::*;

/// A program that does what a shell script says, with the script's directory in `$HERE`.
fn program(dir: &Path, name: &str, script: &str) -> PathBuf {
    use std::io::Write as _;
    let path = dir.join(name);
    // Written by a process of its own: a file that is open for writing in a child of another test cannot be run.
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("#!/bin/sh\nHERE={}\n{script}\n", dir.display());
    let mut stdin = shell.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(shell.wait().unwrap().success());
    path
}

fn share(dir: &Path, attempts: &[&str]) -> Share {
    Share {
        source: "server:/export".to_owned(),
        fs_type: "nfs4".to_owned(),
        attempts: attempts.iter().map(ToString::to_string).collect(),
        point: dir.join("mounts/server/export"),
    }
}

/// Each call of the stand-in: its arguments, one a line, and an empty line.
const RECORD: &str = r#"printf '%s\n' "$@" '' >> "$HERE/calls""#;

fn calls(dir: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(dir.join("calls")).unwrap_or_default();
    let calls = text
        .split("\n\n")
        .map(str::trim)
        .filter(|call| !call.is_empty());
    calls
        .map(|call| call.lines().map(str::to_owned).collect())
        .collect()
}

#[test]
fn a_share_is_mounted_in_the_first_way_that_works() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let script =
        format!("{RECORD}\ncase \"$*\" in *vers=4.1*) exit 0;; esac\necho no >&2\nexit 32");
    let mut mounter = Mounter::with(program(dir, "mount", &script), "/bin/false".into());
    let attempts = ["vers=4.2,soft", "vers=4.1,soft", "vers=4.0,soft"];
    let share = share(dir, &attempts);
    mounter.mount(&share, None).unwrap();
    let point = share.point.display().to_string();
    let call = |options: &str| {
        let options = format!("{options},nosuid,nodev,noexec");
        let words = ["-t", "nfs4", "-o", &options, "--", "server:/export", &point];
        words.map(str::to_owned).to_vec()
    };
    assert_eq!(calls(dir), [call(attempts[0]), call(attempts[1])]);
    assert!(share.point.is_dir());
}

#[test]
fn credentials_are_given_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut mounter = Mounter::with(program(dir, "mount", RECORD), "/bin/false".into());
    let file = Path::new("/run/credentials");
    mounter.mount(&share(dir, &["soft"]), Some(file)).unwrap();
    mounter.mount(&share(dir, &[""]), Some(file)).unwrap();
    let options: Vec<_> = calls(dir).into_iter().map(|call| call[3].clone()).collect();
    let expected = [
        "soft,nosuid,nodev,noexec,credentials=/run/credentials",
        "nosuid,nodev,noexec,credentials=/run/credentials",
    ];
    assert_eq!(options, expected);
}

#[test]
fn what_the_last_attempt_said_is_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let script = "echo mount.nfs4: access denied by server >&2; exit 32";
    let mut mounter = Mounter::with(program(dir, "mount", script), "/bin/false".into());
    let error = mounter.mount(&share(dir, &["a", "b"]), None).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("server:/export") && text.contains("access denied"),
        "{text}"
    );
}

/// The stand-in leaves a child, as mount(8) has its helper, and both hold the output open.
#[test]
fn an_attempt_that_hangs_is_ended_with_all_that_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let script = "sleep 1000 &\necho $! > $HERE/helper\nwait";
    let mut mounter = Mounter {
        within: Duration::from_secs(1),
        ..Mounter::with(program(dir, "mount", script), "/bin/false".into())
    };
    let error = mounter.mount(&share(dir, &["a"]), None).unwrap_err();
    assert!(error.to_string().contains("no answer within"), "{error}");
    assert!(mounter.stuck.is_none());
    let helper = fs::read_to_string(dir.join("helper")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    // Gone, or ended and not yet waited for by whoever inherits it.
    while fs::read_to_string(format!("/proc/{}/stat", helper.trim()))
        .is_ok_and(|stat| !stat.contains(") Z "))
    {
        assert!(Instant::now() < deadline, "the helper goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn while_a_process_cannot_be_killed_no_other_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut mounter = Mounter::with(program(dir, "mount", RECORD), "/bin/false".into());
    // Nothing here hangs in the kernel: one that is not killed stands for it.
    mounter.stuck = Some(
        Command::new("/bin/cat")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let share = share(dir, &["a"]);
    let error = mounter.mount(&share, None).unwrap_err();
    assert!(error.to_string().contains("still hangs"), "{error}");
    assert_eq!(calls(dir), Vec::<Vec<String>>::new());
    let mut stuck = mounter.stuck.take().unwrap();
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    mounter.stuck = Some(stuck);
    mounter.mount(&share, None).unwrap();
    assert_eq!(calls(dir).len(), 1);
}

/// A tmpfs stands for a share: what is mounted is looked at, and taken away.
#[test]
fn what_is_mounted_is_looked_at_and_a_dead_share_is_taken_away() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = fs::canonicalize(dir.path()).unwrap();
    let script = "shift 5; exec /bin/mount -t tmpfs share \"$2\"";
    let own = program(
        &dir,
        "own",
        "[ -e $HERE/dead ] && [ $2 = look ] && exit 1\n\
                      [ $2 = detach ] && exec /bin/umount -l \"$3\"\nexit 0",
    );
    let mut mounter = Mounter::with(program(&dir, "mount", script), own);
    let share = share(&dir, &["soft"]);
    assert_eq!(mounter.look(&share.point).unwrap(), State::NotMounted);
    mounter.mount(&share, None).unwrap();
    assert_eq!(mounter.look(&share.point).unwrap(), State::Alive);
    drop(fs::File::create(dir.join("dead")).unwrap());
    let state = mounter.look(&share.point).unwrap();
    assert!(matches!(state, State::Dead(_)), "{state:?}");
    mounter.detach(&share.point).unwrap();
    assert_eq!(mounter.look(&share.point).unwrap(), State::NotMounted);
}

#[test]
fn the_program_that_is_started_looks_and_takes_away() {
    let dir = tempfile::tempdir().unwrap();
    let words = |verb: &str, path: &Path| [OsString::from(verb), path.into()];
    command(&words(LOOK, dir.path())).unwrap();
    assert!(command(&words(LOOK, &dir.path().join("none"))).is_err());
    assert!(command(&words("remove", dir.path())).is_err());
    assert!(command(&[]).is_err());
    // Nothing is mounted there.
    assert!(command(&words(DETACH, dir.path())).is_err());
}
