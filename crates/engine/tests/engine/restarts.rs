//! What a restart finds again, also with another number of shards.

use std::time::Duration;

use bytes::Bytes;
use proto::connection::Outgoing;
use proto::packet::{Connect, Disconnect, ReasonCode, Will, WillProperties};
use proto::{Qos, Version};

use crate::recovery::Found;
use crate::world::{Client, World, durable, options, payload};
use vencejo_engine::Limits;

/// Numbers of shards before and after a crash.
const SHARDS: [(u16, u16); 4] = [(1, 1), (3, 3), (1, 3), (3, 2)];

fn expiring(client_id: &str, seconds: u32) -> Connect {
    let mut connect = durable(client_id);
    connect.properties.session_expiry_interval_seconds = Some(seconds);
    connect
}

fn with_will(mut connect: Connect, delay_interval_seconds: u32) -> Connect {
    connect.will = Some(Will {
        topic: "will".to_owned(),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: WillProperties {
            delay_interval_seconds,
            message_expiry_interval_seconds: Some(60),
            ..WillProperties::default()
        },
    });
    connect
}

fn is_present(world: &mut World, connect: Connect) -> bool {
    let client = world.connect_with(connect);
    world.connack(client).session_present
}

/// A Client with a Session of its own in every shard that there may be.
fn everywhere(world: &mut World, topic: &str) -> Vec<Client> {
    let clients: Vec<_> = (0..8)
        .map(|number| world.connect(&format!("everywhere-{number}")))
        .collect();
    for client in &clients {
        world.subscribe(*client, topic, 1);
    }
    clients
}

#[test]
fn sessions_and_subscriptions_are_there_after_a_crash() {
    for (before, after) in SHARDS {
        let mut world = World::with(before, Limits::default());
        everywhere(&mut world, "a/+");
        let gone = world.connect("everywhere-7");
        world.unsubscribe(gone, "a/+");
        world.connect_clean("clean");
        world.crash(after);
        let sessions: u64 = world
            .engines
            .iter()
            .map(|one| one.counters().sessions)
            .sum();
        assert_eq!(sessions, 8);
        let subscriptions = world.engines.iter();
        let subscriptions: u64 = subscriptions.map(|one| one.counters().subscriptions).sum();
        assert_eq!(subscriptions, 7);
        let sender = world.connect_clean("sender");
        let clients: Vec<_> = (0..8)
            .map(|number| world.resume(&format!("everywhere-{number}")))
            .collect();
        world.publish(sender, "a/b", 1, "x");
        for (number, (client, is_present)) in clients.into_iter().enumerate() {
            assert!(is_present, "{number}");
            assert_eq!(world.payloads(client).len(), usize::from(number < 7));
        }
    }
}

/// The options of a Subscription come back with it.
#[test]
fn a_restored_subscription_is_as_it_was_granted() {
    let mut world = World::new();
    let client = world.connect("client");
    let mut as_published = options(2);
    as_published.retain_as_published = true;
    as_published.no_local = true;
    world.subscribe_with(client, "a", as_published, Some(9));
    world.crash(1);
    let (client, sender) = (world.connect("client"), world.connect_clean("sender"));
    world.publish(client, "a", 1, "its own");
    world.publish_retained(sender, "a", 1, "x");
    let deliveries = world.deliveries(client);
    assert_eq!(deliveries.len(), 1);
    assert!(deliveries[0].retain);
    assert_eq!(
        deliveries[0].subscription_identifiers.as_deref(),
        Some(&[9][..])
    );
}

#[test]
fn what_was_not_durable_is_not_found() {
    let mut world = World::with(2, Limits::default());
    let client = world.connect("client");
    world.holds_store = true;
    world.subscribe(client, "a", 1);
    world.connect_with(durable("never acknowledged"));
    world.crash(2);
    world.holds_store = false;
    assert!(!is_present(&mut world, durable("never acknowledged")));
    let (client, is_present) = world.resume("client");
    assert!(is_present);
    assert_eq!(
        world.unsubscribe(client, "a"),
        [ReasonCode::NoSubscriptionExisted]
    );
}

