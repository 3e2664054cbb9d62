//! Which Session a Client gets, take-over, expiry, and what CONNACK says.

use std::num::NonZeroU16;

use proto::connection::Outgoing;
use proto::packet::{Connect, Disconnect, ReasonCode};
use proto::{Qos, Version};
use vencejo_engine::Limits;

use crate::wills::with_will;
use crate::world::{Client, World, durable};

fn refused_with(mut world: World, connect: Connect) -> ReasonCode {
    let client = world.connect_with(connect);
    let connack = world.connack(client);
    assert!(!connack.session_present);
    assert_eq!(world.closed(client), Some(connack.reason));
    assert_eq!(world.next(client), None);
    connack.reason
}

fn disconnect_reason(world: &mut World, client: Client) -> Option<ReasonCode> {
    world.take(client, |packet| match packet {
        Outgoing::Disconnect(disconnect) => Some(disconnect.reason),
        _ => None,
    })
}

/// Verifies [MQTT-3.1.2-4]: Clean Start throws the old Session away.
/// Verifies [MQTT-3.1.2-5]: without it the Session is resumed, Subscriptions included.
/// Verifies [MQTT-3.1.2-6]: or made, if there is none.
/// Verifies [MQTT-3.1.2-23]: it outlives the connection.
/// Verifies [MQTT-3.1.3-2]: the Client Identifier names it.
/// Verifies [MQTT-3.1.4-4]: Clean Start is processed.
/// Verifies [MQTT-3.1.4-5]: CONNACK with 0x00 acknowledges the CONNECT.
/// Verifies [MQTT-3.2.2-3]: Session Present says whether there was one.
#[test]
fn a_session_is_resumed_unless_clean_start_discards_it() {
    let mut world = World::new();
    let sender = world.connect("sender");
    let (client, session_present) = world.resume("client");
    assert!(!session_present);
    world.subscribe(client, "a", 1);
    world.lose(client);
    world.publish(sender, "a", 1, "while away");
    let (client, session_present) = world.resume("client");
    assert!(session_present);
    assert_eq!(world.payloads(client), ["while away"]);
    let mut clean = durable("client");
    clean.clean_start = true;
    let client = world.connect_with(clean);
    assert!(!world.connack(client).session_present);
    world.publish(sender, "a", 1, "nobody");
    assert!(world.received(client).is_empty());
}

/// Verifies [v3.1.1 MQTT-3.1.2-4]: Clean Session 0 resumes or makes, and keeps, the Session.
/// Verifies [v3.1.1 MQTT-3.1.2-5]: QoS 1 and 2 messages are kept for it.
/// Verifies [v3.1.1 MQTT-3.1.2-6]: Clean Session 1 discards state before and after.
/// Verifies [v3.1.1 MQTT-3.1.3-2]: the Client Identifier names the state.
/// Verifies [v3.1.1 MQTT-3.1.4-3]: Clean Session is processed.
/// Verifies [v3.1.1 MQTT-3.1.4-4]: an accepted CONNECT is answered with code 0.
/// Verifies [v3.1.1 MQTT-3.2.2-1]: Clean Session 1 answers Session Present 0.
/// Verifies [v3.1.1 MQTT-3.2.2-2]: a stored Session answers 1.
/// Verifies [v3.1.1 MQTT-3.2.2-3]: no stored Session answers 0.
/// Verifies [v3.1.1 MQTT-4.1.0-1]: Session state is kept as long as the Session lasts.
/// Verifies [v3.1.1 MQTT-4.5.0-1]: a message joins every matching Session.
#[test]
fn clean_session_of_311_decides_what_is_kept() {
    let mut world = World::new();
    let sender = world.connect("sender");
    let connect = |world: &mut World, clean| {
        let mut connect = Connect::new(Version::V311, "client");
        connect.clean_start = clean;
        let client = world.connect_with(connect);
        (client, world.connack(client).session_present)
    };
    let (client, present) = connect(&mut world, false);
    assert!(!present);
    world.subscribe(client, "a", 2);
    world.lose(client);
    for (qos, text) in [(0, "zero"), (1, "one"), (2, "two")] {
        world.publish(sender, "a", qos, text);
    }
    let (client, present) = connect(&mut world, false);
    assert!(present);
    let payloads: Vec<_> = world
        .drain(client)
        .iter()
        .map(crate::world::payload)
        .collect();
    assert_eq!(payloads, ["one", "two"]);
    let (client, present) = connect(&mut world, true);
    assert!(!present);
    world.subscribe(client, "a", 2);
    world.lose(client);
    assert!(!connect(&mut world, false).1);
}

