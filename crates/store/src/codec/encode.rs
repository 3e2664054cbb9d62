//! Records to bytes.
//!
//! Owns: writing. Does not own: the layout (see the parent). Start reading at [`encode`].
//! Invariant: nothing is allocated but what the output grows by. The fields of a record are written down
//! once, over a [`Sink`]: over a counter they give the length, over the output the bytes.

use std::net::IpAddr;
use std::sync::Arc;

use super::decode::{EncodedIdentifiers, EncodedTexts};
use super::{
    ADMINISTRATOR, DEQUEUE, DISCONNECTED, ENQUEUE, INBOUND_DELETE, INBOUND_PUT, LISTED,
    MESSAGE_EXPIRY, MESSAGE_ORIGIN, MessageRef, NO_LOCAL, OWNER, OwnerRef, PEER, PeerRef, QOS,
    RELEASE, RETAIN, RETAIN_AS_PUBLISHED, RETAINED_DELETE, RETAINED_PUT, RULES, RecordRef,
    SESSION_DELETE, SESSION_PUT, SUBSCRIPTION_DELETE, SUBSCRIPTION_IDENTIFIER, SUBSCRIPTION_PUT,
    SessionRef, SubscriptionRef, TARGET_IDENTIFIERS, TARGETS_MAX, WILL_DELETE, WILL_PUT, WillRef,
};
use crate::{
    MessageRecord, Origin, OwnerRecord, Record, SessionId, SessionRecord, SubscriptionRecord,
    Target, WillRecord,
};

/// Appends `record` to `out`. An Enqueue with more than [`TARGETS_MAX`] targets becomes several records,
/// one without targets none.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    let view = match record {
        Record::Enqueue {
            message,
            targets,
            origin,
        } => {
            for targets in targets.chunks(TARGETS_MAX) {
                let targets = targets.iter().map(TargetRef::from);
                encode_enqueue(&message.into(), *origin, targets, out);
            }
            return;
        }
        Record::SessionPut(session) => RecordRef::SessionPut(session.as_ref().into()),
        Record::SessionDelete { session } => RecordRef::SessionDelete { session: *session },
        Record::SubscriptionPut(subscription) => {
            RecordRef::SubscriptionPut(subscription.as_ref().into())
        }
        Record::SubscriptionDelete { session, filter } => RecordRef::SubscriptionDelete {
            session: *session,
            filter,
        },
        Record::Dequeue {
            session,
            first_seq,
            count,
        } => RecordRef::Dequeue {
            session: *session,
            first_seq: *first_seq,
            count: *count,
        },
        Record::Release { session, seq } => RecordRef::Release {
            session: *session,
            seq: *seq,
        },
        Record::RetainedPut { message } => RecordRef::RetainedPut {
            message: message.into(),
        },
        Record::RetainedDelete { topic } => RecordRef::RetainedDelete { topic },
        Record::InboundPut {
            session,
            packet_id,
            number,
        } => RecordRef::InboundPut {
            session: *session,
            packet_id: *packet_id,
            number: *number,
        },
        Record::InboundDelete { session, packet_id } => RecordRef::InboundDelete {
            session: *session,
            packet_id: *packet_id,
        },
        Record::WillPut(will) => RecordRef::WillPut(will.as_ref().into()),
        Record::WillDelete { session } => RecordRef::WillDelete { session: *session },
    };
    encode_ref(&view, out);
}

/// Appends `record` to `out`.
pub fn encode_ref(record: &RecordRef<'_>, out: &mut Vec<u8>) {
    if let RecordRef::Enqueue(enqueue) = record {
        encode_enqueue(&enqueue.message, enqueue.origin, enqueue.targets(), out);
        return;
    }
    let mut length = Length(0);
    write_fields(record, &mut length);
    begin(length, out);
    write_fields(record, out);
}

/// Appends an Enqueue record of the first [`TARGETS_MAX`] of `targets` to `out`; nothing if there are none.
pub fn encode_enqueue<'a>(
    message: &MessageRef<'_>,
    origin: Option<Origin>,
    targets: impl Iterator<Item = TargetRef<'a>> + Clone,
    out: &mut Vec<u8>,
) {
    let targets = targets.take(TARGETS_MAX);
    let mut length = Length(0);
    // The count is one byte, whatever it is: the pass that finds the length finds it, too.
    let target_count = write_enqueue(message, origin, 0, targets.clone(), &mut length);
    let Some(more_than_one) = target_count.checked_sub(1) else {
        return;
    };
    begin(length, out);
    write_enqueue(message, origin, more_than_one, targets, out);
}

