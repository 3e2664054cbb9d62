//! What a connection is asked for.
//!
//! Owns: [`Options`] and its defaults. Does not own: checking them against a Server.
//! Start reading at [`Options::new`]. Invariant: the defaults make a clean, short-lived session.

use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::connection::{ClientSession, ClientTimeouts};
use proto::packet::{self, Connect, ConnectProperties, Packet, Will};
use proto::{Secret, Version};

use crate::authentication::Authenticator;
use crate::bounds::{Bounds, Inbox, Queue, Uncertain};
use crate::core::Reconnect;
use crate::error::Mistake;
use crate::outbox::Outbox;
use crate::socks5::Socks5;
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

    /// Everything in `bytes`.
    pub(crate) fn sent(&self, mut bytes: &[u8], version: Version) {
        while let Ok(Some((packet, used))) = packet::decode(bytes, version, u32::MAX) {
            (self.0)(Direction::Sent, &packet);
            bytes = bytes.get(used..).unwrap_or_default();
        }
    }

    /// The first of `bytes`.
    pub(crate) fn received(&self, bytes: &[u8], version: Version) {
        if let Ok(Some((packet, _))) = packet::decode(bytes, version, u32::MAX) {
            (self.0)(Direction::Received, &packet);
        }
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
    pub(crate) socks5: Option<Socks5>,
    pub(crate) packet_log: Option<PacketLog>,
    pub(crate) tls: Option<Tls>,
    pub(crate) authenticator: Option<Arc<dyn Authenticator>>,
    #[cfg(feature = "quic")]
    pub(crate) is_quic: bool,
    #[cfg(feature = "websocket")]
    pub(crate) websocket: Option<String>,
    pub(crate) outbox: Option<Outbox>,
    pub(crate) bounds: Bounds,
    pub(crate) reconnect: Reconnect,
    pub(crate) uncertain: Uncertain,
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
            socks5: None,
            packet_log: None,
            tls: None,
            authenticator: None,
            #[cfg(feature = "quic")]
            is_quic: false,
            #[cfg(feature = "websocket")]
            websocket: None,
            outbox: None,
            bounds: Bounds::default(),
            reconnect: Reconnect::default(),
            uncertain: Uncertain::default(),
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

    /// How long the Server keeps the Session without a connection (5.0 only). A [`crate::Client`] asks for five
    /// minutes if nothing is said.
    #[must_use]
    pub fn session_expiry(mut self, expiry: Duration) -> Self {
        let seconds = u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX);
        self.connect.properties.session_expiry_interval_seconds = Some(seconds);
        self
    }

    /// Receive Maximum: messages above QoS 0 that the Server may send before one is acknowledged (5.0 only). A
    /// [`crate::Client`] says 256 if nothing is said.
    #[must_use]
    pub const fn receive_maximum(mut self, maximum: NonZeroU16) -> Self {
        self.connect.properties.receive_maximum = Some(maximum);
        self
    }

    /// Maximum Packet Size: a 5.0 server sends nothing larger. A [`crate::Client`] says as much as its [`Inbox`] has room
    /// for if nothing is said, 16 MiB.
    #[must_use]
    pub const fn maximum_packet_size(mut self, bytes: NonZeroU32) -> Self {
        self.connect.properties.maximum_packet_size_bytes = Some(bytes);
        self
    }

    /// How many messages above QoS 0 a [`crate::Client`] has on their way at once, where the Server's Receive Maximum
    /// allows as many. Default 256.
    #[must_use]
    pub const fn in_flight_max(mut self, maximum: NonZeroU16) -> Self {
        self.bounds.in_flight_max = maximum;
        self
    }

    /// How many Topic Aliases a [`crate::Client`] chooses by itself for what it publishes, where the Server takes them
    /// (5.0 only). Default 16; 0 turns it off.
    #[must_use]
    pub const fn topic_aliases_max(mut self, maximum: u16) -> Self {
        self.bounds.topic_aliases_max = maximum;
        self
    }

    /// How much waits to be published, and what happens with more, of a [`crate::Client`].
    #[must_use]
    pub const fn queue(mut self, queue: Queue) -> Self {
        self.bounds.queue = queue;
        self
    }

    /// How much waits for the application, and what happens with more, of a [`crate::Client`].
    #[must_use]
    pub const fn inbox(mut self, inbox: Inbox) -> Self {
        self.bounds.inbox = inbox;
        self
    }

    /// Keeps what a [`crate::Client`] publishes at QoS 1 and 2 in a folder until it is answered, so that it survives the
    /// program: the next one with the same outbox and Client Identifier goes on with it, exactly once at QoS 2. Needs a
    /// Client Identifier; the Session is resumed, and kept for a day if nothing is said.
    #[must_use]
    pub fn outbox(mut self, outbox: Outbox) -> Self {
        self.outbox = Some(outbox);
        self
    }

    /// When a [`crate::Client`] connects again.
    #[must_use]
    pub const fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// What a [`crate::Client`] does with QoS 2 messages of which nobody knows whether they have arrived.
    #[must_use]
    pub const fn uncertain(mut self, uncertain: Uncertain) -> Self {
        self.uncertain = uncertain;
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

    /// Goes to the host by a SOCKS5 proxy, which resolves its name; not for QUIC and Unix sockets.
    #[must_use]
    pub fn socks5(mut self, proxy: Socks5) -> Self {
        self.socks5 = Some(proxy);
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

    /// Over WebSocket, at this path of the host (`/mqtt`, usually); with [`Self::tls`] over a secure one.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn websocket(mut self, path: impl Into<String>) -> Self {
        self.websocket = Some(path.into());
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

    /// What no Server can make right.
    pub(crate) fn check(&self) -> Result<(), Mistake> {
        let is_v5 = self.connect.version == Version::V5;
        if self.authenticator.is_some() && !is_v5 {
            return Err(Mistake::NotInThisVersion("proofs by AUTH"));
        }
        if self.outbox.is_some() && self.connect.client_id.is_empty() {
            let text = "an outbox needs a client identifier";
            return Err(Mistake::Options(text.to_owned()));
        }
        if !is_v5 && !self.connect.clean_start && self.connect.client_id.is_empty() {
            let text = "a session to keep needs a client identifier";
            return Err(Mistake::Options(text.to_owned()));
        }
        Ok(())
    }
}