/// Verifies [v3.1.1 MQTT-4.1.0-2]: a Session of 3.1.1 lasts as long as its connection, a clean one no longer.
#[test]
fn a_session_of_311_lasts_as_long_as_its_connection() {
    let mut world = World::new();
    let kept = world.connect_311("kept", false);
    let clean = world.connect_311("clean", true);
    world.advance(100_000);
    assert_eq!(world.engines[0].counters().sessions, 2);
    world.lose(kept);
    world.lose(clean);
    world.advance(1);
    assert_eq!(world.engines[0].counters().sessions, 1);
}

/// Verifies [MQTT-4.1.0-1]: Session State lives while its connection does.
/// Verifies [MQTT-4.1.0-2]: a Session whose interval has passed is discarded, not before.
#[test]
fn a_session_is_discarded_when_its_expiry_has_passed() {
    let mut world = World::new();
    let mut connect = durable("client");
    connect.properties.session_expiry_interval_seconds = Some(10);
    let client = world.connect_with(connect.clone());
    world.advance(100);
    assert_eq!(world.engines[0].counters().sessions, 1);
    world.lose(client);
    world.advance(9);
    let client = world.connect_with(connect.clone());
    assert!(world.connack(client).session_present);
    world.lose(client);
    world.advance(11);
    assert_eq!(world.engines[0].counters().sessions, 0);
    assert_eq!(world.engines[0].counters().sessions_expired, 1);
    let client = world.connect_with(connect);
    assert!(!world.connack(client).session_present);
}

/// Verifies [MQTT-3.1.4-3]: the old connection hears 0x8E and is closed.
/// Verifies [v3.1.1 MQTT-3.1.4-2]: in 3.1.1 it is closed.
/// Verifies [MQTT-3.14.4-1]: nothing is sent to it afterwards.
#[test]
fn a_second_connection_takes_the_session_over_in_every_version() {
    for old_version in [Version::V31, Version::V311, Version::V5] {
        for new_version in [Version::V31, Version::V311, Version::V5] {
            for clean_start in [false, true] {
                let mut world = World::new();
                let connect = |version, clean| {
                    let mut connect = durable("client");
                    (connect.version, connect.clean_start) = (version, clean);
                    connect
                };
                let old = world.connect_with(connect(old_version, false));
                world.connack(old);
                world.subscribe(old, "a", 1);
                let new = world.connect_with(connect(new_version, clean_start));
                assert_eq!(world.connack(new).session_present, !clean_start);
                assert_eq!(world.closed(old), Some(ReasonCode::SessionTakenOver));
                let said = disconnect_reason(&mut world, old);
                let expected = ReasonCode::SessionTakenOver;
                assert_eq!(said, (old_version == Version::V5).then_some(expected));
                world.publish(new, "a", 1, "to the new one");
                assert!(world.received(old).is_empty());
                assert_eq!(world.payloads(new).len(), usize::from(!clean_start));
            }
        }
    }
}

/// Its CONNACK could be about what a crash loses.
/// Verifies [MQTT-3.2.0-1]: nothing comes before CONNACK.
/// Verifies [MQTT-3.14.0-1]: nor does DISCONNECT.
/// Verifies [v3.1.1 MQTT-3.2.0-1]: the same in 3.1.1.
#[test]
fn a_connection_taken_over_before_its_session_is_durable_is_closed_without_a_word() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut world = World::new();
        world.holds_store = true;
        let mut connect = durable("client");
        connect.version = version;
        let old = world.connect_with(connect.clone());
        assert_eq!(world.next(old), None);
        let new = world.connect_with(connect);
        assert_eq!(world.next(old), None);
        assert_eq!(world.closed(old), Some(ReasonCode::SessionTakenOver));
        assert_eq!(world.next(new), None);
        world.holds_store = false;
        world.persist();
        assert!(world.connack(new).session_present);
    }
}

