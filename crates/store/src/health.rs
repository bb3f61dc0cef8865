//! The state of a disk: its I/O errors, the problems found on it, and the promised space.

use std::error::Error as StdError;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{error, info};
use types::report;

use super::counters::Counters;
use super::disk::Disk;
use super::durable;
use super::space::floor;
use crate::error::{Error, IoContext, Result};

/// Errors of the medium, one after the other, after which a disk is suspect: one may be a single bad
/// sector, and a file's own matter.
const SUSPECT_AFTER: u64 = 3;

/// Room on a disk that is promised to one image. Given back on drop.
#[derive(Debug)]
pub struct Reservation {
    disk: Arc<Disk>,
    left: u64,
}

impl Reservation {
    /// So many bytes of it were written: the file system counts them now.
    pub(super) fn took(&mut self, bytes: u64) {
        let taken = bytes.min(self.left);
        self.left -= taken;
        self.disk
            .counters()
            .reserved_bytes
            .fetch_sub(taken, Ordering::Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.took(self.left);
    }
}

impl Disk {
    /// Promises room to an image of which at least `bytes` are surely written. Refused when they are
    /// not there, counting what is promised to others and what must stay free.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation> {
        let reserved = &self.counters().reserved_bytes;
        // Taken first, so that of two who ask at once not both are told yes for the same room.
        let before = reserved.fetch_add(bytes, Ordering::Relaxed);
        let reservation = Reservation {
            disk: self.clone(),
            left: bytes,
        };
        let space = self.space()?;
        let available = space
            .available
            .saturating_sub(before)
            .saturating_sub(floor(space.size));
        if bytes > available {
            return Err(Error::NoSpace {
                available,
                needed: bytes,
            });
        }
        Ok(reservation)
    }

    /// Notes an error of work on this disk. Only the medium's own count.
    pub fn note(&self, error: &(dyn StdError + 'static)) {
        if !is_of_the_medium(error) {
            return;
        }
        let counters = self.counters();
        Counters::count(&counters.io_errors);
        let row = counters.errors_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        if row == SUSPECT_AFTER {
            error!(disk = %self.uuid(), errors = row, error = %report(error),
                "the disk is suspect: I/O errors keep occurring");
        }
    }

    /// Notes that bytes were written, synced and named without an error.
    pub fn note_success(&self) {
        let counters = self.counters();
        if counters.errors_in_a_row.load(Ordering::Relaxed) < SUSPECT_AFTER {
            counters.errors_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the disk fails again and again.
    pub fn is_suspect(&self) -> bool {
        self.counters().errors_in_a_row.load(Ordering::Relaxed) >= SUSPECT_AFTER
    }

    /// What readiness asks: the disk that was opened is there, and works.
    pub fn healthy(&self) -> Result<()> {
        self.check()?;
        if self.is_suspect() {
            let errors = self.counters().io_errors.load(Ordering::Relaxed);
            return Err(Error::DiskSuspect {
                path: self.layout().root().to_owned(),
                errors,
            });
        }
        Ok(())
    }

    /// Writes, syncs and reads back a small file; a suspect disk on which that works is trusted again.
    pub fn try_out(&self) -> Result<()> {
        let path = self.layout().root().join(".disk-test");
        let tried = durable::remove_file(&path)
            .and_then(|()| durable::write_new(&path, &[0x5a; 4096]))
            .and_then(|()| std::fs::read(&path).context("read", &path))
            .and_then(|_| durable::remove_file(&path))
            .and_then(|()| durable::sync_dir(self.layout().root()));
        match &tried {
            Ok(()) if self.is_suspect() => {
                info!(disk = %self.uuid(), "the disk works again");
                self.counters().errors_in_a_row.store(0, Ordering::Relaxed);
            }
            Ok(()) => {}
            Err(error) => self.note(error),
        }
        tried
    }
}

/// Refuses to go on with a file whose disk is all but full.
pub(super) fn leave_reserve(file: &File, path: &Path) -> Result<()> {
    let stat = rustix::fs::fstatvfs(file).context("inspect the disk of", path)?;
    let needed = floor(stat.f_blocks.saturating_mul(stat.f_frsize));
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    if available < needed {
        return Err(Error::NoSpace { available, needed });
    }
    Ok(())
}

/// Whether the kernel says that the medium, or the file system on it, is broken.
pub(super) fn is_of_the_medium(error: &(dyn StdError + 'static)) -> bool {
    const BROKEN: [i32; 6] = [
        libc::EIO,
        libc::EUCLEAN,
        libc::EBADMSG,
        libc::EROFS,
        libc::ENXIO,
        libc::ENODEV,
    ];
    let mut cause = Some(error);
    while let Some(error) = cause {
        let code = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if code.is_some_and(|code| BROKEN.contains(&code)) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 59: a disk that fails again and again is not ready, until it works.
    #[test]
    fn row_59_a_disk_is_suspect_after_some_errors_and_trusted_when_it_works_again() {
        let (_dir, disk) = Disk::temporary();
        let failed = |code| Error::Io {
            operation: "sync",
            path: "x".into(),
            source: io::Error::from_raw_os_error(code),
        };
        for _ in 0..9 {
            disk.note(&failed(libc::ENOSPC));
            disk.note(&failed(libc::ENOENT));
        }
        disk.note(&failed(libc::EIO));
        disk.note(&failed(libc::EIO));
        disk.note_success();
        disk.note(&failed(libc::EIO));
        disk.note(&failed(libc::EIO));
        disk.healthy().unwrap();
        let aside = Error::SetAside {
            why: Box::new(failed(libc::EIO)),
            path: "x".into(),
        };
        disk.note(&aside);
        assert!(matches!(
            disk.healthy(),
            Err(Error::DiskSuspect { errors: 5, .. })
        ));
        disk.note_success();
        assert!(disk.is_suspect(), "one write that went well proves little");
        disk.try_out().unwrap();
        disk.healthy().unwrap();
    }

    /// Room is promised once.
    #[test]
    fn what_is_promised_to_one_image_is_not_promised_to_another() {
        let (_dir, disk) = Disk::temporary();
        let space = disk.space().unwrap();
        let most = space.available - floor(space.size);
        // Others use this disk too: some of it is left out.
        let mut first = disk.reserve(most / 2).unwrap();
        let refused = disk.reserve(most / 2 + (1 << 30)).unwrap_err();
        let Error::NoSpace { available, needed } = refused else {
            panic!("{refused}")
        };
        assert!(available < needed && needed == most / 2 + (1 << 30));
        first.took(most / 4);
        let reserved = || disk.counters().reserved_bytes.load(Ordering::Relaxed);
        assert_eq!(
            reserved(),
            most / 2 - most / 4,
            "a refused one takes nothing"
        );
        drop(first);
        assert_eq!(reserved(), 0);
    }
}
