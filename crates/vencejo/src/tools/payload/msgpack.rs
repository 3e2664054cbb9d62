//! MessagePack as JSON.
//!
//! Owns: the reader. Does not own: what forms share (see `super`). Start reading at [`json`]. Invariants: bytes are text in
//! base64url; a time is text as RFC 3339 has it; any other extension is an object of its number and its bytes.

use jiff::Timestamp;

use super::{Input, Mismatch, Written, base64, double, quoted, single};

/// The whole payload as JSON.
pub(super) fn json(payload: &[u8]) -> Result<String, Mismatch> {
    let mut input = Input::new(payload);
    let json = value(&mut input)?;
    input.end(json)
}

fn value(input: &mut Input<'_>) -> Result<String, Mismatch> {
    let first = input.byte()?;
    match first {
        0x00..=0x7F => Ok(first.to_string()),
        0x80..=0x8F => object(input, u64::from(first & 0x0F)),
        0x90..=0x9F => list(input, u64::from(first & 0x0F)),
        0xA0..=0xBF => input.text(u64::from(first & 0x1F)),
        0xC0 => Ok("null".to_owned()),
        0xC1 => Err(Mismatch::Meaningless),
        0xC2 => Ok("false".to_owned()),
        0xC3 => Ok("true".to_owned()),
        0xC4..=0xC6 => {
            let length = length(input, first - 0xC4)?;
            input.bytes(length)
        }
        0xC7..=0xC9 => {
            let length = length(input, first - 0xC7)?;
            extension(input, length)
        }
        0xCA => Ok(single(f32::from_be_bytes(input.array()?))),
        0xCB => Ok(double(f64::from_be_bytes(input.array()?))),
        0xCC => Ok(input.byte()?.to_string()),
        0xCD => Ok(u16::from_be_bytes(input.array()?).to_string()),
        0xCE => Ok(u32::from_be_bytes(input.array()?).to_string()),
        0xCF => Ok(u64::from_be_bytes(input.array()?).to_string()),
        0xD0 => Ok(i8::from_be_bytes(input.array()?).to_string()),
        0xD1 => Ok(i16::from_be_bytes(input.array()?).to_string()),
        0xD2 => Ok(i32::from_be_bytes(input.array()?).to_string()),
        0xD3 => Ok(i64::from_be_bytes(input.array()?).to_string()),
        0xD4..=0xD8 => extension(input, 1 << (first - 0xD4)),
        0xD9..=0xDB => {
            let length = length(input, first - 0xD9)?;
            input.text(length)
        }
        0xDC | 0xDD => {
            let count = length(input, first - 0xDC + 1)?;
            list(input, count)
        }
        0xDE | 0xDF => {
            let count = length(input, first - 0xDE + 1)?;
            object(input, count)
        }
        0xE0..=0xFF => Ok((i16::from(first) - 256).to_string()),
    }
}

/// A length or a count, of one byte, two or four: `power` 0, 1 or 2.
fn length(input: &mut Input<'_>, power: u8) -> Result<u64, Mismatch> {
    match power {
        0 => input.byte().map(u64::from),
        1 => Ok(u64::from(u16::from_be_bytes(input.array()?))),
        _ => Ok(u64::from(u32::from_be_bytes(input.array()?))),
    }
}

fn list(input: &mut Input<'_>, count: u64) -> Result<String, Mismatch> {
    input.within(|input| {
        let mut list = Written::list();
        for _ in 0..count {
            list.push(&value(input)?);
        }
        Ok(list.end())
    })
}

fn object(input: &mut Input<'_>, count: u64) -> Result<String, Mismatch> {
    input.within(|input| {
        let mut object = Written::object();
        for _ in 0..count {
            let key = value(input)?;
            object.member(&key, &value(input)?);
        }
        Ok(object.end())
    })
}

fn extension(input: &mut Input<'_>, length: u64) -> Result<String, Mismatch> {
    let kind = i8::from_be_bytes(input.array()?);
    let data = input.take(length)?;
    if kind == TIME
        && let Some(time) = time(data)
    {
        return Ok(quoted(&time.to_string()));
    }
    let mut object = Written::object();
    object.member("\"ext\"", &kind.to_string());
    object.member("\"data\"", &base64(data));
    Ok(object.end())
}

/// Seconds of 32 bits; nanoseconds of 30 and seconds of 34 bits; or nanoseconds of 32 and seconds of 64 bits.
fn time(data: &[u8]) -> Option<Timestamp> {
    let (seconds, nanoseconds) = if let Ok(seconds) = data.try_into() {
        (i64::from(u32::from_be_bytes(seconds)), 0)
    } else if let Ok(both) = data.try_into() {
        let both = u64::from_be_bytes(both);
        let seconds = i64::try_from(both & 0x3_FFFF_FFFF).ok()?;
        (seconds, i32::try_from(both >> 34).ok()?)
    } else {
        let (nanoseconds, seconds) = data.split_first_chunk()?;
        let nanoseconds = i32::try_from(u32::from_be_bytes(*nanoseconds)).ok()?;
        (i64::from_be_bytes(seconds.try_into().ok()?), nanoseconds)
    };
    let is_within = (0..1_000_000_000).contains(&nanoseconds);
    Timestamp::new(seconds, nanoseconds)
        .ok()
        .filter(|_| is_within)
}

/// The extension that is a time.
const TIME: i8 = -1;
