//! The few packets of MQTT 3.1.1 that a load needs, written by hand so that they cost next to nothing.
//!
//! Owns: their bytes, cutting a stream into packets, a blocking [`Link`]. Does not own: who sends what when.
//! Start reading at [`Link::connect`]. Invariant: an answer that is not the expected one is an error.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A blocking connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Link {
    /// Connects as `client_id`; a session that is not `clean` stays when the connection ends.
    pub(crate) fn connect(
        address: SocketAddr,
        client_id: &str,
        clean: bool,
    ) -> Result<Self, String> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_MAX).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(text)?;
        let mut link = Self {
            stream,
            rest: Vec::new(),
        };
        let mut body = field("MQTT");
        body.extend([4, if clean { 2 } else { 0 }, 0, 0]);
        body.extend(field(client_id));
        link.send(&packet(0x10, &body))?;
        match link.next()? {
            (0x20, body) if body.get(1) == Some(&0) => Ok(link),
            other => Err(format!("no CONNACK for {client_id}, but {other:02x?}")),
        }
    }

    /// Subscribes, and waits for the answer.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> Result<(), String> {
        let mut body = vec![0, 1];
        body.extend(field(filter));
        body.push(qos);
        self.send(&packet(0x82, &body))?;
        loop {
            match self.next()? {
                (0x90, body) if body.get(2) == Some(&qos) => return Ok(()),
                // Retained messages may come before.
                (first, _) if first >> 4 == 3 => {}
                other => return Err(format!("no SUBACK for {filter}, but {other:02x?}")),
            }
        }
    }

    /// Says DISCONNECT and waits until the other side has closed.
    pub(crate) fn leave(mut self) -> Result<(), String> {
        self.send(&[0xe0, 0])?;
        self.stream
            .read_to_end(&mut self.rest)
            .map(drop)
            .map_err(text)
    }

    /// Takes `count` messages at QoS 1 and acknowledges each.
    pub(crate) fn take_messages(&mut self, count: u64) -> Result<(), String> {
        for number in 0..count {
            let (first, body) = self
                .next()
                .map_err(|error| format!("message {number} of {count}: {error}"))?;
            let at = usize::from(u16_at(&body, 0)?) + 2;
            if first >> 4 != 3 || first & 0x06 != 2 {
                return Err(format!("no PUBLISH at QoS 1, but {first:02x} {body:02x?}"));
            }
            let [high, low] = u16_at(&body, at)?.to_be_bytes();
            self.send(&[0x40, 2, high, low])?;
        }
        Ok(())
    }

    /// The socket, and what was read and not taken.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.rest)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(text)
    }

    /// The next packet: its first byte and its body.
    fn next(&mut self) -> Result<(u8, Vec<u8>), String> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some((first, body, used)) = split(&self.rest)? {
                let body = body.to_vec();
                self.rest.drain(..used);
                return Ok((first, body));
            }
            let len = self.stream.read(&mut buffer).map_err(text)?;
            if len == 0 {
                return Err("closed by the broker".to_owned());
            }
            self.rest
                .extend_from_slice(buffer.get(..len).unwrap_or_default());
        }
    }
}

/// A PUBLISH at QoS 1 with Packet Identifier 1.
pub(crate) fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = field(topic);
    body.extend([0, 1]);
    body.extend_from_slice(payload);
    packet(0x32, &body)
}

/// A packet in what was read: its first byte, its body, the bytes it takes.
type Cut<'a> = (u8, &'a [u8], usize);

/// The packet at the front of `input`, if it is whole.
pub(crate) fn split(input: &[u8]) -> Result<Option<Cut<'_>>, String> {
    let (mut len, mut shift, mut at) = (0_usize, 0, 1);
    loop {
        let Some(&byte) = input.get(at) else {
            return Ok(None);
        };
        at += 1;
        len |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        if shift > 21 {
            return Err("a length of more than four bytes".to_owned());
        }
    }
    let (Some(&first), Some(body)) = (input.first(), input.get(at..at + len)) else {
        return Ok(None);
    };
    Ok(Some((first, body, at + len)))
}

/// Topic and payload of a PUBLISH at QoS 0.
pub(crate) fn topic_and_payload(body: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let at = usize::from(u16_at(body, 0)?) + 2;
    let split = body
        .split_at_checked(at)
        .and_then(|(topic, payload)| Some((topic.get(2..)?, payload)));
    split.ok_or_else(|| "a PUBLISH without its topic".to_owned())
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    loop {
        let byte = u8::try_from(len % 128).unwrap_or(0);
        len /= 128;
        if len == 0 {
            bytes.push(byte);
            break;
        }
        bytes.push(byte | 0x80);
    }
    bytes.extend_from_slice(body);
    bytes
}

fn field(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&len[..], text.as_bytes()].concat()
}

fn u16_at(body: &[u8], at: usize) -> Result<u16, String> {
    let bytes = body.get(at..).and_then(|rest| rest.first_chunk());
    let bytes = bytes.ok_or_else(|| "a packet that is too short".to_owned())?;
    Ok(u16::from_be_bytes(*bytes))
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// How long an answer may take. A broker that writes its whole state at every change needs some.
const ANSWER_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_where_they_end() {
        let long = publish("a/b", &[7; 300]);
        let bytes = [&[0x40, 2, 0, 1], &long[..]].concat();
        assert_eq!(split(&bytes), Ok(Some((0x40, &[0, 1][..], 4))));
        let (first, body, used) = split(&bytes[4..]).unwrap().unwrap();
        assert_eq!((first, used), (0x32, long.len()));
        assert_eq!(body.len(), 2 + 3 + 2 + 300);
        for len in 0..long.len() {
            assert_eq!(split(&long[..len]), Ok(None), "{len}");
        }
        assert!(split(&[0x30, 0x80, 0x80, 0x80, 0x80, 1]).is_err());
    }

    #[test]
    fn topic_and_payload_are_told_apart() {
        let found = topic_and_payload(&[0, 1, b'a', b'4', b'2']);
        assert_eq!(found, Ok((&b"a"[..], &b"42"[..])));
        assert!(topic_and_payload(&[0, 9, b'a']).is_err());
    }
}
