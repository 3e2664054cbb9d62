//! Bytes to fields and back: integers, UTF-8 Encoded Strings, Binary Data (section 1.5).
//!
//! Owns: [`Reader`] (never reads past its slice) and the `put_*` writers.
//! Does not own: which field comes when. Start reading at [`Reader`].
//! Invariant: a failed read is a [`Malformed`], never a panic.

use super::{EncodeError, Malformed};

/// Largest value of a Variable Byte Integer, and so of a Remaining Length.
pub(crate) const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// A cursor over one packet's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(Malformed::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        let (first, tail) = self.rest.split_first().ok_or(Malformed::Truncated)?;
        self.rest = tail;
        Ok(*first)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = tail;
        Ok(u16::from_be_bytes(*head))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = tail;
        Ok(u32::from_be_bytes(*head))
    }

    pub(crate) fn variable_byte_integer(&mut self) -> Result<u32, Malformed> {
        match read_variable_byte_integer(self.rest)? {
            Some((value, used)) => {
                self.take(used)?;
                Ok(value)
            }
            None => Err(Malformed::Truncated),
        }
    }

    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, Malformed> {
        text(self.binary()?)
    }
}

/// The text of a UTF-8 Encoded String.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    // [MQTT-1.5.4-1] [v3.1.1 MQTT-1.5.3-1] Well-formed UTF-8, no surrogates; std checks both.
    // [MQTT-1.5.4-3] [v3.1.1 MQTT-1.5.3-3] A byte order mark is a character like any other.
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Utf8)?;
    // [MQTT-1.5.4-2] [v3.1.1 MQTT-1.5.3-2] No U+0000, so none in a Topic Name or Topic Filter:
    // [MQTT-4.7.3-2] [v3.1.1 MQTT-4.7.3-2]
    if text.as_bytes().contains(&0) {
        return Err(Malformed::NullCharacter);
    }
    Ok(text)
}

/// Reads a Variable Byte Integer from the front of `input`: value and bytes used, or `None` if more
/// bytes are needed.
pub(crate) fn read_variable_byte_integer(input: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0_u32;
    for (index, byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1] The fewest bytes that hold the value.
            if index > 0 && *byte == 0 {
                return Err(Malformed::VariableByteIntegerNotMinimal);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if input.len() >= 4 {
        return Err(Malformed::VariableByteIntegerTooLong);
    }
    Ok(None)
}

/// How many bytes `value` takes as a Variable Byte Integer.
pub(crate) const fn variable_byte_integer_len(value: u32) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[allow(clippy::cast_possible_truncation, reason = "masked to seven bits")]
pub(crate) fn put_variable_byte_integer(out: &mut Vec<u8>, mut value: u32) {
    debug_assert!(value <= VARIABLE_BYTE_INTEGER_MAX);
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// [MQTT-4.7.3-3] [v3.1.1 MQTT-4.7.3-3] No string or binary field holds more than 65,535 bytes.
pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
    let len = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong)?;
    put_u16(out, len);
    out.extend_from_slice(bytes);
    Ok(())
}

pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) -> Result<(), EncodeError> {
    put_binary(out, text.as_bytes())
}

/// Writes a whole packet: first byte, Remaining Length, and the body that `body` writes.
pub(crate) fn put_packet(
    out: &mut Vec<u8>,
    first_byte: u8,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(first_byte);
    put_prefixed(out, body).inspect_err(|_| out.truncate(start))
}

/// Writes what `inner` writes, prefixed by its length as a Variable Byte Integer.
pub(crate) fn put_prefixed(
    out: &mut Vec<u8>,
    inner: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(0);
    inner(out)?;
    let len = u32::try_from(out.len() - start - 1)
        .ok()
        .filter(|len| *len <= VARIABLE_BYTE_INTEGER_MAX)
        .ok_or(EncodeError::PacketTooLarge)?;
    // One byte is there; of a longer length the rest makes room for itself.
    let more = variable_byte_integer_len(len) - 1;
    if more > 0 {
        let end = out.len();
        out.resize(end + more, 0);
        out.copy_within(start + 1..end, start + 1 + more);
    }
    let mut left = len;
    for byte in out.iter_mut().skip(start).take(more + 1) {
        *byte = (left & 0x7F) as u8;
        left >>= 7;
        if left > 0 {
            *byte |= 0x80;
        }
    }
    Ok(())
}
