//! What a connection is asked for.
//!
//! Owns: [`Options`] and its defaults. Does not own: checking them against a Server.
//! Start reading at [`Options::new`]. Invariant: the defaults make a clean, short-lived session.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::connection::{ClientSession, ClientTimeouts};
use proto::packet::{Connect, ConnectProperties, Packet, Will};
use proto::{Secret, Version};

use crate::authentication::Authenticator;
use crate::tls::Tls;

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From us to the Server.
    Sent,
    /// From the Server to us.
    Received,
}

/// Called with every packet as it is written or read.
#[derive(Clone)]
pub struct PacketLog(pub(crate) Arc<LogFunction>);

type LogFunction = dyn Fn(Direction, &Packet<'_>) + Send + Sync;

impl PacketLog {
    /// Wraps the function.
    pub fn new(log: impl Fn(Direction, &Packet<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(log))
    }
}

impl fmt::Debug for PacketLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PacketLog")
    }
}

/// Where to connect to, as whom, and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) unix: Option<PathBuf>,
    pub(crate) connect: Connect,
    pub(crate) session: Option<ClientSession>,
    pub(crate) timeouts: ClientTimeouts,
    pub(crate) bind_address: Option<IpAddr>,
    pub(crate) nodelay: bool,
    pub(crate) packet_log: Option<PacketLog>,
    pub(crate) tls: Option<Tls>,
    pub(crate) authenticator: Option<Arc<dyn Authenticator>>,
    #[cfg(feature = "quic")]
    pub(crate) is_quic: bool,
}

impl Options {
    /// 5.0, Clean Start, no Client Identifier (the Server assigns one), Keep Alive 60 s.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            unix: None,
            connect: Connect::new(Version::V5, ""),
            session: None,
            timeouts: ClientTimeouts::default(),
            bind_address: None,
            nodelay: false,
            packet_log: None,
            tls: None,
            authenticator: None,
            #[cfg(feature = "quic")]
            is_quic: false,
        }
    }

    /// The host and the port to connect to.
    #[must_use]
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Connects to the Unix socket at `path`; the host then only says which name TLS expects.
    #[must_use]
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix = Some(path.into());
        self
    }

    /// The Unix socket to connect to, if it is one.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        self.unix.as_deref()
    }

    /// The protocol version asked for.
    #[must_use]
    pub const fn protocol_version(&self) -> Version {
        self.connect.version
    }

    /// Protocol version.
    #[must_use]
    pub const fn version(mut self, version: Version) -> Self {
        self.connect.version = version;
        self
    }

    /// Client Identifier.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.connect.client_id = client_id.into();
        self
    }

    /// Clean Start; Clean Session in 3.x.
    #[must_use]
    pub const fn clean_start(mut self, clean_start: bool) -> Self {
        self.connect.clean_start = clean_start;
        self
    }

    /// Session State kept from an earlier connection. An empty one says: whatever the Server kept for
    /// this Client Identifier is welcome. Without one, Session Present is an error, [MQTT-3.2.2-4].
    #[must_use]
    pub fn session(mut self, session: ClientSession) -> Self {
        self.session = Some(session);
        self
    }

    /// Keep Alive in seconds; 0 turns it off.
    #[must_use]
    pub const fn keep_alive_seconds(mut self, seconds: u16) -> Self {
        self.connect.keep_alive_seconds = seconds;
        self
    }

    /// User Name.
    #[must_use]
    pub fn user_name(mut self, user_name: impl Into<String>) -> Self {
        self.connect.user_name = Some(user_name.into());
        self
    }

    /// Password.
    #[must_use]
    pub fn password(mut self, password: Secret) -> Self {
        self.connect.password = Some(password);
        self
    }

    /// Proves by AUTH who we are (5.0 only), in place of a password or beside one. It takes the place of an
    /// Authentication Method in [`Self::properties`].
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Will Message.
    #[must_use]
    pub fn will(mut self, will: Will) -> Self {
        self.connect.will = Some(will);
        self
    }

    /// CONNECT properties; left out in 3.x.
    #[must_use]
    pub fn properties(mut self, properties: ConnectProperties) -> Self {
        self.connect.properties = properties;
        self
    }

    /// How long to wait for the connection, and then for CONNACK. Default 30 s.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.connack = timeout;
        self
    }

    /// Local address to connect from.
    #[must_use]
    pub const fn bind_address(mut self, address: IpAddr) -> Self {
        self.bind_address = Some(address);
        self
    }

    /// Turns Nagle's algorithm off.
    #[must_use]
    pub const fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Calls `log` with every packet.
    #[must_use]
    pub fn packet_log(mut self, log: PacketLog) -> Self {
        self.packet_log = Some(log);
        self
    }

    /// Secures the connection with TLS; the usual port is 8883.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Over QUIC in place of TCP, secured as [`Self::tls`] says or by the roots of the system; the usual port is
    /// 14567. TLS 1.3 always, and `mqtt` as ALPN if nothing else is offered. MQTT's packets go over one
    /// bidirectional stream. [`Self::nodelay`] means nothing to it.
    #[cfg(feature = "quic")]
    #[must_use]
    pub const fn quic(mut self) -> Self {
        self.is_quic = true;
        self
    }
}
