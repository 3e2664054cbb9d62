//! The byte language of the rows: how bytes to send and bytes to expect are written.
//!
//! Owns: the grammar (`0C`, `'MQTT'`, `s'a/b'`, `( ... )`, `[ ... ]`, `61*300`, `??`, `..`, `$p`, `~`),
//! turning it into bytes, and matching received bytes against it.
//! Does not own: steps (see `steps`), packets (see `packet`).
//! Start reading at [`parse`]. Invariant: a text that parses encodes to the same bytes every time.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// The protocol version of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1, protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1, level 4.
    V311,
    /// MQTT 5.0, level 5.
    V5,
}

impl Version {
    /// Reads `3.1`, `3.1.1` or `5`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "3.1" => Ok(Self::V31),
            "3.1.1" => Ok(Self::V311),
            "5" => Ok(Self::V5),
            other => Err(format!("no such version: {other:?} (3.1, 3.1.1, 5)")),
        }
    }

    /// The name a row uses for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

/// Values that a row has bound, `$p` and the like.
pub(crate) type Variables = BTreeMap<String, Vec<u8>>;

/// One element of a byte text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Atom {
    /// These bytes.
    Literal(Vec<u8>),
    /// Any one byte (`??`).
    AnyByte,
    /// Anything up to the end of the block or packet (`..`).
    AnyRest,
    /// `$p`: two bytes when first seen, the same bytes afterwards. `$p*` takes the rest of the block.
    Variable {
        /// The name after `$`.
        name: String,
        /// Whether it takes everything up to the end of its block.
        takes_rest: bool,
    },
    /// `~`: an empty property list in MQTT 5.0, nothing before.
    NoProperties,
    /// `( ... )`: a Variable Byte Integer with the length, then the content.
    Sized(Vec<Self>),
    /// `[ ... ]`: a two byte length, then the content.
    Prefixed(Vec<Self>),
}

/// Reads a byte text.
pub(crate) fn parse(text: &str) -> Result<Vec<Atom>, String> {
    let mut chars = text.chars().peekable();
    let atoms = parse_until(&mut chars, None)?;
    Ok(atoms)
}

fn parse_until(chars: &mut Peekable<Chars<'_>>, end: Option<char>) -> Result<Vec<Atom>, String> {
    let mut atoms = Vec::new();
    loop {
        let Some(next) = chars.next() else {
            return match end {
                None => Ok(atoms),
                Some(end) => Err(format!("`{end}` is missing")),
            };
        };
        if Some(next) == end {
            return Ok(atoms);
        }
        match next {
            ' ' | '\t' => {}
            '(' => atoms.push(Atom::Sized(parse_until(chars, Some(')'))?)),
            '[' => atoms.push(Atom::Prefixed(parse_until(chars, Some(']'))?)),
            '~' => atoms.push(Atom::NoProperties),
            '$' => atoms.push(parse_variable(chars)?),
            '\'' => {
                let text = parse_quoted(chars)?;
                atoms.push(Atom::Literal(repeated(&text, chars)?));
            }
            's' if chars.next_if_eq(&'\'').is_some() => {
                let text = parse_quoted(chars)?;
                atoms.push(Atom::Prefixed(vec![Atom::Literal(text)]));
            }
            '?' if chars.next_if_eq(&'?').is_some() => atoms.push(Atom::AnyByte),
            '.' if chars.next_if_eq(&'.').is_some() => atoms.push(Atom::AnyRest),
            digit if digit.is_ascii_hexdigit() => {
                let bytes = parse_hex(digit, chars)?;
                atoms.push(Atom::Literal(repeated(&bytes, chars)?));
            }
            other => return Err(format!("`{other}` begins no byte, text or block")),
        }
    }
}

fn parse_variable(chars: &mut Peekable<Chars<'_>>) -> Result<Atom, String> {
    let mut name = String::new();
    while let Some(letter) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(letter);
    }
    if name.is_empty() {
        return Err("`$` without a name".to_owned());
    }
    let takes_rest = chars.next_if_eq(&'*').is_some();
    Ok(Atom::Variable { name, takes_rest })
}

