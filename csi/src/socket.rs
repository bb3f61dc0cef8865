//! The socket of the plugin: only its own user may connect to it or replace it.
//!
//! 1 the directory is created (0700), or restricted to 0700 if it contains only the socket; a
//! directory shared with other plugins is not changed · 2 it is locked, so that of two plugins that
//! start at once, one sees the socket of the other · 3 an existing file is removed only if it is a
//! socket of ours that nobody serves · 4 the socket is bound with mode 0600, which it has from the
//! first moment.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};

use crate::error::{Error, Result};

/// Callers that may wait to be accepted: a kubelet and half a dozen sidecars connect once each.
const BACKLOG: i32 = 128;

/// A bound socket. The file is removed when this is dropped, if it is still the one bound here.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    /// Device and inode: another plugin may have replaced us meanwhile.
    identity: (u64, u64),
}

/// Whose the directory of a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Directory {
    /// The plugin's: made and narrowed as needed.
    Own,
    /// Somebody else's, who makes it and says who may look into it.
    Shared,
}

impl Socket {
    /// Binds the socket; see the module for the steps.
    pub(crate) fn bind(path: &Path, whose: Directory) -> Result<(UnixListener, Self)> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let lock = private_directory(directory, path, whose)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(Error::io("lock", directory))?;
        remove_stale(path)?;
        let listener = bind_private(path).map_err(Error::io("bind", path))?;
        let meta = fs::symlink_metadata(path).map_err(Error::io("inspect", path))?;
        Ok((
            listener,
            Self {
                path: path.to_owned(),
                identity: (meta.dev(), meta.ino()),
            },
        ))
    }
}

impl Socket {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it lies and what it is, for those who look after it when it is served elsewhere.
    pub(crate) fn place(&self) -> Place {
        Place {
            path: self.path.clone(),
            identity: self.identity,
        }
    }

    /// Whether callers still find it.
    pub(crate) fn is_in_place(&self) -> bool {
        self.place().is_ours()
    }
}

/// The place of a socket.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    path: PathBuf,
    identity: (u64, u64),
}

impl Place {
    /// Whether the socket still lies there.
    pub(crate) fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_in_place()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Step 4. Linux gives the file the mode that the socket itself has when it is bound (unix(7) is
/// silent about it, `unix_bind` of the kernel is not); a umask would be the whole process's.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Step 1. A directory that holds other things is left as it is, provided that nobody else can put a
/// socket of his own in the place of ours.
fn private_directory(directory: &Path, socket: &Path, whose: Directory) -> Result<File> {
    if whose == Directory::Own {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(directory)
            .map_err(Error::io("create the directory", directory))?;
    }
    let opened = File::open(directory).map_err(Error::io("open", directory))?;
    let meta = opened.metadata().map_err(Error::io("inspect", directory))?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw();
    let mode = meta.permissions().mode();
    let may_narrow = ours && whose == Directory::Own;
    if may_narrow && mode & 0o077 != 0 && holds_only(directory, socket)? {
        opened
            .set_permissions(Permissions::from_mode(0o700))
            .map_err(Error::io("set the mode of", directory))?;
        return Ok(opened);
    }
    // Sticky, as /tmp is: others may add to it and not take away.
    let sticky = mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky {
        let why = "others may write to this directory; give the socket a directory of its own";
        return Err(Error::Start {
            path: directory.to_owned(),
            why,
        });
    }
    if !ours && meta.uid() != 0 {
        let why = "this directory belongs to another user; give the socket a directory of its own";
        return Err(Error::Start {
            path: directory.to_owned(),
            why,
        });
    }
    Ok(opened)
}

fn holds_only(directory: &Path, socket: &Path) -> Result<bool> {
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let entry = entry.map_err(Error::io("read", directory))?;
        if Some(entry.file_name().as_os_str()) != socket.file_name() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Step 3.
fn remove_stale(path: &Path) -> Result<()> {
    let refuse = |why| {
        Err(Error::Start {
            path: path.to_owned(),
            why,
        })
    };
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::io("inspect", path))?,
    };
    if meta.file_type().is_symlink() {
        return refuse("it is a symbolic link; remove it");
    }
    if !meta.file_type().is_socket() {
        return refuse("it is not a socket; remove it");
    }
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return refuse("it is a socket of another user; remove it");
    }
    match UnixStream::connect(path) {
        Ok(_) => refuse("another plugin serves it; stop that one first"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(Error::io("remove the stale", path))
        }
        Err(source) => Err(Error::io("find out who serves", path)(source)),
    }
}

#[cfg(test)]
mod tests {
    use types::{Classify as _, ErrorKind};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn row_85_the_socket_and_its_directory_are_the_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/csi.sock");
        let (_listener, socket) = Socket::bind(&path, Directory::Own).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(socket);
        assert!(!path.exists());
        // The kubelet makes its plugins' directories 0755 or 0750.
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        let _bound = Socket::bind(&path, Directory::Own).unwrap();
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    #[test]
    fn row_85_a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("csi.sock");
        let (listener, socket) = Socket::bind(&path, Directory::Own).unwrap();
        assert_eq!(
            Socket::bind(&path, Directory::Own).unwrap_err().kind(),
            ErrorKind::FailedPrecondition
        );
        // As kill -9 leaves it: nobody listens, the file is there.
        drop(listener);
        let _left = std::mem::ManuallyDrop::new(socket);
        assert!(path.exists());
        let (_listener, _socket) = Socket::bind(&path, Directory::Own).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn row_85_what_is_no_socket_of_ours_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let (link, file) = (root.path().join("link"), root.path().join("file"));
        std::os::unix::fs::symlink("/nowhere/csi.sock", &link).unwrap();
        File::create(&file).unwrap();
        for path in [&link, &file, &root.path().to_owned()] {
            let error = Socket::bind(path, Directory::Own).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
            assert!(fs::symlink_metadata(path).is_ok());
        }
    }

    #[test]
    fn row_85_a_directory_that_others_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        File::create(root.path().join("other")).unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o777)).unwrap();
        let path = root.path().join("csi.sock");
        assert_eq!(
            Socket::bind(&path, Directory::Own).unwrap_err().kind(),
            ErrorKind::FailedPrecondition
        );
        fs::set_permissions(root.path(), Permissions::from_mode(0o1777)).unwrap();
        let _bound = Socket::bind(&path, Directory::Own).unwrap();
        assert_eq!(
            mode(root.path()),
            0o1777,
            "a shared directory keeps its mode"
        );
        assert_eq!(mode(&path), 0o600);
    }
}
