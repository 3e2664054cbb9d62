//! When a Will is published and when not.

use bytes::Bytes;
use proto::connection::Outgoing;
use proto::packet::{Connect, Disconnect, ReasonCode, Will, WillProperties};
use proto::{Qos, Version};

use crate::world::{Client, World, durable, payload};

pub(crate) fn with_will(mut connect: Connect, delay_interval_seconds: u32) -> Connect {
    connect.will = Some(Will {
        topic: "will".to_owned(),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: WillProperties {
            delay_interval_seconds,
            ..WillProperties::default()
        },
    });
    connect
}

/// A world with someone who watches the Will Topic, and a Client with this CONNECT.
fn watched(connect: &Connect) -> (World, Client, Client) {
    let mut world = World::new();
    let watcher = world.connect("watcher");
    world.subscribe(watcher, "will", 1);
    let client = world.connect_with(connect.clone());
    world.connack(client);
    (world, watcher, client)
}

/// Verifies [MQTT-3.1.2-7]: the Will is kept with the Session.
/// Verifies [MQTT-3.1.2-8]: and published when the connection is lost.
/// Verifies [v3.1.1 MQTT-3.1.2-8]: the same in 3.1.1.
/// Verifies [MQTT-3.1.2-10]: once.
#[test]
fn a_lost_connection_publishes_the_will_once() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let (mut world, watcher, client) = watched(&with_will(Connect::new(version, "client"), 0));
        world.lose(client);
        assert_eq!(world.payloads(watcher), ["gone"]);
        world.advance(1000);
        assert!(world.payloads(watcher).is_empty());
    }
}

/// Verifies [v3.1.1 MQTT-3.14.4-3]: DISCONNECT discards the Will.
/// Verifies [v3.1.1 MQTT-3.1.2-10]: and it leaves the Session.
/// Verifies [MQTT-3.14.4-3]: the same in 5.0 with 0x00; with 0x04 it is published.
/// Verifies [v3.1.1 MQTT-3.1.2-12]: without the Will Flag there is none to publish.
#[test]
fn a_normal_disconnect_discards_the_will_and_0x04_publishes_it() {
    let cases = [
        (Version::V311, ReasonCode::Success, 0),
        (Version::V5, ReasonCode::Success, 0),
        (Version::V5, ReasonCode::DisconnectWithWillMessage, 1),
        (Version::V5, ReasonCode::UnspecifiedError, 1),
    ];
    for (version, reason, published) in cases {
        let (mut world, watcher, client) = watched(&with_will(Connect::new(version, "client"), 0));
        world.disconnect(client, &Disconnect::new(reason));
        assert_eq!(world.payloads(watcher).len(), published);
    }
    let (mut world, watcher, client) = watched(&Connect::new(Version::V311, "client"));
    world.lose(client);
    assert!(world.payloads(watcher).is_empty());
}

/// A Client that may not publish to its Will Topic has no Will published, however it goes.
#[test]
fn a_will_that_may_not_be_published_is_not() {
    let mut world = World::new();
    let watcher = world.connect("watcher");
    world.subscribe(watcher, "#", 1);
    world.limit(Some("nothing"), None);
    let client = world.connect_with(with_will(Connect::new(Version::V5, "client"), 0));
    world.lose(client);
    let client = world.connect_with(with_will(Connect::new(Version::V5, "client"), 0));
    let goodbye = Disconnect::new(ReasonCode::DisconnectWithWillMessage);
    world.disconnect(client, &goodbye);
    assert!(world.received(watcher).is_empty());
    assert_eq!(world.engines[0].counters().dropped_not_authorized, 2);
}

/// Verifies [MQTT-3.1.3-9]: a return within the Will Delay Interval cancels the Will.
#[test]
fn a_return_within_the_delay_cancels_the_will() {
    let connect = with_will(durable("client"), 10);
    let (mut world, watcher, client) = watched(&connect);
    world.lose(client);
    world.advance(9);
    assert!(world.payloads(watcher).is_empty());
    let client = world.connect("client");
    world.advance(100);
    assert!(world.payloads(watcher).is_empty());
    let again = world.connect_with(connect);
    assert_eq!(world.closed(client), Some(ReasonCode::SessionTakenOver));
    world.lose(again);
    world.advance(11);
    assert_eq!(world.payloads(watcher), ["gone"]);
}

