//! Properties (section 2.2.2): typed, checked once, allowed or not by packet.
//!
//! Owns: the table of property identifiers, their types and where each may stand.
//! Does not own: what a property means. Start reading at [`Property`] and [`read_properties`].
//! Invariant: a property section that passed [`read_properties`] can be read again without errors.

use super::wire::{Reader, put_binary, put_string, put_u16, put_u32, put_variable_byte_integer};
use super::{EncodeError, Malformed};

/// A name and a value; order matters and names may repeat.
pub type UserProperties = Vec<(String, String)>;

/// How many User Properties any packet but PUBLISH may carry (a PUBLISH keeps them as bytes).
pub const USER_PROPERTIES_MAX: usize = 1024;

/// One property with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's, table 2-4")]
pub enum Property<'a> {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiryInterval(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(u8),
    WillDelayInterval(u32),
    RequestResponseInformation(u8),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(u8),
    RetainAvailable(u8),
    UserProperty(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(u8),
    SubscriptionIdentifierAvailable(u8),
    SharedSubscriptionAvailable(u8),
}

impl<'a> Property<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match reader.variable_byte_integer()? {
            0x01 => Self::PayloadFormatIndicator(reader.u8()?),
            0x02 => Self::MessageExpiryInterval(reader.u32()?),
            // [MQTT-3.3.2-19] [MQTT-3.3.2-13] Text is a UTF-8 Encoded String, here and below.
            0x03 => Self::ContentType(reader.string()?),
            0x08 => Self::ResponseTopic(reader.string()?),
            0x09 => Self::CorrelationData(reader.binary()?),
            0x0B => Self::SubscriptionIdentifier(reader.variable_byte_integer()?),
            0x11 => Self::SessionExpiryInterval(reader.u32()?),
            0x12 => Self::AssignedClientIdentifier(reader.string()?),
            0x13 => Self::ServerKeepAlive(reader.u16()?),
            0x15 => Self::AuthenticationMethod(reader.string()?),
            0x16 => Self::AuthenticationData(reader.binary()?),
            0x17 => Self::RequestProblemInformation(reader.u8()?),
            0x18 => Self::WillDelayInterval(reader.u32()?),
            0x19 => Self::RequestResponseInformation(reader.u8()?),
            0x1A => Self::ResponseInformation(reader.string()?),
            0x1C => Self::ServerReference(reader.string()?),
            0x1F => Self::ReasonString(reader.string()?),
            0x21 => Self::ReceiveMaximum(reader.u16()?),
            0x22 => Self::TopicAliasMaximum(reader.u16()?),
            0x23 => Self::TopicAlias(reader.u16()?),
            0x24 => Self::MaximumQos(reader.u8()?),
            0x25 => Self::RetainAvailable(reader.u8()?),
            // [MQTT-1.5.7-1] Both halves of a pair are UTF-8 Encoded Strings.
            0x26 => Self::UserProperty(reader.string()?, reader.string()?),
            0x27 => Self::MaximumPacketSize(reader.u32()?),
            0x28 => Self::WildcardSubscriptionAvailable(reader.u8()?),
            0x29 => Self::SubscriptionIdentifierAvailable(reader.u8()?),
            0x2A => Self::SharedSubscriptionAvailable(reader.u8()?),
            _ => return Err(Malformed::PropertyUnknown),
        })
    }

    /// The property's identifier on the wire.
    #[must_use]
    pub const fn identifier(&self) -> u8 {
        match self {
            Self::PayloadFormatIndicator(_) => 0x01,
            Self::MessageExpiryInterval(_) => 0x02,
            Self::ContentType(_) => 0x03,
            Self::ResponseTopic(_) => 0x08,
            Self::CorrelationData(_) => 0x09,
            Self::SubscriptionIdentifier(_) => 0x0B,
            Self::SessionExpiryInterval(_) => 0x11,
            Self::AssignedClientIdentifier(_) => 0x12,
            Self::ServerKeepAlive(_) => 0x13,
            Self::AuthenticationMethod(_) => 0x15,
            Self::AuthenticationData(_) => 0x16,
            Self::RequestProblemInformation(_) => 0x17,
            Self::WillDelayInterval(_) => 0x18,
            Self::RequestResponseInformation(_) => 0x19,
            Self::ResponseInformation(_) => 0x1A,
            Self::ServerReference(_) => 0x1C,
            Self::ReasonString(_) => 0x1F,
            Self::ReceiveMaximum(_) => 0x21,
            Self::TopicAliasMaximum(_) => 0x22,
            Self::TopicAlias(_) => 0x23,
            Self::MaximumQos(_) => 0x24,
            Self::RetainAvailable(_) => 0x25,
            Self::UserProperty(..) => 0x26,
            Self::MaximumPacketSize(_) => 0x27,
            Self::WildcardSubscriptionAvailable(_) => 0x28,
            Self::SubscriptionIdentifierAvailable(_) => 0x29,
            Self::SharedSubscriptionAvailable(_) => 0x2A,
        }
    }

    fn check_value(&self) -> Result<(), Malformed> {
        match self {
            Self::PayloadFormatIndicator(value)
            | Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::MaximumQos(value)
            | Self::RetainAvailable(value)
            | Self::WildcardSubscriptionAvailable(value)
            | Self::SubscriptionIdentifierAvailable(value)
            | Self::SharedSubscriptionAvailable(value)
                if *value > 1 =>
            {
                Err(Malformed::PropertyValue)
            }
            Self::ReceiveMaximum(0)
            | Self::MaximumPacketSize(0)
            | Self::SubscriptionIdentifier(0) => Err(Malformed::PropertyValue),
            // [MQTT-3.3.2-8] A Topic Alias is never 0.
            Self::TopicAlias(0) => Err(Malformed::TopicAliasZero),
            // [MQTT-3.3.2-14] A Response Topic is a Topic Name: no wildcards, not empty.
            Self::ResponseTopic(topic) if topic.is_empty() || topic.contains(['+', '#']) => {
                Err(Malformed::WildcardInResponseTopic)
            }
            _ => Ok(()),
        }
    }

    /// Appends identifier and value, as a property section holds them.
    /// # Errors
    /// A string or binary value has more than 65,535 bytes.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(self.identifier());
        match *self {
            Self::PayloadFormatIndicator(value)
            | Self::RequestProblemInformation(value)
            | Self::RequestResponseInformation(value)
            | Self::MaximumQos(value)
            | Self::RetainAvailable(value)
            | Self::WildcardSubscriptionAvailable(value)
            | Self::SubscriptionIdentifierAvailable(value)
            | Self::SharedSubscriptionAvailable(value) => out.push(value),
            Self::ServerKeepAlive(value)
            | Self::ReceiveMaximum(value)
            | Self::TopicAliasMaximum(value)
            | Self::TopicAlias(value) => put_u16(out, value),
            Self::MessageExpiryInterval(value)
            | Self::SessionExpiryInterval(value)
            | Self::WillDelayInterval(value)
            | Self::MaximumPacketSize(value) => put_u32(out, value),
            Self::SubscriptionIdentifier(value) => put_variable_byte_integer(out, value),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientIdentifier(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => put_string(out, text)?,
            Self::CorrelationData(bytes) | Self::AuthenticationData(bytes) => {
                put_binary(out, bytes)?;
            }
            Self::UserProperty(name, value) => {
                put_string(out, name)?;
                put_string(out, value)?;
            }
        }
        Ok(())
    }
}

