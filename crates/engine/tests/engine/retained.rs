//! Retained messages: storing, replacing, clearing, expiry, and who gets them when.

use proto::Version;
use proto::connection::Outgoing;
use proto::packet::{
    Publish, PublishProperties, ReasonCode, RetainHandling, Subscribe, SubscriptionOptions,
    SubscriptionRequest,
};
use vencejo_engine::Limits;

use crate::world::{Client, World, durable, id, options, payload, publish};

const HANDLINGS: [RetainHandling; 3] = [
    RetainHandling::Send,
    RetainHandling::SendIfNew,
    RetainHandling::DoNotSend,
];

/// Publishes a retained message with a Message Expiry Interval at QoS 1.
fn publish_expiring(world: &mut World, client: Client, topic: &str, text: &str, seconds: u32) {
    let mut raw = vec![0x02];
    raw.extend_from_slice(&seconds.to_be_bytes());
    let properties = PublishProperties::parse(&raw).expect("valid");
    let packet_id = world.packet_id();
    let publish = Publish {
        retain: true,
        properties,
        ..publish(topic, 1, text, packet_id)
    };
    world.send_publish(client, &publish);
    world.settle();
}

/// Verifies [MQTT-3.3.1-6]: an empty retained PUBLISH removes the retained message.
/// Verifies [MQTT-3.3.1-7]: and is not itself retained.
/// Verifies [v3.1.1 MQTT-3.3.1-10]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.3.1-11]: the same in 3.1.1.
#[test]
fn an_empty_retained_message_clears_and_is_delivered_to_those_there() {
    for version in [Version::V311, Version::V5] {
        for shards in 1..=3 {
            let mut world = World::with(shards, Limits::default());
            world.version = version;
            let (sender, there) = (world.connect("sender"), world.connect("there"));
            world.publish_retained(sender, "a", 1, "kept");
            world.subscribe(there, "a", 1);
            assert_eq!(world.payloads(there), ["kept"]);
            world.publish_retained(sender, "a", 1, "");
            assert_eq!(world.payloads(there), [""]);
            for late in ["late", "later", "latest", "and one more"] {
                let late = world.connect(late);
                world.subscribe(late, "#", 1);
                assert!(world.received(late).is_empty());
            }
            for engine in &world.engines {
                assert_eq!(engine.counters().retained_messages, 0);
                assert_eq!(engine.counters().retained_bytes, 0);
            }
        }
    }
}

/// Verifies [MQTT-3.3.1-8]: RETAIN 0 leaves the retained message alone.
/// Verifies [v3.1.1 MQTT-3.3.1-12]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.3.1-5]: RETAIN 1 stores the message and its QoS.
/// Verifies [v3.1.1 MQTT-3.3.1-6]: a new Subscription gets what it matches.
/// Verifies [v3.1.1 MQTT-3.3.1-8]: with RETAIN 1.
/// Verifies [v3.1.1 MQTT-3.3.1-7]: one of QoS 0 replaces the one before.
#[test]
fn only_retain_changes_what_is_retained() {
    let mut world = World::new();
    let sender = world.connect_311("sender", true);
    world.publish_retained(sender, "a", 2, "kept");
    world.publish(sender, "a", 2, "passing");
    world.publish(sender, "a", 2, "");
    let receiver = world.connect_311("receiver", true);
    world.subscribe(receiver, "a", 2);
    let deliveries = world.drain(receiver);
    assert_eq!(deliveries.len(), 1);
    assert_eq!(payload(&deliveries[0]), "kept");
    assert_eq!(deliveries[0].qos.level(), 2);
    assert!(deliveries[0].retain);
    world.publish_retained(sender, "a", 0, "newest");
    world.received(receiver);
    world.subscribe(receiver, "a", 2);
    let deliveries = world.deliveries(receiver);
    assert_eq!(payload(&deliveries[0]), "newest");
    assert_eq!(deliveries[0].qos.level(), 0);
}

/// Verifies [MQTT-3.3.1-9]: Retain Handling 0 sends at every SUBSCRIBE.
/// Verifies [MQTT-3.3.1-10]: 1 only if the Subscription is new.
/// Verifies [MQTT-3.3.1-11]: 2 never.
/// Verifies [MQTT-3.8.4-4]: a replaced Subscription gets them again under 0.
#[test]
fn retain_handling_decides_what_a_subscription_is_sent() {
    for (retain_handling, expected) in HANDLINGS.into_iter().zip([[1, 1, 1], [1, 0, 1], [0, 0, 0]])
    {
        let mut world = World::new();
        let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
        world.publish_retained(sender, "a", 1, "kept");
        let with = SubscriptionOptions {
            retain_handling,
            ..options(1)
        };
        let mut seen = [0; 3];
        world.subscribe_with(receiver, "a", with, None);
        seen[0] = world.drain(receiver).len();
        world.subscribe_with(receiver, "a", with, None);
        seen[1] = world.drain(receiver).len();
        world.unsubscribe(receiver, "a");
        world.subscribe_with(receiver, "a", with, None);
        seen[2] = world.drain(receiver).len();
        assert_eq!(seen, expected, "{retain_handling:?}");
    }
}

