//! Who is at the other end of a connection, before it has said anything.
//!
//! Owns: [`Peer`], [`Origin`]. Does not own: who a Client is (see `crate::authentication`). Start reading at [`Peer`].
//! Invariant: what a peer is counted by ([`Origin::block`]) cannot be chosen by it: the /64 of an IPv6 address, the user
//! of a process.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Something at this address.
    Network(SocketAddr),
    /// A process of this machine, by a Unix socket.
    Process {
        /// The user it runs as; `None` where the system does not say.
        uid: Option<u32>,
        /// Its number; `None` where the system does not say, or the process is not of our name space.
        pid: Option<u32>,
    },
}

impl Peer {
    /// The process at the other end of `stream`.
    pub(crate) fn of_unix(stream: &mio::net::UnixStream) -> Self {
        let (uid, pid) = credentials(stream).unwrap_or_default();
        Self::Process { uid, pid }
    }

    /// Its address; a process of this machine has none.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Network(address) => Some(address.ip()),
            Self::Process { .. } => None,
        }
    }

    /// Whether it is of this machine.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Network(address) => address.ip().to_canonical().is_loopback(),
            Self::Process { .. } => true,
        }
    }

    /// What it is counted by.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self {
            Self::Network(address) => Origin::Address(address.ip()),
            Self::Process { uid, .. } => Origin::User(*uid),
        }
    }
}

/// The user and the number of the process that has connected.
#[cfg(target_os = "linux")]
fn credentials(stream: &mio::net::UnixStream) -> Option<(Option<u32>, Option<u32>)> {
    use nix::sys::socket::{getsockopt, sockopt};

    let of = getsockopt(stream, sockopt::PeerCredentials).ok()?;
    let pid = u32::try_from(of.pid()).ok().filter(|pid| *pid != 0);
    Some((Some(of.uid()), pid))
}

#[cfg(not(target_os = "linux"))]
fn credentials(_: &mio::net::UnixStream) -> Option<(Option<u32>, Option<u32>)> {
    None
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Process { uid, pid } => {
                f.write_str("unix")?;
                if let Some(uid) = uid {
                    write!(f, ":uid={uid}")?;
                }
                if let Some(pid) = pid {
                    write!(f, ",pid={pid}")?;
                }
                Ok(())
            }
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Network(address)
    }
}

impl From<([u8; 4], u16)> for Peer {
    fn from(address: ([u8; 4], u16)) -> Self {
        Self::Network(address.into())
    }
}

/// What connections are counted by: `192.0.2.1`, or `uid:1000` for those of a user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Origin {
    /// An address.
    Address(IpAddr),
    /// A user of this machine, through a Unix socket; `None` where the system does not say which.
    User(Option<u32>),
}

impl Origin {
    /// What it is kept under: whoever has an IPv6 address has all of its /64.
    #[must_use]
    pub fn block(self) -> Self {
        match self {
            Self::User(_) => self,
            Self::Address(address) => Self::Address(match address.to_canonical() {
                IpAddr::V6(address) => {
                    let network = address.to_bits() & !u128::from(u64::MAX);
                    IpAddr::V6(network.into())
                }
                address => address,
            }),
        }
    }

    /// Whether it is of this machine. Asked before [`Self::block`] takes `::1` for its /64.
    pub(crate) const fn is_local(self) -> bool {
        match self {
            Self::Address(address) => address.to_canonical().is_loopback(),
            Self::User(_) => true,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User(Some(uid)) => write!(f, "{USER}{uid}"),
            Self::User(None) => write!(f, "{USER}?"),
        }
    }
}

/// Neither an address nor a user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted an address like 192.0.2.1, or a user of this machine like uid:1000")]
pub struct OriginError;

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        match text.strip_prefix(USER) {
            None => text.parse().map(Self::Address).map_err(|_| OriginError),
            Some("?") => Ok(Self::User(None)),
            Some(uid) => {
                let uid = uid.parse().map_err(|_| OriginError)?;
                Ok(Self::User(Some(uid)))
            }
        }
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        text.parse()
    }
}

/// Before the number of a user.
const USER: &str = "uid:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_read_as_it_is_written() {
        for text in ["192.0.2.1", "2001:db8::", "uid:1000", "uid:?"] {
            let origin: Origin = text.parse().expect("an origin");
            assert_eq!(origin.to_string(), text);
        }
        for text in ["", "uid:", "uid:-1", "uid:me", "localhost"] {
            assert_eq!(text.parse::<Origin>(), Err(OriginError), "{text:?}");
        }
    }

    #[test]
    fn processes_of_one_user_are_counted_as_one() {
        let peer = |uid, pid| Peer::Process { uid, pid }.origin();
        assert_eq!(peer(Some(7), Some(1)), peer(Some(7), Some(2)));
        assert_ne!(peer(Some(7), Some(1)), peer(Some(8), Some(1)));
    }

    #[test]
    fn process_is_shown_as_far_as_it_is_known() {
        let shown = |uid, pid| Peer::Process { uid, pid }.to_string();
        assert_eq!(shown(Some(1000), Some(42)), "unix:uid=1000,pid=42");
        assert_eq!(shown(Some(1000), None), "unix:uid=1000");
        assert_eq!(shown(None, None), "unix");
    }
}
