//! What a row expects to receive next, and whether a packet is that.
//!
//! Owns: the packet words (`connack 0x84`, `publish qos1 'a' $p 'x'`, raw bytes) and their check.
//! Does not own: reading from the socket, closing (see `runner`).
//! Start reading at [`Expectation::check`]. Invariant: what the standard leaves open (order of
//! properties, short or long form, reason strings) never fails a row.

use crate::bytes::{self, Atom, Variables, Version};
use crate::packet::{self, Property};

/// One acceptable thing to happen next on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Expectation {
    /// The connection ends, with no packet before it.
    Closed,
    /// CONNACK 81 or DISCONNECT 81, whichever is due in MQTT 5.0; a close without a word in 3.x.
    Refused(Vec<u8>),
    /// CONNACK with this code; the connection must end if it is not zero.
    Connack(ExpectedConnack),
    /// DISCONNECT with this code; the connection must end.
    Disconnect(u8),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP (by first byte), short or long; without a code: success.
    Acknowledgement {
        first_byte: u8,
        packet_identifier: Vec<Atom>,
        code: Option<u8>,
    },
    /// SUBACK or UNSUBACK (by first byte) with these codes.
    SubscribeAcknowledgement {
        first_byte: u8,
        packet_identifier: Vec<Atom>,
        codes: Vec<Atom>,
    },
    /// A PUBLISH.
    Publish(Box<ExpectedPublish>),
    /// A packet with exactly these bytes.
    Raw(Vec<Atom>),
}

/// A CONNACK as the row wants it.
#[derive(Clone, Debug)]
pub(crate) struct ExpectedConnack {
    session_present: Option<bool>,
    code: u8,
    has: Vec<u8>,
    lacks: Vec<u8>,
}

/// A PUBLISH as the row wants it.
#[derive(Clone, Debug)]
pub(crate) struct ExpectedPublish {
    first_byte: u8,
    topic: Vec<Atom>,
    packet_identifier: Option<Vec<Atom>>,
    properties: Option<Vec<Atom>>,
    payload: Vec<Atom>,
}

/// What the check needs to know about the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// The version the connection speaks.
    pub(crate) version: Version,
    /// Whether a CONNACK with code 0 was seen.
    pub(crate) accepted: bool,
    /// Whether a refusal may come with another code or without a word.
    pub(crate) is_lenient: bool,
}

impl Expectation {
    /// Reads one expectation from the tokens of a step.
    pub(crate) fn parse(tokens: &[String]) -> Result<Self, String> {
        let (word, rest) = tokens.split_first().ok_or("nothing is expected")?;
        match word.as_str() {
            "closed" => none_left(rest).map(|()| Self::Closed),
            "refused" => codes(rest).map(Self::Refused),
            "connack" => ExpectedConnack::parse(rest).map(Self::Connack),
            "disconnect" => Ok(Self::Disconnect(one_code(rest)?)),
            "pingresp" => none_left(rest).map(|()| Self::Raw(vec![Atom::Literal(vec![0xD0, 0])])),
            "puback" => Self::parse_acknowledgement(0x40, rest),
            "pubrec" => Self::parse_acknowledgement(0x50, rest),
            "pubrel" => Self::parse_acknowledgement(0x62, rest),
            "pubcomp" => Self::parse_acknowledgement(0x70, rest),
            "suback" => Self::parse_subscribe_acknowledgement(0x90, rest),
            "unsuback" => Self::parse_subscribe_acknowledgement(0xB0, rest),
            "publish" => {
                ExpectedPublish::parse(rest).map(|publish| Self::Publish(Box::new(publish)))
            }
            _ => Ok(Self::Raw(bytes::parse(&tokens.join(" "))?)),
        }
    }

    fn parse_acknowledgement(first_byte: u8, tokens: &[String]) -> Result<Self, String> {
        let (packet_identifier, rest) = tokens.split_first().ok_or("no packet identifier")?;
        let packet_identifier = bytes::parse(packet_identifier)?;
        let code = if rest.is_empty() {
            None
        } else {
            Some(one_code(rest)?)
        };
        Ok(Self::Acknowledgement {
            first_byte,
            packet_identifier,
            code,
        })
    }

