//! Pages of a listing, in the order of names.

use types::VolumeName;

use super::BackupId;
use crate::error::{Error, Result};

/// Which page; by default all there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// 0: all that follow.
    pub(crate) max_entries: u32,
    /// The last name of the page before; empty: from the first.
    pub(crate) after: String,
}

/// What tells a token of ours from any other text. A name alone would not do: every text of letters
/// is one.
const TOKEN: &str = "after:";

impl Page {
    pub(super) fn parse(max_entries: i32, starting_token: &str) -> Result<Self> {
        let max_entries = u32::try_from(max_entries).map_err(|_| Error::Invalid {
            field: "max_entries",
            why: "it is negative",
        })?;
        let after = match starting_token {
            "" => String::new(),
            // Names of snapshots follow the same rule as those of volumes.
            token => {
                let is_id =
                    |id: &&str| VolumeName::new(id).is_ok() || BackupId::parse(id).is_some();
                let id = token.strip_prefix(TOKEN).filter(is_id);
                id.ok_or(Error::Token)?.to_owned()
            }
        };
        Ok(Self { max_entries, after })
    }

    /// The token of the page after this name. It stays good when what it names is deleted.
    pub(crate) fn token(last: &str) -> String {
        format!("{TOKEN}{last}")
    }

    /// The part of `all`, in the order of their names, that is this page, and the token of the next.
    pub(crate) fn cut<T>(&self, mut all: Vec<T>, name: impl Fn(&T) -> &str) -> (Vec<T>, String) {
        all.retain(|one| name(one) > self.after.as_str());
        let most = usize::try_from(self.max_entries).unwrap_or(usize::MAX);
        if most == 0 || all.len() <= most {
            return (all, String::new());
        }
        all.truncate(most);
        let token = all.last().map(|last| Self::token(name(last)));
        (all, token.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_whatever_is_deleted_between_them() {
        let all = || vec!["a", "b", "c", "d"];
        let page = |max, after: &str| Page::parse(max, after).unwrap();
        let (first, token) = page(2, "").cut(all(), |name| name);
        assert_eq!((first, token.as_str()), (vec!["a", "b"], "after:b"));
        let left = vec!["a", "c", "d"];
        let (rest, none) = page(0, &token).cut(left, |name| name);
        assert_eq!((rest, none.as_str()), (vec!["c", "d"], ""));
        assert_eq!(page(4, "").cut(all(), |name| name).1, "");
        let backup = Page::token("bak://pvc-1/snapshot-1");
        assert_eq!(page(1, &backup).after, "bak://pvc-1/snapshot-1");
        assert!(Page::parse(-1, "").is_err());
        assert!(matches!(Page::parse(0, "invalid-token"), Err(Error::Token)));
    }
}
