//! What `sub` prints for a message: payload only, `-v`, or a `-F` format as in mosquitto_sub's manual.
//!
//! Owns: the format language and its JSON. Does not own: standard output. Start reading at [`Format`].
//! Invariant: a [`Format`] that was parsed prints every message.

use std::io::{self, Write};

use client::ReceivedMessage;
use data_encoding::{HEXLOWER, HEXUPPER};
use jiff::ZonedDateTime;
use proto::PacketIdentifier;
use proto::packet::Property;

use super::complain;
use super::explore::shown::escaped;
use super::payload::Form;

/// How a message is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The payload; nothing for an empty one.
    Payload,
    /// Topic, blank, payload.
    Verbose,
    /// `-F`.
    Pieces(Vec<Piece>),
}

/// One piece of a `-F` format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    /// `%` and a letter, with its flags.
    Field(char, Width),
    /// `@` and a letter, for strftime.
    Time(char),
    /// `%j` or `%J` over several lines.
    Pretty(char),
    /// The payload in base64.
    Base64,
    /// The payload in a form of its own, over several lines or not.
    Decoded(Form, bool),
}

/// The flags between `%` and its letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Width {
    is_left_aligned: bool,
    is_zero_padded: bool,
    min: usize,
    max: Option<usize>,
    /// What stands between groups of `max` hexadecimal digits.
    separator: Option<char>,
}

impl Format {
    /// What `-F`, `-v` and `--pretty` say.
    pub(crate) fn of_flags(
        format: Option<&str>,
        is_verbose: bool,
        is_pretty: bool,
    ) -> Result<Self, String> {
        let format = match format {
            None if is_verbose => Self::Verbose,
            None => Self::Payload,
            Some(text) => match payload_named(text) {
                // Ours, and not mosquitto's, whose -F prints no topic but where it says so.
                Some(piece) if is_verbose => {
                    let topic = Piece::Field('t', Width::default());
                    Self::Pieces(vec![topic, Piece::Text(" ".to_owned()), piece])
                }
                Some(piece) => Self::Pieces(vec![piece]),
                None => Self::parse(text)?,
            },
        };
        Ok(if is_pretty { format.pretty() } else { format })
    }

    /// Reads a `-F` format of letters, or `json`.
    fn parse(text: &str) -> Result<Self, String> {
        if text == "json" {
            return Self::parse("%j");
        }
        let incomplete = || "Incomplete format specifier.".to_owned();
        let mut pieces = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(next) = chars.next() {
            match next {
                '%' => {
                    let (width, letter) = parse_field(&mut chars).ok_or_else(incomplete)?;
                    match letter {
                        '%' => push_text(&mut pieces, '%'),
                        letter if FIELDS.contains(letter) => {
                            pieces.push(Piece::Field(letter, width));
                        }
                        other => return Err(format!("Invalid format specifier '{other}'.")),
                    }
                }
                '@' => match chars.next().ok_or_else(incomplete)? {
                    '@' => push_text(&mut pieces, '@'),
                    letter if TIMES.contains(letter) => pieces.push(Piece::Time(letter)),
                    other => return Err(format!("Invalid format specifier '{other}'.")),
                },
                '\\' => {
                    let letter = chars.next().ok_or("Incomplete escape specifier.")?;
                    let text = match letter {
                        '\\' => '\\',
                        '0' => '\0',
                        'a' => '\x07',
                        'e' => '\x1B',
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'v' => '\x0B',
                        other => return Err(format!("Invalid escape specifier '{other}'.")),
                    };
                    push_text(&mut pieces, text);
                }
                other => push_text(&mut pieces, other),
            }
        }
        Ok(Self::Pieces(pieces))
    }

    /// The same, with JSON over several lines.
    fn pretty(self) -> Self {
        let Self::Pieces(pieces) = self else {
            return self;
        };
        let pretty = |piece| match piece {
            Piece::Field(letter @ ('j' | 'J'), _) => Piece::Pretty(letter),
            Piece::Decoded(form, _) => Piece::Decoded(form, true),
            other => other,
        };
        Self::Pieces(pieces.into_iter().map(pretty).collect())
    }

    /// Prints `message` as it came at `at`; `end` follows what is printed. What cannot be printed is said on standard error.
    pub(crate) fn print(
        &self,
        message: &ReceivedMessage,
        at: &ZonedDateTime,
        end: &str,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let mut faults = Vec::new();
        let printed = self.print_pieces(message, at, end, out, &mut faults);
        for fault in faults {
            complain(&fault);
        }
        printed
    }

    /// The same without an end, and what cannot be printed is said there.
    pub(crate) fn line(
        &self,
        message: &ReceivedMessage,
        at: &ZonedDateTime,
    ) -> io::Result<Vec<u8>> {
        let (mut line, mut faults) = (Vec::new(), Vec::new());
        self.print_pieces(message, at, "", &mut line, &mut faults)?;
        line.extend(faults.join(" ").into_bytes());
        Ok(line)
    }