#[test]
fn members_of_shared_subscriptions_come_back_offline() {
    for (before, after) in SHARDS {
        let mut world = World::with(before, Limits::default());
        for number in 0..4 {
            let client = world.connect(&format!("member-{number}"));
            world.subscribe(client, "$share/g/a", 1);
        }
        world.crash(after);
        let shared = world.engines.iter();
        let shared: u64 = shared.map(|one| one.counters().shared_subscriptions).sum();
        assert_eq!(shared, 4);
        let sender = world.connect_clean("sender");
        let online = world.connect("member-2");
        for _ in 0..8 {
            world.publish(sender, "a", 1, "x");
        }
        // Online members come first: all are for the one that is back.
        assert_eq!(world.drain(online).len(), 8);
    }
}

/// Verifies [MQTT-4.3.3-10]: a repeat is a repeat across a crash, too.
#[test]
fn inbound_identifiers_and_owed_pubrels_come_back() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "a", 2);
    world.publish(sender, "a", 2, "x");
    let packet_id = world.deliveries(receiver)[0].packet_id.expect("QoS 2");
    world.pubrec(receiver, packet_id.get());
    let Some(Outgoing::PubRec(pubrec)) = world.next(sender) else {
        panic!("no PUBREC")
    };
    world.crash(1);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    let again = crate::world::publish("a", 2, "x", pubrec.packet_id);
    world.send_publish(sender, &again);
    world.settle();
    assert!(matches!(world.next(sender), Some(Outgoing::PubRec(_))));
    let received = world.received(receiver);
    assert!(
        matches!(&received[..], [Outgoing::PubRel(ack)] if ack.packet_id == packet_id),
        "{received:?}"
    );
    world.pubcomp(receiver, packet_id.get());
    // A new message gets a number of its own.
    world.publish(sender, "a", 2, "y");
    let next = world.deliveries(receiver)[0].packet_id.expect("QoS 2");
    assert_eq!(next.get(), packet_id.get() + 1);
}

/// Verifies [MQTT-4.1.0-2]: the Session Expiry Interval goes on while the Server is away.
#[test]
fn session_expiry_goes_on_over_a_restart() {
    let mut world = World::new();
    let client = world.connect_with(expiring("client", 100));
    let connected = world.connect_with(expiring("connected", 100));
    world.lose(client);
    world.now += Duration::from_secs(60);
    world.crash(1);
    world.advance(39);
    assert!(is_present(&mut world, expiring("client", 0)));
    let _ = connected;
    world.crash(1);
    world.advance(60);
    // It was connected until the first crash, and the second does not begin anew.
    assert_eq!(world.engines[0].counters().sessions, 1);
    world.advance(2);
    assert_eq!(world.engines[0].counters().sessions, 0);
    assert_eq!(world.engines[0].counters().sessions_expired, 1);
    world.crash(1);
    assert_eq!(world.engines[0].counters().sessions, 0);
}

#[test]
fn a_session_that_expired_while_the_server_was_away_is_gone() {
    let mut world = World::new();
    let client = world.connect_with(with_will(expiring("client", 10), 20));
    let watcher = world.connect("watcher");
    world.subscribe(watcher, "will", 1);
    world.lose(client);
    world.now += Duration::from_secs(11);
    world.crash(1);
    assert_eq!(world.engines[0].counters().sessions, 1);
    assert_eq!(world.engines[0].counters().wills_published, 1);
    assert!(!is_present(&mut world, durable("client")));
}

/// A DISCONNECT that changes the interval counts after a restart, too.
#[test]
fn the_interval_of_disconnect_counts_after_a_restart() {
    let mut world = World::new();
    for (client_id, seconds) in [("shorter", 5), ("longer", 500)] {
        let client = world.connect_with(expiring(client_id, 50));
        let mut disconnect = Disconnect::new(ReasonCode::Success);
        disconnect.session_expiry_interval_seconds = Some(seconds);
        world.disconnect(client, &disconnect);
    }
    world.crash(1);
    world.advance(100);
    assert!(!is_present(&mut world, durable("shorter")));
    assert!(is_present(&mut world, durable("longer")));
}

/// A Session that was taken up again counts from its next end, not from its last.
#[test]
fn a_connection_stops_the_interval_across_a_restart() {
    let mut world = World::new();
    let client = world.connect_with(expiring("client", 50));
    world.lose(client);
    world.advance(40);
    world.connect_with(expiring("client", 50));
    world.advance(40);
    // Take-over by a third connection.
    world.connect_with(expiring("client", 50));
    world.advance(40);
    world.crash(1);
    world.advance(40);
    assert!(is_present(&mut world, durable("client")));
}