fn parse_quoted(chars: &mut Peekable<Chars<'_>>) -> Result<Vec<u8>, String> {
    let mut text = String::new();
    for next in chars.by_ref() {
        if next == '\'' {
            return Ok(text.into_bytes());
        }
        text.push(next);
    }
    Err("a quote is not closed".to_owned())
}

fn parse_hex(first: char, chars: &mut Peekable<Chars<'_>>) -> Result<Vec<u8>, String> {
    let mut digits = String::from(first);
    while let Some(digit) = chars.next_if(char::is_ascii_hexdigit) {
        digits.push(digit);
    }
    if !digits.len().is_multiple_of(2) {
        return Err(format!("an odd number of hexadecimal digits: {digits}"));
    }
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = str::from_utf8(pair).map_err(|error| error.to_string())?;
            u8::from_str_radix(pair, 16).map_err(|error| error.to_string())
        })
        .collect()
}

/// Reads a `*300` after `bytes`, if there is one.
fn repeated(bytes: &[u8], chars: &mut Peekable<Chars<'_>>) -> Result<Vec<u8>, String> {
    if chars.next_if_eq(&'*').is_none() {
        return Ok(bytes.to_vec());
    }
    let mut count = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        count.push(digit);
    }
    let count: usize = count
        .parse()
        .map_err(|_| "`*` without a count".to_owned())?;
    Ok(bytes.repeat(count))
}

/// The bytes of `atoms`, for sending. Wildcards and unbound variables are errors.
pub(crate) fn encode(
    atoms: &[Atom],
    version: Version,
    variables: &Variables,
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for atom in atoms {
        match atom {
            Atom::Literal(literal) => bytes.extend_from_slice(literal),
            Atom::NoProperties if version == Version::V5 => bytes.push(0),
            Atom::NoProperties => {}
            Atom::Variable { name, .. } => {
                let value = variables.get(name);
                bytes.extend_from_slice(value.ok_or_else(|| format!("${name} is not bound"))?);
            }
            Atom::Sized(inner) => {
                let inner = encode(inner, version, variables)?;
                push_variable_byte_integer(&mut bytes, inner.len());
                bytes.extend(inner);
            }
            Atom::Prefixed(inner) => {
                let inner = encode(inner, version, variables)?;
                let length = u16::try_from(inner.len()).map_err(|_| "[ ] over 65,535 bytes")?;
                bytes.extend(length.to_be_bytes());
                bytes.extend(inner);
            }
            Atom::AnyByte | Atom::AnyRest => return Err("a wildcard cannot be sent".to_owned()),
        }
    }
    Ok(bytes)
}

/// Appends `value` as the standard's Variable Byte Integer, section 1.5.5.
pub(crate) fn push_variable_byte_integer(bytes: &mut Vec<u8>, mut value: usize) {
    loop {
        let digit = u8::try_from(value % 128).unwrap_or(0);
        value /= 128;
        if value == 0 {
            bytes.push(digit);
            return;
        }
        bytes.push(digit | 0x80);
    }
}