/// Verifies [MQTT-3.3.1-10]: a Subscription kept with its Session is not new after a resume.
#[test]
fn a_resumed_subscription_is_not_new() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.publish_retained(sender, "a", 1, "kept");
    world.subscribe(receiver, "a", 1);
    world.drain(receiver);
    world.lose(receiver);
    let (receiver, _) = world.resume("receiver");
    assert!(world.received(receiver).is_empty());
    let with = SubscriptionOptions {
        retain_handling: RetainHandling::SendIfNew,
        ..options(1)
    };
    world.subscribe_with(receiver, "a", with, None);
    assert!(world.deliveries(receiver).is_empty());
}

/// Verifies [MQTT-3.3.1-12]: Retain As Published 0 clears RETAIN of a live message.
/// Verifies [MQTT-3.3.1-13]: 1 keeps it as it was published.
/// Verifies [v3.1.1 MQTT-3.3.1-9]: in 3.1.1 it is always cleared.
#[test]
fn retain_as_published_decides_retain_of_live_messages() {
    for shards in 1..=3 {
        let mut world = World::with(shards, Limits::default());
        let sender = world.connect("sender");
        let (plain, keeping) = (world.connect("plain"), world.connect("keeping"));
        let old = world.connect_311("old", true);
        let with = SubscriptionOptions {
            retain_as_published: true,
            ..options(0)
        };
        world.subscribe(plain, "a", 0);
        world.subscribe_with(keeping, "a", with, None);
        world.subscribe(old, "a", 0);
        world.publish_retained(sender, "a", 0, "one");
        world.publish(sender, "a", 0, "two");
        for (client, expected) in [
            (plain, [false, false]),
            (keeping, [true, false]),
            (old, [false, false]),
        ] {
            let deliveries = world.deliveries(client);
            let seen: Vec<_> = deliveries.iter().map(|one| one.retain).collect();
            assert_eq!(seen, expected);
        }
    }
}

/// Verifies [MQTT-3.3.2-5]: a retained message whose interval has passed is not sent any more.
/// Verifies [MQTT-3.3.2-6]: one whose interval has not passed carries what is left.
#[test]
fn a_retained_message_expires() {
    let mut world = World::with(2, Limits::default());
    let sender = world.connect("sender");
    publish_expiring(&mut world, sender, "a", "short", 10);
    publish_expiring(&mut world, sender, "b", "long", 100);
    world.advance(9);
    let early = world.connect("early");
    world.subscribe(early, "#", 0);
    let deliveries = world.deliveries(early);
    let now = world.now;
    let mut left: Vec<_> = deliveries
        .iter()
        .map(|one| one.message.remaining_expiry_seconds(now))
        .collect();
    left.sort_unstable();
    assert_eq!(left, [Some(1), Some(91)]);
    world.advance(1);
    let late = world.connect("late");
    world.subscribe(late, "#", 0);
    assert_eq!(world.payloads(late), ["long"]);
    world.advance(1);
    for engine in &world.engines {
        assert_eq!(engine.counters().retained_messages, 1);
    }
}

/// Verifies [MQTT-4.7.2-1]: a leading wildcard matches no `$` topic, retained or live.
/// Verifies [v3.1.1 MQTT-4.7.2-1]: the same in 3.1.1.
#[test]
fn a_leading_wildcard_gets_no_dollar_topic() {
    for version in [Version::V311, Version::V5] {
        for shards in 1..=3 {
            let mut world = World::with(shards, Limits::default());
            world.version = version;
            let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
            world.publish_retained(sender, "$a/b", 1, "kept");
            for filter in ["#", "+/b", "+/#"] {
                world.subscribe(receiver, filter, 1);
            }
            world.publish(sender, "$a/b", 1, "live");
            assert!(world.deliveries(receiver).is_empty());
            world.subscribe(receiver, "$a/#", 1);
            world.publish(sender, "$a/b", 1, "live");
            assert_eq!(world.payloads(receiver), ["kept", "live"]);
        }
    }
}

