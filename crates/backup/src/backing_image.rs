//! The backup of a backing image: whole, in blocks of 2 MiB of which the last is as short as it is.
//!
//! All backing images of a store share their blocks, but each has a lock of its own, so another one may
//! be deleted meanwhile. What was found in the store is therefore looked for once more at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use crate::checksum_set::ChecksumSet;
use crate::config::backing_image::{self, BackingImageHead};
use crate::contents::Source;
use crate::info::BackingImageInfo;
use crate::job::{Job, Phase};
use crate::layout::{self, Pool};
use crate::lock::{self, Kind};
use crate::records::{RECORD_MAX, seconds};
use crate::spool::{self, Map, MapWriter};
use crate::store::Store;
use crate::uploader::{self, Place, Tally, Uploader};
use crate::{BlockSize, Compression, Error, Name, Result};

/// A backing image to be backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBackingImage {
    /// The image.
    pub name: Name,
    /// Bytes of its file.
    pub size: u64,
    /// SHA-512 of its file, in 128 hexadecimal digits. It is for the caller to know it.
    pub checksum: String,
    /// How new blocks are stored.
    pub compression: Compression,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The Secret of the keys of an encrypted image, and its namespace; empty: none.
    pub secret: String,
    /// The namespace of that Secret.
    pub secret_namespace: String,
}

impl Store {
    /// Backs up a backing image. There is one backup of each name: if it is complete and of the same
    /// checksum it is the answer, and one that was begun is finished.
    pub async fn backup_backing_image(
        &self,
        new: NewBackingImage,
        source: Arc<dyn Source>,
        job: &Job,
    ) -> Result<BackingImageInfo> {
        let lock = lock::acquire(self.driver(), &new.name, Kind::Use, &job.cancel).await?;
        let work = async {
            if let Some(head) = self.image_there(&new).await? {
                return Ok(head);
            }
            let mut head = draft(new);
            self.put_image(&head, None).await?;
            types::crash_point!("backup.image.begun");
            let tally = self.upload_image(&mut head, source, job).await?;
            job.progress.phase(Phase::Finishing, 0);
            let (map, blocks) = tally;
            head.block_count = blocks;
            self.still_there(&map).await?;
            lock.check().await?;
            head.completed_at = Some(seconds(Timestamp::now()));
            self.put_image(&head, Some(&map)).await?;
            types::crash_point!("backup.image.cfg");
            self.image_read_back(&head, &map).await?;
            Ok(head)
        };
        let head = job.unless_cancelled(work).await?;
        lock.release().await?;
        Ok(head.into())
    }

    async fn image_there(&self, new: &NewBackingImage) -> Result<Option<BackingImageHead>> {
        let item = format!("backup of backing image {}", new.name);
        match self.backing_image_map(&new.name).await {
            Ok((head, _)) if head.checksum.eq_ignore_ascii_case(&new.checksum) => {
                Ok(head.completed_at.is_some().then_some(head))
            }
            Ok((head, _)) => Err(Error::Exists {
                item,
                why: format!(
                    "it is of an image with checksum {}; delete it first",
                    types::shown(&head.checksum)
                ),
            }),
            Err(Error::NoObject { .. }) => Ok(None),
            Err(error @ Error::Config { .. }) => Err(Error::Exists {
                item,
                why: format!("{error}; delete it first"),
            }),
            Err(error) => Err(error),
        }
    }

