//! What a connection begins with: a header of a proxy, then TLS, WebSocket or MQTT.
//!
//! Owns: [`Kind`], [`Expected`], [`Fault`]. Does not own: the header (see `proxied`), what follows (see `socket`).
//! Start reading at [`Expected::judge`]. Invariant: what is decided by its first bytes is decided once, and who is
//! refused for them is told so in the log with what was seen.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::ServerConfig;

use crate::peer::Peer;

/// What the first bytes are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A handshake of TLS: a record of its type, RFC 8446, section 5.1.
    Tls,
    /// A request of HTTP, as WebSocket begins with.
    Request,
    /// CONNECT.
    Connect,
}

impl Kind {
    /// What `bytes` are the beginning of; nothing if they may become several things.
    /// # Errors
    /// They are the beginning of nothing that is known here.
    pub(super) fn of(bytes: &[u8]) -> Result<Option<Self>, Fault> {
        match bytes {
            [] => Ok(None),
            [TLS_HANDSHAKE, ..] => Ok(Some(Self::Tls)),
            [CONNECT, ..] => Ok(Some(Self::Connect)),
            _ if bytes.starts_with(REQUEST) => Ok(Some(Self::Request)),
            _ if REQUEST.starts_with(bytes) => Ok(None),
            _ => Err(Fault::Unknown(seen(bytes))),
        }
    }
}

/// What a connection may begin with.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// It has begun.
    Nothing,
    /// This.
    Only(Kind),
    /// Any of them, TLS if there is something to make a handshake with.
    Any(Option<Arc<ServerConfig>>),
}

impl Expected {
    /// What begins with `bytes`, or nothing if that is decided by more of them, or by what reads them.
    /// # Errors
    /// The Client speaks something that is not spoken here.
    pub(super) fn judge(&self, bytes: &[u8]) -> io::Result<Option<Kind>> {
        let kind = Kind::of(bytes);
        match (self, kind) {
            (Self::Nothing, _) => Ok(None),
            (Self::Only(expected), Ok(Some(kind))) if kind != *expected => {
                Err(Fault::Mismatch(*expected, kind).into())
            }
            // Whatever else it is, what reads it knows best what is wrong with it.
            (Self::Only(expected), _) => Ok(Some(*expected)),
            (Self::Any(None), Ok(Some(Kind::Tls))) => Err(Fault::NoTls.into()),
            (Self::Any(_), Ok(Some(kind))) => Ok(Some(kind)),
            (Self::Any(_), Ok(None)) if bytes.is_empty() => Err(ErrorKind::UnexpectedEof.into()),
            (Self::Any(_), Ok(None)) => Ok(None),
            (Self::Any(_), Err(fault)) => Err(fault.into()),
        }
    }
}

/// Why a connection ends before it has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// What a proxy says of its Client is wrong.
    Proxy(&'static str),
    /// The listener expects one thing, the Client has begun another.
    Mismatch(Kind, Kind),
    /// TLS, where there is no certificate.
    NoTls,
    /// None of what is looked for; what was seen.
    Unknown(String),
}

impl Fault {
    /// That `error` is one.
    pub(super) fn in_error(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Tells the operator.
    pub(super) fn log(&self, peer: Peer) {
        match self {
            Self::Proxy(_) => {
                tracing::warn!(%peer, error = %self, "the header of the PROXY protocol is wrong");
            }
            Self::Mismatch(..) | Self::NoTls => {
                tracing::warn!(%peer, error = %self, "client speaks something else than the listener");
            }
            Self::Unknown(_) => {
                tracing::warn!(%peer, error = %self, "client speaks nothing that is known here");
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(what) => write!(f, "the header of the proxy: {what}"),
            Self::Mismatch(expected, kind) => {
                let speaks = match expected {
                    Kind::Tls => "TLS",
                    Kind::Request => "WebSocket",
                    Kind::Connect => "MQTT",
                };
                let began = match (expected, kind) {
                    (Kind::Tls, Kind::Connect) => "with a CONNECT in the clear",
                    (_, Kind::Connect) => "with a CONNECT",
                    (Kind::Tls, Kind::Request) => "with a request of HTTP in the clear",
                    (_, Kind::Request) => "with a request of HTTP",
                    (_, Kind::Tls) => "with a handshake of TLS",
                };
                write!(f, "this listener speaks {speaks}; the Client began {began}")
            }
            Self::NoTls => f.write_str(
                "this listener has no certificate; the Client began with a handshake of TLS",
            ),
            Self::Unknown(seen) => write!(
                f,
                "neither TLS nor a CONNECT nor a GET of HTTP; the Client began with {seen}"
            ),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(ErrorKind::InvalidData, fault)
    }
}

/// The first bytes as they may stand in a log.
pub(super) fn seen(bytes: &[u8]) -> String {
    let bytes = bytes.get(..SEEN_BYTES_MAX).unwrap_or(bytes);
    format!("\"{}\"", bytes.escape_ascii())
}

/// So much has to be looked at to tell one from the other.
pub(super) const TOLD_BY_BYTES: usize = SEEN_BYTES_MAX;
/// So much of what nobody understands is logged.
const SEEN_BYTES_MAX: usize = 12;
/// The type of a record of TLS that a handshake begins with.
const TLS_HANDSHAKE: u8 = 0x16;
/// The first byte of a CONNECT.
const CONNECT: u8 = 0x10;
/// What WebSocket begins with.
const REQUEST: &[u8] = b"GET ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_say_what_it_is() {
        let cases: [(&[u8], Option<Kind>); 6] = [
            (b"\x16", Some(Kind::Tls)),
            (b"\x10", Some(Kind::Connect)),
            (b"GET /mqtt", Some(Kind::Request)),
            (b"GET", None),
            (b"G", None),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Kind::of(bytes), Ok(expected), "{bytes:?}");
        }
        for bytes in [
            &b"GE7"[..],
            b"POST / HTTP/1.1\r\n",
            b"SSH-2.0",
            b"\0",
            b"\x20\x02",
        ] {
            assert!(Kind::of(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn who_is_refused_hears_what_was_seen() {
        let said = |expected: Expected, bytes: &[u8]| {
            let error = expected.judge(bytes).expect_err("is refused");
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(Fault::in_error(&error).is_some());
            error.to_string()
        };
        assert_eq!(
            said(Expected::Only(Kind::Tls), b"\x10\x0C"),
            "this listener speaks TLS; the Client began with a CONNECT in the clear"
        );
        assert_eq!(
            said(Expected::Only(Kind::Connect), b"\x16\x03\x01"),
            "this listener speaks MQTT; the Client began with a handshake of TLS"
        );
        assert_eq!(
            said(Expected::Only(Kind::Request), b"\x10\x0C"),
            "this listener speaks WebSocket; the Client began with a CONNECT"
        );
        assert_eq!(
            said(Expected::Any(None), b"SSH-2.0-\x1b[31mOpenSSH\r\n"),
            "neither TLS nor a CONNECT nor a GET of HTTP; the Client began with \"SSH-2.0-\\x1b[31\""
        );
        assert!(said(Expected::Any(None), b"\x16").contains("has no certificate"));
    }
}
