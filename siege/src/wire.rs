//! The few packets of MQTT 5.0 that a siege needs, written by hand so that they cost next to nothing.
//!
//! Owns: their bytes, cutting a stream into packets. Does not own: who sends what when.
//! Start reading at [`connect`]. Invariant: what is written here is well-formed, unless its name says otherwise.

/// A packet of this first byte and body.
pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut packet = Vec::with_capacity(len + 5);
    packet.push(first);
    put_length(&mut packet, len);
    for part in parts {
        packet.extend_from_slice(part);
    }
    packet
}

/// A Remaining Length.
pub(crate) fn put_length(out: &mut Vec<u8>, mut len: usize) {
    loop {
        let low = u8::try_from(len & 0x7F).expect("invariant: seven bits");
        len >>= 7;
        out.push(if len > 0 { low | 0x80 } else { low });
        if len == 0 {
            break;
        }
    }
}

/// A string behind its length; what is too long is cut.
pub(crate) fn string(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut field = len.to_be_bytes().to_vec();
    field.extend_from_slice(text.get(..usize::from(len)).unwrap_or_default().as_bytes());
    field
}

/// CONNECT; a session that is kept lasts an hour.
pub(crate) fn connect(client_id: &str, is_clean: bool, is_kept: bool) -> Vec<u8> {
    let flags = if is_clean { 2 } else { 0 };
    let expiry: u32 = if is_kept { 3600 } else { 0 };
    let head = [&b"\x00\x04MQTT\x05"[..], &[flags, 0, 0, 5, 0x11]].concat();
    packet(0x10, &[&head, &expiry.to_be_bytes(), &string(client_id)])
}

/// SUBSCRIBE to all of `filters`.
pub(crate) fn subscribe(packet_id: u16, filters: &[String], qos: u8) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.push(0);
    for filter in filters {
        body.extend(string(filter));
        body.push(qos);
    }
    packet(0x82, &[&body])
}

/// PUBLISH; a Packet Identifier counts above QoS 0.
pub(crate) fn publish(
    out: &mut Vec<u8>,
    topic: &str,
    qos: u8,
    packet_id: u16,
    is_retained: bool,
    payload: &[u8],
) {
    let id_len = if qos > 0 { 2 } else { 0 };
    out.push(0x30 | qos << 1 | u8::from(is_retained));
    put_length(out, 2 + topic.len() + id_len + 1 + payload.len());
    out.extend(string(topic));
    if qos > 0 {
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    out.push(0);
    out.extend_from_slice(payload);
}

/// PUBACK of success.
pub(crate) fn puback(out: &mut Vec<u8>, packet_id: u16) {
    out.extend_from_slice(&[0x40, 2]);
    out.extend_from_slice(&packet_id.to_be_bytes());
}

/// DISCONNECT that ends the session, too.
pub(crate) const END_SESSION: &[u8] = &[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0];

/// What a PUBLISH says: its Packet Identifier above QoS 0, and its payload.
pub(crate) fn read_publish(first: u8, body: &[u8]) -> Option<(Option<u16>, &[u8])> {
    let topic_len = usize::from(number(body)?);
    let mut rest = body.get(2 + topic_len..)?;
    let mut packet_id = None;
    if first & 0x06 != 0 {
        packet_id = Some(number(rest)?);
        rest = rest.get(2..)?;
    }
    let (len, used) = length(rest)?;
    Some((packet_id, rest.get(used + len..)?))
}

/// The two bytes at the start.
pub(crate) fn number(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.first_chunk().copied()?))
}

/// The packet at the start of `bytes`: its first byte, its body and all its bytes.
pub(crate) fn next_packet(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let first = *bytes.first()?;
    let (len, used) = length(&bytes[1..])?;
    let body = bytes.get(1 + used..1 + used + len)?;
    Some((first, body, 1 + used + len))
}

/// A length, and how many bytes it takes.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut len = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        len |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((len, place + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        publish(&mut bytes, "a/b", 1, 7, false, &[9; 300]);
        puback(&mut bytes, 8);
        let (first, body, used) = next_packet(&bytes).expect("a packet");
        assert_eq!(read_publish(first, body), Some((Some(7), &[9; 300][..])));
        assert_eq!(next_packet(&bytes[used..]), Some((0x40, &[0, 8][..], 4)));
        assert_eq!(next_packet(&bytes[..used - 1]), None);
    }
}
