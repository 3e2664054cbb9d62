//! SUBSCRIBE and UNSUBSCRIBE, their codes, retained messages for new Subscriptions.

use proto::connection::Outgoing;
use proto::packet::{
    Publish, ReasonCode, RetainHandling, Subscribe, SubscriptionOptions, SubscriptionRequest,
    Unsubscribe,
};
use proto::{Qos, Version};
use vencejo_engine::Limits;

use crate::world::{Client, World, id, options, payload, publish};

fn pair(version: Version) -> (World, Client, Client) {
    let mut world = World::speaking(version);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    (world, sender, receiver)
}

/// Verifies [MQTT-3.8.4-1]: SUBSCRIBE is answered with SUBACK.
/// Verifies [MQTT-3.8.4-2]: with the same Packet Identifier.
/// Verifies [MQTT-2.2.1-6]: as UNSUBACK has that of UNSUBSCRIBE.
/// Verifies [MQTT-3.8.4-5]: many filters act as many packets, but for one SUBACK.
/// Verifies [MQTT-3.8.4-6]: it has a code for each.
/// Verifies [MQTT-3.8.4-7]: which grants a QoS or tells the failure.
/// Verifies [MQTT-3.9.3-1]: in the order of the filters.
/// Verifies [MQTT-3.9.3-2]: each code is one that SUBACK may carry.
/// Verifies [v3.1.1 MQTT-2.3.1-7]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.8.4-1]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.8.4-2]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.8.4-4]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.8.4-5]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.9.3-1]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.9.3-2]: as in 3.1.1.
#[test]
fn suback_answers_every_filter_in_order() {
    let mut world = World::new();
    world.limit(None, Some("a/#"));
    for client in [world.connect("five"), world.connect_311("three", true)] {
        let request = |filter, qos| SubscriptionRequest {
            filter,
            options: options(qos),
        };
        let requests = vec![
            request("a/0", 0),
            request("b", 1),
            request("a/1", 1),
            request("a/2", 2),
        ];
        let subscribe = Subscribe {
            packet_id: id(77),
            subscription_identifier: None,
            user_properties: Vec::new(),
            requests,
        };
        let reasons = world.send_subscribe(client, &subscribe);
        assert_eq!(
            reasons,
            [
                ReasonCode::Success,
                ReasonCode::NotAuthorized,
                ReasonCode::GrantedQos1,
                ReasonCode::GrantedQos2,
            ]
        );
        world.publish(client, "a/1", 2, "x");
        let deliveries = world.deliveries(client);
        assert_eq!(deliveries[0].qos, Qos::AtLeastOnce);
        world.lose(client);
    }
}

/// Verifies [MQTT-3.10.4-1]: filters are compared character by character.
/// Verifies [MQTT-3.10.4-2]: after UNSUBSCRIBE nothing new is added.
/// Verifies [MQTT-3.10.4-3]: deliveries under way are completed.
/// Verifies [MQTT-3.10.4-5]: UNSUBACK comes also when nothing was deleted.
/// Verifies [MQTT-3.10.4-6]: many filters act as many packets, but for one UNSUBACK.
/// Verifies [MQTT-3.11.3-1]: its codes stand in the order of the filters.
/// Verifies [MQTT-3.11.3-2]: each is one that UNSUBACK may carry.
/// Verifies [v3.1.1 MQTT-3.10.4-1]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.10.4-2]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.10.4-3]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.10.4-4]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.10.4-5]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.10.4-6]: as in 3.1.1.
#[test]
fn unsubscribe_stops_new_messages_and_completes_old_ones() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        world.subscribe(receiver, "a/+", 2);
        world.subscribe(receiver, "b", 2);
        world.publish(sender, "a/b", 2, "under way");
        let open = world.deliveries(receiver);
        let unsubscribe = Unsubscribe {
            packet_id: id(9),
            user_properties: Vec::new(),
            filters: vec!["a/b", "a/+", "b"],
        };
        let now = world.now;
        world
            .engine(receiver)
            .on_unsubscribe(receiver.key, &unsubscribe, now);
        world.settle();
        let Some(Outgoing::UnsubAck(unsuback)) = world.next(receiver) else {
            panic!("no UNSUBACK")
        };
        assert_eq!(unsuback.packet_id, id(9));
        let existed = ReasonCode::Success;
        assert_eq!(
            unsuback.reasons,
            [ReasonCode::NoSubscriptionExisted, existed, existed]
        );
        world.publish(sender, "a/b", 2, "not any more");
        let packet_id = open[0].packet_id.expect("QoS 2").get();
        world.pubrec(receiver, packet_id);
        assert!(matches!(world.next(receiver), Some(Outgoing::PubRel(_))));
        assert_eq!(world.next(receiver), None);
    }
}

