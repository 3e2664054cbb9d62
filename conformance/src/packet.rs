//! Received bytes as packets: where one ends, its properties, and how it is shown to a reader.
//!
//! Owns: the fixed header, cutting a property list into properties, annotated hexadecimal.
//! Does not own: the codec under test. This crate uses none of it, so that both cannot be wrong alike.
//! Start reading at [`take`]. Invariant: nothing here trusts a length beyond the bytes at hand.

use crate::bytes::variable_byte_integer;

/// Takes the first complete packet off the front of `inbox`; `None` if more bytes are needed.
///
/// # Errors
/// The Remaining Length is not a Variable Byte Integer.
pub(crate) fn take(inbox: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let Some(after_type) = inbox.get(1..) else {
        return Ok(None);
    };
    let Some((length, width)) = variable_byte_integer(after_type) else {
        if after_type.len() >= 4 {
            return Err(format!("a bad remaining length: {}", show(inbox)));
        }
        return Ok(None);
    };
    let end = 1 + width + length;
    if inbox.len() < end {
        return Ok(None);
    }
    let rest = inbox.split_off(end);
    Ok(Some(std::mem::replace(inbox, rest)))
}

/// What follows the fixed header.
pub(crate) fn body(packet: &[u8]) -> &[u8] {
    let after_type = packet.get(1..).unwrap_or_default();
    let width = variable_byte_integer(after_type).map_or(0, |(_, width)| width);
    after_type.get(width..).unwrap_or_default()
}

/// Splits a property list (length first) off the front of `bytes`: its properties and the rest.
pub(crate) fn properties(bytes: &[u8]) -> Option<(Vec<Property<'_>>, &[u8])> {
    let (length, width) = variable_byte_integer(bytes)?;
    let (mut list, rest) = bytes.get(width..)?.split_at_checked(length)?;
    let mut properties = Vec::new();
    while let Some((&identifier, value)) = list.split_first() {
        let (value, remaining) = value.split_at_checked(value_width(identifier, value)?)?;
        properties.push(Property { identifier, value });
        list = remaining;
    }
    Some((properties, rest))
}

/// One property as it stood on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Property<'a> {
    /// Its identifier, section 2.2.2.2.
    pub(crate) identifier: u8,
    /// Its encoded value.
    pub(crate) value: &'a [u8],
}

fn value_width(identifier: u8, value: &[u8]) -> Option<usize> {
    match identifier {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Some(1),
        0x13 | 0x21 | 0x22 | 0x23 => Some(2),
        0x02 | 0x11 | 0x18 | 0x27 => Some(4),
        0x0B => variable_byte_integer(value).map(|(_, width)| width),
        0x26 => {
            let key = prefixed_width(value)?;
            Some(key + prefixed_width(value.get(key..)?)?)
        }
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => prefixed_width(value),
        _ => None,
    }
}

fn prefixed_width(value: &[u8]) -> Option<usize> {
    let (length, _) = value.split_first_chunk::<2>()?;
    Some(2 + usize::from(u16::from_be_bytes(*length)))
}

/// The packet as a reader wants it: its name, its bytes in hexadecimal, its printable text.
pub(crate) fn show(packet: &[u8]) -> String {
    let Some(first) = packet.first() else {
        return "nothing".to_owned();
    };
    let name = NAMES.get(usize::from(first >> 4)).copied().unwrap_or("?");
    let shown = packet.get(..SHOWN_BYTES).unwrap_or(packet);
    let hex: Vec<String> = shown.iter().map(|byte| format!("{byte:02X}")).collect();
    let text: String = shown
        .iter()
        .map(|byte| {
            if byte.is_ascii_graphic() {
                char::from(*byte)
            } else {
                '.'
            }
        })
        .collect();
    let more = if shown.len() < packet.len() {
        " ..."
    } else {
        ""
    };
    format!(
        "{name} ({} bytes) {}{more}  |{text}|",
        packet.len(),
        hex.join(" ")
    )
}

const SHOWN_BYTES: usize = 64;

const NAMES: [&str; 16] = [
    "RESERVED 0",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_taken_only_when_it_is_complete() {
        let mut inbox = vec![0x20, 2, 0];
        assert_eq!(take(&mut inbox), Ok(None));
        inbox.extend([0, 0xD0, 0]);
        assert_eq!(take(&mut inbox), Ok(Some(vec![0x20, 2, 0, 0])));
        assert_eq!(take(&mut inbox), Ok(Some(vec![0xD0, 0])));
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_remaining_length_of_five_bytes_is_an_error() {
        assert!(take(&mut vec![0x20, 0x80, 0x80, 0x80, 0x80, 1]).is_err());
    }

    #[test]
    fn properties_are_cut_by_the_width_of_their_type() {
        let list = [9, 0x21, 0, 5, 0x12, 0, 1, b'x', 0x0B, 3, 0xAA];
        let (properties, rest) = properties(&list).unwrap();
        assert_eq!(properties.len(), 3);
        assert_eq!(
            properties[2],
            Property {
                identifier: 0x0B,
                value: &[3]
            }
        );
        assert_eq!(rest, [0xAA]);
    }
}
