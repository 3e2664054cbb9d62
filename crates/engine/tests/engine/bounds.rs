//! Limits that have no statement of their own, and the counters that show what they did.

use proto::Version;
use proto::connection::Outgoing;
use proto::packet::{Connect, ReasonCode};
use vencejo_engine::{Limits, SharedStrategy};

use crate::world::{Client, World, durable, id, payload, publish};

fn payloads_of(world: &mut World, client: Client) -> Vec<String> {
    world.drain(client).iter().map(payload).collect()
}

/// The Server's own bound on messages in flight counts where the Client's Receive Maximum is higher.
#[test]
fn messages_in_flight_are_bounded_by_the_server_too() {
    for version in [Version::V311, Version::V5] {
        let limits = Limits {
            maximum_inflight_messages: 2,
            ..Limits::default()
        };
        let mut world = World::with(1, limits);
        let sender = world.connect("sender");
        let receiver = world.connect_with(Connect::new(version, "receiver"));
        world.connack(receiver);
        world.subscribe(receiver, "a", 1);
        for text in ["1", "2", "3", "4", "5"] {
            world.publish(sender, "a", 1, text);
        }
        // Those in flight are not kept: the Session ends with its connection.
        assert_eq!(world.engines[0].counters().queued_messages, 3);
        let open = world.deliveries(receiver);
        assert_eq!(open.iter().map(payload).collect::<Vec<_>>(), ["1", "2"]);
        for delivery in open {
            world.puback(receiver, delivery.packet_id.expect("QoS 1").get());
        }
        assert_eq!(payloads_of(&mut world, receiver), ["3", "4", "5"]);
        assert_eq!(world.engines[0].counters().queued_messages, 0);
    }
}

