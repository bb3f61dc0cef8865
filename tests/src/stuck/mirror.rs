//! The FUSE file system itself: each call is admitted, or not, and then done on the directory below.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirEntryExt, FileExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::table::{Known, attributes, kind};
use super::{Health, Shared, locked};

/// Nothing is remembered by the kernel: every look is asked.
const NO_TIME: Duration = Duration::ZERO;

/// What an operation would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Look,
    /// To change something, which needs no room.
    Change,
    Room,
}

#[derive(Debug)]
pub(super) struct Mirror {
    root: PathBuf,
    shared: Arc<Shared>,
    known: Mutex<Known>,
}

impl Mirror {
    pub(super) fn new(root: PathBuf, shared: Arc<Shared>) -> Self {
        Self {
            root,
            shared,
            known: Mutex::new(Known::new()),
        }
    }

    /// Hangs, fails, or lets the operation be done.
    fn admit(&self, wants: Wants) -> io::Result<()> {
        let mut state = locked(&self.shared.state);
        while state.health == Health::Hangs {
            state.waiting += 1;
            let changed = &self.shared.changed;
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        let code = match (state.health, wants) {
            (Health::Fails, _) | (Health::FailsWrites, Wants::Change | Wants::Room) => Errno::EIO,
            (Health::Full, Wants::Room) => Errno::ENOSPC,
            _ => return Ok(()),
        };
        Err(io::Error::from_raw_os_error(code.code()))
    }

    fn relative(&self, number: INodeNo) -> io::Result<PathBuf> {
        let known = locked(&self.known);
        let path = known.paths.get(&number.0).cloned();
        path.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn path(&self, number: INodeNo) -> io::Result<PathBuf> {
        Ok(self.root.join(self.relative(number)?))
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<(PathBuf, PathBuf)> {
        let relative = self.relative(parent)?.join(name);
        Ok((self.root.join(&relative), relative))
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        let file = locked(&self.known).open.get(&handle.0).cloned();
        file.ok_or_else(|| io::Error::from_raw_os_error(Errno::EBADF.code()))
    }

    fn shown(&self, relative: PathBuf) -> io::Result<FileAttr> {
        let metadata = fs::symlink_metadata(self.root.join(&relative))?;
        let number = locked(&self.known).number(relative);
        Ok(attributes(number, &metadata))
    }

    fn attributes_of(&self, number: INodeNo, handle: Option<FileHandle>) -> io::Result<FileAttr> {
        let metadata = match handle.map(|handle| self.file(handle)) {
            Some(Ok(file)) => file.metadata()?,
            _ => fs::symlink_metadata(self.path(number)?)?,
        };
        Ok(attributes(number.0, &metadata))
    }

    fn entries(&self, number: INodeNo) -> io::Result<Vec<(u64, FileType, std::ffi::OsString)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.path(number)?)? {
            let entry = entry?;
            let kind = kind(&entry.metadata()?);
            entries.push((entry.ino(), kind, entry.file_name()));
        }
        entries.sort_by(|one, other| one.2.cmp(&other.2));
        Ok(entries)
    }
}

impl Filesystem for Mirror {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.admit(Wants::Look).and_then(|()| {
            let (_, relative) = self.child(parent, name)?;
            self.shown(relative)
        });
        match found {
            Ok(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let found = self
            .admit(Wants::Look)
            .and_then(|()| self.attributes_of(number, handle));
        match found {
            Ok(attributes) => reply.attr(&NO_TIME, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let done = self.admit(Wants::Change).and_then(|()| {
            let path = self.path(number)?;
            if let Some(mode) = mode {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            }
            if let Some(size) = size {
                File::options().write(true).open(&path)?.set_len(size)?;
            }
            self.attributes_of(number, handle)
        });
        match done {
            Ok(attributes) => reply.attr(&NO_TIME, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.admit(Wants::Room).and_then(|()| {
            let (path, relative) = self.child(parent, name)?;
            fs::create_dir(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            self.shown(relative)
        });
        match made {
            Ok(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self.admit(Wants::Change).and_then(|()| {
            let (path, relative) = self.child(parent, name)?;
            fs::remove_file(path)?;
            locked(&self.known).forget(&relative);
            Ok(())
        });
        answer(reply, gone);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self.admit(Wants::Change).and_then(|()| {
            let (path, relative) = self.child(parent, name)?;
            fs::remove_dir(path)?;
            locked(&self.known).forget(&relative);
            Ok(())
        });
        answer(reply, gone);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.admit(Wants::Change).and_then(|()| {
            let (from, old) = self.child(parent, name)?;
            let (to, new) = self.child(new_parent, new_name)?;
            let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
            rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags)?;
            let mut known = locked(&self.known);
            known.forget(&new);
            // Whoever knew it by its number finds it where it is now.
            if let Some(number) = known.numbers.remove(&old) {
                known.paths.insert(number, new.clone());
                known.numbers.insert(new, number);
            }
            Ok(())
        });
        answer(reply, renamed);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.admit(Wants::Look).and_then(|()| {
            let writes = flags.acc_mode() != fuser::OpenAccMode::O_RDONLY;
            let mut options = File::options();
            let file = options.read(true).write(writes).open(self.path(number)?)?;
            Ok(locked(&self.known).opened(file))
        });
        match opened {
            Ok(handle) => reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error.into()),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.admit(Wants::Room).and_then(|()| {
            let (path, relative) = self.child(parent, name)?;
            let exclusive = flags & rustix::fs::OFlags::EXCL.bits().cast_signed() != 0;
            let mut options = File::options();
            options.read(true).write(true);
            let options = if exclusive {
                options.create_new(true)
            } else {
                options.create(true).truncate(false)
            };
            let file = options.open(&path)?;
            file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
            let attributes = self.shown(relative)?;
            Ok((attributes, locked(&self.known).opened(file)))
        });
        match made {
            Ok((attributes, handle)) => {
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&NO_TIME, &attributes, Generation(0), handle, flags);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.admit(Wants::Look).and_then(|()| {
            let mut bytes = vec![0; size as usize];
            let read = self.file(handle)?.read_at(&mut bytes, offset)?;
            bytes.truncate(read);
            Ok(bytes)
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.file(handle).and_then(|file| {
            let admitted = self.admit(Wants::Room);
            // A server that fails has often done half of it.
            let end = if admitted.is_ok() {
                data.len()
            } else {
                data.len() / 2
            };
            file.write_all_at(&data[..end], offset)?;
            admitted
        });
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("a write is short")),
            Err(error) => reply.error(error.into()),
        }
    }

    fn fsync(
        &self,
        _: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.admit(Wants::Change));
    }

    fn fsyncdir(
        &self,
        _: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.admit(Wants::Change));
    }

    fn flush(
        &self,
        _: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        locked(&self.known).open.remove(&handle.0);
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.admit(Wants::Look).and_then(|()| self.entries(number)) {
            Ok(entries) => {
                let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
                for (place, entry) in (0_u64..).zip(&entries).skip(skipped) {
                    let (inode, kind, name) = entry;
                    if reply.add(INodeNo(*inode), place + 1, *kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn statfs(&self, _: &Request, _number: INodeNo, reply: ReplyStatfs) {
        match self.admit(Wants::Look) {
            Ok(()) => reply.statfs(1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096),
            Err(error) => reply.error(error.into()),
        }
    }
}

fn answer(reply: ReplyEmpty, done: io::Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}