/// Verifies [MQTT-3.3.1-9]: Retain Handling 0 sends retained messages at every SUBSCRIBE.
/// Verifies [MQTT-3.3.1-10]: Retain Handling 1 only for a new Subscription.
/// Verifies [MQTT-3.3.1-11]: Retain Handling 2 never.
/// Verifies [MQTT-3.8.4-4]: replacing a Subscription sends them again and loses nothing.
/// Verifies [v3.1.1 MQTT-3.1.2-7]: retained messages outlive the Session of their publisher.
#[test]
fn retain_handling_says_when_retained_messages_are_sent() {
    let handlings = [
        (RetainHandling::Send, [1, 1]),
        (RetainHandling::SendIfNew, [1, 0]),
        (RetainHandling::DoNotSend, [0, 0]),
    ];
    for (retain_handling, expected) in handlings {
        let (mut world, sender, receiver) = pair(Version::V5);
        let sender_311 = world.connect_311("leaves", true);
        world.publish_retained(sender_311, "a", 1, "kept");
        world.lose(sender_311);
        let options = SubscriptionOptions {
            retain_handling,
            ..options(1)
        };
        for count in expected {
            world.subscribe_with(receiver, "a", options, None);
            let deliveries = world.drain(receiver);
            assert_eq!(deliveries.len(), count);
            assert!(deliveries.iter().all(|one| one.retain));
        }
        world.publish(sender, "a", 1, "live");
        assert_eq!(world.payloads(receiver), ["live"]);
    }
}

/// Verifies [MQTT-3.3.1-12]: without Retain As Published RETAIN is cleared.
/// Verifies [MQTT-3.3.1-13]: with it it stays as published.
#[test]
fn retain_as_published_keeps_the_flag() {
    for retain_as_published in [false, true] {
        let (mut world, sender, receiver) = pair(Version::V5);
        let options = SubscriptionOptions {
            retain_as_published,
            ..options(1)
        };
        world.subscribe_with(receiver, "a", options, None);
        world.publish_retained(sender, "a", 1, "kept");
        world.publish(sender, "a", 1, "not kept");
        let flags: Vec<_> = world.drain(receiver).iter().map(|one| one.retain).collect();
        assert_eq!(flags, [retain_as_published, false]);
        let late = world.connect("late");
        world.subscribe(late, "a", 0);
        assert_eq!(world.payloads(late), ["kept"]);
    }
}

/// An empty retained message removes, and is delivered to those who are there.
#[test]
fn an_empty_retained_message_clears_the_topic() {
    let (mut world, sender, receiver) = pair(Version::V5);
    world.subscribe(receiver, "a", 1);
    world.publish_retained(sender, "a", 1, "kept");
    world.publish_retained(sender, "a", 1, "");
    assert_eq!(world.payloads(receiver), ["kept", ""]);
    let late = world.connect("late");
    world.subscribe(late, "a", 1);
    assert!(world.received(late).is_empty());
    assert_eq!(world.engines[0].counters().retained_messages, 0);
}

