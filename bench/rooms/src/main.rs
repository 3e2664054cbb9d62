//! Does the same thing in one room again and again, for a tool that counts instructions.
//!
//! Owns: the rooms by name. Does not own: counting, and what the counts are to be (see `cargo xtask rooms`).
//! Start reading at [`ROOMS`]. Invariant: of two runs that differ only in how often, the difference is the room.

use std::hint::black_box;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use proto::connection::{Delivery, Outgoing, ServerConnection};
use proto::packet::{ConnAck, Connect, Packet};
use proto::{Message, PacketIdentifier, Qos, Version};
use rooms::{Bed, answers, encoded, limits, publish, publishes, retained};
use store::{Batch, EncodedGroup, Level, MessageRecord, Record, Seq, SessionId, Target};

/// What is done so often.
type Room = fn(count: usize);

const ROOMS: &[(&str, Room)] = &[
    ("decode", decode),
    ("decode-v5", decode_v5),
    ("match", find_subscribers),
    ("match-named", find_subscribers_by_name),
    ("deliver", deliver),
    ("deliver-to-100", deliver_to_many),
    ("retain", retain_more),
    ("replay", |count| replay(count, Qos::AtMostOnce)),
    ("replay-qos1", |count| replay(count, Qos::AtLeastOnce)),
    ("encode", encode),
    ("qos0", |count| {
        exchange(count, Qos::AtMostOnce, Version::V311, 1);
    }),
    ("qos1", |count| {
        exchange(count, Qos::AtLeastOnce, Version::V311, 1);
    }),
    ("qos2", |count| {
        exchange(count, Qos::ExactlyOnce, Version::V311, 1);
    }),
    ("qos1-v5", |count| {
        exchange(count, Qos::AtLeastOnce, Version::V5, 1);
    }),
    // So many as one read holds.
    ("qos0-of-16", |count| {
        exchange(count, Qos::AtMostOnce, Version::V311, 16);
    }),
    ("qos1-of-16", |count| {
        exchange(count, Qos::AtLeastOnce, Version::V311, 16);
    }),
    ("qos2-of-16", |count| {
        exchange(count, Qos::ExactlyOnce, Version::V311, 16);
    }),
    ("qos1-kept", exchange_kept),
    ("store-append", append),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (name, count) = (arguments.next(), arguments.next());
    let Some(name) = name else {
        for (name, _) in ROOMS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let room = ROOMS.iter().find(|(room, _)| *room == name);
    let count = count.and_then(|count| count.parse().ok());
    let (Some((_, room)), Some(count)) = (room, count) else {
        eprintln!("usage: rooms [ROOM COUNT]; without them it lists the rooms");
        return ExitCode::from(2);
    };
    room(count);
    ExitCode::SUCCESS
}

fn connected(version: Version) -> (ServerConnection, Instant) {
    let now = Instant::now();
    let mut connection = ServerConnection::new(limits(), now);
    let connect = Packet::Connect(Box::new(Connect::new(version, "client")));
    let bytes = encoded(&connect, version);
    let taken = connection.next_event(&bytes, now);
    assert!(taken.is_ok_and(|taken| taken.is_some()));
    let connack = ConnAck::refusal(proto::packet::ReasonCode::Success);
    let is_sent = connection.send(&Outgoing::ConnAck(Box::new(connack)), now, &mut Vec::new());
    assert!(is_sent);
    (connection, now)
}

fn decode(count: usize) {
    decode_as(count, Version::V311);
}

fn decode_v5(count: usize) {
    decode_as(count, Version::V5);
}

fn decode_as(count: usize, version: Version) {
    let (mut connection, now) = connected(version);
    let bytes = publish(version, TOPIC, Qos::AtMostOnce, 1);
    for _ in 0..count {
        let taken = connection.next_event(black_box(&bytes), now);
        assert!(black_box(taken).is_ok_and(|taken| taken.is_some()));
    }
}

/// Topics that nobody has asked for before, among 10,000 Subscriptions; two match.
fn find_subscribers(count: usize) {
    let mut bed = Bed::new(Level::Memory);
    let publisher = bed.connect(Version::V311, false);
    let (one, other) = (
        bed.connect(Version::V311, false),
        bed.connect(Version::V311, false),
    );
    for number in 0..SUBSCRIPTIONS {
        bed.subscribe(
            one,
            &format!("site/{}/device/{number}/+", number % 10),
            Qos::AtMostOnce,
        );
    }
    for number in 0..10 {
        bed.subscribe(other, &format!("site/{number}/#"), Qos::AtMostOnce);
    }
    let topics = (0..count).map(|number| {
        let device = number % SUBSCRIPTIONS;
        format!("site/{}/device/{device}/{number}", device % 10)
    });
    for topic in topics {
        bed.take(
            publisher,
            &publish(Version::V311, &topic, Qos::AtMostOnce, 1),
        );
        for client in [one, other] {
            assert!(!bed.sent(client).is_empty());
            bed.sent(client).clear();
        }
    }
}

/// Any of 10,000 topics, each of which one subscriber wants by name and another by a wildcard: most have no answer that is
/// kept.
fn find_subscribers_by_name(count: usize) {
    let mut bed = Bed::new(Level::Memory);
    let publisher = bed.connect(Version::V311, false);
    let (one, other) = (
        bed.connect(Version::V311, false),
        bed.connect(Version::V311, false),
    );
    let topic_of = |number: usize| format!("site/{}/device/{number}/state", number % 10);
    for number in 0..SUBSCRIPTIONS {
        bed.subscribe(one, &topic_of(number), Qos::AtMostOnce);
    }
    for number in 0..10 {
        bed.subscribe(other, &format!("site/{number}/#"), Qos::AtMostOnce);
    }
    for number in 0..count {
        let topic = topic_of((SUBSCRIPTIONS / 2 + number) % SUBSCRIPTIONS);
        let bytes = publish(Version::V311, &topic, Qos::AtMostOnce, 1);
        bed.take(publisher, &bytes);
        for client in [one, other] {
            assert!(!bed.sent(client).is_empty());
            bed.sent(client).clear();
        }
    }
}

/// One message from its PUBLISH to the packet for its subscriber, as one of many in a turn.
fn deliver(count: usize) {
    let mut bed = Bed::new(Level::Memory);
    let publisher = bed.connect(Version::V311, false);
    let subscriber = bed.connect(Version::V311, false);
    bed.subscribe(subscriber, TOPIC, Qos::AtMostOnce);
    let bytes = publish(Version::V311, TOPIC, Qos::AtMostOnce, 1);
    for _ in 0..count {
        bed.take(publisher, &bytes);
        bed.sent(subscriber).clear();
    }
}

/// The same to a hundred subscribers.
fn deliver_to_many(count: usize) {
    let mut bed = Bed::new(Level::Memory);
    let publisher = bed.connect(Version::V311, false);
    let subscribers: Vec<_> = (0..100)
        .map(|_| bed.connect(Version::V311, false))
        .collect();
    for subscriber in &subscribers {
        bed.subscribe(*subscriber, TOPIC, Qos::AtMostOnce);
    }
    let bytes = publish(Version::V311, TOPIC, Qos::AtMostOnce, 1);
    for _ in 0..count {
        bed.take(publisher, &bytes);
        for subscriber in &subscribers {
            bed.sent(*subscriber).clear();
        }
    }
}

/// One of many retained messages that a new Subscription is sent, its acknowledgement included.
fn replay(count: usize, qos: Qos) {
    let (mut bed, version) = (Bed::new(Level::Memory), Version::V311);
    let publisher = bed.connect(version, false);
    retain(&mut bed, publisher, 0..RETAINED, qos);
    let subscriber = bed.connect(version, false);
    let before = bed.engine.counters().publishes_sent;
    bed.ask(subscriber, "retained/#", qos);
    let mut answered = Vec::new();
    // So many turns, of equally many messages each.
    while bed.engine.counters().publishes_sent < before + count as u64 {
        bed.end_turn();
        answered.clear();
        if qos > Qos::AtMostOnce {
            answers(bed.sent(subscriber), version, &mut answered);
        }
        bed.sent(subscriber).clear();
        bed.take(subscriber, &answered);
    }
    assert_eq!(
        bed.engine.counters().publishes_sent,
        before + count as u64,
        "whole turns"
    );
}

/// One message more that is retained, where there are many.
fn retain_more(count: usize) {
    let mut bed = Bed::new(Level::Memory);
    let publisher = bed.connect(Version::V311, false);
    let qos = Qos::AtMostOnce;
    retain(&mut bed, publisher, 0..RETAINED, qos);
    retain(&mut bed, publisher, RETAINED..RETAINED + count, qos);
}

fn retain(bed: &mut Bed, publisher: usize, numbers: Range<usize>, qos: Qos) {
    for number in numbers {
        // Neighbours in the order of topics have not come one after the other.
        let topic = format!("retained/{}/{number:06}", number % 100);
        bed.take(publisher, &retained(Version::V311, &topic, qos));
        bed.sent(publisher).clear();
    }
}

fn encode(count: usize) {
    let (mut connection, now) = connected(Version::V311);
    let payload = Bytes::from_static(&[b'.'; 64]);
    let delivery = Delivery {
        message: Arc::new(Message::new(TOPIC, payload, Qos::AtLeastOnce, false, now)),
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        packet_id: Some(PacketIdentifier::FIRST),
        subscription_identifiers: None,
    };
    let mut out = Vec::new();
    for _ in 0..count {
        out.clear();
        connection.send_publish(black_box((&delivery).into()), now, &mut out);
        black_box(&out);
    }
}

/// A turn with one message, its handshakes included, to a Session that ends with its connection.
fn exchange(count: usize, qos: Qos, version: Version, together: u16) {
    let mut bed = Bed::new(Level::Memory);
    let publisher = bed.connect(version, false);
    let subscriber = bed.connect(version, false);
    let between = (publisher, subscriber);
    exchange_in(&mut bed, between, (count, together), qos, version);
}

/// The same to a Session that is kept, and recorded.
fn exchange_kept(count: usize) {
    let version = Version::V5;
    let mut bed = Bed::new(Level::Synced);
    let publisher = bed.connect(version, false);
    let subscriber = bed.connect(version, true);
    exchange_in(
        &mut bed,
        (publisher, subscriber),
        (count, 1),
        Qos::AtLeastOnce,
        version,
    );
}

fn exchange_in(
    bed: &mut Bed,
    (publisher, subscriber): (usize, usize),
    (count, together): (usize, u16),
    qos: Qos,
    version: Version,
) {
    bed.subscribe(subscriber, TOPIC, qos);
    let bytes = publishes(version, TOPIC, qos, together);
    let mut answered = Vec::new();
    for _ in 0..count {
        bed.take(publisher, &bytes);
        // Until nobody has anything to say any more.
        loop {
            bed.end_turn();
            let mut is_over = true;
            for client in [publisher, subscriber] {
                answered.clear();
                answers(bed.sent(client), version, &mut answered);
                bed.sent(client).clear();
                is_over &= answered.is_empty();
                bed.take(client, &answered);
            }
            if is_over {
                break;
            }
        }
    }
}

/// One record of a message for one Session, as the log has it.
fn append(count: usize) {
    let record = Record::Enqueue {
        message: MessageRecord {
            topic: Bytes::from_static(TOPIC.as_bytes()),
            properties: Bytes::new(),
            payload: Bytes::from_static(&[b'.'; 64]),
            qos: 1,
            retain: false,
            expiry: None,
        },
        targets: vec![Target {
            session: SessionId(1),
            seq: 1,
            qos: 1,
            retain: false,
            subscription_identifiers: None,
        }],
        origin: None,
    };
    let batch = Batch {
        seq: Seq(1),
        records: vec![record],
        level: Level::Synced,
    };
    let mut group = EncodedGroup::new();
    for _ in 0..count {
        group.clear(usize::MAX);
        group.push(black_box(&batch));
        black_box(&group);
    }
}

const TOPIC: &str = "site/7/device/1234/temperature";
const SUBSCRIPTIONS: usize = 10_000;
const RETAINED: usize = 10_000;
