//! Looks at the images of all disks: one that is damaged, and one that was repaired, concerns the claims whose volumes were
//! made from it, because they share its blocks.
//!
//! What was said is forgotten with the process. Nothing is missed by that but the repair of an image that was damaged
//! before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Member, wire};
use jiff::Timestamp;
use kubernetes::{Leadership, Level};
use types::report;

use super::{Claims, claim_of};
use crate::error::Result;
use crate::managers::Managers;

/// Between two looks. Each asks every manager once.
const ROUND: Duration = Duration::from_secs(30);
/// Claims that are told of one image in a round; there is one event a second for all.
const CLAIMS_MAX: usize = 50;

/// An image on a disk: the UUIDs of both.
type Which = (String, String);

/// What there is to say of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
struct News {
    level: Level,
    reason: &'static str,
    note: String,
}

/// What was seen of the images, from the beginning of the leadership on.
#[derive(Debug)]
struct Sight {
    since: Timestamp,
    /// When each was repaired, as it was said.
    repaired: BTreeMap<Which, Timestamp>,
}

/// Looks for as long as the process runs, while it leads.
pub(super) async fn keep(claims: Claims, managers: Managers, leadership: Arc<Leadership>) {
    loop {
        leadership.gained().await;
        let mut sight = Sight::new(Timestamp::now());
        while leadership.leads() {
            if let Err(error) = round(&claims, &managers, &mut sight).await {
                tracing::debug!("cannot look at the images: {}", report(&error));
            }
            tokio::time::sleep(ROUND).await;
        }
    }
}

async fn round(claims: &Claims, managers: &Managers, sight: &mut Sight) -> Result<()> {
    for Member { client, disk } in managers.members().await? {
        // What one of them does not answer is no matter of the others.
        if let Err(error) = look_at(claims, &client, &disk.uuid, sight).await {
            tracing::debug!(disk = disk.uuid, "{}", report(&error));
        }
    }
    Ok(())
}

async fn look_at(claims: &Claims, client: &Client, disk: &str, sight: &mut Sight) -> Result<()> {
    let images = client.list_images().await?;
    let news: Vec<_> = images
        .iter()
        .filter_map(|image| Some((image, sight.news(disk, image)?)))
        .collect();
    if news.is_empty() {
        return Ok(());
    }
    let (volumes, _) = client.list_volumes(0, "").await?;
    for (image, news) in news {
        let of = |one: &&wire::Volume| one.image_uuid == image.uuid && one.image_name == image.name;
        let concerned = volumes.iter().filter(of).filter_map(claim_of);
        for claim in concerned.take(CLAIMS_MAX) {
            claims.say(claim, news.level, news.reason, news.note.clone());
        }
    }
    Ok(())
}

impl Sight {
    fn new(since: Timestamp) -> Self {
        Self {
            since,
            repaired: BTreeMap::new(),
        }
    }

    /// What is to be said of an image on a disk; the ledger of Events sees to it that the same is not written each time.
    fn news(&mut self, disk: &str, image: &wire::BackingImage) -> Option<News> {
        let name = &image.name;
        if image.state() == wire::State::Failed {
            let why = &image.message;
            return Some(News {
                level: Level::Warning,
                reason: "ImageDamaged",
                note: format!("image {name}, from which the volume was made, is failed: {why}"),
            });
        }
        let at: Timestamp = image.repaired_at.parse().ok()?;
        let which = (disk.to_owned(), image.uuid.clone());
        let is_said = self.repaired.get(&which).is_some_and(|said| *said >= at);
        if is_said || at < self.since {
            return None;
        }
        self.repaired.insert(which, at);
        Some(News {
            level: Level::Normal,
            reason: "ImageHealed",
            note: format!(
                "image {name}, from which the volume was made, was damaged and is repaired; the volume shares its \
                 blocks where the disk can do that: check what it holds"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(state: wire::State, repaired_at: &str) -> wire::BackingImage {
        wire::BackingImage {
            name: "img".into(),
            uuid: "u".into(),
            state: state.into(),
            repaired_at: repaired_at.into(),
            message: "2 MiB are damaged".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_repair_is_said_once_and_only_one_that_is_new() {
        let mut sight = Sight::new("2026-01-02T00:00:00Z".parse().unwrap());
        let mut news = |disk, at| {
            let image = image(wire::State::Ready, at);
            sight.news(disk, &image).map(|news| news.reason)
        };
        assert_eq!(news("d", ""), None);
        assert_eq!(news("d", "2026-01-01T00:00:00Z"), None, "before our time");
        assert_eq!(news("d", "2026-01-03T00:00:00Z"), Some("ImageHealed"));
        assert_eq!(news("d", "2026-01-03T00:00:00Z"), None);
        assert_eq!(news("e", "2026-01-03T00:00:00Z"), Some("ImageHealed"));
        assert_eq!(news("d", "2026-01-04T00:00:00Z"), Some("ImageHealed"));
        assert_eq!(news("d", "yesterday"), None);
    }

    #[test]
    fn a_failed_image_is_said_as_long_as_it_is() {
        let mut sight = Sight::new(Timestamp::UNIX_EPOCH);
        for _ in 0..2 {
            let news = sight.news("d", &image(wire::State::Failed, "")).unwrap();
            assert_eq!((news.level, news.reason), (Level::Warning, "ImageDamaged"));
            assert!(news.note.contains("2 MiB are damaged"), "{}", news.note);
        }
        assert_eq!(sight.news("d", &image(wire::State::Unknown, "")), None);
    }
}
