use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn failures_are_further_and_further_apart() {
    let pauses: Vec<u64> = (1..=8).map(|failures| pause(failures).as_secs()).collect();
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(pause(u32::MAX), AGAIN_MOST);
}

#[test]
fn the_keys_of_the_secret_become_lines_for_mount_cifs() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(credentials(dir.path()).unwrap(), None);
    write(&dir.path().join("CIFS_USERNAME"), "me\n");
    write(&dir.path().join("CIFS_PASSWORD"), " pa,ss=word ");
    let lines = credentials(dir.path()).unwrap().unwrap();
    assert_eq!(lines, "username=me\npassword=pa,ss=word\n");
    write(&dir.path().join("CIFS_PASSWORD"), "hunter2\ndomain=other");
    let error = credentials(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("CIFS_PASSWORD") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn a_secret_is_written_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/backup.credentials");
    write(&path, "of an earlier process");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    write_secret(&path, "password=x\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "password=x\n");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
