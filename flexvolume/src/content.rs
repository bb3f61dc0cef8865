//! Converts the manager's description of an image's contents for the node, so that the same rules
//! decide, before a volume is created, whether it can be mounted.

use client::wire;
use client::wire::content::Kind;
use probe::Content;

/// The content; `None` when nobody has looked yet, and staging will.
pub(crate) fn of(content: Option<&wire::Content>) -> Option<Content> {
    let content = content?;
    Some(match content.kind() {
        Kind::Unspecified => return None,
        Kind::FileSystem => match content.r#type.parse() {
            Ok(fs_type) => Content::FileSystem {
                fs_type,
                label: content.label.clone(),
                uuid: content.uuid.clone(),
                refused: Some(content.refused.clone()).filter(|why| !why.is_empty()),
            },
            Err(_) => Content::Unknown,
        },
        Kind::PartitionTable => Content::PartitionTable {
            table: if content.r#type == "gpt" {
                "gpt"
            } else {
                "dos"
            },
        },
        Kind::Other => Content::Other {
            what: known(&content.r#type),
        },
        Kind::Ambiguous => {
            let types = content.r#type.split(',').map(str::trim).map(str::to_owned);
            Content::Ambiguous(types.take(8).collect())
        }
        Kind::Unknown => Content::Unknown,
        Kind::Blank => Content::Blank,
    })
}

/// The name that blkid has for it.
fn known(text: &str) -> &'static str {
    const NAMES: [&str; 5] = [
        "crypto_LUKS",
        "LVM2_member",
        "swap",
        "linux_raid_member",
        "bcache",
    ];
    let name = NAMES.into_iter().find(|name| *name == text);
    name.unwrap_or("data that is not a file system")
}