    fn parse_subscribe_acknowledgement(first_byte: u8, tokens: &[String]) -> Result<Self, String> {
        let (packet_identifier, rest) = tokens.split_first().ok_or("no packet identifier")?;
        let packet_identifier = bytes::parse(packet_identifier)?;
        let codes = bytes::parse(&rest.join(" "))?;
        Ok(Self::SubscribeAcknowledgement {
            first_byte,
            packet_identifier,
            codes,
        })
    }

    /// Whether the connection must end after the packet that meets this.
    pub(crate) const fn ends_connection(&self, situation: Situation) -> bool {
        match self {
            Self::Disconnect(_) => true,
            Self::Connack(connack) => connack.code != 0,
            Self::Refused(_) => matches!(situation.version, Version::V5),
            _ => false,
        }
    }

    /// Whether the end of the connection itself meets this.
    pub(crate) fn is_met_by_close(&self, situation: Situation) -> bool {
        match self {
            Self::Closed => true,
            Self::Refused(_) => situation.version != Version::V5 || situation.is_lenient,
            _ => false,
        }
    }

    /// Whether `packet` is what was expected; binds variables when it is.
    pub(crate) fn check(
        &self,
        packet: &[u8],
        situation: Situation,
        variables: &mut Variables,
    ) -> Result<(), String> {
        let version = situation.version;
        let mut trial = variables.clone();
        match self {
            Self::Closed => return Err("a packet came instead of the end".to_owned()),
            Self::Refused(codes) => check_refused(codes, packet, situation)?,
            Self::Connack(connack) => connack.check(packet, version)?,
            Self::Disconnect(code) => check_disconnect(*code, packet, version)?,
            Self::Acknowledgement {
                first_byte,
                packet_identifier,
                code,
            } => {
                first_byte_is(packet, *first_byte)?;
                check_acknowledgement(packet_identifier, *code, packet, version, &mut trial)?;
            }
            Self::SubscribeAcknowledgement {
                first_byte,
                packet_identifier,
                codes,
            } => {
                first_byte_is(packet, *first_byte)?;
                let (identifier, rest) = split(packet::body(packet), 2)?;
                let codes_due = version == Version::V5 || *first_byte == 0x90;
                let rest = if version == Version::V5 {
                    skip_properties(rest)?
                } else {
                    rest
                };
                must_match(
                    "packet identifier",
                    packet_identifier,
                    identifier,
                    version,
                    &mut trial,
                )?;
                let codes = if codes_due { codes.as_slice() } else { &[] };
                must_match("codes", codes, rest, version, &mut trial)?;
            }
            Self::Publish(publish) => publish.check(packet, version, &mut trial)?,
            Self::Raw(atoms) => must_match("bytes", atoms, packet, version, &mut trial)?,
        }
        *variables = trial;
        Ok(())
    }
}

impl ExpectedConnack {
    /// A CONNACK whose properties do not matter.
    pub(crate) const fn new(session_present: Option<bool>, code: u8) -> Self {
        Self {
            session_present,
            code,
            has: Vec::new(),
            lacks: Vec::new(),
        }
    }

    /// `[present|new] CODE [has ID]... [lacks ID]...`
    fn parse(mut tokens: &[String]) -> Result<Self, String> {
        let mut connack = Self::new(None, 0);
        if let Some((word, rest)) = tokens.split_first()
            && matches!(word.as_str(), "present" | "new")
        {
            connack.session_present = Some(word == "present");
            tokens = rest;
        }
        let (code, rest) = tokens.split_at_checked(1).ok_or("no code")?;
        connack.code = one_code(code)?;
        for pair in rest.chunks(2) {
            match pair {
                [word, identifier] if word == "has" => {
                    connack
                        .has
                        .push(one_code(std::slice::from_ref(identifier))?);
                }
                [word, identifier] if word == "lacks" => {
                    connack
                        .lacks
                        .push(one_code(std::slice::from_ref(identifier))?);
                }
                _ => return Err("`has ID` or `lacks ID` is due".to_owned()),
            }
        }
        Ok(connack)
    }