/// One Session that an Enqueue record is for; a [`Target`] that borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRef<'a> {
    /// Whose queue.
    pub session: SessionId,
    /// Its number in the Session's queue.
    pub seq: u64,
    /// QoS of the delivery.
    pub qos: u8,
    /// RETAIN of the delivery.
    pub retain: bool,
    /// Subscription Identifiers of the delivery.
    pub subscription_identifiers: Option<Identifiers<'a>>,
}

impl<'a> From<&'a Target> for TargetRef<'a> {
    fn from(target: &'a Target) -> Self {
        Self {
            session: target.session,
            seq: target.seq,
            qos: target.qos,
            retain: target.retain,
            subscription_identifiers: target
                .subscription_identifiers
                .as_deref()
                .map(|values| Identifiers(Form::Values(values))),
        }
    }
}

/// Subscription Identifiers: values, or bytes that were checked to be such.
#[derive(Clone, Copy, Debug)]
pub struct Identifiers<'a>(Form<'a>);

#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    Values(&'a [u32]),
    Encoded(&'a [u8]),
}

impl<'a> Identifiers<'a> {
    pub(super) const fn encoded(checked: &'a [u8]) -> Self {
        Self(Form::Encoded(checked))
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        let (values, encoded): (&[u32], &[u8]) = match self.0 {
            Form::Values(values) => (values, &[]),
            Form::Encoded(encoded) => (&[], encoded),
        };
        values
            .iter()
            .copied()
            .chain(EncodedIdentifiers::new(encoded))
    }
}

/// Texts: values, or bytes that were checked to be such.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a>(TextsForm<'a>);

#[derive(Clone, Copy, Debug)]
enum TextsForm<'a> {
    Values(&'a [Arc<str>]),
    Encoded(&'a [u8]),
}

impl<'a> Texts<'a> {
    pub(super) const fn encoded(checked: &'a [u8]) -> Self {
        Self(TextsForm::Encoded(checked))
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let (values, encoded): (&[Arc<str>], &[u8]) = match self.0 {
            TextsForm::Values(values) => (values, &[]),
            TextsForm::Encoded(encoded) => (&[], encoded),
        };
        values
            .iter()
            .map(|text| &**text)
            .chain(EncodedTexts::new(encoded))
    }

    fn write(&self, sink: &mut impl Sink) {
        let mut length = Length(0);
        for text in self.iter() {
            length.bytes_with_length(text.as_bytes());
        }
        sink.varint(length.0 as u64);
        for text in self.iter() {
            sink.bytes_with_length(text.as_bytes());
        }
    }
}

impl PartialEq for Texts<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Texts<'_> {}

impl<'a> From<&'a OwnerRecord> for OwnerRef<'a> {
    fn from(owner: &'a OwnerRecord) -> Self {
        Self {
            user: &owner.user,
            is_administrator: owner.is_administrator,
            groups: Texts(TextsForm::Values(&owner.groups)),
            attributes: Texts(TextsForm::Values(&owner.attributes)),
            is_listed: owner.is_listed,
            rules: owner
                .rules
                .as_deref()
                .map(|rules| Texts(TextsForm::Values(rules))),
        }
    }
}

impl PartialEq for Identifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Identifiers<'_> {}

impl<'a> From<&'a SessionRecord> for SessionRef<'a> {
    fn from(session: &'a SessionRecord) -> Self {
        Self {
            session: session.session,
            client_id: &session.client_id,
            expiry_seconds: session.expiry_seconds,
            disconnected_at: session.disconnected_at,
            queue_seq: session.queue_seq,
            inbound_number: session.inbound_number,
            owner: session.owner.as_ref().map(OwnerRef::from),
            peer: session.peer.as_ref().map(|peer| PeerRef {
                address: peer.address,
                listener: &peer.listener,
                mount_point: peer.mount_point.as_deref().unwrap_or_default(),
            }),
        }
    }
}

