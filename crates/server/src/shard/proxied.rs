//! The header of the PROXY protocol, versions 1 and 2, in front of everything else that a connection says.
//!
//! Owns: [`take`], what a header may say. Does not own: from whom one is taken (see `accept`). Start reading at
//! [`take`]. Invariant: no byte behind the header is taken, and nothing is kept of one that is not complete.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;

use ppp::{PartialResult, v1, v2};

use super::beginning::Fault;
use crate::byte_stream::ByteStream;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A Client from there.
    Client(SocketAddr),
    /// The proxy itself, which looks whether we are there.
    Proxy,
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
fn parse(bytes: &[u8]) -> Result<Option<(Source, usize)>, &'static str> {
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
    let line = std::str::from_utf8(line).map_err(|_| "it is no text")?;
    let header = v1::Header::try_from(line).map_err(|_| "its line is wrong")?;
    let source = match header.addresses {
        v1::Addresses::Tcp4(of) => SocketAddr::from((of.source_address, of.source_port)),
        v1::Addresses::Tcp6(of) => SocketAddr::from((of.source_address, of.source_port)),
        v1::Addresses::Unknown => return Err("it does not say who the Client is"),
    };
    Ok(Some((Source::Client(source), end + 2)))
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
    Ok(Some((Source::Client(source), len)))
}

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
            let source = Source::Client(expected.parse().expect("an address"));
            assert_eq!(parse(&followed), Ok(Some((source, header.len()))));
            for end in 1..header.len() {
                assert_eq!(parse(&header[..end]), Ok(None), "{end} of {expected}");
            }
        }
        let local = v2(0x20, 0x00, &[]);
        assert_eq!(parse(&local), Ok(Some((Source::Proxy, local.len()))));
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