/// A Session without expiry ends with its connection, also when that is taken over.
/// Verifies [MQTT-3.1.2-8]: its Will is published, whatever its delay.
#[test]
fn take_over_of_a_session_with_expiry_zero_resumes_nothing_and_fires_the_will() {
    let mut world = World::new();
    let watcher = world.connect("watcher");
    world.subscribe(watcher, "will", 1);
    let mut connect = with_will(Connect::new(Version::V5, "client"), 60);
    connect.clean_start = false;
    let old = world.connect_with(connect);
    world.subscribe(old, "a", 1);
    let (new, session_present) = world.resume("client");
    assert!(!session_present);
    assert_eq!(world.payloads(watcher), ["gone"]);
    world.publish(watcher, "a", 1, "not subscribed any more");
    assert!(world.received(new).is_empty());
}

/// Verifies [MQTT-3.1.3-8]: an unacceptable Client Identifier is refused with 0x85.
/// Verifies [v3.1.1 MQTT-3.1.3-8]: an empty one without Clean Session with 0x02.
/// Verifies [v3.1.1 MQTT-3.1.3-9]: which is what 0x85 is written as.
/// Verifies [MQTT-3.1.4-2]: the connection closes.
/// Verifies [MQTT-3.2.2-6]: no Session is present in a refusal.
/// Verifies [MQTT-4.13.2-1]: a code of 0x80 or more closes.
/// Verifies [v3.1.1 MQTT-3.1.4-5]: and nothing is processed afterwards.
#[test]
fn an_empty_client_id_without_clean_session_is_refused() {
    let mut connect = Connect::new(Version::V311, "");
    connect.clean_start = false;
    let reason = refused_with(World::new(), connect);
    assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
    assert_eq!(reason.connack_return_code(), Some(2));
    let long = Connect::new(Version::V5, "x".repeat(1025));
    assert_eq!(
        refused_with(World::new(), long),
        ReasonCode::ClientIdentifierNotValid
    );
}

/// Invented Client Identifiers cannot leave Sessions behind without end; those that exist go on.
#[test]
fn a_new_session_beyond_the_bound_is_refused() {
    let mut world = World::with(
        1,
        Limits {
            sessions_max: 2,
            ..Limits::default()
        },
    );
    for name in ["one", "two"] {
        let client = world.connect(name);
        world.lose(client);
    }
    let refused = world.connect_with(durable("three"));
    assert_eq!(world.connack(refused).reason, ReasonCode::QuotaExceeded);
    assert!(world.resume("two").1);
}

/// Verifies [MQTT-3.1.3-5]: 23 letters and digits are a good Client Identifier.
/// Verifies [v3.1.1 MQTT-3.1.3-5]: the same in 3.1.1.
#[test]
fn twenty_three_letters_and_digits_are_a_good_client_id() {
    let mut world = World::new();
    world.connect_clean("0123456789abcdefgXYZ012");
    world.connect_311("Z123456789abcdefgXYZ012", true);
}

/// Verifies [MQTT-3.2.2-12]: a Will QoS above the Maximum QoS is refused with 0x9B.
/// Verifies [MQTT-3.2.2-13]: a retained Will without Retain Available with 0x9A.
#[test]
fn a_will_beyond_what_is_available_is_refused() {
    let limits = Limits {
        maximum_qos: Qos::AtMostOnce,
        retain_available: false,
        ..Limits::default()
    };
    let connect = with_will(durable("client"), 0);
    let reason = refused_with(World::with(1, limits.clone()), connect.clone());
    assert_eq!(reason, ReasonCode::QosNotSupported);
    let mut retained = connect;
    let will = retained.will.as_mut().expect("has one");
    (will.qos, will.retain) = (Qos::AtMostOnce, true);
    let reason = refused_with(World::with(1, limits), retained);
    assert_eq!(reason, ReasonCode::RetainNotSupported);
}

