//! Messages as applications see them: what they publish and what they receive.
//!
//! Owns: [`Publication`], [`ReceivedMessage`]. Does not own: the wire form (see `proto::packet`).
//! Start reading at [`Publication`]. Invariant: properties stay encoded, in the order they were given.

use bytes::Bytes;
use proto::packet::{EncodeError, Property, PropertyIter, Publish};
use proto::{PacketIdentifier, Qos};

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// Topic Name.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: Qos,
    /// RETAIN.
    pub retain: bool,
    pub(crate) properties: Vec<u8>,
}

impl Publication {
    /// A message without RETAIN and properties.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>, qos: Qos) -> Self {
        let (topic, payload) = (topic.into(), payload.into());
        Self {
            topic,
            payload,
            qos,
            retain: false,
            properties: Vec::new(),
        }
    }

    /// The same with RETAIN as given.
    #[must_use]
    pub const fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// Bytes of topic, payload and properties.
    pub(crate) const fn len_bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// Adds a property; 3.x leaves it out.
    /// # Errors
    /// Its value has more than 65,535 bytes.
    pub fn property(mut self, property: &Property<'_>) -> Result<Self, EncodeError> {
        property.put(&mut self.properties)?;
        Ok(self)
    }
}

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// Topic Name, a Topic Alias resolved.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// QoS of this delivery.
    pub qos: Qos,
    /// RETAIN.
    pub retain: bool,
    /// DUP.
    pub dup: bool,
    /// Packet Identifier; none at QoS 0.
    pub packet_id: Option<PacketIdentifier>,
    properties: Raw,
}

impl ReceivedMessage {
    /// The message that `publish` carries, its Topic Alias resolved.
    #[must_use]
    pub fn from_publish(publish: &Publish<'_>) -> Self {
        Self {
            topic: publish.topic.to_owned(),
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id,
            properties: Raw::from(publish.properties.raw()),
        }
    }

    /// Bytes of topic, payload and properties: what it takes while it waits.
    pub(crate) fn len_bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.bytes().len()
    }

    /// Its properties, in order; none in 3.x.
    pub fn properties(&self) -> impl Iterator<Item = Property<'_>> {
        PropertyIter::new(self.properties.bytes())
    }
}

/// Encoded properties. Those of most messages are a Subscription Identifier, for which nothing is allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Raw {
    /// So many of these, the others 0.
    Short(u8, [u8; SHORT_MAX]),
    Long(Box<[u8]>),
}

impl From<&[u8]> for Raw {
    fn from(bytes: &[u8]) -> Self {
        let mut short = [0; SHORT_MAX];
        let fits = short.get_mut(..bytes.len());
        match (fits, u8::try_from(bytes.len())) {
            (Some(fits), Ok(len)) => {
                fits.copy_from_slice(bytes);
                Self::Short(len, short)
            }
            _ => Self::Long(bytes.into()),
        }
    }
}

impl Raw {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

/// As many as fit beside the length where a `Box` would be.
const SHORT_MAX: usize = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_of_any_length_are_kept_as_they_came() {
        for len in [0, 1, SHORT_MAX - 1, SHORT_MAX, SHORT_MAX + 1, 300] {
            let bytes: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
            assert_eq!(Raw::from(bytes.as_slice()).bytes(), bytes);
        }
        assert_eq!(size_of::<Raw>(), size_of::<Vec<u8>>());
    }
}