    fn check(&self, packet: &[u8], version: Version) -> Result<(), String> {
        first_byte_is(packet, 0x20)?;
        let (head, rest) = split(packet::body(packet), 2)?;
        if head[1] != self.code {
            return Err(format!("the code is {:02X}", head[1]));
        }
        if head[0] > 1 || (self.code != 0 && head[0] != 0) {
            return Err(format!("the flags are {:02X}", head[0]));
        }
        if self
            .session_present
            .is_some_and(|present| present != (head[0] == 1))
        {
            return Err(format!("session present is {}", head[0]));
        }
        // A server may answer an unknown version in the short form of 3.x.
        if rest.is_empty() && (version != Version::V5 || self.code == 1) {
            return Ok(());
        }
        if version != Version::V5 {
            return Err("bytes after the CONNACK's end".to_owned());
        }
        let (properties, rest) = packet::properties(rest).ok_or("bad properties")?;
        if !rest.is_empty() {
            return Err("bytes after the CONNACK's end".to_owned());
        }
        let is_there = |id: &u8| properties.iter().any(|property| property.identifier == *id);
        if let Some(id) = self.has.iter().find(|id| !is_there(id)) {
            return Err(format!("property {id:02X} is missing"));
        }
        if let Some(id) = self.lacks.iter().find(|id| is_there(id)) {
            return Err(format!("property {id:02X} is there"));
        }
        Ok(())
    }
}

impl ExpectedPublish {
    fn parse(mut tokens: &[String]) -> Result<Self, String> {
        let mut first_byte = 0x30;
        while let Some((word, rest)) = tokens.split_first() {
            first_byte |= match word.as_str() {
                "dup" => 0x08,
                "qos1" => 0x02,
                "qos2" => 0x04,
                "retain" => 0x01,
                _ => break,
            };
            tokens = rest;
        }
        let (topic, mut rest) = tokens.split_first().ok_or("no topic name")?;
        let mut packet_identifier = None;
        if first_byte & 0x06 != 0 {
            let (identifier, after) = rest.split_first().ok_or("no packet identifier")?;
            packet_identifier = Some(bytes::parse(identifier)?);
            rest = after;
        }
        let mut properties = None;
        if let Some((token, after)) = rest.split_first()
            && token.starts_with('(')
        {
            properties = Some(bytes::parse(token)?);
            rest = after;
        }
        let payload = bytes::parse(&rest.join(" "))?;
        let mut topic = bytes::parse(topic)?;
        if let [Atom::Prefixed(inner)] = topic.as_slice() {
            topic = inner.clone();
        }
        Ok(Self {
            first_byte,
            topic,
            packet_identifier,
            properties,
            payload,
        })
    }

