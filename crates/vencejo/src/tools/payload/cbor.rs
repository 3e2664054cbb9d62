//! CBOR (RFC 8949) as JSON, by the rules of its section 6.1.
//!
//! Owns: the reader. Does not own: what forms share (see `super`). Start reading at [`json`]. Invariants: a tag does not change
//! what it is put on, but for big numbers and the alphabets of bytes; what JSON cannot say is `null`.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXUPPER};

use super::{Input, Mismatch, Written, base64, double, quoted, single};

/// The whole payload as JSON.
pub(super) fn json(payload: &[u8]) -> Result<String, Mismatch> {
    let mut input = Input::new(payload);
    let json = value(&mut input, Tag::None)?;
    input.end(json)
}

/// What a tag asks of the bytes behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    None,
    /// 2: a number that is not negative. In JSON it is text, like bytes.
    Big,
    /// 3: a negative one, with a `~` before it.
    NegativeBig,
    /// 22.
    Base64,
    /// 23.
    Base16,
}

fn value(input: &mut Input<'_>, tag: Tag) -> Result<String, Mismatch> {
    let first = input.byte()?;
    let (kind, detail) = (first >> 5, first & 0x1F);
    match (kind, detail) {
        (2, STREAM) => bytes_in_pieces(input).map(|bytes| bytes_as(&bytes, tag)),
        (3, STREAM) => text_in_pieces(input),
        (4, STREAM) => input.within(|input| list(input, None)),
        (5, STREAM) => input.within(|input| object(input, None)),
        (7, _) => simple(input, detail),
        (_, STREAM) => Err(Mismatch::Meaningless),
        _ => {
            let number = number(input, detail)?;
            match kind {
                0 => Ok(number.to_string()),
                1 => Ok((-1 - i128::from(number)).to_string()),
                2 => input.take(number).map(|bytes| bytes_as(bytes, tag)),
                3 => input.text(number),
                4 => input.within(|input| list(input, Some(number))),
                5 => input.within(|input| object(input, Some(number))),
                _ => input.within(|input| value(input, tag_of(number))),
            }
        }
    }
}

/// The number that stands in the first byte or behind it.
fn number(input: &mut Input<'_>, detail: u8) -> Result<u64, Mismatch> {
    match detail {
        0..24 => Ok(u64::from(detail)),
        24 => input.byte().map(u64::from),
        25 => Ok(u64::from(u16::from_be_bytes(input.array()?))),
        26 => Ok(u64::from(u32::from_be_bytes(input.array()?))),
        27 => Ok(u64::from_be_bytes(input.array()?)),
        _ => Err(Mismatch::Meaningless),
    }
}

const fn tag_of(number: u64) -> Tag {
    match number {
        2 => Tag::Big,
        3 => Tag::NegativeBig,
        22 => Tag::Base64,
        23 => Tag::Base16,
        _ => Tag::None,
    }
}

fn bytes_as(bytes: &[u8], tag: Tag) -> String {
    match tag {
        Tag::None | Tag::Big => base64(bytes),
        Tag::NegativeBig => quoted(&format!("~{}", BASE64URL_NOPAD.encode(bytes))),
        Tag::Base64 => quoted(&BASE64.encode(bytes)),
        Tag::Base16 => quoted(&HEXUPPER.encode(bytes)),
    }
}

fn list(input: &mut Input<'_>, count: Option<u64>) -> Result<String, Mismatch> {
    let mut list = Written::list();
    let mut left = count;
    while is_there_more(input, &mut left) {
        list.push(&value(input, Tag::None)?);
    }
    Ok(list.end())
}

fn object(input: &mut Input<'_>, count: Option<u64>) -> Result<String, Mismatch> {
    let mut object = Written::object();
    let mut left = count;
    while is_there_more(input, &mut left) {
        let key = value(input, Tag::None)?;
        object.member(&key, &value(input, Tag::None)?);
    }
    Ok(object.end())
}

/// Whether another one comes: by what is `left` of a count, else until the byte that ends a stream, which is taken.
fn is_there_more(input: &mut Input<'_>, left: &mut Option<u64>) -> bool {
    match left {
        Some(0) => false,
        Some(left) => {
            *left -= 1;
            true
        }
        None => match input.rest.split_first() {
            Some((&BREAK, rest)) => {
                input.rest = rest;
                false
            }
            _ => true,
        },
    }
}

/// Pieces of bytes or text (their `kind`), until the byte that ends them.
fn pieces<'a>(input: &mut Input<'a>, kind: u8) -> Result<Vec<&'a [u8]>, Mismatch> {
    let mut pieces = Vec::new();
    loop {
        let first = input.byte()?;
        if first == BREAK {
            return Ok(pieces);
        }
        if first >> 5 != kind {
            return Err(Mismatch::Meaningless);
        }
        let length = number(input, first & 0x1F)?;
        pieces.push(input.take(length)?);
    }
}

fn bytes_in_pieces(input: &mut Input<'_>) -> Result<Vec<u8>, Mismatch> {
    Ok(pieces(input, 2)?.concat())
}

fn text_in_pieces(input: &mut Input<'_>) -> Result<String, Mismatch> {
    let mut text = String::new();
    for piece in pieces(input, 3)? {
        // Each is text by itself.
        text.push_str(std::str::from_utf8(piece).map_err(|_| Mismatch::Meaningless)?);
    }
    Ok(quoted(&text))
}

fn simple(input: &mut Input<'_>, detail: u8) -> Result<String, Mismatch> {
    match detail {
        20 => Ok("false".to_owned()),
        21 => Ok("true".to_owned()),
        0..24 => Ok("null".to_owned()),
        // Those below 32 have a form of their own.
        24 if input.byte()? >= 32 => Ok("null".to_owned()),
        25 => Ok(double(half(u16::from_be_bytes(input.array()?)))),
        26 => Ok(single(f32::from_be_bytes(input.array()?))),
        27 => Ok(double(f64::from_be_bytes(input.array()?))),
        _ => Err(Mismatch::Meaningless),
    }
}

/// A floating-point number of 16 bits. RFC 8949, appendix D.
fn half(bits: u16) -> f64 {
    let exponent = i32::from((bits >> 10) & 0x1F);
    let mantissa = f64::from(bits & 0x3FF);
    let number = match exponent {
        0 => mantissa * 2.0_f64.powi(-24),
        31 if mantissa > 0.0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (mantissa + 1024.0) * 2.0_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { number } else { -number }
}

/// In the first byte: so many as there are until [`BREAK`].
const STREAM: u8 = 31;
const BREAK: u8 = 0xFF;