#[test]
fn thousands_of_retained_messages_come_at_a_pace_and_complete() {
    let (mut world, sender, receiver) = pair(Version::V5);
    for number in 0..3000 {
        let topic = format!("a/{number}");
        let publish = Publish {
            retain: true,
            ..publish(&topic, 0, "x", id(1))
        };
        world.send_publish(sender, &publish);
    }
    world.settle();
    let subscribe = Subscribe {
        packet_id: id(5),
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
    let packets = world.received(receiver);
    assert!(matches!(packets[0], Outgoing::SubAck(_)));
    assert!(packets.len() <= 257, "one turn sent {}", packets.len());
    assert!(world.engine(receiver).has_work());
    world.settle();
    assert_eq!(packets.len() - 1 + world.deliveries(receiver).len(), 3000);
    assert!(!world.engine(receiver).has_work());
}

#[test]
fn a_replay_stands_still_while_its_receiver_is_congested() {
    let (mut world, sender, receiver) = pair(Version::V5);
    for number in 0..10 {
        world.publish_retained(sender, &format!("a/{number}"), 0, "x");
    }
    world.congest(receiver, true);
    world.subscribe(receiver, "a/#", 0);
    assert!(!world.engine(receiver).has_work());
    assert!(world.received(receiver).is_empty());
    world.congest(receiver, false);
    assert_eq!(world.deliveries(receiver).len(), 10);
    assert_eq!(world.engines[0].counters().publishes_dropped, 0);
}

/// Verifies [MQTT-3.3.1-12]: what comes after SUBACK comes live, without RETAIN, and the replay that is
/// still under way brings neither it again nor the one before it.
/// Verifies [v3.1.1 MQTT-3.3.1-9]: the same in 3.1.1.
#[test]
fn a_replay_brings_nothing_that_was_published_after_its_suback() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        for number in 0..3 {
            world.publish_retained(sender, &format!("a/{number}"), 0, "old");
        }
        world.congest(receiver, true);
        world.subscribe(receiver, "a/#", 1);
        world.publish_retained(sender, "a/1", 1, "new");
        world.publish_retained(sender, "a/4", 1, "new");
        world.congest(receiver, false);
        let deliveries = world.deliveries(receiver);
        let found: Vec<_> = deliveries
            .iter()
            .map(|delivery| (delivery.message.topic(), delivery.retain))
            .collect();
        let live = [("a/1", false), ("a/4", false)];
        let replayed = [("a/0", true), ("a/2", true)];
        assert_eq!(found, [live, replayed].concat());
    }
}

/// Verifies [MQTT-3.3.4-2]: overlapping Subscriptions deliver at the highest QoS.
/// Verifies [MQTT-3.3.4-3]: with the Subscription Identifier.
/// Verifies [MQTT-3.3.4-4]: of each that has one, in one copy.
/// Verifies [MQTT-3.3.2-3]: what is delivered matches the filter.
/// Verifies [MQTT-4.5.0-1]: the message joins every matching Session.
#[test]
fn overlapping_subscriptions_are_one_delivery_with_all_identifiers() {
    let (mut world, sender, receiver) = pair(Version::V5);
    let other = world.connect("other");
    world.subscribe(other, "a/b", 1);
    world.subscribe_with(receiver, "a/+", options(1), Some(3));
    world.subscribe_with(receiver, "a/#", options(2), Some(5));
    world.subscribe_with(receiver, "a/b", options(0), None);
    world.subscribe_with(receiver, "c", options(2), Some(9));
    world.publish(sender, "a/b", 2, "x");
    let deliveries = world.deliveries(receiver);
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0].qos, Qos::ExactlyOnce);
    let identifiers = deliveries[0]
        .subscription_identifiers
        .as_deref()
        .expect("two have one");
    assert!(identifiers.len() == 2 && identifiers.contains(&3) && identifiers.contains(&5));
    assert_eq!(world.deliveries(other).len(), 1);
}

/// Verifies [MQTT-3.8.3-3]: No Local sends nothing back.
#[test]
fn no_local_sends_nothing_back() {
    let (mut world, sender, receiver) = pair(Version::V5);
    let no_local = SubscriptionOptions {
        no_local: true,
        ..options(1)
    };
    world.subscribe_with(receiver, "a", no_local, None);
    world.publish(receiver, "a", 1, "mine");
    world.publish(sender, "a", 1, "yours");
    assert_eq!(world.payloads(receiver), ["yours"]);
}