/// Verifies [MQTT-3.2.2-9]: a Maximum QoS below 2 is announced.
/// Verifies [MQTT-3.2.2-16]: an assigned Client Identifier is returned.
/// Verifies [MQTT-3.1.2-28]: no Response Information without request.
#[test]
fn connack_announces_every_limit() {
    let limits = Limits {
        maximum_qos: Qos::AtLeastOnce,
        retain_available: false,
        wildcard_subscription_available: false,
        subscription_identifiers_available: false,
        shared_subscription_available: false,
        session_expiry_max_seconds: 60,
        server_keep_alive_max_seconds: Some(30),
        receive_maximum: 7,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let client = world.connect_with(durable("client"));
    let properties = world.connack(client).properties;
    assert_eq!(properties.maximum_qos, Some(Qos::AtLeastOnce));
    assert_eq!(properties.retain_available, Some(false));
    assert_eq!(properties.wildcard_subscription_available, Some(false));
    assert_eq!(properties.subscription_identifier_available, Some(false));
    assert_eq!(properties.shared_subscription_available, Some(false));
    assert_eq!(properties.session_expiry_interval_seconds, Some(60));
    assert_eq!(properties.server_keep_alive_seconds, Some(30));
    assert_eq!(properties.receive_maximum, NonZeroU16::new(7));
    assert_eq!(properties.topic_alias_maximum, Some(16));
    assert_eq!(
        properties.maximum_packet_size_bytes.map(u32::from),
        Some(1024 * 1024)
    );
    assert_eq!(properties.response_information, None);
    let mut asking = durable("asking");
    asking.properties.request_response_information = true;
    let client = world.connect_with(asking);
    let properties = world.connack(client).properties;
    assert_eq!(
        properties.response_information.as_deref(),
        Some("response/asking")
    );
}

/// Section 3.14.2.2.2: the Session Expiry Interval may be changed at DISCONNECT, but not from zero.
/// Verifies [MQTT-3.14.2-2]: our DISCONNECT carries none.
#[test]
fn disconnect_changes_the_expiry_unless_it_was_zero() {
    let mut world = World::new();
    let mut disconnect = Disconnect::new(ReasonCode::Success);
    disconnect.session_expiry_interval_seconds = Some(0);
    let client = world.connect("client");
    world.disconnect(client, &disconnect);
    assert_eq!(world.engines[0].counters().sessions, 0);
    disconnect.session_expiry_interval_seconds = Some(10);
    let client = world.connect_clean("client");
    world.disconnect(client, &disconnect);
    let said = world.take(client, |packet| match packet {
        Outgoing::Disconnect(said) => Some((said.reason, said.session_expiry_interval_seconds)),
        _ => None,
    });
    assert_eq!(said, Some((ReasonCode::ProtocolError, None)));
    assert_eq!(world.closed(client), Some(ReasonCode::ProtocolError));
}

/// Verifies [v3.1.1 MQTT-3.3.5-2]: a 3.1.1 publisher without the right is acknowledged as if it had it.
/// Verifies [MQTT-3.4.2-1]: a 5.0 publisher is told 0x87 in PUBACK.
/// Verifies [MQTT-3.5.2-1]: and in PUBREC.
/// Verifies [MQTT-4.3.3-9]: after that the identifier stands for a new message.
#[test]
fn a_message_that_may_not_be_published_is_answered_and_dropped() {
    let mut world = World::new();
    let watcher = world.connect("watcher");
    world.subscribe(watcher, "#", 2);
    world.limit(Some("mine/#"), Some("mine/#"));
    for version in [Version::V311, Version::V5] {
        let mut connect = Connect::new(version, "client");
        connect.clean_start = false;
        let client = world.connect_with(connect);
        world.connack(client);
        for topic in ["other", "$SYS/broker/uptime"] {
            for qos in 0..=2 {
                world.publish(client, topic, qos, "x");
            }
        }
        let answers = world.received(client);
        assert_eq!(answers.len(), 4);
        for answer in answers {
            let (Outgoing::PubAck(ack) | Outgoing::PubRec(ack)) = answer else {
                panic!("unexpected {answer:?}")
            };
            assert_eq!(ack.reason, ReasonCode::NotAuthorized);
        }
        let refused = world.subscribe(client, "other", 1);
        assert_eq!(refused, [ReasonCode::NotAuthorized]);
        world.publish(client, "mine/a", 1, "allowed");
        world.lose(client);
    }
    assert_eq!(world.payloads(watcher), ["allowed", "allowed"]);
}
