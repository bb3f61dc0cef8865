//! The parameters of a volume in a StorageClass or in the options of a FlexVolume: their names and
//! permitted values.
//!
//! The keys are those of Longhorn v0.3. A reason completes a sentence; the caller adds the key and
//! the value.

/// The container image that holds the volume's first contents.
pub const BASE_IMAGE: &str = "baseImage";
/// On how many disks the volume lives.
pub const NUMBER_OF_REPLICAS: &str = "numberOfReplicas";
/// Minutes until a replica that is gone is given up.
pub const STALE_REPLICA_TIMEOUT: &str = "staleReplicaTimeout";
/// Options for mkfs, for a blank volume.
pub const MKFS_PARAMS: &str = "mkfsParams";
/// A backup to restore; only its empty form works today.
pub const FROM_BACKUP: &str = "fromBackup";

/// A year in minutes: nobody waits longer for a replica to come back.
const STALE_REPLICA_TIMEOUT_MOST: u32 = 525_600;

/// What is wrong with a value, and what would be right.
pub type Why = &'static str;

/// The value of [`NUMBER_OF_REPLICAS`]: Longhorn's own limits.
pub fn number_of_replicas(text: &str) -> Result<u32, Why> {
    integer(text)
        .filter(|number| (1..=20).contains(number))
        .ok_or("a whole number from 1 to 20 is expected")
}

/// The value of [`STALE_REPLICA_TIMEOUT`], in minutes.
pub fn stale_replica_timeout(text: &str) -> Result<u32, Why> {
    integer(text)
        .filter(|minutes| *minutes <= STALE_REPLICA_TIMEOUT_MOST)
        .ok_or("a whole number of minutes from 0 to 525600 (a year) is expected")
}

/// The value of [`BASE_IMAGE`], as far as it can be checked without knowing registries; the rest is
/// the manager's to say.
pub fn base_image(text: &str) -> Result<String, Why> {
    if text.contains("://") {
        return Err("write the image as in `docker pull`, without a scheme");
    }
    if text.len() > 1024 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("write the image as in `docker pull`: host/name:tag, without spaces");
    }
    Ok(text.to_owned())
}

/// A number as people write it: digits and nothing else.
fn integer(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// The known key that holds `key`, else the one with the fewest edits to it, letter case not
/// counted; empty only when nothing is known. A far-fetched suggestion still shows what a key looks
/// like.
pub fn nearest(key: &str, known: &[&'static str]) -> &'static str {
    // Longer than any key, and short enough to compare.
    let key: String = key.to_lowercase().chars().take(64).collect();
    let letters: Vec<char> = key.chars().collect();
    let distance = |known: &&&str| {
        let known = known.to_lowercase();
        // Of several that hold it the first is meant, which is the one that most people use.
        if key.len() > 3 && known.contains(&key) {
            return (false, 0);
        }
        (true, edits(&letters, &known.chars().collect::<Vec<_>>()))
    };
    known.iter().min_by_key(distance).copied().unwrap_or("")
}

/// Levenshtein's distance, a row at a time.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_the_original_documentation_are_taken() {
        assert_eq!(number_of_replicas("3"), Ok(3));
        assert_eq!(stale_replica_timeout("20"), Ok(20));
        let image = "rancher/longhorn-test:baseimage-ext4";
        assert_eq!(base_image(image).as_deref(), Ok(image));
    }

    #[test]
    fn the_nearest_key_is_suggested() {
        let known = [
            BASE_IMAGE,
            NUMBER_OF_REPLICAS,
            STALE_REPLICA_TIMEOUT,
            FROM_BACKUP,
        ];
        assert_eq!(nearest("baseimage", &known), BASE_IMAGE);
        assert_eq!(nearest("replicas", &known), NUMBER_OF_REPLICAS);
        assert_eq!(nearest("staleReplicaTimout", &known), STALE_REPLICA_TIMEOUT);
        assert_eq!(nearest("x", &[]), "");
    }
}
