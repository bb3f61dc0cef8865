//! The executable that `make flexvolume` builds needs nothing of the host: no dynamic loader, no
//! library, no file.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use e2e::flexvolume::Answer;
use e2e::{Need, Sandbox, needs, programs};

/// Program headers of an ELF file that ask for somebody else (elf(5)).
const PT_INTERP: u32 = 3;
const PT_DYNAMIC: u32 = 2;
const DT_NEEDED: u64 = 1;

fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let mut little = [0; 8];
    little[..size].copy_from_slice(&bytes[at..at + size]);
    u64::from_le_bytes(little)
}

/// What an executable of 64 bits asks for: its interpreter, and how many libraries.
fn wants(elf: &[u8]) -> (bool, usize) {
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "little-endian, 64 bits");
    let at = |offset, size| usize::try_from(number(elf, offset, size)).unwrap();
    let (table, entry, count) = (at(32, 8), at(54, 2), at(56, 2));
    let (mut interpreter, mut libraries) = (false, 0);
    for header in (0..count).map(|number| table + number * entry) {
        match u32::try_from(number(elf, header, 4)).unwrap() {
            PT_INTERP => interpreter = true,
            PT_DYNAMIC => {
                let (offset, size) = (at(header + 8, 8), at(header + 32, 8));
                let tags = (offset..offset + size).step_by(16);
                libraries += tags.filter(|tag| number(elf, *tag, 8) == DT_NEEDED).count();
            }
            _ => {}
        }
    }
    (interpreter, libraries)
}

#[test]
fn the_static_executable_runs_where_nothing_else_is() {
    let Some(executable) = programs::static_flexvolume() else {
        needs::skip("`make flexvolume`");
        return;
    };
    let elf = fs::read(&executable).unwrap();
    assert_eq!(wants(&elf), (false, 0), "no interpreter and no library");
    // The measure itself: what is dynamic is seen to be.
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(wants(&own).0);
    needs!(Need::Root, Need::Tool("chroot"));
    let sandbox = Sandbox::new("flex-static");
    let root = sandbox.make_dir("root");
    let inside = sandbox.write("root/longhorn", &elf);
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("chroot")
        .arg(&root)
        .args(["/longhorn", "init"])
        .output()
        .unwrap();
    Answer::of(&output).success();
}