    fn print_pieces(
        &self,
        message: &ReceivedMessage,
        at: &ZonedDateTime,
        end: &str,
        out: &mut impl Write,
        faults: &mut Vec<String>,
    ) -> io::Result<()> {
        match self {
            Self::Payload if message.payload.is_empty() => return Ok(()),
            Self::Payload => out.write_all(&message.payload)?,
            Self::Verbose if message.payload.is_empty() => write!(out, "{} (null)", message.topic)?,
            Self::Verbose => {
                write!(out, "{} ", message.topic)?;
                out.write_all(&message.payload)?;
            }
            Self::Pieces(pieces) => {
                for piece in pieces {
                    print_piece(piece, message, at, out, faults)?;
                }
            }
        }
        out.write_all(end.as_bytes())
    }
}

/// A format of payloads by its name.
fn payload_named(name: &str) -> Option<Piece> {
    match name {
        "hex" => Some(Piece::Field('x', Width::default())),
        "base64" => Some(Piece::Base64),
        name => Form::named(name).map(|form| Piece::Decoded(form, false)),
    }
}

fn parse_field(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<(Width, char)> {
    let mut width = Width::default();
    while let Some(flag) = chars.next_if(|next| matches!(next, '-' | '0')) {
        if flag == '-' {
            width.is_left_aligned = true;
        } else {
            width.is_zero_padded = true;
        }
    }
    width.min = parse_number(chars);
    if chars.next_if_eq(&'.').is_some() {
        width.max = Some(parse_number(chars));
    }
    let mut ahead = chars.clone();
    let separator = ahead.next().filter(|next| SEPARATORS.contains(*next));
    if separator.is_some() && matches!(ahead.next(), Some('x' | 'X')) {
        width.separator = separator;
        chars.next();
    }
    Some((width, chars.next()?))
}

fn parse_number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut number = 0_usize;
    while let Some(digit) = chars.peek().and_then(|next| next.to_digit(10)) {
        let digit = usize::try_from(digit).unwrap_or(0);
        // A width beyond this is a slip of the finger, not a wish.
        number = (number * 10 + digit).min(10_000);
        chars.next();
    }
    number
}

fn push_text(pieces: &mut Vec<Piece>, text: char) {
    if let Some(Piece::Text(last)) = pieces.last_mut() {
        last.push(text);
    } else {
        pieces.push(Piece::Text(text.to_string()));
    }
}

/// Sentences about what cannot be printed go to `faults`.
fn print_piece(
    piece: &Piece,
    message: &ReceivedMessage,
    at: &ZonedDateTime,
    out: &mut impl Write,
    faults: &mut Vec<String>,
) -> io::Result<()> {
    match piece {
        Piece::Text(text) => out.write_all(text.as_bytes()),
        Piece::Time('N') => write!(out, "{:09}", at.subsec_nanosecond()),
        Piece::Time(letter) => out.write_all(strftime(&format!("%{letter}"), at).as_bytes()),
        Piece::Pretty(letter) => {
            let json = json(message, at, *letter == 'J', faults);
            out.write_all(over_lines(&json).as_bytes())
        }
        Piece::Base64 => out.write_all(data_encoding::BASE64.encode(&message.payload).as_bytes()),
        Piece::Decoded(form, is_pretty) => match form.shown(message) {
            Ok(text) if *is_pretty && text.starts_with(['{', '[']) && is_json(&text) => {
                out.write_all(over_lines(&without_blanks(&text)).as_bytes())
            }
            Ok(text) => out.write_all(text.as_bytes()),
            Err(why) => {
                faults.push(format!(
                    "Error: {why} on topic {}.",
                    escaped(&message.topic)
                ));
                Ok(())
            }
        },
        Piece::Field(letter, width) => print_field(*letter, *width, message, at, out, faults),
    }
}

