//! What a superblock says, in the form that all file systems share. It must not know any of them.

use crate::FsType;

/// What one superblock says.
pub(crate) struct Found {
    pub(crate) fs_type: FsType,
    pub(crate) label: String,
    pub(crate) uuid: String,
    pub(crate) refused: Option<String>,
}

/// Why a file system that says that it has `bytes` is not mounted on a disk of `size`.
pub(crate) fn cut(bytes: u64, size: u64) -> String {
    format!(
        "it has {bytes} bytes and its disk {size}: the rest of it is missing; make the image whole"
    )
}

/// The names of the bits that are set in the word of features called `word`.
pub(crate) fn bits(word: &str, set: u64, names: &[(u64, &str)]) -> Vec<String> {
    (0..u64::BITS)
        .map(|bit| 1 << bit)
        .filter(|bit| set & bit != 0)
        .map(|bit| match names.iter().find(|(known, _)| *known == bit) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("an unknown {word} feature ({bit:#x})"),
        })
        .collect()
}
