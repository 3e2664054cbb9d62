//! URLs of servers: `mqtt://user:password@host:1883`, `mqtts`, `ws`, `wss`, `quic`, `unix`.
//!
//! Owns: what a URL says of [`Options`]. Does not own: topics in URLs, which are the tools' own.
//! Start reading at [`Options::from_url`]. Invariant: no part of a URL is ignored, and none that is secret is repeated.

use proto::Secret;

use crate::{Options, Tls};

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It begins with no scheme that is known here.
    #[error("a URL begins with mqtt://, mqtts://, ws://, wss://, quic:// or unix://")]
    Scheme,
    /// The scheme needs a feature of this crate that is off.
    #[error("{0}:// needs a cargo feature of vencejo-client that is off")]
    Feature(&'static str),
    /// There is no host.
    #[error("the URL has no host")]
    Host,
    /// The port is no number up to 65,535.
    #[error("the port of the URL is not a number from 1 to 65535")]
    Port,
    /// `%` is not followed by two hexadecimal digits, or what they say is not text.
    #[error("the URL has a % that stands for nothing")]
    Escape,
    /// There is a path, a query or a fragment where none means anything.
    #[error("{0:?} means nothing in this URL")]
    Rest(String),
}

impl Options {
    /// What a URL says, everything else as [`Options::new`] has it:
    ///
    /// | URL | |
    /// |---|---|
    /// | `mqtt://host:1883` | TCP |
    /// | `mqtts://host:8883` | TLS, believing the system's roots; [`Options::tls`] says otherwise |
    /// | `ws://host:80/mqtt`, `wss://host:443/mqtt` | WebSocket, without and with TLS; without a path it is `/mqtt` |
    /// | `quic://host:14567` | QUIC |
    /// | `unix:///run/broker.sock` | a Unix socket |
    ///
    /// The ports are those that are taken if none is said. Before the host may stand `user@` or `user:password@`, with
    /// `%3A` for a `:` in either.
    /// # Errors
    /// [`UrlError`]
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        if scheme == "unix" {
            let path = unescape(rest)?;
            return if path.is_empty() {
                Err(UrlError::Host)
            } else {
                Ok(Self::new("localhost", 0).unix(path))
            };
        }
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (host, port) = split_port(address)?;
        let is_websocket = matches!(scheme, "ws" | "wss");
        if !is_websocket && !matches!(path, "" | "/") {
            return Err(UrlError::Rest(path.to_owned()));
        }
        let at = |default: u16| Self::new(host, port.unwrap_or(default));
        let options = match scheme {
            "mqtt" | "tcp" => at(1883),
            "mqtts" | "ssl" => at(8883).tls(Tls::new()),
            "ws" => websocket(at(80), path)?,
            "wss" => websocket(at(443), path)?.tls(Tls::new()),
            "quic" => quic(at(14567))?,
            _ => return Err(UrlError::Scheme),
        };
        match user {
            None => Ok(options),
            Some(user) => with_user(options, user),
        }
    }
}

/// A host, in brackets if it is an address of IPv6, and a port if there is one.
fn split_port(address: &str) -> Result<(&str, Option<u16>), UrlError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
            match port.strip_prefix(':') {
                None if port.is_empty() => (host, None),
                None => return Err(UrlError::Port),
                port => (host, port),
            }
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Err(UrlError::Host);
    }
    let number = |port: &str| port.parse().ok().filter(|port| *port > 0);
    let port = port.map(|port| number(port).ok_or(UrlError::Port));
    Ok((host, port.transpose()?))
}

fn with_user(options: Options, user: &str) -> Result<Options, UrlError> {
    let (user, password) = match user.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user, None),
    };
    let options = options.user_name(unescape(user)?);
    match password {
        None => Ok(options),
        Some(password) => Ok(options.password(Secret::new(unescape(password)?.into_bytes()))),
    }
}