/// The set of properties a packet may carry, by identifier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed(u64);

impl Allowed {
    const fn of(identifiers: &[u8]) -> Self {
        let mut set = 0_u64;
        let mut rest = identifiers;
        while let [first, tail @ ..] = rest {
            set |= 1 << *first;
            rest = tail;
        }
        Self(set)
    }

    pub(crate) const CONNECT: Self =
        Self::of(&[0x11, 0x21, 0x27, 0x22, 0x19, 0x17, 0x26, 0x15, 0x16]);
    pub(crate) const WILL: Self = Self::of(&[0x18, 0x01, 0x02, 0x03, 0x08, 0x09, 0x26]);
    pub(crate) const CONNACK: Self = Self::of(&[
        0x11, 0x21, 0x24, 0x25, 0x27, 0x12, 0x22, 0x1F, 0x26, 0x28, 0x29, 0x2A, 0x13, 0x1A, 0x1C,
        0x15, 0x16,
    ]);
    pub(crate) const PUBLISH: Self = Self::of(&[0x01, 0x02, 0x23, 0x08, 0x09, 0x26, 0x0B, 0x03]);
    pub(crate) const ACKNOWLEDGEMENT: Self = Self::of(&[0x1F, 0x26]);
    pub(crate) const SUBSCRIBE: Self = Self::of(&[0x0B, 0x26]);
    pub(crate) const UNSUBSCRIBE: Self = Self::of(&[0x26]);
    pub(crate) const DISCONNECT: Self = Self::of(&[0x11, 0x1F, 0x26, 0x1C]);
    pub(crate) const AUTH: Self = Self::of(&[0x15, 0x16, 0x1F, 0x26]);
}