/// A wide Subscription gets every retained message it matches, at a pace of so many in a turn.
#[test]
fn many_retained_messages_are_replayed_in_turns_and_all_arrive() {
    let limits = Limits {
        retained_replay_per_turn: 3,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    for number in 0..50 {
        world.publish_retained(sender, &format!("a/{number}"), 1, "x");
    }
    let subscribe = Subscribe {
        packet_id: id(1),
        subscription_identifier: Some(5),
        user_properties: Vec::new(),
        requests: vec![SubscriptionRequest {
            filter: "a/+",
            options: options(1),
        }],
    };
    let now = world.now;
    world
        .engine(receiver)
        .on_subscribe(receiver.key, &subscribe, now);
    world.turn();
    world.turn();
    let early = world.received(receiver).len();
    assert!((1..=8).contains(&early), "{early} in two turns");
    world.settle();
    assert_eq!(early + world.received(receiver).len(), 51);
}

/// What is retained can wait where it is: for a Client that is away nothing more of it is queued while there is no memory.
#[test]
fn replay_stands_still_while_memory_is_short_and_loses_nothing() {
    let limits = Limits {
        retained_replay_per_turn: 3,
        ..Limits::default()
    };
    let mut world = World::without_loads(limits);
    let sender = world.connect("sender");
    for number in 0..30 {
        let text = format!("{number:02}");
        world.publish_retained(sender, &format!("a/{text}"), 1, &text);
    }
    let receiver = world.connect_with(durable("receiver"));
    world.connack(receiver);
    let subscribe = Subscribe {
        packet_id: id(1),
        subscription_identifier: None,
        user_properties: Vec::new(),
        requests: vec![SubscriptionRequest {
            filter: "a/#",
            options: options(1),
        }],
    };
    let now = world.now;
    world
        .engine(receiver)
        .on_subscribe(receiver.key, &subscribe, now);
    world.turn();
    world.engine(receiver).on_memory_short(true, now);
    world.engine(receiver).on_closed(receiver.key, now);
    world.settle();
    let queued = world.engines[0].counters().queued_messages;
    assert!(queued <= 3, "{queued} of 30 while memory is short");
    world.engines[0].on_memory_short(false, now);
    world.settle();
    assert_eq!(world.engines[0].counters().dropped_queue_full, 0);
    let again = world.connect_with(durable("receiver"));
    world.connack(again);
    let mut texts = world.payloads(again);
    texts.sort_unstable();
    texts.dedup();
    let all: Vec<_> = (0..30).map(|number| format!("{number:02}")).collect();
    assert_eq!(texts, all);
}

/// Section 4.8.2: a Shared Subscription is sent no retained messages.
#[test]
fn a_shared_subscription_gets_no_retained_messages() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.publish_retained(sender, "a", 1, "kept");
    world.subscribe(receiver, "$share/g/a", 1);
    assert!(world.received(receiver).is_empty());
}

/// Verifies [MQTT-3.3.2-4]: Payload Format Indicator passes unaltered.
/// Verifies [MQTT-3.3.2-15]: so does Response Topic.
/// Verifies [MQTT-3.3.2-16]: Correlation Data.
/// Verifies [MQTT-3.3.2-17]: User Properties.
/// Verifies [MQTT-3.3.2-18]: in their order.
/// Verifies [MQTT-3.3.2-20]: and Content Type; live, across shards, and retained.
#[test]
fn properties_pass_unaltered_live_and_retained() {
    let forwarded: &[u8] = b"\x01\x01\x03\0\x01t\x08\0\x01r\x09\0\x02\0\xFF\
        \x26\0\x01b\0\x012\x26\0\x01a\0\x011\x26\0\x01b\0\x012";
    for shards in 1..=3 {
        let mut world = World::with(shards, Limits::default());
        let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
        world.subscribe(receiver, "a", 1);
        let publish = Publish {
            retain: true,
            properties: PublishProperties::parse(forwarded).expect("valid"),
            ..publish("a", 1, "x", id(1))
        };
        world.send_publish(sender, &publish);
        world.settle();
        let late = world.connect("late");
        world.subscribe(late, "a", 1);
        for client in [receiver, late] {
            let deliveries = world.deliveries(client);
            assert_eq!(deliveries.len(), 1);
            assert_eq!(deliveries[0].message.forwarded_properties(), forwarded);
        }
    }
}

