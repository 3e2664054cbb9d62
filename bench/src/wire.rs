//! MQTT packets as the generator writes and reads them: 3.1.1 and 5.0, and no more of them than it needs.
//!
//! Owns: bytes of packets. Does not own: when they are sent, sockets. Start reading at [`Publishing`] and [`next_frame`].
//! Invariant: nothing here is shared with the broker that is measured.

/// Which version is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

/// One packet that has arrived.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) first: u8,
    pub(crate) body: &'a [u8],
    /// Its bytes, the fixed header included.
    pub(crate) len: usize,
}

/// What stands in the payload of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) publisher: u32,
    /// Counted from 0 for each publisher.
    pub(crate) seq: u64,
    /// When it was due, in nanoseconds since the generator began.
    pub(crate) due: u64,
}

impl Stamp {
    /// Bytes of a stamp: no payload is shorter.
    pub(crate) const LEN: usize = 20;

    fn put(self, payload: &mut [u8]) {
        let fields = [
            &self.publisher.to_be_bytes()[..],
            &self.seq.to_be_bytes(),
            &self.due.to_be_bytes(),
        ]
        .concat();
        if let Some(place) = payload.get_mut(..Self::LEN) {
            place.copy_from_slice(&fields);
        }
    }

    /// What stands in `payload`, if it is one of ours.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (publisher, rest) = payload.split_first_chunk()?;
        let (seq, rest) = rest.split_first_chunk()?;
        let (due, _) = rest.split_first_chunk()?;
        Some(Self {
            publisher: u32::from_be_bytes(*publisher),
            seq: u64::from_be_bytes(*seq),
            due: u64::from_be_bytes(*due),
        })
    }
}

/// A PUBLISH to one topic, made once and copied for each message.
#[derive(Debug)]
pub(crate) struct Publishing {
    packet: Vec<u8>,
    packet_id_at: Option<usize>,
    payload_at: usize,
}

impl Publishing {
    pub(crate) fn new(
        version: Version,
        topic: &str,
        qos: u8,
        is_retained: bool,
        payload_len: usize,
    ) -> Self {
        let mut body = Vec::new();
        put_text(&mut body, topic);
        let packet_id_at = (qos > 0).then_some(body.len());
        if qos > 0 {
            body.extend_from_slice(&[0, 0]);
        }
        if version == Version::V5 {
            body.push(0);
        }
        let payload_at = body.len();
        body.resize(payload_at + payload_len.max(Stamp::LEN), b'.');
        let packet = framed(0x30 | qos << 1 | u8::from(is_retained), &body);
        let header_len = packet.len() - body.len();
        Self {
            packet,
            packet_id_at: packet_id_at.map(|at| at + header_len),
            payload_at: payload_at + header_len,
        }
    }

    /// Bytes of one.
    pub(crate) const fn len(&self) -> usize {
        self.packet.len()
    }

    /// Appends the next message.
    pub(crate) fn put(&self, packet_id: u16, stamp: Stamp, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.packet);
        let packet = out.get_mut(start..).unwrap_or_default();
        if let Some(place) = self.packet_id_at
            && let Some(place) = packet.get_mut(place..place + 2)
        {
            place.copy_from_slice(&packet_id.to_be_bytes());
        }
        stamp.put(packet.get_mut(self.payload_at..).unwrap_or_default());
    }
}

/// CONNECT; `keeps` asks for a Session that outlives the connection.
pub(crate) fn connect(version: Version, client_id: &str, keeps: bool, out: &mut Vec<u8>) {
    let mut body = b"\x00\x04MQTT".to_vec();
    body.push(if version == Version::V5 { 5 } else { 4 });
    body.push(if keeps { 0 } else { 2 });
    // Keep Alive of an hour: there are brokers that take no zero.
    body.extend_from_slice(&3600_u16.to_be_bytes());
    match version {
        Version::V311 => {}
        Version::V5 if keeps => body.extend_from_slice(&[5, 0x11, 0xFF, 0xFF, 0xFF, 0xFF]),
        Version::V5 => body.push(0),
    }
    put_text(&mut body, client_id);
    out.extend_from_slice(&framed(0x10, &body));
}

/// SUBSCRIBE to all of `filters`.
pub(crate) fn subscribe(version: Version, filters: &[String], qos: u8, out: &mut Vec<u8>) {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        put_text(&mut body, filter);
        body.push(qos);
    }
    out.extend_from_slice(&framed(0x82, &body));
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP of success.
pub(crate) fn acknowledge(first: u8, packet_id: u16, out: &mut Vec<u8>) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[first, 2, high, low]);
}

/// The packet at the front of `input`, if all of it is there.
pub(crate) fn next_frame(input: &[u8]) -> Option<Frame<'_>> {
    let (first, rest) = input.split_first()?;
    let mut body_len = 0;
    for at in 0..4 {
        let byte = *rest.get(at)?;
        body_len |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let body = rest.get(at + 1..at + 1 + body_len)?;
            let len = at + 2 + body_len;
            return Some(Frame {
                first: *first,
                body,
                len,
            });
        }
    }
    None
}

/// Packet Identifier (0 at QoS 0) and payload in the body of a PUBLISH.
pub(crate) fn split_publish(version: Version, first: u8, body: &[u8]) -> Option<(u16, &[u8])> {
    let (topic_len, rest) = body.split_first_chunk()?;
    let mut rest = rest.get(usize::from(u16::from_be_bytes(*topic_len))..)?;
    let mut packet_id = 0;
    if first & 0b110 != 0 {
        let (id, after) = rest.split_first_chunk()?;
        (packet_id, rest) = (u16::from_be_bytes(*id), after);
    }
    if version == Version::V5 {
        let (properties_len, after) = rest.split_first()?;
        rest = after.get(usize::from(*properties_len)..)?;
    }
    Some((packet_id, rest))
}

/// Packet Identifier in the body of an acknowledgement.
pub(crate) fn packet_id(body: &[u8]) -> Option<u16> {
    body.first_chunk().map(|id| u16::from_be_bytes(*id))
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    body.extend_from_slice(&len.to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let byte = u8::try_from(left & 0x7F).unwrap_or_default();
        left >>= 7;
        packet.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_read_as_it_was_written() {
        for version in [Version::V311, Version::V5] {
            for (qos, payload_len) in [(0, 20), (1, 64), (2, 1024)] {
                let publishing = Publishing::new(version, "a/b", qos, false, payload_len);
                let stamp = Stamp {
                    publisher: 7,
                    seq: 1 << 40,
                    due: 3,
                };
                let mut out = b"before".to_vec();
                publishing.put(513, stamp, &mut out);
                out.extend_from_slice(b"\x30");
                let frame = next_frame(&out[6..]).expect("it is whole");
                assert_eq!(frame.len, out.len() - 7);
                let (packet_id, payload) =
                    split_publish(version, frame.first, frame.body).expect("it is a PUBLISH");
                assert_eq!(packet_id, if qos > 0 { 513 } else { 0 });
                assert_eq!(payload.len(), payload_len);
                assert_eq!(Stamp::read(payload), Some(stamp));
            }
        }
    }

    #[test]
    fn packet_that_is_not_whole_is_none() {
        let mut out = Vec::new();
        Publishing::new(Version::V311, "t", 1, false, 200).put(
            1,
            Stamp {
                publisher: 0,
                seq: 0,
                due: 0,
            },
            &mut out,
        );
        for len in 0..out.len() {
            assert!(next_frame(&out[..len]).is_none());
        }
    }
}
