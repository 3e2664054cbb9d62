//! A Client that says bytes and hears packets, for tests over real sockets.
//!
//! Owns: [`Raw`], the few packets the tests write by hand. Does not own: any judgement.
//! Start reading at [`Raw::open`]. Invariant: it waits for what it is told to expect, with a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// One Network Connection of a test.
pub(crate) struct Raw<S = TcpStream> {
    pub(crate) stream: S,
}

impl Raw {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the Server accepts");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket option");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream }
    }

    /// Connects with 3.1.1, Clean Session, and waits for the CONNACK.
    pub(crate) fn v311(address: SocketAddr, client_id: &str) -> Self {
        let mut client = Self::open(address);
        client.say(&connect_v311(client_id));
        assert_eq!(client.hear(), [0x20, 2, 0, 0], "CONNACK to {client_id}");
        client
    }

    /// Connects with 5.0, Clean Start and this Keep Alive, and waits for the CONNACK.
    pub(crate) fn v5(address: SocketAddr, client_id: &str, keep_alive: u16) -> Self {
        let mut client = Self::open(address);
        client.say(&connect_v5(client_id, keep_alive, &[], &[]));
        let connack = client.hear();
        assert_eq!(
            (connack[0], connack[3]),
            (0x20, 0),
            "CONNACK to {client_id}"
        );
        client
    }
}

impl Raw {
    /// Says one of `pieces` after the other, with [`PACE`] between them, until the Server closes.
    /// # Panics
    /// All are said, and it has not: where each of them renews its time, it does not.
    pub(crate) fn trickle(&mut self, pieces: &[Vec<u8>]) {
        self.stream
            .set_read_timeout(Some(PACE))
            .expect("a socket option");
        for piece in pieces {
            // It may be closed already, as the next read shows.
            self.stream.write_all(piece).ok();
            let began = Instant::now();
            while began.elapsed() < PACE {
                match self.stream.read(&mut [0; 4096]) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        panic!("{} pieces are said, and it listens still", pieces.len());
    }
}

impl Raw<UnixStream> {
    pub(crate) fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the Server accepts");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket option");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a socket option");
        Self { stream }
    }
}

impl<S: Read + Write> Raw<S> {
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the Server reads");
    }

    /// The next packet, or nothing at the end of the stream.
    pub(crate) fn hear(&mut self) -> Vec<u8> {
        let mut packet = Vec::new();
        let mut len = 0_usize;
        for shift in (0..).step_by(7) {
            if packet.is_empty() && !self.take(&mut packet, 1) {
                return Vec::new();
            }
            assert!(self.take(&mut packet, 1), "the stream ends inside a packet");
            let byte = packet[packet.len() - 1];
            len |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        assert!(
            self.take(&mut packet, len),
            "the stream ends inside a packet"
        );
        packet
    }

    /// Whether the Server has closed the stream, with nothing left to hear.
    pub(crate) fn is_at_end(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(len) => len == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) {
        self.say(&subscribe_v311(filter, qos));
        assert_eq!(self.hear(), [0x90, 3, 0, 1, qos]);
    }

    pub(crate) fn ping(&mut self) {
        self.say(&[0xC0, 0]);
        assert_eq!(self.hear(), [0xD0, 0]);
    }

    fn take(&mut self, packet: &mut Vec<u8>, len: usize) -> bool {
        let start = packet.len();
        packet.resize(start + len, 0);
        match self.stream.read_exact(&mut packet[start..]) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing heard: {error}"),
        }
    }
}

/// A packet of this first byte and body.
pub(crate) fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first_byte];
    let mut rest = body.len();
    loop {
        let more = if rest > 127 { 0x80 } else { 0 };
        packet.push(u8::try_from(rest & 0x7F).expect("7 bits") | more);
        rest >>= 7;
        if rest == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len())
        .expect("a short text")
        .to_be_bytes();
    [&len[..], text.as_bytes()].concat()
}

pub(crate) fn connect_v311(client_id: &str) -> Vec<u8> {
    packet(
        0x10,
        &[&b"\x00\x04MQTT\x04\x02\x00\x00"[..], &string(client_id)].concat(),
    )
}

/// CONNECT of 5.0 with Clean Start, these properties, and `more` after the Client Identifier.
pub(crate) fn connect_v5(
    client_id: &str,
    keep_alive: u16,
    properties: &[u8],
    more: &[u8],
) -> Vec<u8> {
    connect_flags_v5(0x02, client_id, keep_alive, properties, more)
}

pub(crate) fn connect_flags_v5(
    flags: u8,
    client_id: &str,
    keep_alive: u16,
    properties: &[u8],
    more: &[u8],
) -> Vec<u8> {
    let properties_len = u8::try_from(properties.len()).expect("few properties");
    assert!(properties_len < 128);
    let body = [
        &b"\x00\x04MQTT\x05"[..],
        &[flags],
        &keep_alive.to_be_bytes(),
        &[properties_len],
        properties,
        &string(client_id),
        more,
    ];
    packet(0x10, &body.concat())
}

pub(crate) fn subscribe_v311(filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[&[0, 1][..], &string(filter), &[qos]].concat())
}

/// SUBSCRIBE of 5.0, Packet Identifier 1.
pub(crate) fn subscribe_v5(filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[&[0, 1, 0][..], &string(filter), &[qos]].concat())
}

/// PUBLISH of 3.1.1; `packet_id` 0 is QoS 0, others QoS 1.
pub(crate) fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    if packet_id == 0 {
        return packet(0x30, &[&string(topic)[..], payload].concat());
    }
    packet(
        0x32,
        &[&string(topic)[..], &packet_id.to_be_bytes(), payload].concat(),
    )
}

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two pieces of what trickles.
const PACE: Duration = Duration::from_millis(50);
/// When it has to be over, of a time of 300 ms; what trickles takes longer in all.
pub(crate) const TRICKLED_MAX: Duration = Duration::from_secs(2);
