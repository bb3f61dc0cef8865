//! The text inside a VMDK: it says of what kind the image is, and whether it needs other files.

use super::Foreign;
use crate::Result;

const VMDK: Foreign = Foreign::Vmdk;
/// Kinds of images that are one file.
const WHOLE: [&str; 2] = ["monolithicSparse", "streamOptimized"];
/// `parentCID` of an image without a parent.
const NO_PARENT: &str = "ffffffff";

/// Refuses a descriptor of an image that is not all in its own file. Names in it are not looked at.
pub(super) fn check(text: &[u8]) -> Result<()> {
    // It ends with the first NUL; what is behind is filling.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let (mut kind, mut extents) = (None, 0);
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if is_extent(line) {
            extents += 1;
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let value = value.trim().trim_matches('"');
        match key.trim() {
            "createType" if kind.is_some() => {
                return Err(VMDK.refused("says twice of what kind it is"));
            }
            "createType" => kind = Some(value.to_owned()),
            "parentCID" if !value.eq_ignore_ascii_case(NO_PARENT) => return Err(parent()),
            "parentFileNameHint" => return Err(parent()),
            _ => {}
        }
    }
    if !kind.is_some_and(|kind| WHOLE.contains(&kind.as_str())) {
        return Err(VMDK.refused(
            "is not of a kind that is one file: only monolithicSparse and streamOptimized are read; \
             convert it first, for example with 'qemu-img convert -O qcow2'",
        ));
    }
    if extents > 1 {
        return Err(VMDK.refused("has its data in several files"));
    }
    Ok(())
}

fn parent() -> crate::Error {
    VMDK.refused("is a difference to another image, which is not read")
}

/// `RW 65536 SPARSE "name"`, and the like.
fn is_extent(line: &str) -> bool {
    let access = line.split_ascii_whitespace().next().unwrap_or_default();
    matches!(access, "RW" | "RDONLY" | "NOACCESS")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
        createType=\"monolithicSparse\"\n\nRW 65536 SPARSE \"../../etc/shadow\"\n";

    #[test]
    fn only_an_image_that_is_all_in_one_file_is_taken() {
        check(GOOD.as_bytes()).unwrap();
        check(format!("{GOOD}\0parentFileNameHint=x").as_bytes()).unwrap();
        for (from, to) in [
            ("monolithicSparse", "monolithicFlat"),
            ("monolithicSparse", "twoGbMaxExtentSparse"),
            ("createType", "createtype"),
            ("ffffffff", "12345678"),
            ("version=1", "parentFileNameHint=\"/etc/shadow\""),
            ("version=1", "RW 1 FLAT \"x\" 0"),
            ("version=1", "createType=\"streamOptimized\""),
        ] {
            let text = GOOD.replace(from, to);
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
        assert!(check(b"").is_err());
    }
}
