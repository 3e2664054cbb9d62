//! The file of a Unix socket: how it comes to be, whom it is for, and its end.
//!
//! Owns: [`open`], [`SocketFile`]. Does not own: accepting (see `shard::accept`). Start reading at [`open`].
//! Invariants: nobody connects before the file has its mode, owner and group; a file is taken away only if nobody
//! answers behind it, and at the end only if it is still ours; nothing but that file gets its mode, owner and group,
//! whoever else may write to its folder.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};
use rustix::fs::{Mode, OFlags};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::FileAccess;

/// Why a Unix socket cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// A program answers there.
    #[error("another program answers there: stop it, or use another path")]
    InUse,
    /// Something else has this name.
    #[error("there is something else of this name, which is not taken away: no socket")]
    NoSocket,
    /// Another process has replaced the file that we have made.
    #[error(
        "another process has put something else there: the folder must be for whoever runs the server"
    )]
    Replaced,
    /// Nobody has this name.
    #[error("this system knows no {what} {name:?}")]
    Unknown {
        /// A user or a group.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The system has refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// A file that we have made, taken away when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Which file of which device: another process may have put its own in this place.
    identity: Option<(u64, u64)>,
}

/// Listens at `path`, with a file for whom `access` says.
/// # Errors
/// Another program answers there, a name is not known, or the system refuses.
pub(crate) fn open(
    path: &Path,
    access: &FileAccess,
    backlog: i32,
) -> Result<(UnixListener, SocketFile), SocketFileError> {
    let failed = |what| move |source| SocketFileError::System { what, source };
    let owner = access.owner.as_deref().map(uid).transpose()?;
    let group = access.group.as_deref().map(gid).transpose()?;
    take_stale_away(path)?;
    let address = SockAddr::unix(path).map_err(failed("the path"))?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("a socket"))?;
    socket
        .set_nonblocking(true)
        .map_err(failed("a socket that does not block"))?;
    socket.bind(&address).map_err(failed("making the file"))?;
    let held = hold(path)?;
    // From here on it goes if the rest fails.
    let file = SocketFile {
        path: path.to_owned(),
        identity: held.metadata().ok().as_ref().map(identity_of),
    };
    // Nobody can connect yet: that begins with `listen`. The name may lead elsewhere by now, what is held does not.
    let held = format!("/proc/self/fd/{}", held.as_raw_fd());
    if owner.is_some() || group.is_some() {
        chown(&held, owner, group).map_err(failed("giving the file its owner and group"))?;
    }
    fs::set_permissions(&held, Permissions::from_mode(access.mode))
        .map_err(failed("giving the file its mode"))?;
    socket.listen(backlog).map_err(failed("listening"))?;
    Ok((UnixListener::from(std::os::fd::OwnedFd::from(socket)), file))
}

/// The socket at `path`, to be changed whatever is put there later. One that is a link, or has other names, is not what
/// we have just made: its mode, owner and group are somebody else's.
fn hold(path: &Path) -> Result<File, SocketFileError> {
    let failed = |source| SocketFileError::System {
        what: "looking at the file that was made",
        source,
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from);
    let held = match held {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(SocketFileError::Replaced),
        held => File::from(held.map_err(failed)?),
    };
    let found = held.metadata().map_err(failed)?;
    if !found.file_type().is_socket() || found.nlink() != 1 {
        return Err(SocketFileError::Replaced);
    }
    Ok(held)
}

/// Makes room where a process has ended without taking its file with it.
fn take_stale_away(path: &Path) -> Result<(), SocketFileError> {
    let failed = |source| SocketFileError::System {
        what: "looking whether somebody listens there",
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketFileError::NoSocket),
        Ok(_) => {}
    }
    let address = SockAddr::unix(path).map_err(failed)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A program that hangs does not hang us.
    socket.set_nonblocking(true).map_err(failed)?;
    match socket.connect(&address) {
        Ok(()) => Err(SocketFileError::InUse),
        // Its queue is full, so it is there.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(SocketFileError::InUse),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::info!(listener = %path.display(), "socket of a process that is gone, replaced");
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn uid(name: &str) -> Result<u32, SocketFileError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = User::from_name(name).ok().flatten();
    found
        .map(|user| user.uid.as_raw())
        .ok_or_else(|| SocketFileError::Unknown {
            what: "user",
            name: name.to_owned(),
        })
}