impl<'a> From<&'a SubscriptionRecord> for SubscriptionRef<'a> {
    fn from(subscription: &'a SubscriptionRecord) -> Self {
        Self {
            session: subscription.session,
            filter: &subscription.filter,
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            subscription_identifier: subscription.subscription_identifier,
        }
    }
}

impl<'a> From<&'a MessageRecord> for MessageRef<'a> {
    fn from(message: &'a MessageRecord) -> Self {
        Self {
            topic: &message.topic,
            properties: &message.properties,
            payload: &message.payload,
            qos: message.qos,
            retain: message.retain,
            expiry: message.expiry,
        }
    }
}

impl<'a> From<&'a WillRecord> for WillRef<'a> {
    fn from(will: &'a WillRecord) -> Self {
        Self {
            session: will.session,
            message: (&will.message).into(),
            delay_seconds: will.delay_seconds,
        }
    }
}

/// Where the bytes of a record go.
trait Sink {
    fn byte(&mut self, byte: u8);
    fn bytes(&mut self, bytes: &[u8]);
    fn varint(&mut self, value: u64);

    fn session(&mut self, session: SessionId) {
        self.varint(session.0);
    }

    fn bytes_with_length(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.bytes(bytes);
    }
}

/// Counts bytes.
struct Length(usize);