#[test]
fn a_clock_that_goes_back_lengthens_no_interval_and_ends_none() {
    let mut world = World::new();
    let client = world.connect_with(expiring("client", 50));
    world.lose(client);
    world.advance(40);
    world.jump_clock(-1_000_000);
    world.crash(1);
    world.advance(49);
    assert_eq!(world.engines[0].counters().sessions, 1);
    world.advance(2);
    assert_eq!(world.engines[0].counters().sessions, 0);
}

/// A machine without a battery begins with an old date, and hears the right one from the network.
#[test]
fn a_clock_that_is_set_while_the_server_runs_ends_no_session_at_the_next_start() {
    let mut world = World::new();
    world.jump_clock(1_000_000);
    world.tell_calendar();
    let client = world.connect_with(expiring("client", 50));
    world.lose(client);
    world.advance(10);
    world.crash(1);
    world.advance(39);
    assert_eq!(world.engines[0].counters().sessions, 1);
    world.advance(2);
    assert_eq!(world.engines[0].counters().sessions, 0);
}

/// Verifies [MQTT-3.1.3-9]: the Will Delay Interval goes on, too; a Client that was connected to the end
/// has lost its connection now.
#[test]
fn wills_are_published_after_a_restart_when_their_delay_has_passed() {
    for (before, after) in SHARDS {
        let mut world = World::with(before, Limits::default());
        everywhere(&mut world, "will");
        let offline = world.connect_with(with_will(durable("offline"), 50));
        world.lose(offline);
        world.connect_with(with_will(durable("at once"), 0));
        world.connect_with(with_will(durable("later"), 50));
        let said = world.connect_with(with_will(durable("said goodbye"), 0));
        world.disconnect(said, &Disconnect::new(ReasonCode::Success));
        world.advance(20);
        world.crash(after);
        let clients: Vec<_> = (0..8)
            .map(|number| world.connect(&format!("everywhere-{number}")))
            .collect();
        let mut published = Vec::new();
        for _ in 0..6 {
            let wills = world.engines.iter();
            published.push(wills.map(|one| one.counters().wills_published).sum::<u64>());
            world.advance(10);
        }
        assert_eq!(published, [1, 1, 1, 2, 2, 3]);
        // The queues come back by their own way; what is published from now on comes at once.
        for client in clients {
            let last = world.deliveries(client).pop().expect("the last Will");
            assert_eq!(payload(&last), "gone");
            assert_eq!(last.message.remaining_expiry_seconds(world.now), Some(50));
        }
        world.crash(before);
        let wills = world.engines.iter();
        assert_eq!(
            wills.map(|one| one.counters().wills_published).sum::<u64>(),
            0
        );
    }
}

#[test]
fn retained_messages_come_back_with_what_is_left_of_their_expiry() {
    for (before, after) in SHARDS {
        let mut world = World::with(before, Limits::default());
        let sender = world.connect("sender");
        for number in 0..8 {
            let topic = format!("r/{number}");
            world.publish_retained(sender, &topic, 1, "old");
            world.publish_retained(sender, &topic, 1, &topic);
        }
        world.publish_retained(sender, "r/7", 1, "");
        world.publish_expiring(sender, "e/short", 30);
        world.publish_expiring(sender, "e/long", 100);
        world.now += Duration::from_secs(40);
        world.crash(after);
        for engine in &world.engines {
            assert_eq!(engine.counters().retained_messages, 8);
        }
        for number in 0..4 {
            let client = world.connect(&format!("client-{number}"));
            world.subscribe(client, "r/+", 1);
            assert_eq!(world.drain(client).len(), 7);
            world.subscribe(client, "e/+", 1);
            let long = world.drain(client);
            assert_eq!(long.len(), 1);
            let left = long[0].message.remaining_expiry_seconds(world.now);
            assert_eq!(left, Some(60));
        }
        // What has expired is gone from the log as well.
        assert_eq!(Found::in_log(&world.records()).retained.len(), 8);
    }
}

/// Verifies [v3.1.1 MQTT-3.1.2-4]: the Session of a 3.1.1 Client survives the Server's restart as well.
#[test]
fn a_3x_session_comes_back() {
    let mut world = World::speaking(Version::V311);
    let client = world.connect_311("client", false);
    world.subscribe(client, "a", 1);
    world.crash(1);
    let (client, is_present) = world.resume("client");
    assert!(is_present);
    let sender = world.connect_clean("sender");
    world.publish(sender, "a", 1, "x");
    assert_eq!(world.payloads(client), ["x"]);
}