/// Each switch of CONNACK is enforced with its Reason Code.
/// Verifies [MQTT-3.2.2-10]: a SUBSCRIBE above the Maximum QoS is accepted.
#[test]
fn unavailable_features_are_refused_with_their_code() {
    let limits = Limits {
        wildcard_subscription_available: false,
        subscription_identifiers_available: false,
        shared_subscription_available: false,
        subscriptions_per_session_max: 1,
        maximum_qos: Qos::AtLeastOnce,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let client = world.connect("client");
    let mut refused =
        |filter, identifier| world.subscribe_with(client, filter, options(2), identifier)[0];
    assert_eq!(
        refused("a/+", None),
        ReasonCode::WildcardSubscriptionsNotSupported
    );
    assert_eq!(
        refused("$share/g/a", None),
        ReasonCode::SharedSubscriptionsNotSupported
    );
    assert_eq!(
        refused("a", Some(1)),
        ReasonCode::SubscriptionIdentifiersNotSupported
    );
    assert_eq!(refused("a", None), ReasonCode::GrantedQos1);
    assert_eq!(refused("b", None), ReasonCode::QuotaExceeded);
    assert_eq!(refused("a", None), ReasonCode::GrantedQos1);
}

/// 0x10 only if nobody at all gets the message.
#[test]
fn a_publisher_hears_that_nobody_was_there() {
    let (mut world, sender, receiver) = pair(Version::V5);
    let answer = |world: &mut World| {
        world.publish(sender, "a", 1, "x");
        let Some(Outgoing::PubAck(ack)) = world.next(sender) else {
            panic!("no PUBACK")
        };
        ack.reason
    };
    assert_eq!(answer(&mut world), ReasonCode::NoMatchingSubscribers);
    world.subscribe(receiver, "a", 0);
    assert_eq!(answer(&mut world), ReasonCode::Success);
    world.unsubscribe(receiver, "a");
    assert_eq!(answer(&mut world), ReasonCode::NoMatchingSubscribers);
    world.subscribe(receiver, "$share/g/a", 1);
    assert_eq!(answer(&mut world), ReasonCode::Success);
}

/// Verifies [MQTT-4.8.2-3]: the granted QoS is respected.
#[test]
fn a_shared_subscription_delivers_to_one_member_in_turn() {
    for version_311 in [false, true] {
        let mut world = World::new();
        let sender = world.connect("sender");
        let members: Vec<_> = (0..3)
            .map(|number| {
                let name = format!("member{number}");
                if version_311 {
                    world.connect_311(&name, false)
                } else {
                    world.connect(&name)
                }
            })
            .collect();
        world.publish_retained(sender, "a", 1, "no replay for shared ones");
        for member in &members {
            world.subscribe(*member, "$share/g/a", 1);
        }
        for number in 0..9 {
            world.publish(sender, "a", 2, &number.to_string());
        }
        for member in members {
            let deliveries = world.drain(member);
            assert_eq!(deliveries.len(), 3);
            assert!(deliveries.iter().all(|one| one.qos == Qos::AtLeastOnce));
        }
    }
}

#[test]
fn a_shared_and_a_plain_subscription_of_one_client_are_two_deliveries() {
    let (mut world, sender, receiver) = pair(Version::V5);
    world.subscribe_with(receiver, "$share/g/a", options(1), Some(1));
    world.subscribe_with(receiver, "a", options(1), Some(2));
    world.publish(sender, "a", 1, "x");
    let deliveries = world.deliveries(receiver);
    let mut identifiers: Vec<_> = deliveries
        .iter()
        .map(|one| {
            one.subscription_identifiers
                .as_deref()
                .expect("both have one")
                .to_vec()
        })
        .collect();
    identifiers.sort();
    assert_eq!(identifiers, [[1], [2]]);
}

/// Verifies [MQTT-4.8.2-4]: a delivery that was started waits for its Client.
/// Verifies [MQTT-4.8.2-5]: and dies with its Session.
/// Verifies [MQTT-4.8.2-6]: a refused one goes to nobody else.
#[test]
fn a_shared_delivery_stays_with_its_member() {
    let mut world = World::new();
    let sender = world.connect("sender");
    let (one, two) = (world.connect("one"), world.connect("two"));
    world.subscribe(one, "$share/g/a", 2);
    world.publish(sender, "a", 2, "for one");
    assert_eq!(world.payloads(one), ["for one"]);
    world.subscribe(two, "$share/g/a", 2);
    world.lose(one);
    world.publish(sender, "a", 2, "for two");
    assert_eq!(world.payloads(two), ["for two"]);
    let one = world.connect("one");
    let again = world.deliveries(one);
    assert_eq!(again.iter().map(payload).collect::<Vec<_>>(), ["for one"]);
    let packet_id = again[0].packet_id.expect("QoS 2");
    let refusal = proto::packet::Ack::new(packet_id, ReasonCode::UnspecifiedError);
    let now = world.now;
    world.engine(one).on_pubrec(one.key, &refusal, now);
    world.settle();
    let mut clean = crate::world::durable("two");
    clean.clean_start = true;
    let two = world.connect_with(clean);
    world.connack(two);
    assert!(world.received(one).is_empty());
    assert!(world.received(two).is_empty());
}
