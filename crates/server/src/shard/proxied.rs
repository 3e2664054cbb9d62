//! The header of the PROXY protocol, versions 1 and 2, in front of everything else that a connection says.
//!
//! Owns: [`take`], what a header may say. Does not own: from whom one is taken (see `accept`). Start reading at
//! [`take`]. Invariant: no byte behind the header is taken, and nothing is kept of one that is not complete.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;

use ppp::{PartialResult, v1, v2};

use super::beginning::Fault;
use super::connection::printable;
use crate::authentication::ClientCertificate;
use crate::byte_stream::ByteStream;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A Client.
    Client(Client),
    /// The proxy itself, which looks whether we are there.
    Proxy,
}

/// A Client that comes through a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// From where it comes.
    pub(super) address: SocketAddr,
    /// The host that it has asked the proxy for.
    pub(super) host: Option<String>,
    /// What it has shown, if the proxy has taken TLS off.
    pub(super) secured: Option<Secured>,
}

/// A Client whose TLS ends at the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Secured {
    /// The certificate it has shown, if it was good.
    pub(super) certificate: Option<Box<ClientCertificate>>,
}

impl From<SocketAddr> for Client {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            host: None,
            secured: None,
        }
    }
}

/// Takes the header at the front of what `stream` has to read.
/// # Errors
/// `WouldBlock`: it is not complete. `InvalidData`: it is none. `UnexpectedEof`: nothing follows.
pub(super) fn take(stream: &mut ByteStream) -> io::Result<Source> {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let len = stream.peek(&mut bytes)?;
    if len == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let there = bytes.get(..len).unwrap_or_default();
    let (source, header_len) = match parse(there) {
        Ok(Some(found)) => found,
        // What has still to come brings an event.
        Ok(None) if len < HEADER_BYTES_MAX => return Err(ErrorKind::WouldBlock.into()),
        Ok(None) => return Err(Fault::Proxy("it is too long").into()),
        Err(what) => return Err(Fault::Proxy(what).into()),
    };
    let header = bytes.get_mut(..header_len).unwrap_or_default();
    stream.read_exact(header)?;
    Ok(source)
}

/// What the header at the front of `bytes` says, and its length; nothing if it is not complete.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Source, usize)>, &'static str> {
    if begins(bytes, v2::PROTOCOL_PREFIX) {
        return parse_v2(bytes);
    }
    if begins(bytes, b"PROXY ") {
        return parse_v1(bytes);
    }
    Err("there is none")
}

/// Whether `bytes` begin with `prefix`, as far as they go.
fn begins(bytes: &[u8], prefix: &[u8]) -> bool {
    let len = bytes.len().min(prefix.len());
    bytes.get(..len) == prefix.get(..len)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(Source, usize)>, &'static str> {
    let line = bytes.get(..bytes.len().min(V1_BYTES_MAX)).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() < V1_BYTES_MAX {
            Ok(None)
        } else {
            Err("its line does not end")
        };
    };
    let line = line.get(..end + 2).unwrap_or_default();
    // What reads the line cuts two bytes behind its first CR: in a character of more than one byte, a panic.
    if !line.is_ascii() {
        return Err("it is no text");
    }
    let line = std::str::from_utf8(line).map_err(|_| "it is no text")?;
    let header = v1::Header::try_from(line).map_err(|_| "its line is wrong")?;
    let source = match header.addresses {
        v1::Addresses::Tcp4(of) => SocketAddr::from((of.source_address, of.source_port)),
        v1::Addresses::Tcp6(of) => SocketAddr::from((of.source_address, of.source_port)),
        v1::Addresses::Unknown => return Err("it does not say who the Client is"),
    };
    Ok(Some((Source::Client(source.into()), end + 2)))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(Source, usize)>, &'static str> {
    let header = match v2::Header::try_from(bytes) {
        Ok(header) => header,
        Err(error) if error.is_incomplete() => return Ok(None),
        Err(_) => return Err("its bytes are wrong"),
    };
    let len = header.len();
    if header.command == v2::Command::Local {
        return Ok(Some((Source::Proxy, len)));
    }
    if header.protocol != v2::Protocol::Stream {
        return Err("it is of a Client that does not speak TCP");
    }
    let source = match header.addresses {
        v2::Addresses::IPv4(of) => SocketAddr::from((of.source_address, of.source_port)),
        v2::Addresses::IPv6(of) => SocketAddr::from((of.source_address, of.source_port)),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => {
            return Err("it does not say who the Client is");
        }
    };
    let mut client = Client::from(source);
    for value in header.tlvs() {
        let value = value.map_err(|_| "what it adds is wrong")?;
        match value.kind {
            AUTHORITY => {
                let host = std::str::from_utf8(&value.value);
                client.host = host.ok().map(printable);
            }
            SSL => client.secured = Some(secured(&value.value)?),
            _ => {}
        }
    }
    Ok(Some((Source::Client(client), len)))
}

