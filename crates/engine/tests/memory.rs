//! What the engine counts as held for its peers, beside what the allocator knows.
//!
//! Owns: the bound of the error, by kind and in all; what a Retained Message may cost. Does not own: what connections
//! hold (see the tests of the server). Start reading at [`check`]. Invariant: one test at a time, for the allocator
//! counts the whole process.
#![allow(clippy::disallowed_methods, reason = "tests begin somewhere")]

use std::alloc::System;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cap::Cap;
use proto::packet::{
    Connect, Publish, PublishProperties, RetainHandling, Subscribe, SubscriptionOptions,
    SubscriptionRequest, Will, WillProperties,
};
use proto::{PacketIdentifier, Qos, Version};
use vencejo_engine::{
    Config, ConnectRequest, ConnectionKey, Engine, Memory, Output, Principal, ShardIndex,
};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Promise P6: what is counted is what is held, within 15 %.
#[test]
fn bytes_that_are_counted_are_those_of_the_allocator_within_15_percent() {
    let now = Instant::now();
    check(
        "sessions",
        |memory| memory.sessions,
        |engine| {
            for number in 0..10_000 {
                connect(engine, number, None, now);
            }
        },
    );
    check(
        "wills",
        |memory| memory.wills + memory.sessions,
        |engine| {
            for number in 0..5_000 {
                connect(engine, number, Some(vec![0; 2_000].into()), now);
            }
        },
    );
    check(
        "unlike filters",
        |memory| memory.subscriptions,
        |engine| {
            connect(engine, 0, None, now);
            for number in 0..9_000 {
                subscribe(engine, 0, &format!("site/{number}/+/temperature"), now);
            }
        },
    );
    check(
        "one filter",
        |memory| memory.subscriptions + memory.sessions,
        |engine| {
            for number in 0..10_000 {
                connect(engine, number, None, now);
                subscribe(engine, number, "site/+/temperature", now);
            }
        },
    );
    for payload in [10, 3_000] {
        check_messages(payload, now);
    }
}

/// A Retained Message of 64 bytes, on a topic of 22, costs no more than that in all: those of a second hundred thousand,
/// for by then all that is kept once is there.
#[test]
fn retained_message_of_64_bytes_costs_at_most_245_in_all() {
    let held = [100_000, 200_000].map(|count| {
        held_bytes(|engine, now| {
            for number in 0..count {
                let topic = format!("site/{number:06}/temperature");
                publish(engine, &topic, 64, true, now);
            }
        })
    });
    let each = (held[1] - held[0]) / 100_000;
    assert!(each <= 245, "{each} bytes each");
}

/// An idle Client with a Session that is kept and one Subscription to a topic of its own: what the engine allocates.
#[test]
fn an_idle_session_with_a_subscription_takes_700_bytes_at_most() {
    let now = Instant::now();
    let before = ALLOCATOR.allocated();
    let mut engine = Engine::new(Config::new(ShardIndex(0), 1, 7), now);
    for number in 0..SESSIONS {
        connect(&mut engine, number, None, now);
        subscribe(&mut engine, number, &format!("idle/{number}"), now);
    }
    engine.shrink();
    let each = (ALLOCATOR.allocated() - before) as u64 / SESSIONS;
    println!("{each} bytes each");
    assert!(each <= 700, "{each} bytes each");
}

/// No power of two, so that tables that double are as full as they are in the middle.
const SESSIONS: u64 = 12_000;

fn check_messages(payload: usize, now: Instant) {
    check(
        "retained",
        |memory| memory.retained + memory.subscriptions,
        |engine| {
            connect(engine, 0, None, now);
            for number in 0..20_000 {
                publish(
                    engine,
                    &format!("site/{number}/temperature"),
                    payload,
                    true,
                    now,
                );
            }
        },
    );
    check(
        "queues",
        |memory| memory.queues + memory.sessions,
        |engine| {
            for number in 0..100 {
                connect(engine, number, None, now);
                subscribe(engine, number, "a", now);
                engine.on_closed(ConnectionKey(number), now);
            }
            connect(engine, 1_000, None, now);
            for _ in 0..3_000 {
                publish(engine, "a", payload, false, now);
            }
        },
    );
}