/// A full store of retained messages refuses new topics and keeps replacing old ones.
#[test]
fn retained_messages_beyond_the_limit_make_no_room_for_themselves() {
    let limits = Limits {
        retained_messages_max: 2,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 1);
    for topic in ["a", "b", "c", "a"] {
        world.publish_retained(sender, topic, 1, topic);
    }
    assert_eq!(world.payloads(receiver), ["a", "b", "a"]);
    assert_eq!(world.engines[0].counters().retained_messages, 2);
    world.publish_retained(sender, "b", 1, "");
    world.publish_retained(sender, "c", 1, "c");
    let late = world.connect_with(proto::packet::Connect::new(Version::V5, "late"));
    world.connack(late);
    world.subscribe(late, "#", 1);
    let mut kept = world.payloads(late);
    kept.sort_unstable();
    assert_eq!(kept, ["a", "c"]);
}

/// What this thread has had of a core, whatever else the machine does; 0 where nobody says.
fn cpu_seconds() -> u64 {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds: u64 = said
        .split(' ')
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or(0);
    nanoseconds / 1_000_000_000
}

/// Many replays that stand still cost neither their own Session nor the others: starting, looking at
/// and dropping them does not look at all of them each time.
#[test]
fn replays_that_stand_still_cost_little_and_go_on_later() {
    let mut world = World::new();
    let sender = world.connect("sender");
    world.publish_retained(sender, "a/5", 0, "kept");
    let filters: Vec<String> = (0..10_000).map(|number| format!("+/{number}")).collect();
    let began = cpu_seconds();
    let slow: Vec<Client> = (0..10)
        .map(|number| {
            let client = world.connect_clean(&format!("slow-{number}"));
            world.congest(client, true);
            let request = |filter| SubscriptionRequest {
                filter,
                options: options(0),
            };
            let subscribe = Subscribe {
                packet_id: id(1),
                subscription_identifier: None,
                user_properties: Vec::new(),
                requests: filters.iter().map(|one| request(one.as_str())).collect(),
            };
            world.send_subscribe(client, &subscribe);
            assert!(!world.engine(client).has_work());
            client
        })
        .collect();
    for client in &slow[1..] {
        world.lose(*client);
    }
    // Looking at all of them each time takes minutes of a core, and this a second or two.
    let took = cpu_seconds() - began;
    assert!(took < 20, "10 x 10,000 replays took {took} s of a core");
    world.congest(slow[0], false);
    assert_eq!(world.payloads(slow[0]), ["kept"]);
    assert!(!world.engine(slow[0]).has_work());
}

/// Section 2.4, Quota exceeded: a message that cannot be retained is not accepted, and goes to nobody.
#[test]
fn a_retained_message_beyond_the_limits_is_refused_and_goes_to_nobody() {
    let too_many = Limits {
        retained_messages_max: 1,
        ..Limits::default()
    };
    let too_large = Limits {
        retained_bytes_max: 1000,
        ..Limits::default()
    };
    let large = "x".repeat(2000);
    for (limits, refused) in [(too_many, "y"), (too_large, &*large)] {
        let mut world = World::with(1, limits);
        let watcher = world.connect("watcher");
        world.subscribe(watcher, "#", 2);
        let (v5, v311) = (world.connect("five"), world.connect_311("three", true));
        world.publish_retained(v5, "a", 1, "first");
        world.received(v5);
        for qos in 0..=2 {
            world.publish_retained(v5, "b", qos, refused);
            world.publish_retained(v311, "b", qos, refused);
        }
        let reasons = |packets: Vec<Outgoing>| -> Vec<(u8, ReasonCode)> {
            let reason = |packet| match packet {
                Outgoing::PubAck(ack) => (1, ack.reason),
                Outgoing::PubRec(ack) => (2, ack.reason),
                other => panic!("{other:?}"),
            };
            packets.into_iter().map(reason).collect()
        };
        let quota = ReasonCode::QuotaExceeded;
        assert_eq!(reasons(world.received(v5)), [(1, quota), (2, quota)]);
        // 3.1.1 has no Reason Codes; its handshake ends as any other.
        assert_eq!(reasons(world.received(v311)).len(), 2);
        let last = world.packet_id().get() - 1;
        world.pubrel(v311, last);
        assert!(
            matches!(&world.received(v311)[..], [Outgoing::PubComp(ack)] if ack.reason == ReasonCode::Success)
        );
        assert_eq!(world.engines[0].counters().dropped_retained_full, 6);
        // Another message instead of the one there, none instead of it, and others without RETAIN fit.
        world.publish_retained(v5, "a", 1, "second");
        world.publish(v5, "b", 1, "passes");
        world.publish_retained(v5, "a", 1, "");
        world.publish_retained(v5, "b", 2, "fits");
        let delivered: Vec<String> = world.drain(watcher).iter().map(payload).collect();
        assert_eq!(delivered, ["first", "second", "passes", "", "fits"]);
    }
}