fn gid(name: &str) -> Result<u32, SocketFileError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = Group::from_name(name).ok().flatten();
    found
        .map(|group| group.gid.as_raw())
        .ok_or_else(|| SocketFileError::Unknown {
            what: "group",
            name: name.to_owned(),
        })
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().as_ref().map(identity_of)
}

fn identity_of(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_none() || identity(&self.path) != self.identity {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(listener = %self.path.display(), %error, "socket was not taken away");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::testing::TempFolder;

    fn open_at(path: &Path) -> Result<(UnixListener, SocketFile), SocketFileError> {
        open(path, &FileAccess::default(), 8)
    }

    #[test]
    fn file_has_its_mode_and_goes_with_its_server() {
        let folder = TempFolder::new();
        let path = folder.path().join("mqtt.sock");
        let access = FileAccess {
            mode: 0o600,
            // Whoever we are, we may give it to ourselves.
            owner: Some(nix::unistd::getuid().to_string()),
            group: Some(nix::unistd::getgid().to_string()),
        };
        let (_listener, file) = open(&path, &access, 8).expect("a free path");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).expect("somebody listens");
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn file_of_a_process_that_is_gone_is_replaced() {
        let folder = TempFolder::new();
        let path = folder.path().join("mqtt.sock");
        drop(UnixListener::bind(&path).expect("a free path"));
        assert!(path.exists());
        let (_listener, _file) = open_at(&path).expect("nobody answers");
        UnixStream::connect(&path).expect("somebody listens");
    }

    #[test]
    fn what_answers_or_is_no_socket_stays() {
        let folder = TempFolder::new();
        let path = folder.path().join("mqtt.sock");
        let (_first, _file) = open_at(&path).expect("a free path");
        let error = open_at(&path).expect_err("somebody answers");
        assert!(matches!(error, SocketFileError::InUse), "{error}");
        UnixStream::connect(&path).expect("is still there");
        let path = folder.path().join("file");
        fs::write(&path, "precious").expect("is written");
        let error = open_at(&path).expect_err("no socket");
        assert!(matches!(error, SocketFileError::NoSocket), "{error}");
        assert_eq!(fs::read(&path).expect("is there"), b"precious");
    }

    #[test]
    fn file_that_another_has_put_in_our_place_stays() {
        let folder = TempFolder::new();
        let path = folder.path().join("mqtt.sock");
        let (_first, file) = open_at(&path).expect("a free path");
        fs::remove_file(&path).expect("is ours");
        let _second = UnixListener::bind(&path).expect("a free path");
        drop(file);
        assert!(path.exists());
    }

    /// Class A: in a folder of somebody else a name can lead to another socket between two steps of ours.
    #[test]
    fn socket_that_another_name_leads_to_is_not_ours_to_change() {
        let folder = TempFolder::new();
        let [others, link, name, file] =
            ["others", "link", "name", "file"].map(|name| folder.path().join(name));
        let _listener = UnixListener::bind(&others).expect("a free path");
        let replaced = |path: &Path| matches!(hold(path), Err(SocketFileError::Replaced));
        assert!(!replaced(&others));
        std::os::unix::fs::symlink(&others, &link).expect("a link");
        assert!(replaced(&link));
        fs::hard_link(&others, &name).expect("a name");
        assert!(replaced(&name) && replaced(&others));
        fs::write(&file, "").expect("a file");
        assert!(replaced(&file) && replaced(&folder.path().join("gone")));
    }

    #[test]
    fn user_that_nobody_knows_is_an_error_and_nothing_is_made() {
        let folder = TempFolder::new();
        let path = folder.path().join("mqtt.sock");
        let access = FileAccess {
            owner: Some("nobody-has-this-name".to_owned()),
            ..FileAccess::default()
        };
        let error = open(&path, &access, 8).expect_err("no such user");
        assert_eq!(
            error.to_string(),
            "this system knows no user \"nobody-has-this-name\""
        );
        assert!(!path.exists());
    }
}
