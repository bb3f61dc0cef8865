//! What Longhorn's control plane asked for in this process: its requests, and what it shows of an image
//! that nobody else asks about.
//!
//! Longhorn's manager keeps its files in memory, and refuses a second request for one until the first is
//! deleted or forgotten. The catalog is filled from the disk as well; so here is kept which of its images
//! Longhorn asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catalog::source::Source;
use catalog::{Catalog, Existing, NewImage, Status};
use image::Format;
use types::{DiskUuid, ImageId, Sha512};

use crate::error::{Error, Result};

/// A request for an image by one of Longhorn's faces, checked.
#[derive(Debug, Clone)]
pub struct Registration {
    pub id: ImageId,
    /// Where its bytes come from when they are not on the disk; `None`: then there are none.
    pub source: Option<Source>,
    /// The bytes that its file must have; 0: any number.
    pub size: u64,
    /// The SHA-512 they must have.
    pub expected: Option<Sha512>,
    /// The format they are in; `None`: told by magic, once.
    pub format: Option<Format>,
    /// The disk that the request named.
    pub disk_uuid: Option<DiskUuid>,
}

impl Registration {
    fn new_image(self) -> NewImage {
        NewImage {
            name: Some(self.id.name),
            uuid: Some(self.id.uuid),
            source: self.source,
            size: self.size,
            expected: self.expected,
            format: self.format,
            for_volumes: false,
            existing: Existing::TakeOver,
        }
    }
}

/// What is remembered of a request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its place among the requests of this process.
    pub order: u64,
    /// The disk that it named.
    pub disk_uuid: Option<DiskUuid>,
    /// The image that came of it: one of the same name that is made later is another.
    serial: u64,
}

/// The requests of this process that still stand. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    requests: Arc<Mutex<Requests>>,
}

#[derive(Debug, Default)]
struct Requests {
    count: u64,
    standing: BTreeMap<ImageId, Asked>,
}

impl Memory {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of an image, if Longhorn asked for it.
    pub fn of(&self, status: &Status) -> Option<Asked> {
        let requests = self.requests();
        let asked = requests.standing.get(&status.id);
        asked.filter(|asked| asked.serial == status.serial).cloned()
    }

    /// Takes an image up: a second request for one that was asked for is refused, whatever came of it.
    ///
    /// # Errors
    /// `taken` when its path or its uuid is another image's, or it was asked for already.
    pub fn register(
        &self,
        catalog: &Catalog,
        registration: Registration,
        taken: impl Fn() -> Error,
    ) -> Result<Status> {
        let id = registration.id.clone();
        let disk_uuid = registration.disk_uuid.clone();
        // Held until the request is written down: of two at once, one is the second.
        let mut requests = self.requests();
        // Those of images that are gone make room: what stands is never more than the catalog has.
        requests
            .standing
            .retain(|id, asked| catalog.serial(id) == Some(asked.serial));
        if requests.standing.contains_key(&id) {
            return Err(taken());
        }
        let status = match catalog.create(registration.new_image()) {
            Ok(status) => status,
            Err(catalog::Error::ImageExists { .. } | catalog::Error::Cancelled(_)) => {
                return Err(taken());
            }
            Err(error) => return Err(error.into()),
        };
        let order = requests.count;
        requests.count += 1;
        let asked = Asked {
            order,
            disk_uuid,
            serial: status.serial,
        };
        requests.standing.insert(id, asked);
        Ok(status)
    }
}