fn print_field(
    letter: char,
    width: Width,
    message: &ReceivedMessage,
    at: &ZonedDateTime,
    out: &mut impl Write,
    faults: &mut Vec<String>,
) -> io::Result<()> {
    let text = match letter {
        'j' | 'J' => return out.write_all(json(message, at, letter == 'J', faults).as_bytes()),
        'p' => return print_padded(&message.payload, width, out),
        'f' | 'd' => return print_float(letter, &message.payload, width, out, faults),
        'D' => {
            let data = message.properties().find_map(|property| match property {
                Property::CorrelationData(data) => Some(data.to_vec()),
                _ => None,
            });
            return out.write_all(&data.unwrap_or_default());
        }
        'x' => grouped(&HEXLOWER.encode(&message.payload), width),
        'X' => grouped(&HEXUPPER.encode(&message.payload), width),
        'I' => strftime("%Y-%m-%dT%H:%M:%S%z", at),
        'U' => format!(
            "{}.{:09}",
            at.timestamp().as_second(),
            at.subsec_nanosecond()
        ),
        'l' => message.payload.len().to_string(),
        'm' => message
            .packet_id
            .map_or(0, PacketIdentifier::get)
            .to_string(),
        // mosquitto pads neither.
        'q' => return write!(out, "{}", message.qos.level()),
        'r' => return write!(out, "{}", u8::from(message.retain)),
        't' => message.topic.clone(),
        _ => property_text(letter, message),
    };
    let is_cut = matches!(letter, 'C' | 'I' | 'R' | 't');
    let text = match width.max.filter(|_| is_cut) {
        Some(max) => text.chars().take(max).collect(),
        None => text,
    };
    let is_number = matches!(letter, 'A' | 'E' | 'F' | 'l' | 'm' | 'S' | 'x' | 'X');
    let is_zero_padded = width.is_zero_padded && is_number && !text.is_empty();
    print_padded(
        text.as_bytes(),
        Width {
            is_zero_padded,
            ..width
        },
        out,
    )
}

/// Digits in groups of a width.
fn grouped(digits: &str, width: Width) -> String {
    let (Some(separator), Some(size @ 1..)) = (width.separator, width.max) else {
        return digits.to_owned();
    };
    let mut grouped = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at % size == 0 {
            grouped.push(separator);
        }
        grouped.push(digit);
    }
    grouped
}

/// The payload as a number, its lowest byte first as most machines have it: `f` of four, `d` of eight.
fn print_float(
    letter: char,
    payload: &[u8],
    width: Width,
    out: &mut impl Write,
    faults: &mut Vec<String>,
) -> io::Result<()> {
    let (name, number) = match letter {
        'f' => {
            let bytes = payload.try_into().ok();
            (
                "float",
                bytes.map(|bytes| f64::from(f32::from_le_bytes(bytes))),
            )
        }
        _ => ("double", payload.try_into().ok().map(f64::from_le_bytes)),
    };
    let Some(number) = number else {
        faults.push(format!(
            "requested {name} printing, but non-{name} data received"
        ));
        return Ok(());
    };
    let (min, digits) = (width.min, width.max.unwrap_or(6));
    if width.is_zero_padded && !width.is_left_aligned && number.is_finite() {
        // The zeros stand behind the sign.
        return write!(out, "{number:0min$.digits$}");
    }
    let text = format!("{number:.digits$}").to_lowercase();
    let width = Width {
        is_zero_padded: false,
        ..width
    };
    print_padded(text.as_bytes(), width, out)
}

fn print_padded(bytes: &[u8], width: Width, out: &mut impl Write) -> io::Result<()> {
    let shown = String::from_utf8_lossy(bytes).chars().count();
    let missing = width.min.saturating_sub(shown);
    if width.is_left_aligned {
        out.write_all(bytes)?;
        return write!(out, "{:missing$}", "");
    }
    if width.is_zero_padded {
        write!(out, "{}", "0".repeat(missing))?;
    } else {
        write!(out, "{:missing$}", "")?;
    }
    out.write_all(bytes)
}

/// The text of a property letter, empty where the message has none.
fn property_text(letter: char, message: &ReceivedMessage) -> String {
    let texts: Vec<String> = message
        .properties()
        .filter_map(|property| match (letter, property) {
            ('A', Property::TopicAlias(number)) => Some(number.to_string()),
            ('C', Property::ContentType(text)) | ('R', Property::ResponseTopic(text)) => {
                Some(text.to_owned())
            }
            ('E', Property::MessageExpiryInterval(seconds)) => Some(seconds.to_string()),
            ('F', Property::PayloadFormatIndicator(number)) => Some(number.to_string()),
            ('P', Property::UserProperty(name, value)) => Some(format!("{name}:{value}")),
            ('S', Property::SubscriptionIdentifier(number)) => Some(number.to_string()),
            _ => None,
        })
        .collect();
    texts.join(" ")
}

