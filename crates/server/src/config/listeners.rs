//! `[[listeners]]`: where a Server listens, and how its connections are secured.
//!
//! Owns: [`ListenerConfig`], which values fit. Does not own: TLS of it (see `tls`), sockets (see
//! `crate::listener`). Start reading at [`ListenerConfig`]. Invariant: no two are at one place.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use engine::{Network, NetworkError};
use proto::{Version, topic};
use toml::Spanned;

use super::checked::{AuthenticationConfig, CONNECTIONS_MAX, Fault, anonymous_policy, within};
use super::links::{self, Link};
use super::listener_limits::{self, ListenerLimits};
use super::quic::{self, QuicConfig};
use super::raw::{RawAddress, RawListener, RawOwner, RawTransport, RawVersion};
use super::tls::{self, ClientCertificates, TlsConfig};
use crate::authentication::AnonymousPolicy;
use crate::peer::Peer;

/// Where a Server listens, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name in the log. Default: its address.
    pub name: String,
    /// Where it listens. Port 0 takes a free one.
    pub address: Address,
    /// Who may connect to a Unix socket.
    pub file: FileAccess,
    /// How connections are secured. Default: not at all.
    pub tls: Option<TlsConfig>,
    /// What carries packets. Default: `stream`.
    pub transport: Transport,
    /// Whether each connection says by its first bytes whether it speaks MQTT, WebSocket, or either inside of TLS
    /// (if there is a certificate). Default: no.
    pub sniff: bool,
    /// What stands before the topics of all Clients here, and ends with `/`: they have this part of the tree only, and
    /// do not see that it is one. Default: nothing.
    pub mount_point: Option<String>,
    /// From where Clients are let in without proof here. Default: as `[authentication]` has it.
    pub anonymous: Option<AnonymousPolicy>,
    /// Which links of `[authentication]` are asked here, in this order. Default: all that there are.
    pub authentication: Option<Vec<Link>>,
    /// Whether the Client Identifier of all Clients here is the user that they have proven to be, whatever they say; who
    /// has proven none is refused. Default: no.
    pub client_id_from_user: bool,
    /// Which versions of MQTT are spoken here. Default: all.
    pub versions: Versions,
    /// Connections at once here; more are told 0x97. Default: as many as the Server has room for.
    pub connections_max: Option<usize>,
    /// What else is limited here, in place of `[limits]`.
    pub limits: ListenerLimits,
    /// Addresses of proxies: connections are taken from there only, and each begins with a header of the PROXY
    /// protocol (version 1 or 2) that says from where the Client comes. Default: no proxy.
    pub proxy: Option<Proxies>,
    /// How QUIC keeps connections alive.
    pub quic: QuicConfig,
}

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and a port.
    Network(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
    /// Whatever the service manager has opened for us under this name (`activation`).
    Inherited(String),
}

impl Address {
    /// The address and the port, if it has some.
    #[must_use]
    pub const fn network(&self) -> Option<SocketAddr> {
        match self {
            Self::Network(address) => Some(*address),
            Self::Unix(_) | Self::Inherited(_) => None,
        }
    }

    /// Whether only this machine can connect to it.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Network(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
            // It is not known here.
            Self::Inherited(_) => false,
        }
    }

    /// Whether each that is written so is another one: a free port.
    fn is_any(&self) -> bool {
        self.network().is_some_and(|address| address.port() == 0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inherited(name) => write!(f, "activation:{name}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Network(address)
    }
}

/// Who may connect to a Unix socket: who may write to its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAccess {
    /// Its mode. Default: 0660.
    pub mode: u32,
    /// Its owner, by name or number. Default: the user we run as.
    pub owner: Option<String>,
    /// Its group, by name or number. Default: the group we run as.
    pub group: Option<String>,
}

impl Default for FileAccess {
    fn default() -> Self {
        Self {
            mode: 0o660,
            owner: None,
            group: None,
        }
    }
}

/// Whose header of the PROXY protocol is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxies {
    /// That of whoever connects from these.
    From(Vec<Network>),
    /// That of whoever may connect to the Unix socket.
    Unix,
}