#[cfg(feature = "websocket")]
fn websocket(options: Options, path: &str) -> Result<Options, UrlError> {
    if path.contains('#') {
        return Err(UrlError::Rest(path.to_owned()));
    }
    Ok(match path {
        "" | "/" => options.websocket("/mqtt"),
        path => options.websocket(path),
    })
}

#[cfg(not(feature = "websocket"))]
fn websocket(_: Options, _: &str) -> Result<Options, UrlError> {
    Err(UrlError::Feature("ws"))
}

#[cfg(feature = "quic")]
#[allow(
    clippy::unnecessary_wraps,
    reason = "without the feature it is an error"
)]
fn quic(options: Options) -> Result<Options, UrlError> {
    Ok(options.quic())
}

#[cfg(not(feature = "quic"))]
fn quic(_: Options) -> Result<Options, UrlError> {
    Err(UrlError::Feature("quic"))
}

/// `%41` is `A`.
fn unescape(text: &str) -> Result<String, UrlError> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or(UrlError::Escape)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(UrlError::Escape);
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| UrlError::Escape)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address, WebSocket path, user and whether there are TLS and QUIC.
    fn told(url: &str) -> String {
        let options = match Options::from_url(url) {
            Ok(options) => options,
            Err(error) => return format!("{error:?}"),
        };
        let (host, port) = options.address();
        let mut told = format!("{host} {port}");
        if let Some(path) = options.unix_path() {
            told = format!("unix {}", path.display());
        }
        #[cfg(feature = "websocket")]
        if let Some(path) = &options.websocket {
            told += &format!(" ws {path}");
        }
        #[cfg(feature = "quic")]
        if options.is_quic {
            told += " quic";
        }
        if options.tls.is_some() {
            told += " tls";
        }
        let connect = &options.connect;
        if let Some(name) = &connect.user_name {
            told += &format!(" {name}");
        }
        if let Some(password) = &connect.password {
            told += &format!(":{}", String::from_utf8_lossy(password.expose()));
        }
        told
    }

    #[test]
    fn urls_say_where_and_as_whom() {
        for (url, expected) in [
            ("mqtt://broker", "broker 1883"),
            ("mqtt://broker/", "broker 1883"),
            ("mqtt://[::1]:2000", "::1 2000"),
            ("mqtts://broker.example", "broker.example 8883 tls"),
            ("mqtt://me@broker", "broker 1883 me"),
            ("mqtt://a%3Ab:p%40s@broker:1", "broker 1 a:b:p@s"),
            ("unix:///run/broker.sock", "unix /run/broker.sock"),
            ("http://broker", "Scheme"),
            ("broker", "Scheme"),
            ("mqtt://", "Host"),
            ("mqtt://:1883", "Host"),
            ("mqtt://broker:0", "Port"),
            ("mqtt://broker:65536", "Port"),
            ("mqtt://[::1]1883", "Port"),
            ("mqtt://a%zz@broker", "Escape"),
            ("mqtt://a%+1@broker", "Escape"),
            ("mqtt://broker/topic", "Rest(\"/topic\")"),
            ("mqtt://broker?x", "Rest(\"?x\")"),
            ("unix://", "Host"),
        ] {
            assert_eq!(told(url), expected, "{url}");
        }
    }

    #[cfg(feature = "websocket")]
    #[test]
    fn urls_of_websockets_have_a_path() {
        for (url, expected) in [
            ("ws://broker", "broker 80 ws /mqtt"),
            ("ws://broker:8083/", "broker 8083 ws /mqtt"),
            ("wss://broker/a/b?c=d", "broker 443 ws /a/b?c=d tls"),
            ("wss://broker/a#b", "Rest(\"/a#b\")"),
        ] {
            assert_eq!(told(url), expected, "{url}");
        }
    }

    #[cfg(feature = "quic")]
    #[test]
    fn urls_of_quic_have_its_port() {
        assert_eq!(told("quic://broker"), "broker 14567 quic");
    }
}