/// Reads a Variable Byte Integer at the front of `bytes`: its value and its width.
pub(crate) fn variable_byte_integer(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Whether `bytes` are exactly what `atoms` describe; binds variables seen for the first time.
pub(crate) fn matches(
    atoms: &[Atom],
    mut bytes: &[u8],
    version: Version,
    variables: &mut Variables,
) -> bool {
    for atom in atoms {
        let rest = match atom {
            Atom::Literal(literal) => bytes.strip_prefix(literal.as_slice()),
            Atom::AnyByte => bytes.get(1..),
            Atom::AnyRest => return true,
            Atom::NoProperties if version == Version::V5 => bytes.strip_prefix(&[0]),
            Atom::NoProperties => Some(bytes),
            Atom::Variable { name, takes_rest } => {
                match_variable(name, *takes_rest, bytes, variables)
            }
            Atom::Sized(inner) => variable_byte_integer(bytes).and_then(|(length, width)| {
                match_block(inner, bytes.get(width..)?, length, version, variables)
            }),
            Atom::Prefixed(inner) => bytes.split_first_chunk::<2>().and_then(|(length, rest)| {
                let length = usize::from(u16::from_be_bytes(*length));
                match_block(inner, rest, length, version, variables)
            }),
        };
        let Some(rest) = rest else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}

fn match_variable<'a>(
    name: &str,
    takes_rest: bool,
    bytes: &'a [u8],
    variables: &mut Variables,
) -> Option<&'a [u8]> {
    if let Some(bound) = variables.get(name) {
        return bytes.strip_prefix(bound.as_slice());
    }
    let width = if takes_rest { bytes.len() } else { 2 };
    let (value, rest) = bytes.split_at_checked(width)?;
    variables.insert(name.to_owned(), value.to_vec());
    Some(rest)
}

fn match_block<'a>(
    inner: &[Atom],
    bytes: &'a [u8],
    length: usize,
    version: Version,
    variables: &mut Variables,
) -> Option<&'a [u8]> {
    let (block, rest) = bytes.split_at_checked(length)?;
    matches(inner, block, version, variables).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        encode(&parse(text).unwrap(), Version::V5, &Variables::new()).unwrap()
    }

    fn accepts(text: &str, input: &[u8]) -> bool {
        matches(
            &parse(text).unwrap(),
            input,
            Version::V5,
            &mut Variables::new(),
        )
    }

    #[test]
    fn hexadecimal_digits_may_stand_together_or_apart() {
        assert_eq!(bytes("10 0C00 04"), [0x10, 0x0C, 0x00, 0x04]);
    }

    #[test]
    fn blocks_carry_their_own_length() {
        assert_eq!(
            bytes("( s'ab' () [ FF ] )"),
            [8, 0, 2, b'a', b'b', 0, 0, 1, 0xFF]
        );
        assert_eq!(bytes("( 61*200 )")[..2], [0xC8, 0x01]);
    }

    #[test]
    fn the_tilde_is_an_empty_property_list_in_version_5_only() {
        let atoms = parse("~").unwrap();
        assert_eq!(encode(&atoms, Version::V5, &Variables::new()), Ok(vec![0]));
        assert_eq!(encode(&atoms, Version::V311, &Variables::new()), Ok(vec![]));
    }

    #[test]
    fn wildcards_match_one_byte_or_the_rest_of_their_block() {
        assert!(accepts("20 ( ?? 00 .. )", &[0x20, 4, 1, 0, 9, 9]));
        assert!(!accepts("20 ( ?? 01 .. )", &[0x20, 4, 1, 0, 9, 9]));
        assert!(!accepts("20 ( ?? )", &[0x20, 1, 1, 5]));
    }

    #[test]
    fn a_variable_binds_first_and_compares_afterwards() {
        assert!(accepts("$p 00 $p", &[0, 7, 0, 0, 7]));
        assert!(!accepts("$p 00 $p", &[0, 7, 0, 0, 8]));
        assert!(accepts("[ $name* ]", &[0, 3, 1, 2, 3]));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("1").unwrap_err().contains("odd number"));
        assert!(parse("( 00").unwrap_err().contains("missing"));
        assert!(parse("'a").unwrap_err().contains("quote"));
        assert!(parse("xyz").unwrap_err().contains("begins no byte"));
        let wildcard = parse("??").unwrap();
        assert!(encode(&wildcard, Version::V5, &Variables::new()).is_err());
    }

    #[test]
    fn variable_byte_integers_read_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 268_435_455] {
            let mut encoded = Vec::new();
            push_variable_byte_integer(&mut encoded, value);
            assert_eq!(
                variable_byte_integer(&encoded),
                Some((value, encoded.len()))
            );
        }
    }
}