    /// Every block of the image that is not zeros, and how many distinct ones there are.
    async fn upload_image(
        &self,
        head: &mut BackingImageHead,
        source: Arc<dyn Source>,
        job: &Job,
    ) -> Result<(Map, u64)> {
        job.progress.phase(Phase::Uploading, head.size);
        let spool = &self.options().spool;
        let uploader = Arc::new(Uploader {
            driver: Arc::clone(self.driver()),
            pool: Pool::BackingImages,
            source,
            compression: head.compression,
            known: ChecksumSet::new(spool),
            full: false,
            keep_zeros: false,
            tally: Tally::new(self.threads()),
        });
        let (block, size) = (BlockSize::MIB2.bytes(), head.size);
        let batch = block * uploader::batch(block, self.threads()) as u64;
        let work = (0..size.div_ceil(batch)).map(|index| {
            let start = index * batch;
            let blocks = (size.min(start + batch) - start).div_ceil(block);
            let places = (0..blocks).map(|index| {
                let offset = start + index * block;
                let length = usize::try_from(block.min(size - offset)).map_err(|_| Error::Task)?;
                Ok(Place {
                    offset,
                    length,
                    padded: length,
                })
            });
            let places: Result<Vec<Place>> = places.collect();
            let uploader = Arc::clone(&uploader);
            let uploaded = async move {
                let places = places?;
                let checksums = uploader.start(places.clone()).await?;
                Ok::<_, Error>(places.into_iter().zip(checksums))
            };
            uploaded.boxed()
        });
        let mut done = futures_util::stream::iter(work).buffered(4 * self.threads());
        let mut map = MapWriter::new(spool)?;
        let mut distinct = ChecksumSet::new(spool);
        while let Some(blocks) = done.try_next().await? {
            job.wanted()?;
            for (place, checksum) in blocks {
                if let Some(checksum) = checksum {
                    map.push(place.offset, checksum)?;
                    distinct.insert(checksum)?;
                }
                job.progress.advance(place.length as u64);
            }
        }
        uploader.settle().await?;
        Ok((map.finish()?, distinct.len()))
    }

    /// Whether no block was removed for another image's sake.
    async fn still_there(&self, map: &Map) -> Result<()> {
        let asked = map.iter().map(|entry| {
            let driver = Arc::clone(self.driver());
            let asked = async move {
                let (offset, checksum) = entry?;
                let key = Pool::BackingImages.block(&checksum);
                match driver.head(&key).await? {
                    Some(_) => Ok(()),
                    None => Err(Error::ReadBack {
                        key,
                        why: format!("the block at offset {offset} was removed meanwhile"),
                    }),
                }
            };
            asked.boxed()
        });
        let asked = futures_util::stream::iter(asked).buffer_unordered(4 * self.threads());
        asked.try_collect::<()>().await
    }

    async fn put_image(&self, head: &BackingImageHead, map: Option<&Map>) -> Result<()> {
        let key = layout::backing_image_config(&head.name);
        let (written, blocks) = (head.clone(), map.map(Map::records));
        let expected = map.map_or(0, Map::len) * RECORD_MAX;
        let spool = self.options().spool.clone();
        let bytes = tokio::task::spawn_blocking(move || {
            let blocks = blocks.into_iter().flatten();
            spool::written(&spool, expected, |to| {
                backing_image::write(to, &written, blocks)
            })
        });
        let bytes = bytes.await.map_err(|_| Error::Task)??;
        self.driver().put(&key, bytes).await
    }

    async fn image_read_back(&self, head: &BackingImageHead, map: &Map) -> Result<()> {
        let key = layout::backing_image_config(&head.name);
        let (read, blocks) = match self.backing_image_map(&head.name).await {
            Ok(read) => read,
            Err(Error::Config { why, .. }) => return Err(Error::ReadBack { key, why }),
            Err(error) => return Err(error),
        };
        let mut pairs = map.iter().zip(blocks.iter());
        let same = pairs.all(|(ours, theirs)| matches!((ours, theirs), (Ok(a), Ok(b)) if a == b));
        if same && blocks.len() == map.len() && read.checksum == head.checksum {
            return Ok(());
        }
        let why = "other blocks, or another checksum".to_owned();
        Err(Error::ReadBack { key, why })
    }
}

fn draft(new: NewBackingImage) -> BackingImageHead {
    BackingImageHead {
        name: new.name,
        size: new.size,
        block_count: 0,
        checksum: new.checksum,
        labels: new.labels,
        compression: new.compression,
        created_at: Some(seconds(Timestamp::now())),
        completed_at: None,
        secret: new.secret,
        secret_namespace: new.secret_namespace,
    }
}