/// A retained message that would exceed the bytes allowed is refused; the rest stays.
#[test]
fn retained_bytes_are_bounded() {
    let limits = Limits {
        retained_bytes_max: 3000,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    let (small, large) = ("s".repeat(100), "l".repeat(5000));
    world.publish_retained(sender, "a", 1, &small);
    world.subscribe(receiver, "#", 1);
    world.drain(receiver);
    world.publish_retained(sender, "b", 1, &large);
    assert!(payloads_of(&mut world, receiver).is_empty());
    let late = world.connect("late");
    world.subscribe(late, "#", 1);
    assert_eq!(payloads_of(&mut world, late), [small]);
    assert!(world.engines[0].counters().retained_bytes <= 3000);
}

/// A 3.x Session without Clean Session lives as long as the configuration says after its connection.
#[test]
fn a_session_of_3x_expires_as_configured() {
    for version in [Version::V31, Version::V311] {
        let limits = Limits {
            session_expiry_3x_seconds: 100,
            ..Limits::default()
        };
        let mut world = World::with(1, limits);
        let mut connect = Connect::new(version, "client");
        connect.clean_start = false;
        let client = world.connect_with(connect.clone());
        world.lose(client);
        world.advance(99);
        let client = world.connect_with(connect.clone());
        assert!(world.connack(client).session_present);
        world.lose(client);
        world.advance(100);
        let client = world.connect_with(connect);
        assert!(!world.connack(client).session_present);
    }
}

/// A Session Expiry Interval above the longest granted is cut, said so, and kept to.
#[test]
fn a_session_lives_as_long_as_connack_says() {
    let limits = Limits {
        session_expiry_max_seconds: 60,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let client = world.connect_with(durable("client"));
    let granted = world
        .connack(client)
        .properties
        .session_expiry_interval_seconds;
    assert_eq!(granted, Some(60));
    world.lose(client);
    world.advance(60);
    assert_eq!(world.engines[0].counters().sessions, 0);
    let mut modest = durable("modest");
    modest.properties.session_expiry_interval_seconds = Some(60);
    let client = world.connect_with(modest);
    let granted = world
        .connack(client)
        .properties
        .session_expiry_interval_seconds;
    assert_eq!(granted, None, "as asked, so nothing is said");
}

#[test]
fn the_longest_client_id_is_taken_and_one_byte_more_is_not() {
    let limits = Limits {
        client_id_length_max: 30,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let taken = world.connect_with(Connect::new(Version::V5, "x".repeat(30)));
    assert_eq!(world.connack(taken).reason, ReasonCode::Success);
    let refused = world.connect_with(Connect::new(Version::V5, "x".repeat(31)));
    let reason = world.connack(refused).reason;
    assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
    assert_eq!(world.engines[0].counters().sessions, 1);
}

/// Class M: what is refused takes nothing, what was there can be replaced, and room that is made is used.
#[test]
fn subscriptions_of_all_sessions_are_bounded() {
    let limits = Limits {
        subscriptions_max: 3,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let (one, other) = (world.connect("one"), world.connect("other"));
    for (client, filter) in [(one, "a"), (one, "$share/g/a"), (other, "a")] {
        assert_eq!(
            world.subscribe(client, filter, 0),
            [ReasonCode::Success],
            "{filter}"
        );
    }
    assert_eq!(world.subscribe(other, "b", 0), [ReasonCode::QuotaExceeded]);
    assert_eq!(world.subscribe(other, "a", 1), [ReasonCode::GrantedQos1]);
    world.unsubscribe(one, "a");
    assert_eq!(world.subscribe(other, "b", 0), [ReasonCode::Success]);
    assert_eq!(world.engines[0].counters().subscriptions, 3);
    assert_eq!(world.engines[0].counters().refused_subscriptions, 1);
}

/// Class R: the length of a topic is bounded beside its depth.
#[test]
fn the_longest_topic_is_taken_and_one_byte_more_is_not() {
    let limits = Limits {
        topic_length_max: 8,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    assert_eq!(
        world.subscribe(receiver, "12345678", 1),
        [ReasonCode::GrantedQos1]
    );
    let refused = world.subscribe(receiver, "123456789", 1);
    assert_eq!(refused, [ReasonCode::TopicFilterInvalid]);
    let shared = world.subscribe(receiver, "$share/group/12345678", 1);
    assert_eq!(shared, [ReasonCode::GrantedQos1], "the filter alone counts");
    world.publish(sender, "123456789", 1, "x");
    let Some(Outgoing::PubAck(ack)) = world.next(sender) else {
        panic!("a PUBACK");
    };
    assert_eq!(ack.reason, ReasonCode::TopicNameInvalid);
    world.publish(sender, "123456789", 0, "x");
    assert_eq!(world.closed(sender), Some(ReasonCode::TopicNameInvalid));
    assert_eq!(world.engines[0].counters().refused_topics, 3);
    assert!(world.deliveries(receiver).is_empty());
}

/// Counters count messages and payload bytes, each once.
#[test]
fn counters_count_each_thing_once() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "a", 1);
    world.publish(sender, "a", 1, "12345");
    world.publish(sender, "nobody", 0, "123");
    world.drain(receiver);
    world.lose(sender);
    let counters = world.engines[0].counters();
    assert_eq!(counters.publishes_received, 2);
    assert_eq!(counters.publish_bytes_received, 8);
    assert_eq!(counters.publishes_sent, 1);
    assert_eq!(counters.publish_bytes_sent, 5);
    assert_eq!(counters.clients_connected, 1);
    assert_eq!(counters.clients_maximum, 2);
    assert_eq!(counters.connections, 2);
    assert_eq!(counters.sessions, 2);
    assert_eq!(counters.subscriptions, 1);
    assert_eq!(counters.publishes_dropped, 0);
    assert_eq!(counters.protocol_errors, 0);
}

/// Which member of a group got each of ten messages, in order; five publishers, two topics.
fn chosen(shared_strategy: SharedStrategy, shards: u16) -> Vec<usize> {
    let mut world = World::with_config(shards, Limits::default(), |config| {
        config.shared_strategy = shared_strategy;
    });
    let members: Vec<_> = (0..4)
        .map(|number| world.connect(&format!("member-{number}")))
        .collect();
    for member in &members {
        world.subscribe(*member, "$share/g/+", 1);
    }
    let senders: Vec<_> = (0..5)
        .map(|number| world.connect(&format!("sender-{number}")))
        .collect();
    let mut chosen = Vec::new();
    for number in 0..10 {
        let topic = ["a", "b"][number / 5];
        world.publish(senders[number % 5], topic, 1, "x");
        let got: Vec<_> = members
            .iter()
            .map(|member| world.drain(*member).len())
            .collect();
        assert_eq!(got.iter().sum::<usize>(), 1);
        chosen.extend(got.iter().position(|count| *count == 1));
    }
    chosen
}

/// Each strategy keeps to what it promises, in one shard and over several.
#[test]
fn each_shared_strategy_chooses_as_it_says() {
    for shards in 1..=3 {
        let mut sticky = chosen(SharedStrategy::Sticky, shards);
        if shards == 1 {
            sticky.dedup();
            assert_eq!(sticky.len(), 1, "the same one");
        }
        let by_topic = chosen(SharedStrategy::HashTopic, shards);
        assert!(by_topic[..5].iter().all(|member| *member == by_topic[0]));
        assert!(by_topic[5..].iter().all(|member| *member == by_topic[5]));
        let by_publisher = chosen(SharedStrategy::HashClientId, shards);
        assert_eq!(by_publisher[..5], by_publisher[5..]);
    }
    let in_turn = chosen(SharedStrategy::RoundRobin, 1);
    assert_eq!(in_turn[..4], in_turn[4..8]);
    let mut all = in_turn[..4].to_vec();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
}

/// The member with the fewest messages in flight gets the next.
#[test]
fn least_in_flight_spares_the_slow_member() {
    let mut world = World::with_config(1, Limits::default(), |config| {
        config.shared_strategy = SharedStrategy::LeastInFlight;
    });
    let sender = world.connect("sender");
    let (slow, fast) = (world.connect("slow"), world.connect("fast"));
    for member in [slow, fast] {
        world.subscribe(member, "$share/g/a", 1);
    }
    let mut fast_count = 0;
    for number in 0..20 {
        world.publish(sender, "a", 1, &number.to_string());
        fast_count += world.drain(fast).len();
    }
    let slow_count = world.deliveries(slow).len();
    assert_eq!(slow_count + fast_count, 20);
    assert!(slow_count <= 1, "{slow_count} to the slow one");
}

/// Offline members get messages only where no member is online.
#[test]
fn offline_members_get_messages_only_if_nobody_is_online() {
    for shards in 1..=3 {
        let mut world = World::with(shards, Limits::default());
        let sender = world.connect("sender");
        let members = ["one", "two", "three"].map(|name| world.connect(name));
        for member in members {
            world.subscribe(member, "$share/g/a", 1);
        }
        world.lose(members[0]);
        world.lose(members[1]);
        for number in 0..6 {
            world.publish(sender, "a", 1, &number.to_string());
        }
        assert_eq!(world.drain(members[2]).len(), 6);
        world.lose(members[2]);
        for number in 0..6 {
            world.publish(sender, "a", 1, &number.to_string());
        }
        let mut kept = 0;
        for name in ["one", "two", "three"] {
            let member = world.connect(name);
            kept += world.drain(member).len();
        }
        assert_eq!(kept, 6);
    }
}

/// What the engine does not know it answers with silence, and keeps working.
#[test]
fn packets_of_a_closed_connection_are_ignored() {
    let mut world = World::with(2, Limits::default());
    let (old, watcher) = (world.connect("client"), world.connect("watcher"));
    world.subscribe(watcher, "#", 1);
    let new = world.connect("client");
    world.received(old);
    world.send_publish(old, &publish("a", 1, "late", id(1)));
    assert!(world.subscribe(old, "a", 1).is_empty());
    assert!(world.unsubscribe(old, "a").is_empty());
    world.puback(old, 1);
    world.pubrec(old, 1);
    world.pubrel(old, 1);
    world.pubcomp(old, 1);
    world.congest(old, true);
    world.settle();
    assert!(world.received(old).is_empty());
    assert!(world.received(watcher).is_empty());
    world.publish(new, "a", 1, "on time");
    assert_eq!(world.payloads(watcher), ["on time"]);
    assert!(matches!(world.next(new), Some(Outgoing::PubAck(_))));
}

/// A rush that is over holds nothing any more, and who has stayed is served as before.
#[test]
fn places_of_sessions_that_have_ended_are_given_back() {
    let mut world = World::with(1, Limits::default());
    let stays = world.connect("stays");
    assert_eq!(world.subscribe(stays, "a", 0), [ReasonCode::Success]);
    let all = |world: &World| world.engines[0].memory().sessions;
    let before = all(&world);
    let rush: Vec<_> = (0..3_000)
        .map(|number| world.connect_clean(&format!("rush-{number}")))
        .collect();
    let most = all(&world);
    for client in rush {
        world.lose(client);
    }
    world.engines[0].shrink();
    let after = all(&world);
    assert!(
        after < before + (most - before) / 8,
        "{before}, {most}, {after}"
    );
    let comes = world.connect("comes");
    world.publish(comes, "a", 0, "x");
    assert_eq!(world.payloads(stays), ["x"]);
}