/// What is said of TLS: flags, whether the certificate was good, then more values of the same form.
fn secured(value: &[u8]) -> Result<Secured, &'static str> {
    const WRONG: &str = "what it says of TLS is wrong";
    let (head, rest) = value.split_first_chunk::<5>().ok_or(WRONG)?;
    let [flags, verified @ ..] = *head;
    let is_shown = flags & (CLIENT_CERT_CONN | CLIENT_CERT_SESS) != 0;
    // Whoever speaks no TLS has shown nothing, and a certificate that is not good is none.
    let counts = flags & CLIENT_SSL != 0 && is_shown && u32::from_be_bytes(verified) == 0;
    let mut names = Vec::new();
    for value in v2::TypeLengthValues::from(rest) {
        let value = value.map_err(|_| WRONG)?;
        if value.kind == SSL_CN {
            names.push(value.value);
        }
    }
    if !counts {
        return Ok(Secured::default());
    }
    // One that is named in two ways, or not at all, lets nobody in where a name is wanted.
    let certificate = match names.as_slice() {
        [name] => ClientCertificate::of_common_name(name),
        _ => ClientCertificate::default(),
    };
    Ok(Secured {
        certificate: Some(Box::new(certificate)),
    })
}

/// Values that version 2 can add, from its section 2.2 on: the host that was asked for.
const AUTHORITY: u8 = 0x02;
/// What is said of TLS.
const SSL: u8 = 0x20;
/// The Common Name of a Client's certificate, among that.
const SSL_CN: u8 = 0x22;
/// The Client has spoken TLS.
const CLIENT_SSL: u8 = 0x01;
/// It has shown a certificate on this connection.
const CLIENT_CERT_CONN: u8 = 0x02;
/// It has shown one on a connection that this one goes on with.
const CLIENT_CERT_SESS: u8 = 0x04;
/// The longest line of version 1, with its end.
const V1_BYTES_MAX: usize = 107;
/// The longest header of version 2 that is taken: addresses, and what a proxy may add of TLS.
const HEADER_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).expect("short").to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &len, body].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x1F, 0x90, 0x07, 0x5B];

    #[test]
    fn header_says_who_the_client_is_and_ends_where_it_ends() {
        let ipv6 = [
            &[0x20, 1, 0xD, 0xB8][..],
            &[0; 11],
            &[7],
            &[0; 16],
            &[0x1F, 0x90, 7, 0x5B],
        ];
        let with_more = [&IPV4[..], &[0x04, 0, 2, 1, 2]].concat();
        let cases = [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 1883\r\n".to_vec(),
                "192.0.2.7:8080",
            ),
            (
                b"PROXY TCP6 2001:db8::7 ::1 8080 1883\r\n".to_vec(),
                "[2001:db8::7]:8080",
            ),
            (v2(0x21, 0x11, &IPV4), "192.0.2.7:8080"),
            (v2(0x21, 0x11, &with_more), "192.0.2.7:8080"),
            (v2(0x21, 0x21, &ipv6.concat()), "[2001:db8::7]:8080"),
        ];
        for (header, expected) in cases {
            let followed = [&header[..], b"\x10\x0C\xFF\r\n"].concat();
            let address: SocketAddr = expected.parse().expect("an address");
            let source = Source::Client(address.into());
            assert_eq!(parse(&followed), Ok(Some((source, header.len()))));
            for end in 1..header.len() {
                assert_eq!(parse(&header[..end]), Ok(None), "{end} of {expected}");
            }
        }
        let local = v2(0x20, 0x00, &[]);
        assert_eq!(parse(&local), Ok(Some((Source::Proxy, local.len()))));
    }

    fn value(kind: u8, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len()).expect("short").to_be_bytes();
        [&[kind][..], &len, value].concat()
    }

    fn of_tls(flags: u8, verified: u32, more: &[u8]) -> Vec<u8> {
        let head = [&[flags][..], &verified.to_be_bytes()].concat();
        value(SSL, &[&head[..], more].concat())
    }

    fn client(more: &[u8]) -> Client {
        let header = v2(0x21, 0x11, &[&IPV4[..], more].concat());
        match parse(&header) {
            Ok(Some((Source::Client(client), len))) if len == header.len() => client,
            other => panic!("{other:?}"),
        }
    }

    /// Class A: a name counts only if it stands in a certificate that was shown and found good.
    #[test]
    fn name_is_taken_from_a_good_certificate_only() {
        let cn = value(SSL_CN, b"pump");
        let version = value(0x21, b"TLSv1.3");
        let all = CLIENT_SSL | CLIENT_CERT_CONN | CLIENT_CERT_SESS;
        let named = |flags, verified, more: &[u8]| {
            let secured = client(&of_tls(flags, verified, more)).secured;
            let certificate = secured.expect("TLS").certificate;
            certificate.map(|certificate| certificate.common_name)
        };
        let pump = Some(Some("pump".to_owned()));
        let more = [&version[..], &cn].concat();
        assert_eq!(named(all, 0, &more), pump);
        assert_eq!(named(CLIENT_SSL | CLIENT_CERT_CONN, 0, &more), pump);
        assert_eq!(named(CLIENT_SSL | CLIENT_CERT_SESS, 0, &more), pump);
        // Not verified, not shown, no TLS.
        assert_eq!(named(all, 1, &more), None);
        assert_eq!(named(all, 0x0100_0000, &more), None);
        assert_eq!(named(CLIENT_SSL, 0, &more), None);
        assert_eq!(named(CLIENT_CERT_CONN, 0, &more), None);
        assert_eq!(named(0, 0, &more), None);
        // Nobody in particular.
        assert_eq!(named(all, 0, &version), Some(None));
        assert_eq!(named(all, 0, &[&cn[..], &cn].concat()), Some(None));
        assert_eq!(named(all, 0, &value(SSL_CN, b"pu\0mp")), Some(None));
        assert_eq!(named(all, 0, &value(SSL_CN, b"\xFF")), Some(None));
        assert_eq!(named(all, 0, &value(SSL_CN, b"")), Some(None));
        assert_eq!(client(&value(0x04, b"")).secured, None);
    }

    #[test]
    fn host_that_was_asked_for_is_said() {
        assert_eq!(
            client(&value(AUTHORITY, b"a.example")).host.as_deref(),
            Some("a.example")
        );
        assert_eq!(
            client(&value(AUTHORITY, b"\x1b[31m")).host.as_deref(),
            Some("\\u{1b}[31m")
        );
        assert_eq!(client(&value(AUTHORITY, b"\xFF")).host, None);
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        for more in [
            &[SSL][..],
            &[SSL, 0, 4, 7, 0, 0, 0],
            &[SSL, 0, 9, 7, 0, 0, 0, 0],
            &[SSL, 0, 8, 7, 0, 0, 0, 0, SSL_CN, 0, 9],
            &[AUTHORITY, 0, 7, b'a'],
        ] {
            let header = v2(0x21, 0x11, &[&IPV4[..], more].concat());
            assert!(parse(&header).is_err(), "{more:?}");
        }
    }

    /// Verifies P12: who comes through a proxy without a name is not taken for the proxy.
    #[test]
    fn header_that_names_nobody_or_is_wrong_is_refused() {
        let long = [
            &b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 1883"[..],
            &[b' '; 80],
            b"\r\n",
        ]
        .concat();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("unknown", b"PROXY UNKNOWN\r\n".to_vec()),
            ("MQTT", b"\x10\x0C\x00\x04MQTT".to_vec()),
            ("TLS", b"\x16\x03\x01\x02\x00".to_vec()),
            ("HTTP", b"GET / HTTP/1.1\r\n".to_vec()),
            (
                "lower case",
                b"proxy TCP4 192.0.2.7 10.0.0.1 8080 1883\r\n".to_vec(),
            ),
            ("too long", long),
            ("other family", b"PROXY TCP4 ::1 ::1 8080 1883\r\n".to_vec()),
            (
                "port",
                b"PROXY TCP4 192.0.2.7 10.0.0.1 80800 1883\r\n".to_vec(),
            ),
            ("no port", b"PROXY TCP4 192.0.2.7 10.0.0.1\r\n".to_vec()),
            (
                "no text",
                b"PROXY TCP4 \xFF\xFE 10.0.0.1 8080 1883\r\n".to_vec(),
            ),
            (
                "CR before a character",
                b"PROXY TCP4 !\xC9\xA5\r\xC9\xA5\r\n".to_vec(),
            ),
            (
                "CR in the line",
                b"PROXY TCP4 192.0.2.7 10.0.0.1 80\r80 1883\r\n".to_vec(),
            ),
            ("unspecified", v2(0x21, 0x00, &[])),
            ("Unix", v2(0x21, 0x31, &[0; 216])),
            ("datagrams", v2(0x21, 0x12, &IPV4)),
            ("version 3", v2(0x31, 0x11, &IPV4)),
            ("command 2", v2(0x22, 0x11, &IPV4)),
            ("short addresses", v2(0x21, 0x11, &IPV4[..11])),
        ];
        for (what, header) in cases {
            assert!(parse(&header).is_err(), "{what}");
        }
    }
}
