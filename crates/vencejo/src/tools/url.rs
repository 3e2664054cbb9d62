//! URLs of servers and proxies, in parts.
//!
//! Owns: schemes, their ports, what stands where in a URL. Does not own: what flags make of them (see `args`). Start reading
//! at [`parse_url`]. Invariant: a [`Url`] that was parsed has a host.

use client::Socks5;
use proto::Secret;

/// What a URL begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `mqtt://`
    #[default]
    Mqtt,
    /// `mqtts://`
    Mqtts,
    /// `quic://`
    Quic,
    /// `ws://`
    Ws,
    /// `wss://`
    Wss,
}

impl Scheme {
    /// By what stands before `://`.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "mqtt" => Self::Mqtt,
            "mqtts" => Self::Mqtts,
            "quic" => Self::Quic,
            "ws" => Self::Ws,
            "wss" => Self::Wss,
            _ => return None,
        })
    }

    pub(super) const fn is_secure(self) -> bool {
        matches!(self, Self::Mqtts | Self::Quic | Self::Wss)
    }

    pub(super) const fn usual_port(self, is_tls: bool) -> u16 {
        match (self, is_tls) {
            (Self::Quic, _) => 14567,
            (Self::Wss, _) => 443,
            (Self::Ws, _) => 80,
            (_, true) => 8883,
            (_, false) => 1883,
        }
    }
}

/// The parts of `mqtt://[user[:password]@]host[:port]/topic`, or of another [`Scheme`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: Scheme,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<String>,
    pub(super) topic: Option<String>,
}

pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    let unknown = "unsupported URL scheme.";
    let (scheme, rest) = text.split_once("://").ok_or(unknown)?;
    let scheme = Scheme::named(scheme).ok_or(unknown)?;
    let (authority, topic) = match rest.split_once('/') {
        Some((authority, topic)) => (authority, Some(topic)),
        None => (rest, None),
    };
    let (credentials, address) = match authority.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, authority),
    };
    let (user_name, password) = match credentials.map(|text| text.split_once(':').ok_or(text)) {
        Some(Ok((user_name, password))) => (Some(user_name), Some(password)),
        Some(Err(user_name)) => (Some(user_name), None),
        None => (None, None),
    };
    // An IPv6 address stands in brackets.
    let (host, port) = match address
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let port = port
        .map(|port| {
            port.parse::<u16>()
                .map_err(|_| format!("Invalid port given: {port}"))
        })
        .transpose()?;
    if host.is_empty() {
        return Err("the URL has no host.".into());
    }
    Ok(Url {
        scheme,
        host: Some(host.to_owned()),
        port,
        user_name: user_name.map(percent_decode),
        password: password.map(percent_decode),
        topic: topic.filter(|topic| !topic.is_empty()).map(str::to_owned),
    })
}

/// `socks5h://[user[:password]@]host[:port]`.
pub(super) fn parse_proxy(text: &str) -> Result<Socks5, String> {
    let rest = text
        .strip_prefix("socks5h://")
        .ok_or("unsupported proxy protocol: wanted socks5h://.")?;
    // The parts are those of any URL.
    let url = parse_url(&format!("mqtt://{rest}"))?;
    let proxy = Socks5::new(url.host.unwrap_or_default(), url.port.unwrap_or(1080));
    Ok(match url.user_name {
        Some(user_name) => {
            let password = Secret::new(url.password.unwrap_or_default().into_bytes());
            proxy.login(user_name, password)
        }
        None => proxy,
    })
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|_| *first == b'%');
        let byte = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte {
            bytes.push(byte);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A URL, without the password in it; anything else as it is.
pub(super) fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((credentials, host)) = authority.rsplit_once('@') else {
        return text.to_owned();
    };
    match credentials.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{HIDDEN}@{host}{path}"),
        None => text.to_owned(),
    }
}

/// What stands in place of a password.
pub(super) const HIDDEN: &str = "***";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart() {
        let url = parse_url("mqtt://me:p%40ss@example.org:1884/a/b").unwrap();
        assert_eq!(url.host.as_deref(), Some("example.org"));
        assert_eq!(url.port, Some(1884));
        assert_eq!(url.user_name.as_deref(), Some("me"));
        assert_eq!(url.password.as_deref(), Some("p@ss"));
        assert_eq!(url.topic.as_deref(), Some("a/b"));
        let url = parse_url("mqtt://[::1]:1885").unwrap();
        assert_eq!(
            (url.host.as_deref(), url.port, url.topic),
            (Some("::1"), Some(1885), None)
        );
        assert_eq!(parse_url("mqtt://host/").unwrap().topic, None);
        assert!(parse_url("http://host").is_err());
        assert_eq!(parse_url("mqtts://host").unwrap().scheme, Scheme::Mqtts);
        assert_eq!(parse_url("quic://host").unwrap().scheme, Scheme::Quic);
        assert!(parse_url("mqtt://host:99999/x").is_err());
        let url = parse_url("wss://host/a/b").unwrap();
        assert_eq!(
            (url.scheme, url.topic.as_deref()),
            (Scheme::Wss, Some("a/b"))
        );
        assert!(url.scheme.is_secure() && !Scheme::Ws.is_secure());
        for wrong in ["http://a", "socks4://a", "socks5h://", "a:1080"] {
            assert!(parse_proxy(wrong).is_err(), "{wrong}");
        }
        let shown = format!("{:?}", parse_proxy("socks5h://me:hidden@a").unwrap());
        assert!(
            shown.contains("1080") && !shown.contains("hidden"),
            "{shown}"
        );
    }
}