/// Reads a property section with its length, checks every property and hands each to `on`.
/// Returns the section's bytes without the length.
pub(crate) fn read_properties<'a>(
    reader: &mut Reader<'a>,
    allowed: Allowed,
    mut on: impl FnMut(Property<'a>),
) -> Result<&'a [u8], Malformed> {
    let len = reader.variable_byte_integer()?;
    let raw = reader.take(usize::try_from(len).map_err(|_| Malformed::Truncated)?)?;
    let mut inner = Reader::new(raw);
    let mut seen = 0_u64;
    while !inner.is_empty() {
        let property = Property::read(&mut inner)?;
        let bit = 1_u64 << property.identifier();
        if allowed.0 & bit == 0 {
            return Err(Malformed::PropertyNotAllowed);
        }
        let may_repeat = match property {
            Property::UserProperty(..) => true,
            // Only a PUBLISH may carry several Subscription Identifiers, 3.3.2.3.8.
            Property::SubscriptionIdentifier(_) => allowed.0 == Allowed::PUBLISH.0,
            _ => false,
        };
        if seen & bit != 0 && !may_repeat {
            return Err(Malformed::PropertyRepeated);
        }
        seen |= bit;
        property.check_value()?;
        on(property);
    }
    Ok(raw)
}

/// Reads a section that `read_properties` has checked.
#[derive(Clone, Debug)]
pub struct PropertyIter<'a> {
    reader: Reader<'a>,
}

impl<'a> PropertyIter<'a> {
    /// Over encoded properties, as [`PublishProperties::raw`](super::PublishProperties::raw) has them; ends at the first byte
    /// that begins none.
    #[must_use]
    pub const fn new(raw: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(raw),
        }
    }
}

impl<'a> Iterator for PropertyIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        Property::read(&mut self.reader).ok()
    }
}

/// Collects User Properties up to [`USER_PROPERTIES_MAX`]; beyond it, remembers that there were more.
#[derive(Debug, Default)]
pub(crate) struct UserPropertyCollector {
    pairs: UserProperties,
    too_many: bool,
}

impl UserPropertyCollector {
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if self.pairs.len() < USER_PROPERTIES_MAX {
            self.pairs.push((name.to_owned(), value.to_owned()));
        } else {
            self.too_many = true;
        }
    }

    pub(crate) fn finish(self) -> Result<UserProperties, Malformed> {
        if self.too_many {
            Err(Malformed::TooManyUserProperties)
        } else {
            Ok(self.pairs)
        }
    }
}

pub(crate) fn put_user_properties(
    out: &mut Vec<u8>,
    pairs: &UserProperties,
) -> Result<(), EncodeError> {
    pairs
        .iter()
        .try_for_each(|(name, value)| Property::UserProperty(name, value).put(out))
}
