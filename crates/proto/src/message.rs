//! An Application Message on its way through the Server: one shared allocation, read by many.
//!
//! Owns: topic, forwarded properties and payload as wire bytes, the publisher's QoS and RETAIN.
//! Does not own: who gets it. Start reading at [`Message::from_publish`].
//! Invariant: never changed after it is made; a large payload is shared, not copied.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::Qos;
use crate::ledger::Counted;
use crate::packet::{Property, PropertyIter, Publish, Will};

/// Payloads of this many bytes and more are shared with the buffer they arrived in, if it can be shared.
pub const SHARED_PAYLOAD_BYTES_MIN: usize = 512;

/// An Application Message.
#[derive(Clone)]
pub struct Message {
    /// Topic length, topic, forwarded properties, and the payload unless it is shared.
    body: Box<[u8]>,
    topic_end: usize,
    properties_end: usize,
    shared_payload: Option<Bytes>,
    qos: Qos,
    retain: bool,
    message_expiry_interval_seconds: Option<u32>,
    accepted_at: Instant,
    counted: Counted,
}

impl Message {
    /// The message that `publish` carries, with its Topic Alias already resolved into `publish.topic`.
    /// `buffer` is the shareable buffer `publish` borrows from, if there is one. Copies topic,
    /// properties and a small payload once.
    #[must_use]
    pub fn from_publish(publish: &Publish<'_>, buffer: Option<&Bytes>, now: Instant) -> Self {
        let shared = buffer
            .filter(|_| publish.payload.len() >= SHARED_PAYLOAD_BYTES_MIN)
            .map(|buffer| buffer.slice_ref(publish.payload));
        let own_payload = if shared.is_none() {
            publish.payload
        } else {
            &[]
        };
        // Exact unless a property stays behind, so that the box below takes the buffer as it is.
        let more = publish.properties.forwarded_len_max() + own_payload.len();
        let mut body = topic_field(publish.topic, more);
        let topic_end = body.len();
        publish.properties.put_forwarded(&mut body);
        let properties_end = body.len();
        body.extend_from_slice(own_payload);
        let counted = Counted::new(live_bytes(body.len(), shared.as_ref()));
        Self {
            counted,
            body: body.into_boxed_slice(),
            topic_end,
            properties_end,
            shared_payload: shared,
            qos: publish.qos,
            retain: publish.retain,
            message_expiry_interval_seconds: publish.properties.message_expiry_interval_seconds,
            accepted_at: now,
        }
    }

    /// The Will Message as it is published at `now`.
    #[must_use]
    pub fn from_will(will: &Will, now: Instant) -> Self {
        let mut message = Self::new(
            &will.topic,
            will.payload.clone(),
            will.qos,
            will.retain,
            now,
        );
        let mut body = message.body.into_vec();
        body.extend_from_slice(&will.properties.forwarded);
        message.properties_end = body.len();
        message.body = body.into_boxed_slice();
        let shared = message.shared_payload.as_ref();
        message.counted = Counted::new(live_bytes(message.body.len(), shared));
        message.message_expiry_interval_seconds = will.properties.message_expiry_interval_seconds;
        message
    }

    /// A message that was kept, from its parts: `forwarded` as [`Self::forwarded_properties`] gave it, and
    /// when it was accepted with its Message Expiry Interval in seconds if it has one, as
    /// [`Self::expiry`] did. `None` if `topic` is no text or too long. Copies all but a large payload.
    #[must_use]
    pub fn from_parts(
        topic: &[u8],
        forwarded: &[u8],
        payload: &Bytes,
        (qos, retain): (Qos, bool),
        expiry: Option<(Instant, u32)>,
        now: Instant,
    ) -> Option<Self> {
        let topic = std::str::from_utf8(topic).ok()?;
        u16::try_from(topic.len()).ok()?;
        let is_shared = payload.len() >= SHARED_PAYLOAD_BYTES_MIN;
        let own_payload: &[u8] = if is_shared { &[] } else { payload };
        let mut body = topic_field(topic, forwarded.len() + own_payload.len());
        let topic_end = body.len();
        body.extend_from_slice(forwarded);
        let properties_end = body.len();
        body.extend_from_slice(own_payload);
        let shared = is_shared.then(|| payload.clone());
        Some(Self {
            counted: Counted::new(live_bytes(body.len(), shared.as_ref())),
            body: body.into_boxed_slice(),
            topic_end,
            properties_end,
            shared_payload: shared,
            qos,
            retain,
            message_expiry_interval_seconds: expiry.map(|(_, seconds)| seconds),
            accepted_at: expiry.map_or(now, |(accepted_at, _)| accepted_at),
        })
    }

