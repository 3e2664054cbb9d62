//! Random records for the tests of this crate.
//!
//! Owns: strategies for proptest. Does not own: what is tested. Start reading at [`record`].
//! Invariant: every kind of record, every optional field and every flag comes up.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::{
    Expiry, MessageRecord, Origin, OwnerRecord, PeerRecord, Record, SessionId, SessionRecord,
    SubscriptionRecord, Target, UnixMillis, WillRecord,
};

/// Any record at all.
pub(crate) fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        session_record().prop_map(|session| Record::SessionPut(Box::new(session))),
        session_id().prop_map(|session| Record::SessionDelete { session }),
        subscription_record()
            .prop_map(|subscription| Record::SubscriptionPut(Box::new(subscription))),
        (session_id(), text()).prop_map(|(session, filter)| Record::SubscriptionDelete {
            session,
            filter: filter.into()
        }),
        (message(), vec(target(), 1..6), option::of(origin())).prop_map(
            |(message, targets, origin)| Record::Enqueue {
                message,
                targets,
                origin
            }
        ),
        (session_id(), number(), number()).prop_map(|(session, first_seq, count)| {
            Record::Dequeue {
                session,
                first_seq,
                count,
            }
        }),
        (session_id(), number()).prop_map(|(session, seq)| Record::Release { session, seq }),
        message().prop_map(|message| Record::RetainedPut { message }),
        blob().prop_map(|topic| Record::RetainedDelete { topic }),
        (session_id(), any::<u16>(), number()).prop_map(|(session, packet_id, number)| {
            Record::InboundPut {
                session,
                packet_id,
                number,
            }
        }),
        (session_id(), any::<u16>())
            .prop_map(|(session, packet_id)| Record::InboundDelete { session, packet_id }),
        (session_id(), message(), any::<u32>()).prop_map(|(session, message, delay_seconds)| {
            Record::WillPut(Box::new(WillRecord {
                session,
                message,
                delay_seconds,
            }))
        }),
        session_id().prop_map(|session| Record::WillDelete { session }),
    ]
}

/// Small numbers, those around a change of the encoded length, and any.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..300_u64,
        (0..64_u32, 0..3_u64).prop_map(|(bit, more)| (1_u64 << bit).wrapping_add(more) - 1),
        any::<u64>(),
    ]
}

fn session_id() -> impl Strategy<Value = SessionId> {
    number().prop_map(SessionId)
}

fn text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-z/+#$é☃]{0,20}").expect("a valid pattern")
}

fn blob() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

pub(crate) fn message() -> impl Strategy<Value = MessageRecord> {
    let expiry = (number(), any::<u32>()).prop_map(|(accepted_at, interval_seconds)| Expiry {
        accepted_at: UnixMillis(accepted_at),
        interval_seconds,
    });
    (
        blob(),
        blob(),
        blob(),
        0..=2_u8,
        any::<bool>(),
        option::of(expiry),
    )
        .prop_map(
            |(topic, properties, payload, qos, retain, expiry)| MessageRecord {
                topic,
                properties,
                payload,
                qos,
                retain,
                expiry,
            },
        )
}

fn target() -> impl Strategy<Value = Target> {
    (
        session_id(),
        number(),
        0..=2_u8,
        any::<bool>(),
        option::of(vec(any::<u32>(), 0..4)),
    )
        .prop_map(|(session, seq, qos, retain, identifiers)| Target {
            session,
            seq,
            qos,
            retain,
            subscription_identifiers: identifiers.map(Arc::from),
        })
}

fn origin() -> impl Strategy<Value = Origin> {
    (session_id(), number()).prop_map(|(session, number)| Origin { session, number })
}

fn owner_record() -> impl Strategy<Value = OwnerRecord> {
    let texts = || vec(text().prop_map(Arc::from), 0..3);
    let attribute = (text(), text()).prop_map(|(name, value)| [name.into(), value.into()]);
    let attributes = vec(attribute, 0..3);
    let flags = (any::<bool>(), any::<bool>());
    (text(), flags, texts(), attributes, option::of(texts())).prop_map(
        |(user, (is_administrator, is_listed), groups, attributes, rules)| OwnerRecord {
            user: user.into(),
            is_administrator,
            groups,
            attributes: attributes.concat(),
            is_listed,
            rules,
        },
    )
}

fn peer_record() -> impl Strategy<Value = PeerRecord> {
    let parts = (option::of(any::<IpAddr>()), text(), text());
    parts.prop_map(|(address, listener, mount_point)| PeerRecord {
        address,
        listener: listener.into(),
        mount_point: Some(mount_point.into()).filter(|text: &Arc<str>| !text.is_empty()),
    })
}

fn session_record() -> impl Strategy<Value = SessionRecord> {
    (
        session_id(),
        text(),
        any::<u32>(),
        option::of(number().prop_map(UnixMillis)),
        (number(), number()),
        (option::of(owner_record()), option::of(peer_record())),
    )
        .prop_map(
            |(
                session,
                client_id,
                expiry_seconds,
                disconnected_at,
                (queue_seq, inbound_number),
                (owner, peer),
            )| {
                SessionRecord {
                    owner,
                    peer,
                    session,
                    client_id: client_id.into(),
                    expiry_seconds,
                    disconnected_at,
                    queue_seq,
                    inbound_number,
                }
            },
        )
}

fn subscription_record() -> impl Strategy<Value = SubscriptionRecord> {
    (
        session_id(),
        text(),
        0..=2_u8,
        any::<bool>(),
        any::<bool>(),
        option::of(any::<u32>()),
    )
        .prop_map(
            |(session, filter, qos, no_local, retain_as_published, subscription_identifier)| {
                SubscriptionRecord {
                    session,
                    filter: filter.into(),
                    qos,
                    no_local,
                    retain_as_published,
                    subscription_identifier,
                }
            },
        )
}