impl Sink for Length {
    fn byte(&mut self, _byte: u8) {
        self.0 += 1;
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn varint(&mut self, value: u64) {
        // Seven bits in each byte, at least one byte.
        let bits = 64 - (value | 1).leading_zeros() as usize;
        self.0 += bits.div_ceil(7);
    }
}

impl Sink for Vec<u8> {
    fn byte(&mut self, byte: u8) {
        self.push(byte);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.push((value & 0x7f) as u8);
    }
}

fn begin(length: Length, out: &mut Vec<u8>) {
    out.reserve(length.0 + VARINT_BYTES_MAX);
    out.varint(length.0 as u64);
}

fn write_fields(record: &RecordRef<'_>, sink: &mut impl Sink) {
    match *record {
        RecordRef::SessionPut(session) => write_session(&session, sink),
        RecordRef::SessionDelete { session } => write_ids(SESSION_DELETE, session, &[], sink),
        RecordRef::SubscriptionPut(subscription) => write_subscription(&subscription, sink),
        RecordRef::SubscriptionDelete { session, filter } => {
            write_ids(SUBSCRIPTION_DELETE, session, &[], sink);
            sink.bytes(filter.as_bytes());
        }
        RecordRef::Enqueue(enqueue) => {
            let more_than_one = enqueue.target_count() - 1;
            let targets = enqueue.targets();
            write_enqueue(
                &enqueue.message,
                enqueue.origin,
                more_than_one,
                targets,
                sink,
            );
        }
        RecordRef::Dequeue {
            session,
            first_seq,
            count,
        } => write_ids(DEQUEUE, session, &[first_seq, count], sink),
        RecordRef::Release { session, seq } => write_ids(RELEASE, session, &[seq], sink),
        RecordRef::RetainedPut { message } => {
            sink.byte(RETAINED_PUT);
            write_message(&message, None, sink);
            sink.bytes(message.payload);
        }
        RecordRef::RetainedDelete { topic } => {
            sink.byte(RETAINED_DELETE);
            sink.bytes(topic);
        }
        RecordRef::InboundPut {
            session,
            packet_id,
            number,
        } => write_ids(INBOUND_PUT, session, &[packet_id.into(), number], sink),
        RecordRef::InboundDelete { session, packet_id } => {
            write_ids(INBOUND_DELETE, session, &[packet_id.into()], sink);
        }
        RecordRef::WillPut(will) => {
            write_ids(WILL_PUT, will.session, &[will.delay_seconds.into()], sink);
            write_message(&will.message, None, sink);
            sink.bytes(will.message.payload);
        }
        RecordRef::WillDelete { session } => write_ids(WILL_DELETE, session, &[], sink),
    }
}

fn write_ids(kind: u8, session: SessionId, numbers: &[u64], sink: &mut impl Sink) {
    sink.byte(kind);
    sink.session(session);
    for &number in numbers {
        sink.varint(number);
    }
}

fn write_session(session: &SessionRef<'_>, sink: &mut impl Sink) {
    sink.byte(SESSION_PUT);
    sink.session(session.session);
    let flags = flag(DISCONNECTED, session.disconnected_at.is_some());
    sink.byte(flags | flag(OWNER, session.owner.is_some()) | flag(PEER, session.peer.is_some()));
    if let Some(at) = session.disconnected_at {
        sink.varint(at.0);
    }
    sink.varint(session.expiry_seconds.into());
    sink.varint(session.queue_seq);
    sink.varint(session.inbound_number);
    if let Some(owner) = &session.owner {
        sink.byte(
            flag(ADMINISTRATOR, owner.is_administrator)
                | flag(RULES, owner.rules.is_some())
                | flag(LISTED, owner.is_listed),
        );
        sink.bytes_with_length(owner.user.as_bytes());
        owner.groups.write(sink);
        owner.attributes.write(sink);
        if let Some(rules) = &owner.rules {
            rules.write(sink);
        }
    }
    if let Some(peer) = &session.peer {
        match peer.address {
            None => sink.bytes_with_length(&[]),
            Some(IpAddr::V4(address)) => sink.bytes_with_length(&address.octets()),
            Some(IpAddr::V6(address)) => sink.bytes_with_length(&address.octets()),
        }
        sink.bytes_with_length(peer.listener.as_bytes());
        sink.bytes_with_length(peer.mount_point.as_bytes());
    }
    sink.bytes(session.client_id.as_bytes());
}

fn write_subscription(subscription: &SubscriptionRef<'_>, sink: &mut impl Sink) {
    sink.byte(SUBSCRIPTION_PUT);
    sink.session(subscription.session);
    let identifier = subscription.subscription_identifier;
    sink.byte(
        qos_bits(subscription.qos)
            | flag(NO_LOCAL, subscription.no_local)
            | flag(RETAIN_AS_PUBLISHED, subscription.retain_as_published)
            | flag(SUBSCRIPTION_IDENTIFIER, identifier.is_some()),
    );
    if let Some(identifier) = identifier {
        sink.varint(identifier.into());
    }
    sink.bytes(subscription.filter.as_bytes());
}

/// All of a message but its payload.
fn write_message(message: &MessageRef<'_>, origin: Option<Origin>, sink: &mut impl Sink) {
    sink.byte(
        qos_bits(message.qos)
            | flag(RETAIN, message.retain)
            | flag(MESSAGE_EXPIRY, message.expiry.is_some())
            | flag(MESSAGE_ORIGIN, origin.is_some()),
    );
    if let Some(expiry) = message.expiry {
        sink.varint(expiry.accepted_at.0);
        sink.varint(expiry.interval_seconds.into());
    }
    if let Some(origin) = origin {
        sink.session(origin.session);
        sink.varint(origin.number);
    }
    sink.bytes_with_length(message.topic);
    sink.bytes_with_length(message.properties);
}

/// Returns how many targets there were; `more_than_one` is that less one, as far as it is known.
fn write_enqueue<'a>(
    message: &MessageRef<'_>,
    origin: Option<Origin>,
    more_than_one: usize,
    targets: impl Iterator<Item = TargetRef<'a>>,
    sink: &mut impl Sink,
) -> usize {
    sink.byte(ENQUEUE);
    write_message(message, origin, sink);
    sink.byte(u8::try_from(more_than_one).expect("invariant: at most TARGETS_MAX targets"));
    let mut target_count = 0;
    for target in targets {
        write_target(&target, sink);
        target_count += 1;
    }
    sink.bytes(message.payload);
    target_count
}

fn write_target(target: &TargetRef<'_>, sink: &mut impl Sink) {
    sink.session(target.session);
    sink.varint(target.seq);
    let identifiers = target.subscription_identifiers;
    sink.byte(
        qos_bits(target.qos)
            | flag(RETAIN, target.retain)
            | flag(TARGET_IDENTIFIERS, identifiers.is_some()),
    );
    if let Some(identifiers) = identifiers {
        sink.varint(identifiers.iter().count() as u64);
        for identifier in identifiers.iter() {
            sink.varint(identifier.into());
        }
    }
}

/// There is no QoS above 2; one would make the record unreadable.
fn qos_bits(qos: u8) -> u8 {
    debug_assert!(qos <= 2, "a QoS is 0, 1 or 2");
    qos.min(2) & QOS
}

const fn flag(bit: u8, is_set: bool) -> u8 {
    if is_set { bit } else { 0 }
}

const VARINT_BYTES_MAX: usize = 10;
