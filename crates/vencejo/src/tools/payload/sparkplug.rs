//! The payload of Sparkplug B 3.0 as JSON: a protobuf (version 2), read by the tables of its messages.
//!
//! Owns: the wire form. Does not own: the messages (see `tables`), what forms share (see `super`), what an alias stands for,
//! which only the birth message says. Start reading at [`json`]. Invariants: fields that the tables do not know are left out; a number is a
//! signed one only where its message says so.

mod tables;

use super::{Input, Mismatch, Written, base64, double, quoted, single};
use tables::{Field, Holds, Many, PAYLOAD, Schema, Shape, TYPES};

/// The whole payload as JSON.
pub(super) fn json(payload: &[u8]) -> Result<String, Mismatch> {
    let mut input = Input::new(payload);
    let json = message(&mut input, &PAYLOAD, &[])?;
    input.end(json)
}

/// A field as it came.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Number(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
}

/// The rest of `input` as a message. `types` are those that the message around it names.
fn message(input: &mut Input<'_>, schema: &Schema, types: &[u64]) -> Result<String, Mismatch> {
    let mut found: Vec<(&Field, Raw<'_>)> = Vec::new();
    while !input.rest.is_empty() {
        let (number, raw) = field(input)?;
        let known = schema.fields.iter().find(|field| field.0 == number);
        found.extend(known.map(|field| (field, raw)));
    }
    let own = types_in(&found)?;
    let types = if own.is_empty() { types } else { &own };
    let depth = input.depth;
    let shown = |field: &Field, raw: Raw<'_>, at: usize| shown(field, raw, types, at, depth);
    // Before members are shown: whatever is within a message is shown once, or each level doubles the work.
    if schema.shape == Shape::Pairs {
        return pairs(schema, &found, |field, raw| shown(field, raw, 0));
    }
    let mut members: Vec<(&str, String)> = Vec::new();
    for field in schema.fields {
        let mut of_it = found.iter().filter(|(other, _)| other.0 == field.0);
        let name = field.1;
        if members.iter().any(|(other, _)| *other == name) {
            continue;
        }
        if field.3 == Many::One {
            let Some((_, raw)) = of_it.next_back() else {
                continue;
            };
            match (field.2, raw) {
                (Holds::IsNull, Raw::Number(0)) => {}
                (Holds::IsNull, _) => members.push((name, "null".to_owned())),
                _ => members.push((name, shown(field, *raw, 0)?)),
            }
            continue;
        }
        let mut list = Written::list();
        let mut count = 0;
        for (_, raw) in of_it {
            for json in unpacked(field, *raw)? {
                list.push(&shown(field, json, count)?);
                count += 1;
            }
        }
        // Rows and lists of names say something where they are empty, too.
        if count > 0 || schema.shape != Shape::Object {
            members.push((name, list.end()));
        }
    }
    Ok(match schema.shape {
        Shape::Object | Shape::Pairs => {
            let mut object = Written::object();
            for (name, json) in members {
                object.member(&quoted(name), &json);
            }
            object.end()
        }
        Shape::Value | Shape::List => {
            let first = members.into_iter().next();
            first.map_or_else(|| "null".to_owned(), |(_, json)| json)
        }
    })
}

/// The types that a message names.
fn types_in(found: &[(&Field, Raw<'_>)]) -> Result<Vec<u64>, Mismatch> {
    let mut types = Vec::new();
    for (field, raw) in found {
        if matches!(field.2, Holds::Type) {
            for raw in unpacked(field, *raw)? {
                match raw {
                    Raw::Number(number) => types.push(number),
                    _ => return Err(Mismatch::Meaningless),
                }
            }
        }
    }
    Ok(types)
}

/// Names of the first field, with what the second one has at the same place.
fn pairs(
    schema: &Schema,
    found: &[(&Field, Raw<'_>)],
    shown: impl Fn(&Field, Raw<'_>) -> Result<String, Mismatch>,
) -> Result<String, Mismatch> {
    let of = |at: usize| {
        let number = schema.fields.get(at).map(|field| field.0);
        let fields = found.iter();
        fields.filter(move |(field, _)| Some(field.0) == number)
    };
    if of(0).count() != of(1).count() {
        return Err(Mismatch::Meaningless);
    }
    let mut object = Written::object();
    for ((key, name), (value, raw)) in of(0).zip(of(1)) {
        object.member(&shown(key, *name)?, &shown(value, *raw)?);
    }
    Ok(object.end())
}

/// Many numbers may come as one field of bytes.
fn unpacked<'a>(field: &Field, raw: Raw<'a>) -> Result<Vec<Raw<'a>>, Mismatch> {
    match (raw, field.2, field.3) {
        (Raw::Bytes(bytes), Holds::Type | Holds::Number, Many::List) => {
            let mut input = Input::new(bytes);
            let mut numbers = Vec::new();
            while !input.rest.is_empty() {
                numbers.push(Raw::Number(varint(&mut input)?));
            }
            Ok(numbers)
        }
        _ => Ok(vec![raw]),
    }
}

/// A field as JSON, the one `at` this place of a list.
fn shown(
    field: &Field,
    raw: Raw<'_>,
    types: &[u64],
    at: usize,
    depth: usize,
) -> Result<String, Mismatch> {
    match (field.2, raw) {
        (Holds::Number, Raw::Number(number)) => Ok(number.to_string()),
        (Holds::Typed, Raw::Number(number)) => Ok(signed(number, types.first().copied())),
        (Holds::Type, Raw::Number(number)) => {
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            Ok(TYPES
                .get(at)
                .map_or_else(|| number.to_string(), |name| quoted(name)))
        }
        (Holds::Bool | Holds::IsNull, Raw::Number(number)) => Ok((number != 0).to_string()),
        (Holds::Float, Raw::Fixed32(bytes)) => Ok(single(f32::from_le_bytes(bytes))),
        (Holds::Double, Raw::Fixed64(bytes)) => Ok(double(f64::from_le_bytes(bytes))),
        (Holds::Text, Raw::Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Mismatch::Meaningless)?;
            Ok(quoted(text))
        }
        (Holds::Bytes, Raw::Bytes(bytes)) => Ok(base64(bytes)),
        (Holds::Message(schema), Raw::Bytes(bytes)) => {
            let mut input = Input { rest: bytes, depth };
            // The types of a set of data are those of its columns.
            let types = match schema.shape {
                Shape::Value => types.get(at..=at).unwrap_or_default(),
                Shape::List => types,
                Shape::Object | Shape::Pairs => &[],
            };
            input.within(|input| message(input, schema, types))
        }
        _ => Err(Mismatch::Meaningless),
    }
}

/// A number of a type, which says how many of its bits count and whether one is the sign.
fn signed(number: u64, kind: Option<u64>) -> String {
    let low = number.to_le_bytes();
    let [a, b, c, d, ..] = low;
    match kind {
        Some(1) => i8::from_le_bytes([a]).to_string(),
        Some(2) => i16::from_le_bytes([a, b]).to_string(),
        Some(3) => i32::from_le_bytes([a, b, c, d]).to_string(),
        Some(4) => i64::from_le_bytes(low).to_string(),
        _ => number.to_string(),
    }
}

/// The next field: its number, and what it holds.
fn field<'a>(input: &mut Input<'a>) -> Result<(u64, Raw<'a>), Mismatch> {
    let key = varint(input)?;
    let raw = match key & 7 {
        0 => Raw::Number(varint(input)?),
        1 => Raw::Fixed64(input.array()?),
        2 => {
            let length = varint(input)?;
            Raw::Bytes(input.take(length)?)
        }
        5 => Raw::Fixed32(input.array()?),
        _ => return Err(Mismatch::Meaningless),
    };
    match key >> 3 {
        0 => Err(Mismatch::Meaningless),
        number => Ok((number, raw)),
    }
}

/// Seven bits in each byte, the lowest first.
fn varint(input: &mut Input<'_>) -> Result<u64, Mismatch> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = input.byte()?;
        let bits = u64::from(byte & 0x7F);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Mismatch::Meaningless)
}