impl Proxies {
    /// Whether a connection of `peer` is taken.
    #[must_use]
    pub fn contains(&self, peer: &Peer) -> bool {
        match (self, peer) {
            (Self::From(networks), Peer::Network(peer)) => {
                networks.iter().any(|one| one.contains(peer.ip()))
            }
            (Self::Unix, Peer::Process { .. }) => true,
            (Self::From(_), Peer::Process { .. }) | (Self::Unix, Peer::Network(_)) => false,
        }
    }
}

/// A set of versions of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions(u8);

impl Versions {
    /// Every version there is.
    pub const ALL: Self = Self(0b111);

    /// Whether `version` is one of them.
    #[must_use]
    pub const fn contains(self, version: Version) -> bool {
        self.0 & Self::bit(version) != 0
    }

    const fn bit(version: Version) -> u8 {
        match version {
            Version::V31 => 1,
            Version::V311 => 2,
            Version::V5 => 4,
        }
    }
}

impl FromIterator<Version> for Versions {
    fn from_iter<I: IntoIterator<Item = Version>>(versions: I) -> Self {
        let bits = versions.into_iter().map(Self::bit);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

/// What carries packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Nothing more: packets follow one another.
    #[default]
    Stream,
    /// WebSocket, at the paths `/mqtt`, `/` and `/ws`.
    WebSocket,
    /// Packets follow one another in a stream of QUIC, so the port is one of UDP. Secured by TLS 1.3 always.
    Quic,
}

impl ListenerConfig {
    /// Who is asked here about a Client, in this order.
    #[must_use]
    pub fn links(&self, authentication: &AuthenticationConfig) -> Vec<Link> {
        let named = self.authentication.clone();
        named.unwrap_or_else(|| Link::all_of(authentication).collect())
    }

    /// From where Clients are let in without proof here.
    #[must_use]
    pub fn anonymous(&self, authentication: &AuthenticationConfig) -> AnonymousPolicy {
        if self.client_id_from_user {
            return AnonymousPolicy::Never;
        }
        self.anonymous.unwrap_or(authentication.anonymous)
    }

