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
    shared_payload: Option<Bytes>,
    accepted_at: Instant,
    properties_end: u32,
    /// 0 unless `marks` says that it expires.
    message_expiry_interval_seconds: u32,
    counted: Counted,
    topic_len: u16,
    qos: Qos,
    marks: Marks,
}

impl Message {
    /// The message that `publish` carries, with its Topic Alias already resolved into `publish.topic`.
    /// `buffer` is the shareable buffer `publish` borrows from, if there is one. Copies topic,
    /// properties and a small payload once.
    #[inline(always)]
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
        publish.properties.put_forwarded(&mut body);
        let properties_end = end_of(&body);
        body.extend_from_slice(own_payload);
        let counted = Counted::new(live_bytes(body.len(), shared.as_ref()));
        let expiry = publish.properties.message_expiry_interval_seconds;
        Self {
            counted,
            body: body.into_boxed_slice(),
            topic_len: len_of(publish.topic),
            properties_end,
            shared_payload: shared,
            qos: publish.qos,
            marks: Marks::new(publish.retain, expiry.is_some()),
            message_expiry_interval_seconds: expiry.unwrap_or_default(),
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
        message.properties_end = end_of(&body);
        message.body = body.into_boxed_slice();
        let shared = message.shared_payload.as_ref();
        message.counted = Counted::new(live_bytes(message.body.len(), shared));
        let expiry = will.properties.message_expiry_interval_seconds;
        message.marks = Marks::new(will.retain, expiry.is_some());
        message.message_expiry_interval_seconds = expiry.unwrap_or_default();
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
        let topic_len = u16::try_from(topic.len()).ok()?;
        let is_shared = payload.len() >= SHARED_PAYLOAD_BYTES_MIN;
        let own_payload: &[u8] = if is_shared { &[] } else { payload };
        let mut body = topic_field(topic, forwarded.len() + own_payload.len());
        body.extend_from_slice(forwarded);
        let properties_end = end_of(&body);
        body.extend_from_slice(own_payload);
        let shared = is_shared.then(|| payload.clone());
        Some(Self {
            counted: Counted::new(live_bytes(body.len(), shared.as_ref())),
            body: body.into_boxed_slice(),
            topic_len,
            properties_end,
            shared_payload: shared,
            qos,
            marks: Marks::new(retain, expiry.is_some()),
            message_expiry_interval_seconds: expiry.map_or(0, |(_, seconds)| seconds),
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
            topic_len: len_of(topic),
            properties_end: end_of(&body),
            body: body.into_boxed_slice(),
            shared_payload: Some(payload),
            qos,
            marks: Marks::new(retain, false),
            message_expiry_interval_seconds: 0,
            accepted_at: now,
        }
    }

    /// Topic Name.
    #[must_use]
    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).unwrap_or_default()
    }

    /// The same as bytes, which are in the same order and take no check that they are text.
    #[must_use]
    pub fn topic_bytes(&self) -> &[u8] {
        self.body.get(2..self.topic_end()).unwrap_or_default()
    }

    /// Topic Name with its length, as on the wire.
    pub(crate) fn topic_field(&self) -> &[u8] {
        self.body.get(..self.topic_end()).unwrap_or_default()
    }

    /// The properties every 5.0 subscriber gets, encoded, without their length.
    #[must_use]
    pub fn forwarded_properties(&self) -> &[u8] {
        self.body
            .get(self.topic_end()..self.properties_end as usize)
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
            None => self
                .body
                .get(self.properties_end as usize..)
                .unwrap_or_default(),
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
        self.marks.has(Marks::RETAIN)
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
        let seconds = self.expiry_seconds()?;
        Some((self.accepted_at, seconds))
    }

    /// When it may no longer be sent, if it has a Message Expiry Interval.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        let seconds = self.expiry_seconds()?;
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
        let seconds = self.expiry_seconds()?;
        let waited = now.saturating_duration_since(self.accepted_at).as_secs();
        Some(seconds.saturating_sub(u32::try_from(waited).unwrap_or(u32::MAX)))
    }

    const fn topic_end(&self) -> usize {
        2 + self.topic_len as usize
    }

    fn expiry_seconds(&self) -> Option<u32> {
        let seconds = self.message_expiry_interval_seconds;
        self.marks.has(Marks::EXPIRES).then_some(seconds)
    }
}

/// What is so or not so of a message, in one byte: there may be millions of them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Marks(u8);

impl Marks {
    const RETAIN: u8 = 1;
    const EXPIRES: u8 = 2;

    fn new(retain: bool, expires: bool) -> Self {
        Self(u8::from(retain) * Self::RETAIN + u8::from(expires) * Self::EXPIRES)
    }

    const fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("payload_bytes", &self.payload().len())
            .field("qos", &self.qos)
            .field("retain", &self.retain())
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
            && self.marks == other.marks
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

#[inline]
fn topic_field(topic: &str, more: usize) -> Vec<u8> {
    let mut field = Vec::with_capacity(2 + topic.len() + more);
    field.extend_from_slice(&len_of(topic).to_be_bytes());
    field.extend_from_slice(topic.as_bytes());
    field
}

fn len_of(topic: &str) -> u16 {
    u16::try_from(topic.len()).expect("invariant: a Topic Name fits a length of two bytes")
}

fn end_of(body: &[u8]) -> u32 {
    u32::try_from(body.len()).expect("invariant: topic and properties fit into a packet")
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests begin somewhere")]
mod tests {
    use super::*;

    /// Verifies [MQTT-3.3.2-5]: an interval of 0 is one, and none is none.
    #[test]
    fn interval_of_zero_expires_at_once_and_none_never() {
        let (now, payload) = (Instant::now(), Bytes::from_static(b"x"));
        for retain in [false, true] {
            let message = |expiry: Option<u32>| {
                let expiry = expiry.map(|seconds| (now, seconds));
                let parts = (Qos::AtLeastOnce, retain);
                Message::from_parts(b"a/b", b"", &payload, parts, expiry, now).expect("a topic")
            };
            let (none, zero) = (message(None), message(Some(0)));
            assert_eq!((none.expiry(), none.is_expired(now)), (None, false));
            assert_eq!(
                (zero.expiry(), zero.is_expired(now)),
                (Some((now, 0)), true)
            );
            assert_eq!((none.retain(), zero.retain()), (retain, retain));
            assert_ne!(none, zero);
        }
    }

    #[test]
    fn longest_topic_and_what_follows_it_are_found_again() {
        let (now, topic) = (Instant::now(), "t".repeat(65_535));
        let (properties, payload) = ([1, 1], Bytes::from_static(b"payload"));
        let parts = (Qos::AtMostOnce, true);
        let message =
            Message::from_parts(topic.as_bytes(), &properties, &payload, parts, None, now);
        let message = message.expect("a topic");
        assert_eq!(
            (message.topic(), message.payload()),
            (&*topic, &payload[..])
        );
        assert_eq!(message.forwarded_properties(), properties);
    }
}