    /// A message without properties. `topic` must be a valid Topic Name.
    /// # Panics
    /// `topic` has more than 65,535 bytes.
    #[must_use]
    pub fn new(topic: &str, payload: Bytes, qos: Qos, retain: bool, now: Instant) -> Self {
        let body = topic_field(topic, 0);
        Self {
            counted: Counted::new(live_bytes(body.len(), Some(&payload))),
            topic_end: body.len(),
            properties_end: body.len(),
            body: body.into_boxed_slice(),
            shared_payload: Some(payload),
            qos,
            retain,
            message_expiry_interval_seconds: None,
            accepted_at: now,
        }
    }

    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        let bytes = self.body.get(2..self.topic_end).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Topic Name with its length, as on the wire.
    pub(crate) fn topic_field(&self) -> &[u8] {
        self.body.get(..self.topic_end).unwrap_or_default()
    }

    /// The properties every 5.0 subscriber gets, encoded, without their length.
    #[must_use]
    pub fn forwarded_properties(&self) -> &[u8] {
        self.body
            .get(self.topic_end..self.properties_end)
            .unwrap_or_default()
    }

    /// The same, decoded.
    pub fn properties(&self) -> impl Iterator<Item = Property<'_>> {
        PropertyIter::new(self.forwarded_properties())
    }

    /// Payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match &self.shared_payload {
            Some(payload) => payload,
            None => self.body.get(self.properties_end..).unwrap_or_default(),
        }
    }

    /// The payload as a shared buffer, if it is one.
    #[must_use]
    pub const fn shared_payload(&self) -> Option<&Bytes> {
        self.shared_payload.as_ref()
    }

    /// QoS it was published at.
    #[must_use]
    pub const fn qos(&self) -> Qos {
        self.qos
    }

    /// RETAIN as it was published.
    #[must_use]
    pub const fn retain(&self) -> bool {
        self.retain
    }

    /// Bytes it holds in memory, rounded up for bookkeeping.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let shared = self.shared_payload.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + self.body.len() + shared
    }

    /// When it was accepted.
    #[must_use]
    pub const fn accepted_at(&self) -> Instant {
        self.accepted_at
    }

    /// Bytes it takes as one shared allocation, that of its counts included, see [`crate::live_message_bytes`].
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        live_bytes(self.body.len(), self.shared_payload.as_ref())
    }

    /// When it was accepted and its Message Expiry Interval in seconds, if it has one.
    #[must_use]
    pub fn expiry(&self) -> Option<(Instant, u32)> {
        let seconds = self.message_expiry_interval_seconds?;
        Some((self.accepted_at, seconds))
    }

    /// When it may no longer be sent, if it has a Message Expiry Interval.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        let seconds = self.message_expiry_interval_seconds?;
        self.accepted_at
            .checked_add(Duration::from_secs(u64::from(seconds)))
    }

    /// [MQTT-3.3.2-5] Whether its Message Expiry Interval has passed.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    /// [MQTT-3.3.2-6] The received interval minus the whole seconds it has waited here.
    #[must_use]
    pub fn remaining_expiry_seconds(&self, now: Instant) -> Option<u32> {
        let seconds = self.message_expiry_interval_seconds?;
        let waited = now.saturating_duration_since(self.accepted_at).as_secs();
        Some(seconds.saturating_sub(u32::try_from(waited).unwrap_or(u32::MAX)))
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("payload_bytes", &self.payload().len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Message {
    /// Equal in everything a subscriber could see.
    fn eq(&self, other: &Self) -> bool {
        self.topic_field() == other.topic_field()
            && self.forwarded_properties() == other.forwarded_properties()
            && self.payload() == other.payload()
            && self.qos == other.qos
            && self.retain == other.retain
            && self.message_expiry_interval_seconds == other.message_expiry_interval_seconds
    }
}

fn live_bytes(body: usize, shared: Option<&Bytes>) -> usize {
    let shared = shared.map_or(0, |payload| payload.len() + SHARED_OVERHEAD_BYTES);
    size_of::<Message>() + ARC_OVERHEAD_BYTES + body + shared
}

/// The two counts of an `Arc`.
const ARC_OVERHEAD_BYTES: usize = 16;
/// What `Bytes` allocates beside the bytes once they are shared.
const SHARED_OVERHEAD_BYTES: usize = 24;

fn topic_field(topic: &str, more: usize) -> Vec<u8> {
    let len =
        u16::try_from(topic.len()).expect("invariant: a Topic Name fits a length of two bytes");
    let mut field = Vec::with_capacity(2 + topic.len() + more);
    field.extend_from_slice(&len.to_be_bytes());
    field.extend_from_slice(topic.as_bytes());
    field
}