/// mosquitto's JSON of a message; with `is_raw` the payload is JSON itself. Empty, with a sentence in
/// `faults`, if it is not.
fn json(
    message: &ReceivedMessage,
    at: &ZonedDateTime,
    is_raw: bool,
    faults: &mut Vec<String>,
) -> String {
    let payload = if message.payload.is_empty() {
        "null".to_owned()
    } else if is_raw {
        let text = std::str::from_utf8(&message.payload);
        if !text.is_ok_and(is_json) {
            faults.push(format!(
                "Error: Message payload is not valid JSON on topic {}.",
                escaped(&message.topic)
            ));
            return String::new();
        }
        without_blanks(&String::from_utf8_lossy(&message.payload))
    } else {
        quoted(&String::from_utf8_lossy(&message.payload))
    };
    let time = format!(
        "{}.{:06}Z{}",
        strftime("%Y-%m-%dT%H:%M:%S", at),
        at.subsec_nanosecond() / 1000,
        strftime("%z", at)
    );
    let mut text = format!(
        "{{\"tst\":{},\"topic\":{},\"qos\":{},\"retain\":{},\"payloadlen\":{}",
        quoted(&time),
        quoted(&message.topic),
        message.qos.level(),
        u8::from(message.retain),
        message.payload.len()
    );
    if let Some(packet_id) = message.packet_id {
        text.push_str(&format!(",\"mid\":{packet_id}"));
    }
    let properties = json_properties(message);
    if !properties.is_empty() {
        text.push_str(&format!(",\"properties\":{{{properties}}}"));
    }
    text.push_str(&format!(",\"payload\":{payload}}}"));
    text
}

fn json_properties(message: &ReceivedMessage) -> String {
    let mut users = Vec::new();
    let mut users_at = None;
    let mut members: Vec<String> = Vec::new();
    for property in message.properties() {
        let member = match property {
            Property::ContentType(text) => format!("\"content-type\":{}", quoted(text)),
            Property::CorrelationData(data) => {
                format!(
                    "\"correlation-data\":{}",
                    quoted(&String::from_utf8_lossy(data))
                )
            }
            Property::MessageExpiryInterval(seconds) => {
                format!("\"message-expiry-interval\":{seconds}")
            }
            Property::PayloadFormatIndicator(number) => {
                format!("\"payload-format-indicator\":{number}")
            }
            Property::ResponseTopic(text) => format!("\"response-topic\":{}", quoted(text)),
            Property::SubscriptionIdentifier(number) => {
                format!("\"subscription-identifier\":{number}")
            }
            Property::TopicAlias(number) => format!("\"topic-alias\":{number}"),
            Property::UserProperty(name, value) => {
                users_at.get_or_insert(members.len());
                users.push(format!("{}:{}", quoted(name), quoted(value)));
                continue;
            }
            _ => continue,
        };
        members.push(member);
    }
    if let Some(at) = users_at {
        members.insert(at, format!("\"user-properties\":{{{}}}", users.join(",")));
    }
    members.join(",")
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok()
}

/// Valid JSON without the blanks outside its strings; members keep their order.
fn without_blanks(json: &str) -> String {
    let mut is_in_string = false;
    let mut is_escaped = false;
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if is_in_string || !character.is_ascii_whitespace() {
            shown.push(character);
        }
        if character == '"' && !is_escaped {
            is_in_string = !is_in_string;
        }
        is_escaped = is_in_string && character == '\\' && !is_escaped;
    }
    shown
}

/// Valid JSON without blanks, as mosquitto prints it with `--pretty`: tabs, one member in each line, lists in one.
fn over_lines(json: &str) -> String {
    let mut shown = String::with_capacity(json.len() * 2);
    let mut open = Vec::new();
    let (mut is_in_string, mut is_escaped) = (false, false);
    let line = |shown: &mut String, open: &[char]| {
        shown.push('\n');
        shown.push_str(&"\t".repeat(open.len()));
    };
    for character in json.chars() {
        if is_in_string || character == '"' {
            is_in_string = character != '"' || is_escaped || !is_in_string;
            is_escaped = character == '\\' && !is_escaped;
            shown.push(character);
            continue;
        }
        match character {
            '{' => {
                open.push('{');
                shown.push('{');
                line(&mut shown, &open);
            }
            '}' => {
                open.pop();
                // An empty one has its indentation already.
                if shown.ends_with('\t') {
                    shown.pop();
                } else {
                    line(&mut shown, &open);
                }
                shown.push('}');
            }
            '[' => {
                open.push('[');
                shown.push('[');
            }
            ']' => {
                open.pop();
                shown.push(']');
            }
            ':' => shown.push_str(":\t"),
            ',' if open.last() == Some(&'[') => shown.push_str(", "),
            ',' => {
                shown.push(',');
                line(&mut shown, &open);
            }
            other => shown.push(other),
        }
    }
    shown
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Empty where the format asks for what this time cannot tell.
fn strftime(format: &str, at: &ZonedDateTime) -> String {
    jiff::fmt::strtime::format(format, at).unwrap_or_default()
}

/// Letters after `%`.
const FIELDS: &str = "ACDEFIJjdflmPpqRrStUxX";
/// What may stand before `x` and `X`.
const SEPARATORS: &str = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~ ";
/// Letters after `@`.
const TIMES: &str = "aAbBcCdDeFgGhHIjklmMnNpPrRsStTuUVwWxXyYzZ";

#[cfg(test)]
mod tests;
