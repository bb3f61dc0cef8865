//! The files of an image before they are packed: a map from path to content, in the order of paths.
//!
//! Distributions have merged /bin, /sbin and /lib into /usr: so does every image, and a file added
//! under the old name is found at the new one.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, io};

/// Directories of old that are links now.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// One file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory { mode: u32 },
    File { from: PathBuf, mode: u32 },
    Text { text: String },
    Link { to: String },
}

/// All files of an image: their paths are relative to its root.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// One that has the links of [`MERGED`] and nothing else.
    pub(crate) fn new() -> Self {
        let mut tree = Self::default();
        for name in MERGED {
            let to = format!("usr/{name}");
            tree.0.insert(to.clone(), Node::Directory { mode: 0o755 });
            tree.0.insert(name.to_owned(), Node::Link { to });
        }
        tree.0
            .insert("usr".to_owned(), Node::Directory { mode: 0o755 });
        tree
    }

    /// Adds something at an absolute path, and the directories that lead there.
    pub(crate) fn add(&mut self, path: &str, node: Node) -> Result<()> {
        let path = relative(path)?;
        for (at, _) in path.match_indices('/') {
            let directory = Node::Directory { mode: 0o755 };
            self.0.entry(path[..at].to_owned()).or_insert(directory);
        }
        match self.0.get(&path) {
            Some(Node::Directory { .. }) if matches!(node, Node::Directory { .. }) => {}
            Some(known) if *known == node => return Ok(()),
            Some(_) => return Err(Error::Twice { path }),
            None => {}
        }
        self.0.insert(path, node);
        Ok(())
    }

    /// Adds a file of this machine; whether it is a program is all that is kept of its mode.
    pub(crate) fn add_file(&mut self, path: &str, from: &Path) -> Result<()> {
        let metadata = std::fs::metadata(from).map_err(io("inspect", from))?;
        let program = metadata.permissions().mode() & 0o111 != 0;
        let mode = if program { 0o755 } else { 0o644 };
        let from = from.to_owned();
        self.add(path, Node::File { from, mode })
    }

    /// All of it, directories before what is in them.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }
}

/// A path in an image relative to its root, with [`MERGED`] undone.
fn relative(path: &str) -> Result<String> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let invalid = || Error::Path {
        path: path.to_owned(),
    };
    let inner = path.strip_prefix('/').ok_or_else(invalid)?;
    if !inner.split('/').all(plain) {
        return Err(invalid());
    }
    let first = inner.split('/').next().unwrap_or_default();
    if MERGED.contains(&first) && first != inner {
        Ok(format!("usr/{inner}"))
    } else {
        Ok(inner.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.nodes().map(|(path, _)| path).collect()
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut tree = Tree::new();
        let text = |text: &str| Node::Text {
            text: text.to_owned(),
        };
        tree.add("/etc/ssl/a", text("a")).unwrap();
        tree.add("/lib64/ld.so", text("ld")).unwrap();
        tree.add("/usr/lib64/ld.so", text("ld")).unwrap();
        assert_eq!(
            paths(&tree),
            [
                "bin",
                "etc",
                "etc/ssl",
                "etc/ssl/a",
                "lib",
                "lib64",
                "sbin",
                "usr",
                "usr/bin",
                "usr/lib",
                "usr/lib64",
                "usr/lib64/ld.so",
                "usr/sbin"
            ]
        );
        assert!(tree.add("/etc/ssl/a", text("b")).is_err());
    }

    #[test]
    fn paths_stay_in_the_image() {
        for bad in ["etc", "/", "/a/../b", "/a//b", "/./a", "/a/"] {
            assert!(
                Tree::new()
                    .add(bad, Node::Directory { mode: 0o755 })
                    .is_err(),
                "{bad}"
            );
        }
    }
}