    fn check(
        &self,
        packet: &[u8],
        version: Version,
        variables: &mut Variables,
    ) -> Result<(), String> {
        first_byte_is(packet, self.first_byte)?;
        let (length, rest) = split(packet::body(packet), 2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (topic, mut rest) = split(rest, length)?;
        must_match("topic name", &self.topic, topic, version, variables)?;
        if let Some(expected) = &self.packet_identifier {
            let (identifier, after) = split(rest, 2)?;
            must_match(
                "packet identifier",
                expected,
                identifier,
                version,
                variables,
            )?;
            if identifier == [0, 0] {
                return Err("packet identifier 0".to_owned());
            }
            rest = after;
        }
        if version == Version::V5 {
            let (received, after) = packet::properties(rest).ok_or("bad properties")?;
            let expected = self.properties.as_deref().unwrap_or(&[]);
            check_properties(expected, received, variables)?;
            rest = after;
        }
        must_match("payload", &self.payload, rest, version, variables)
    }
}

/// Compares property lists; only User Properties have an order among themselves, [MQTT-3.3.2-18].
fn check_properties(
    expected: &[Atom],
    mut received: Vec<Property<'_>>,
    variables: &mut Variables,
) -> Result<(), String> {
    let inner = match expected {
        [Atom::Sized(inner)] => inner.as_slice(),
        _ => &[],
    };
    if matches!(inner, [Atom::AnyRest]) {
        return Ok(());
    }
    received.sort_by(|a, b| sort_key(*a).cmp(&sort_key(*b)));
    let mut list = Vec::new();
    for property in received {
        list.push(property.identifier);
        list.extend_from_slice(property.value);
    }
    must_match(
        "properties (by identifier)",
        inner,
        &list,
        Version::V5,
        variables,
    )
}

fn sort_key(property: Property<'_>) -> (u8, &[u8]) {
    let value = if property.identifier == 0x0B {
        property.value
    } else {
        &[]
    };
    (property.identifier, value)
}

fn check_refused(codes: &[u8], packet: &[u8], situation: Situation) -> Result<(), String> {
    if situation.version != Version::V5 {
        return Err("a packet came instead of the end".to_owned());
    }
    let mut result = Err("no code is expected".to_owned());
    let any: Vec<u8> = (0x80..=0xFF).collect();
    for code in if situation.is_lenient { &any } else { codes } {
        result = if situation.accepted {
            check_disconnect(*code, packet, situation.version)
        } else {
            ExpectedConnack::new(None, *code).check(packet, situation.version)
        };
        if result.is_ok() {
            return result;
        }
    }
    result
}

fn check_disconnect(code: u8, packet: &[u8], version: Version) -> Result<(), String> {
    first_byte_is(packet, 0xE0)?;
    if version != Version::V5 {
        return Err("a server never sends DISCONNECT before MQTT 5.0".to_owned());
    }
    let body = packet::body(packet);
    let got = body.first().copied().unwrap_or(0);
    if got != code {
        return Err(format!("the code is {got:02X}"));
    }
    let (properties, _) = packet::properties(body.get(1..).unwrap_or_default()).unwrap_or_default();
    // [MQTT-3.14.2-2] The server never sends a Session Expiry Interval on DISCONNECT.
    if properties
        .iter()
        .any(|property| property.identifier == 0x11)
    {
        return Err("a session expiry interval in a server's DISCONNECT".to_owned());
    }
    Ok(())
}

fn check_acknowledgement(
    packet_identifier: &[Atom],
    code: Option<u8>,
    packet: &[u8],
    version: Version,
    variables: &mut Variables,
) -> Result<(), String> {
    let (identifier, rest) = split(packet::body(packet), 2)?;
    must_match(
        "packet identifier",
        packet_identifier,
        identifier,
        version,
        variables,
    )?;
    let got = rest.first().copied().unwrap_or(0);
    if version == Version::V5 {
        if code.map_or(got >= 0x80, |code| got != code) {
            return Err(format!("the code is {got:02X}"));
        }
        let properties = rest.get(1..).unwrap_or_default();
        let rest = if properties.is_empty() {
            properties
        } else {
            skip_properties(properties)?
        };
        return if rest.is_empty() {
            Ok(())
        } else {
            Err("bytes after its end".to_owned())
        };
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err("bytes after its end".to_owned())
    }
}

fn first_byte_is(packet: &[u8], expected: u8) -> Result<(), String> {
    let got = packet.first().copied().unwrap_or(0);
    if got == expected {
        return Ok(());
    }
    Err(format!("the first byte is {got:02X}, not {expected:02X}"))
}

fn skip_properties(bytes: &[u8]) -> Result<&[u8], String> {
    let (_, rest) = packet::properties(bytes).ok_or("bad properties")?;
    Ok(rest)
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), String> {
    bytes
        .split_at_checked(at)
        .ok_or_else(|| "the packet is too short".to_owned())
}

fn must_match(
    what: &str,
    atoms: &[Atom],
    bytes: &[u8],
    version: Version,
    variables: &mut Variables,
) -> Result<(), String> {
    if bytes::matches(atoms, bytes, version, variables) {
        return Ok(());
    }
    let hex: Vec<String> = bytes
        .iter()
        .take(64)
        .map(|byte| format!("{byte:02X}"))
        .collect();
    Err(format!("the {what} differ: {}", hex.join(" ")))
}

fn codes(tokens: &[String]) -> Result<Vec<u8>, String> {
    match bytes::parse(&tokens.join(" "))?.as_slice() {
        [] => Err("a code is missing".to_owned()),
        atoms => bytes::encode(atoms, Version::V5, &Variables::new()),
    }
}

fn one_code(tokens: &[String]) -> Result<u8, String> {
    match codes(tokens)?.as_slice() {
        [code] => Ok(*code),
        _ => Err("exactly one code is due".to_owned()),
    }
}

fn none_left(tokens: &[String]) -> Result<(), String> {
    if tokens.is_empty() {
        Ok(())
    } else {
        Err(format!("too much: {}", tokens.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V5: Situation = Situation {
        version: Version::V5,
        accepted: true,
        is_lenient: false,
    };
    const V311: Situation = Situation {
        version: Version::V311,
        accepted: true,
        is_lenient: false,
    };

    fn check(text: &str, packet: &[u8], situation: Situation) -> Result<(), String> {
        let tokens: Vec<String> = crate::steps::tokens(text).unwrap();
        let expectation = Expectation::parse(&tokens).unwrap();
        expectation.check(packet, situation, &mut Variables::new())
    }

    #[test]
    fn an_acknowledgement_may_be_short_or_long() {
        for packet in [
            &[0x40, 2, 0, 7][..],
            &[0x40, 3, 0, 7, 0],
            &[0x40, 4, 0, 7, 0, 0],
            &[0x40, 8, 0, 7, 0, 4, 0x1F, 0, 1, b'x'],
        ] {
            assert_eq!(check("puback 0007", packet, V5), Ok(()));
        }
        assert!(check("puback 0007 10", &[0x40, 2, 0, 7], V5).is_err());
        assert!(check("puback 0007", &[0x40, 3, 0, 7, 0], V311).is_err());
    }

    #[test]
    fn refusal_means_what_the_version_and_the_moment_ask() {
        let not_accepted = Situation {
            accepted: false,
            ..V5
        };
        assert_eq!(check("refused 81 82", &[0xE0, 1, 0x82], V5), Ok(()));
        assert_eq!(
            check("refused 81", &[0x20, 3, 0, 0x81, 0], not_accepted),
            Ok(())
        );
        assert!(check("refused 81", &[0xE0, 1, 0x81], not_accepted).is_err());
        assert!(check("refused 81", &[0xE0, 1, 0x81], V311).is_err());
        assert!(Expectation::Refused(vec![]).is_met_by_close(V311));
        assert!(!Expectation::Refused(vec![]).is_met_by_close(V5));
    }

    #[test]
    fn properties_of_a_publish_may_come_in_any_order() {
        let packet = [
            0x30, 14, 0, 1, b'a', 9, 0x26, 0, 1, b'k', 0, 1, b'v', 0x01, 1, b'x',
        ];
        let expected = "publish 'a' ( 01 01 26 s'k' s'v' ) 'x'";
        let mut whole = packet.to_vec();
        whole[1] = u8::try_from(packet.len() - 2).unwrap();
        assert_eq!(check(expected, &whole, V5), Ok(()));
        assert!(check("publish 'a' 'x'", &whole, V5).is_err());
        assert_eq!(check("publish 'a' (..) 'x'", &whole, V5), Ok(()));
    }

    #[test]
    fn a_publish_with_a_quality_of_service_has_a_packet_identifier() {
        let packet = [0x32, 6, 0, 1, b'a', 0, 1, b'x'];
        assert_eq!(check("publish qos1 'a' $p 'x'", &packet, V311), Ok(()));
        assert!(check("publish 'a' 'x'", &packet, V311).is_err());
        let zero = [0x32, 6, 0, 1, b'a', 0, 0, b'x'];
        assert!(check("publish qos1 'a' $p 'x'", &zero, V311).is_err());
    }

    #[test]
    fn a_connack_shows_whether_a_session_was_present() {
        assert_eq!(check("connack present 00", &[0x20, 2, 1, 0], V311), Ok(()));
        assert!(check("connack new 00", &[0x20, 2, 1, 0], V311).is_err());
        assert!(check("connack 01", &[0x20, 2, 1, 1], V311).is_err());
    }
}
