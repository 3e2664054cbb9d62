//! Sockets that the service manager has opened for this process before it began (sd_listen_fds(3)).
//!
//! Owns: [`take`], which of them has which name. Does not own: what is done with them (see `crate::listener`).
//! Start reading at [`take`]. Invariant: each is given away once, and only to who asks for its name.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, OnceLock, PoisonError};

use listenfd::ListenFd;
use socket2::SockRef;

/// Why a socket of the service manager cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// There is none of this name.
    #[error(
        "the service manager has given us no socket of this name (FileDescriptorName=); it has given: {given}"
    )]
    Missing {
        /// The names of those there are.
        given: String,
    },
    /// There are several.
    #[error(
        "the service manager has given us several sockets of this name; each needs its own FileDescriptorName="
    )]
    Several,
    /// It is not what it should be.
    #[error(
        "what the service manager has given us is no TCP or Unix socket that listens: {source}"
    )]
    Unusable {
        /// What the system said.
        source: io::Error,
    },
}

/// A socket that was opened for us.
#[derive(Debug)]
pub(crate) enum Inherited {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// All of them, with their names.
struct Sockets {
    descriptors: ListenFd,
    names: Vec<String>,
}

/// The socket of this name.
/// # Errors
/// There is none, it has been taken, or it does not listen.
pub(crate) fn take(name: &str) -> Result<Inherited, ActivationError> {
    let sockets = SOCKETS.get_or_init(|| Mutex::new(Sockets::of_this_process()));
    let mut sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
    let place = sockets.place(name)?;
    let unusable = |source| ActivationError::Unusable { source };
    let tcp = sockets.descriptors.take_tcp_listener(place);
    let inherited = match tcp {
        Ok(tcp) => tcp.map(Inherited::Tcp),
        // It is left in its place.
        Err(_) => {
            let unix = sockets.descriptors.take_unix_listener(place);
            unix.map_err(unusable)?.map(Inherited::Unix)
        }
    };
    let inherited = inherited.ok_or_else(|| ActivationError::Missing {
        given: "it is in use already".to_owned(),
    })?;
    inherited.prepare().map_err(unusable)?;
    Ok(inherited)
}

impl Sockets {
    fn of_this_process() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        // Not before: what it does to the environment is for a process with one thread.
        let descriptors = ListenFd::from_env();
        let names = names.split(':').map(str::to_owned);
        Self {
            names: names.take(descriptors.len()).collect(),
            descriptors,
        }
    }

    fn place(&self, name: &str) -> Result<usize, ActivationError> {
        let mut places = self.names.iter().enumerate();
        let mut places = places.by_ref().filter(|(_, given)| *given == name);
        let place = places.next().ok_or_else(|| ActivationError::Missing {
            given: if self.names.is_empty() {
                "none".to_owned()
            } else {
                self.names.join(", ")
            },
        })?;
        if places.next().is_some() {
            return Err(ActivationError::Several);
        }
        Ok(place.0)
    }
}

impl Inherited {
    /// What we need of a socket, whoever has opened it.
    fn prepare(&self) -> io::Result<()> {
        let socket = match self {
            Self::Tcp(tcp) => SockRef::from(tcp),
            Self::Unix(unix) => SockRef::from(unix),
        };
        if !socket.is_listener()? {
            return Err(io::Error::other("it does not listen"));
        }
        socket.set_nonblocking(true)
    }
}

/// A process gets them once, at its beginning.
static SOCKETS: OnceLock<Mutex<Sockets>> = OnceLock::new();

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(names: &[&str]) -> Sockets {
        Sockets {
            descriptors: ListenFd::empty(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn socket_is_found_by_its_name_if_it_has_one_of_its_own() {
        let given = sockets(&["mqtt", "secure", "twice", "twice"]);
        assert_eq!(given.place("secure").expect("is there"), 1);
        let several = given.place("twice").expect_err("two of them");
        assert!(matches!(several, ActivationError::Several));
        let missing = given.place("local").expect_err("none").to_string();
        assert!(missing.ends_with("mqtt, secure, twice, twice"), "{missing}");
        let none = sockets(&[]).place("mqtt").expect_err("none").to_string();
        assert!(none.ends_with("none"), "{none}");
    }
}