    /// Whether it takes this place.
    pub(crate) fn is_at(&self, address: &Address, is_quic: bool) -> bool {
        self.address == *address && (self.transport == Transport::Quic) == is_quic
    }
}

impl From<SocketAddr> for ListenerConfig {
    /// Plain TCP.
    fn from(address: SocketAddr) -> Self {
        Self {
            name: address.to_string(),
            address: Address::Network(address),
            file: FileAccess::default(),
            tls: None,
            transport: Transport::default(),
            sniff: false,
            mount_point: None,
            anonymous: None,
            authentication: None,
            client_id_from_user: false,
            versions: Versions::ALL,
            connections_max: None,
            limits: ListenerLimits::default(),
            proxy: None,
            quic: QuicConfig::default(),
        }
    }
}

impl From<([u8; 4], u16)> for ListenerConfig {
    fn from(address: ([u8; 4], u16)) -> Self {
        SocketAddr::from(address).into()
    }
}

/// Judges what was written beside what `[authentication]` has.
pub(super) fn check(
    raw: Spanned<Vec<RawListener>>,
    authentication: &AuthenticationConfig,
) -> Result<Vec<ListenerConfig>, Fault> {
    let span = raw.span();
    let fault = |message| Fault {
        span: Some(span.clone()),
        message,
    };
    let mut listeners: Vec<ListenerConfig> = Vec::new();
    for mut listener in raw.into_inner() {
        let limits = listener_limits::check(&listener)?;
        let address = match (listener.address.take(), listener.activation.take()) {
            (Some(RawAddress::Network(address)), None) => Address::Network(address),
            (Some(RawAddress::Unix(path)), None) => Address::Unix(path),
            (None, Some(name)) => Address::Inherited(check_activation(name)?),
            (None, None) => {
                return Err(fault(
                    "a listener needs an address, or the activation of a socket".to_owned(),
                ));
            }
            (Some(_), Some(name)) => {
                return Err(Fault {
                    span: Some(name.span()),
                    message: "activation takes the place of address: one of the two".to_owned(),
                });
            }
        };
        let transport = check_transport(&address, &listener)?;
        let is_quic = transport == Transport::Quic;
        let name = check_name(listener.name, &address)?;
        check_distinct(&listeners, (&name, &address, is_quic), &limits).map_err(fault)?;
        let tls = listener.tls.map(tls::check).transpose()?;
        let has_transport = listener.transport.is_some();
        listeners.push(ListenerConfig {
            name,
            mount_point: listener.mount_point.map(check_mount_point).transpose()?,
            sniff: check_sniff(listener.sniff, tls.as_ref(), has_transport)?,
            file: check_file(&address, listener.mode, listener.owner, listener.group)?,
            proxy: listener
                .proxy
                .map(|proxy| check_proxy(&address, proxy))
                .transpose()?,
            address,
            tls,
            transport,
            quic: quic::check(listener.quic, is_quic)?,
            anonymous: listener.anonymous.map(anonymous_policy),
            client_id_from_user: listener.client_id_from_user.unwrap_or(false),
            authentication: listener
                .authentication
                .map(|named| links::check(named, authentication))
                .transpose()?,
            versions: listener
                .versions
                .map_or(Ok(Versions::ALL), check_versions)?,
            connections_max: listener
                .connections_max
                .map(|max| within("connections_max", &max, 1..=CONNECTIONS_MAX))
                .transpose()?,
            limits,
        });
    }
    if listeners.is_empty() {
        return Err(fault("at least one listener is needed".to_owned()));
    }
    Ok(listeners)
}

/// Whether no other one has this place, and none this name where it has to be another one.
fn check_distinct(
    listeners: &[ListenerConfig],
    (name, address, is_quic): (&str, &Address, bool),
    limits: &ListenerLimits,
) -> Result<(), String> {
    // Ports of UDP are others than those of TCP.
    let known = |other: &ListenerConfig| other.is_at(address, is_quic) && !address.is_any();
    if listeners.iter().any(known) {
        return Err(format!("listener {address} is listed twice"));
    }
    let mut same = listeners.iter().filter(|other| other.name == name);
    if same.clone().next().is_some() && !address.is_any() {
        return Err(format!("two listeners have the name {name:?}"));
    }
    if same.any(|other| limits.is_by_name() || other.limits.is_by_name()) {
        return Err("listeners at free ports that have limits of their own need names".to_owned());
    }
    Ok(())
}

fn check_name(raw: Option<Spanned<String>>, address: &Address) -> Result<String, Fault> {
    match raw {
        Some(name) if name.get_ref().is_empty() => Err(Fault {
            span: Some(name.span()),
            message: "name must say something, or be left out".to_owned(),
        }),
        Some(name) => Ok(name.into_inner()),
        None => Ok(address.to_string()),
    }
}

fn check_sniff(
    raw: Option<Spanned<bool>>,
    tls: Option<&TlsConfig>,
    has_transport: bool,
) -> Result<bool, Fault> {
    let Some(raw) = raw.filter(|raw| *raw.get_ref()) else {
        return Ok(false);
    };
    let message = if has_transport {
        "sniff finds the transport out: leave it out"
    } else if tls.is_some_and(|tls| tls.client_certificates == ClientCertificates::Required) {
        "sniff lets clients in without TLS, so that a certificate can be \"optional\" only"
    } else {
        return Ok(true);
    };
    Err(Fault {
        span: Some(raw.span()),
        message: message.to_owned(),
    })
}

fn check_mount_point(raw: Spanned<String>) -> Result<String, Fault> {
    let text = raw.get_ref();
    // Without the `/` at its end, topics of one could be those of another: `a` and `b` are `ab`.
    if topic::check_name(text).is_err() || !text.ends_with('/') || text.starts_with('$') {
        return Err(Fault {
            span: Some(raw.span()),
            message: "mount_point must be the beginning of topics that ends with /, like \"sites/north/\""
                .to_owned(),
        });
    }
    Ok(raw.into_inner())
}

fn check_activation(name: Spanned<String>) -> Result<String, Fault> {
    let text = name.get_ref();
    // sd_listen_fds_with_names(3): what a name may be.
    if text.is_empty() || text.contains(|c: char| c == ':' || c.is_control()) {
        return Err(Fault {
            span: Some(name.span()),
            message: "activation must be the FileDescriptorName= of a socket unit".to_owned(),
        });
    }
    Ok(name.into_inner())
}

fn check_transport(address: &Address, listener: &RawListener) -> Result<Transport, Fault> {
    let Some(raw) = &listener.transport else {
        return Ok(Transport::Stream);
    };
    let fault = |span, message: &str| Fault {
        span: Some(span),
        message: message.to_owned(),
    };
    match raw.get_ref() {
        RawTransport::Stream => return Ok(Transport::Stream),
        RawTransport::WebSocket => return Ok(Transport::WebSocket),
        RawTransport::Quic => {}
    }
    if !cfg!(feature = "quic") {
        return Err(fault(raw.span(), "this build has no QUIC"));
    }
    if listener.tls.is_none() {
        return Err(fault(
            raw.span(),
            "QUIC is always secured: the listener needs tls",
        ));
    }
    if address.network().is_none() {
        return Err(fault(raw.span(), "QUIC needs an address and a port of UDP"));
    }
    if let Some(proxy) = &listener.proxy {
        let message = "there is no header of the PROXY protocol before QUIC";
        return Err(fault(proxy.span(), message));
    }
    Ok(Transport::Quic)
}

fn check_file(
    address: &Address,
    mode: Option<Spanned<String>>,
    owner: Option<Spanned<RawOwner>>,
    group: Option<Spanned<RawOwner>>,
) -> Result<FileAccess, Fault> {
    let spans = [
        mode.as_ref().map(Spanned::span),
        owner.as_ref().map(Spanned::span),
        group.as_ref().map(Spanned::span),
    ];
    let first = spans.into_iter().flatten().next();
    if let Some(span) = first.filter(|_| !matches!(address, Address::Unix(_))) {
        return Err(Fault {
            span: Some(span),
            message:
                "mode, owner and group are for an address like \"unix:/run/vencejo/mqtt.sock\""
                    .to_owned(),
        });
    }
    let name = |raw: Option<Spanned<RawOwner>>| {
        raw.map(|raw| match raw.into_inner() {
            RawOwner::Number(number) => number.to_string(),
            RawOwner::Name(name) => name,
        })
    };
    Ok(FileAccess {
        mode: mode.map_or_else(
            || Ok(FileAccess::default().mode),
            |mode| {
                let text = mode.get_ref();
                let digits = text.chars().all(|c| c.is_digit(8)) && matches!(text.len(), 3 | 4);
                let parsed = u32::from_str_radix(text, 8).ok();
                let parsed = parsed.filter(|mode| digits && *mode <= 0o777);
                parsed.ok_or_else(|| Fault {
                    span: Some(mode.span()),
                    message: "mode must be three digits from 0 to 7, like \"0660\"".to_owned(),
                })
            },
        )?,
        owner: name(owner),
        group: name(group),
    })
}

fn check_proxy(address: &Address, raw: Spanned<Vec<Spanned<String>>>) -> Result<Proxies, Fault> {
    if raw.get_ref().is_empty() {
        return Err(Fault {
            span: Some(raw.span()),
            message: "proxy must name one address at least, or be left out".to_owned(),
        });
    }
    let is_unix = raw.get_ref().iter().all(|word| word.get_ref() == "unix");
    if matches!(address, Address::Inherited(_)) && is_unix {
        return Ok(Proxies::Unix);
    }
    if let Address::Unix(_) = address {
        let words = raw.get_ref().iter();
        return match words.map(Spanned::get_ref).find(|word| *word != "unix") {
            None => Ok(Proxies::Unix),
            Some(_) => Err(Fault {
                span: Some(raw.span()),
                message: "proxy of a Unix socket is [\"unix\"]: whoever may connect to it"
                    .to_owned(),
            }),
        };
    }
    let network = |text: Spanned<String>| {
        let parsed = text.get_ref().parse();
        parsed.map_err(|error: NetworkError| Fault {
            span: Some(text.span()),
            message: format!("proxy: {error}"),
        })
    };
    let networks: Result<_, _> = raw.into_inner().into_iter().map(network).collect();
    networks.map(Proxies::From)
}

fn check_versions(raw: Spanned<Vec<RawVersion>>) -> Result<Versions, Fault> {
    if raw.get_ref().is_empty() {
        return Err(Fault {
            span: Some(raw.span()),
            message: "versions must name one at least of 3.1, 3.1.1 and 5.0".to_owned(),
        });
    }
    let versions = raw.into_inner().into_iter();
    let versions = versions.map(|version| match version {
        RawVersion::V31 => Version::V31,
        RawVersion::V311 => Version::V311,
        RawVersion::V5 => Version::V5,
    });
    Ok(versions.collect())
}
