//! Checks a new file system with its own tool before it is published.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::request::FileSystem;
use crate::tool::Tool;

/// How long a check may take.
const LIMIT: Duration = Duration::from_hours(6);

/// The tool that looks at a kind of file system and changes nothing, with its options.
fn checker(kind: FileSystem) -> Option<(Tool, &'static [&'static str])> {
    let tool = |name, package, arguments: &'static [&'static str]| {
        let limit = LIMIT;
        let tool = Tool {
            name,
            package,
            limit,
        };
        Some((tool, arguments))
    };
    match kind {
        FileSystem::Ext4 => tool("e2fsck", "e2fsprogs", &["-f", "-n"]),
        FileSystem::Xfs => tool("xfs_repair", "xfsprogs", &["-n", "-f"]),
        FileSystem::Btrfs => tool("btrfs", "btrfs-progs", &["check", "--readonly"]),
        FileSystem::None => None,
    }
}

/// Checks the file system in `path`. A machine that has no such tool is told so, and that is all.
pub(in super::super) fn check(kind: FileSystem, path: &Path, progress: &Progress) -> Result<()> {
    let Some((tool, arguments)) = checker(kind) else {
        return Ok(());
    };
    let mut arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
    arguments.push(path.as_os_str());
    // The administrator's e2fsck.conf decides nothing here.
    match tool.run(&arguments, &[("E2FSCK_CONFIG", "/dev/null".into())]) {
        Err(Error::ToolMissing { tool, package }) => {
            progress.say(&format!(
                "the file system is not checked: {tool} is not installed (package {package})"
            ));
            Ok(())
        }
        Err(Error::ToolFailed {
            tool,
            status,
            output,
        }) => Err(Error::NotWhole {
            tool,
            status,
            output,
        }),
        result => result,
    }
}
