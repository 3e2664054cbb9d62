//! Payloads in binary forms, as JSON: CBOR, MessagePack, Sparkplug B.
//!
//! Owns: [`Form`], which form a payload has where nobody says, what the forms share. Does not own: the forms (see `cbor`,
//! `msgpack`, `sparkplug`), where it is printed (see `format`). Start reading at [`Form::shown`]. Invariants: a payload that is
//! shown in a form is one of it from its first byte to its last; nothing is set aside by a length that it only claims.

mod cbor;
mod msgpack;
mod sparkplug;

use client::ReceivedMessage;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use proto::packet::Property;

/// How a payload is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// RFC 8949, in JSON as its section 6.1 has it.
    Cbor,
    MessagePack,
    /// The payload of Sparkplug B, a protobuf.
    Sparkplug,
    /// Text as it is, else what the topic, the Content Type or the bytes say, else hexadecimal.
    Auto,
}

/// Why a payload is not of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// It ends too early.
    Ends,
    /// Something follows its end.
    GoesOn,
    /// Values are within values, deeper than [`DEPTH_MAX`].
    TooDeep,
    /// These bytes mean nothing.
    Meaningless,
}

impl Form {
    /// The form with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "cbor" => Some(Self::Cbor),
            "msgpack" => Some(Self::MessagePack),
            "sparkplug" => Some(Self::Sparkplug),
            "auto" => Some(Self::Auto),
            _ => None,
        }
    }

    /// The payload in this form: JSON; of `auto` also text, or hexadecimal.
    /// # Errors
    /// A sentence, where it is not of this form.
    pub(super) fn shown(self, message: &ReceivedMessage) -> Result<String, String> {
        let payload = &message.payload;
        if payload.is_empty() {
            return Ok("null".to_owned());
        }
        let (name, read) = match self {
            // The states of hosts are JSON, and not protobuf.
            Self::Sparkplug if message.topic.starts_with("spBv1.0/STATE/") => {
                return text(payload).ok_or_else(|| "Message payload is not text".to_owned());
            }
            Self::Cbor => ("CBOR", cbor::json(payload)),
            Self::MessagePack => ("MessagePack", msgpack::json(payload)),
            Self::Sparkplug => ("Sparkplug B", sparkplug::json(payload)),
            Self::Auto => return Ok(guessed(message)),
        };
        read.map_err(|why| format!("Message payload is not valid {name} ({})", why.words()))
    }
}

impl Mismatch {
    const fn words(self) -> &'static str {
        match self {
            Self::Ends => "it ends within a value",
            Self::GoesOn => "more follows its end",
            Self::TooDeep => "too many values within values",
            Self::Meaningless => "it holds bytes that mean nothing",
        }
    }
}

/// What `auto` shows.
fn guessed(message: &ReceivedMessage) -> String {
    let payload = &message.payload;
    if let Some(text) = text(payload) {
        return text;
    }
    let content_type = message.properties().find_map(|property| match property {
        Property::ContentType(text) => Some(text.to_ascii_lowercase()),
        _ => None,
    });
    let content_type = content_type.unwrap_or_default();
    let said = match content_type.split(';').next().unwrap_or_default().trim() {
        _ if message.topic.starts_with("spBv1.0/") => sparkplug::json(payload).ok(),
        "application/cbor" => cbor::json(payload).ok(),
        "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => {
            msgpack::json(payload).ok()
        }
        _ => None,
    };
    // A number or a text of one byte is of every form: only what holds others is taken for one.
    let holds_others = |json: &String| json.starts_with(['{', '[']);
    let guess = || {
        let cbor = cbor::json(payload).ok().filter(holds_others);
        let msgpack = msgpack::json(payload).ok().filter(holds_others);
        match (cbor, msgpack) {
            (Some(json), None) | (None, Some(json)) => Some(json),
            _ => None,
        }
    };
    said.or_else(guess)
        .unwrap_or_else(|| HEXLOWER.encode(payload))
}

/// The payload, if it is text without control characters but tabs and ends of lines.
fn text(payload: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(payload).ok()?;
    let is_plain = |character: char| !character.is_control() || "\t\r\n".contains(character);
    text.chars().all(is_plain).then(|| text.to_owned())
}

/// What is left of a payload.
struct Input<'a> {
    rest: &'a [u8],
    /// How many values the next one is within.
    depth: usize,
}

impl<'a> Input<'a> {
    const fn new(payload: &'a [u8]) -> Self {
        Self {
            rest: payload,
            depth: 0,
        }
    }

    /// The next `count` bytes.
    fn take(&mut self, count: u64) -> Result<&'a [u8], Mismatch> {
        let count = usize::try_from(count).map_err(|_| Mismatch::Ends)?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Mismatch::Ends)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Mismatch> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Mismatch::Ends)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Mismatch> {
        self.array().map(|[byte]| byte)
    }

    /// The next `count` bytes, as text in quotation marks.
    fn text(&mut self, count: u64) -> Result<String, Mismatch> {
        let text = std::str::from_utf8(self.take(count)?).map_err(|_| Mismatch::Meaningless)?;
        Ok(quoted(text))
    }

    /// The next `count` bytes, in base64url.
    fn bytes(&mut self, count: u64) -> Result<String, Mismatch> {
        self.take(count).map(base64)
    }

    /// What `read` reads, within a value.
    fn within<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Mismatch>,
    ) -> Result<T, Mismatch> {
        if self.depth == DEPTH_MAX {
            return Err(Mismatch::TooDeep);
        }
        self.depth += 1;
        let read = read(self)?;
        self.depth -= 1;
        Ok(read)
    }

    /// `json`, if nothing follows it.
    fn end(&self, json: String) -> Result<String, Mismatch> {
        match self.rest {
            [] => Ok(json),
            _ => Err(Mismatch::GoesOn),
        }
    }
}

/// A list or an object that is being written.
struct Written {
    json: String,
    end: char,
}

impl Written {
    fn list() -> Self {
        Self {
            json: "[".to_owned(),
            end: ']',
        }
    }

    fn object() -> Self {
        Self {
            json: "{".to_owned(),
            end: '}',
        }
    }

    fn push(&mut self, json: &str) {
        if self.json.len() > 1 {
            self.json.push(',');
        }
        self.json.push_str(json);
    }

    /// A member. `key` is JSON of any kind.
    fn member(&mut self, key: &str, value: &str) {
        // A name in JSON is text: other keys are named by their own JSON.
        if key.starts_with('"') {
            self.push(&format!("{key}:{value}"));
        } else {
            self.push(&format!("{}:{value}", quoted(key)));
        }
    }

    fn end(mut self) -> String {
        self.json.push(self.end);
        self.json
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn base64(bytes: &[u8]) -> String {
    quoted(&BASE64URL_NOPAD.encode(bytes))
}

/// A number as short as it can be told from others, or `null` for those that JSON does not have.
fn double(number: f64) -> String {
    match number.is_finite() {
        true => format!("{number:?}"),
        false => "null".to_owned(),
    }
}

/// The same of one that has half the bits.
fn single(number: f32) -> String {
    match number.is_finite() {
        true => format!("{number:?}"),
        false => "null".to_owned(),
    }
}

/// How many values may be within one another.
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests;