/// Lets `fill` fill an engine; what it counts, and of that `kind` with the messages, has to be what was allocated.
fn check(name: &str, kind: impl Fn(Memory) -> u64, fill: impl Fn(&mut Engine)) {
    let before = (ALLOCATOR.allocated(), proto::live_message_bytes());
    let mut config = Config::new(ShardIndex(0), 1, 7);
    config.sys_interval = Duration::ZERO;
    let mut engine = Engine::new(config, Instant::now());
    fill(&mut engine);
    settle(&mut engine);
    let memory = engine.memory();
    let messages = proto::live_message_bytes() - before.1;
    let messages = u64::try_from(messages).expect("no less than before");
    let Memory {
        sessions,
        wills,
        subscriptions,
        retained,
        retained_messages: _,
        queues,
    } = memory;
    let all = sessions + wills + subscriptions + retained + queues + messages;
    let allocated = (ALLOCATOR.allocated() - before.0) as u64;
    for (what, counted) in [("all", all), (name, kind(memory) + messages)] {
        let error = counted.abs_diff(allocated) * 100 / allocated;
        assert!(
            error < 15,
            "{name}: {what} counted {counted}, allocated {allocated}, {error} % off: {memory:?}, messages {messages}"
        );
    }
    drop(engine);
    assert_eq!(proto::live_message_bytes(), before.1, "{name}");
}

/// What the allocator holds for an engine with one Client after `fill`.
fn held_bytes(fill: impl Fn(&mut Engine, Instant)) -> usize {
    let (before, now) = (ALLOCATOR.allocated(), Instant::now());
    let mut config = Config::new(ShardIndex(0), 1, 7);
    config.sys_interval = Duration::ZERO;
    let mut engine = Engine::new(config, now);
    connect(&mut engine, 0, None, now);
    fill(&mut engine, now);
    settle(&mut engine);
    ALLOCATOR.allocated() - before
}

fn connect(engine: &mut Engine, number: u64, will: Option<Bytes>, now: Instant) {
    let mut connect = Connect::new(Version::V5, format!("client-{number}"));
    connect.properties.session_expiry_interval_seconds = Some(3_600);
    connect.properties.maximum_packet_size_bytes = NonZeroU32::new(1 << 20);
    connect.will = will.map(|payload| Will {
        topic: "will".to_owned(),
        payload,
        qos: Qos::AtMostOnce,
        retain: false,
        properties: WillProperties::default(),
    });
    let request = ConnectRequest {
        connection: ConnectionKey(number),
        connect: Box::new(connect),
        assigned_client_id: false,
        authentication_data: None,
        principal: Arc::new(Principal::default()),
    };
    engine.on_connect(request, now);
    settle(engine);
}

fn subscribe(engine: &mut Engine, number: u64, filter: &str, now: Instant) {
    let subscribe = Subscribe {
        packet_id: PacketIdentifier::FIRST,
        subscription_identifier: None,
        user_properties: Vec::new(),
        requests: vec![SubscriptionRequest {
            filter,
            options: SubscriptionOptions {
                qos: Qos::AtLeastOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::DoNotSend,
            },
        }],
    };
    engine.on_subscribe(ConnectionKey(number), &subscribe, now);
    settle(engine);
}

fn publish(engine: &mut Engine, topic: &str, payload: usize, retain: bool, now: Instant) {
    let payload = vec![7; payload];
    let publish = Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain,
        topic,
        packet_id: Some(PacketIdentifier::FIRST),
        properties: PublishProperties::default(),
        payload: &payload,
    };
    let publisher = if retain { 0 } else { 1_000 };
    engine.on_publish(ConnectionKey(publisher), &publish, None, now);
    settle(engine);
}

fn settle(engine: &mut Engine) {
    let now = Instant::now();
    engine.end_turn(now);
    while let Some(output) = engine.poll_output() {
        if let Output::Persist(batch) = output {
            engine.on_persisted(batch.seq, batch.seq, now);
        }
    }
    engine.end_turn(now);
    while engine.poll_output().is_some() {}
}