/// A Session that ends before the delay has passed publishes its Will at its end: with expiry 0 at once,
/// with a short expiry when that has passed, with Clean Start when the Client returns.
#[test]
fn the_end_of_the_session_publishes_the_will_before_its_delay() {
    let with_expiry = |seconds| {
        let mut connect = with_will(durable("client"), 100);
        connect.properties.session_expiry_interval_seconds = Some(seconds);
        connect
    };
    let (mut world, watcher, client) = watched(&with_expiry(0));
    world.lose(client);
    assert_eq!(world.payloads(watcher), ["gone"]);

    let (mut world, watcher, client) = watched(&with_expiry(5));
    world.lose(client);
    assert!(world.payloads(watcher).is_empty());
    world.advance(6);
    assert_eq!(world.payloads(watcher), ["gone"]);

    let (mut world, watcher, client) = watched(&with_expiry(500));
    world.lose(client);
    let mut clean = durable("client");
    clean.clean_start = true;
    world.connect_with(clean);
    assert_eq!(world.payloads(watcher), ["gone"]);
}

/// Section 3.1.2.5: at take-over the Will is published unless it is delayed and the Session goes on.
#[test]
fn take_over_publishes_the_will_unless_it_is_delayed_and_the_session_goes_on() {
    for (delay, clean_start, published) in
        [(0, false, 1), (0, true, 1), (10, false, 0), (10, true, 1)]
    {
        let (mut world, watcher, _) = watched(&with_will(durable("client"), delay));
        let mut connect = durable("client");
        connect.clean_start = clean_start;
        world.connect_with(connect);
        world.advance(1000);
        assert_eq!(
            world.payloads(watcher).len(),
            published,
            "{delay} {clean_start}"
        );
    }
}

/// Verifies [MQTT-3.1.2-14]: Will Retain 0 publishes it unretained.
/// Verifies [MQTT-3.1.2-15]: Will Retain 1 publishes it retained.
/// Verifies [v3.1.1 MQTT-3.1.2-16]: as in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.1.2-17]: as in 3.1.1.
/// Verifies [MQTT-3.1.3-10]: User Properties keep their order.
#[test]
fn a_will_is_retained_as_it_asks_and_keeps_its_properties() {
    for retain in [false, true] {
        for version in [Version::V311, Version::V5] {
            let mut connect = with_will(Connect::new(version, "client"), 0);
            let will = connect.will.as_mut().expect("has one");
            will.retain = retain;
            let forwarded = Bytes::from_static(b"\x26\0\x01b\0\x012\x26\0\x01a\0\x011");
            will.properties.forwarded = forwarded.clone();
            let (mut world, watcher, client) = watched(&connect);
            world.lose(client);
            let live = world.deliveries(watcher);
            assert_eq!(live[0].message.forwarded_properties(), forwarded);
            let late = world.connect("late");
            world.subscribe(late, "will", 1);
            let seen = world.deliveries(late);
            assert_eq!(seen.iter().map(payload).count(), usize::from(retain));
        }
    }
}

#[test]
fn a_stop_publishes_every_will_and_says_goodbye() {
    let (mut world, watcher, client) = watched(&with_will(durable("client"), 100));
    let offline = world.connect_with(with_will(durable("offline"), 100));
    world.lose(offline);
    let now = world.now;
    world.engines[0].begin_stop(now);
    world.settle();
    assert_eq!(world.payloads(watcher), ["gone", "gone"]);
    world.engines[0].finish_stop(ReasonCode::UseAnotherServer, Some("elsewhere"));
    world.settle();
    for closed in [client, watcher] {
        assert_eq!(world.closed(closed), Some(ReasonCode::UseAnotherServer));
    }
}

/// Verifies [MQTT-3.1.2-8]: an operator who disconnects a Client publishes its Will.
/// Verifies [MQTT-4.13.2-1]: and the Client hears why; its Session stays.
#[test]
fn an_administrative_disconnect_publishes_the_will_and_says_why() {
    let (mut world, watcher, client) = watched(&with_will(durable("client"), 0));
    let (now, reason) = (world.now, ReasonCode::AdministrativeAction);
    assert!(world.engines[0].disconnect("client", reason, now));
    world.settle();
    assert_eq!(world.payloads(watcher), ["gone"]);
    let expected = Outgoing::Disconnect(Box::new(Disconnect::new(reason)));
    assert_eq!(world.received(client), [expected]);
    assert_eq!(world.closed(client), Some(reason));
    assert_eq!(world.engines[0].counters().protocol_errors, 0);
    for unconnected in ["client", "nobody"] {
        assert!(!world.engines[0].disconnect(unconnected, reason, now));
    }
    assert!(world.resume("client").1);
}
