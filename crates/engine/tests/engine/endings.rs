//! How things end: Wills with time in them, a stop over several shards, `$SYS` at once.

use std::time::Duration;

use proto::Version;
use proto::connection::Outgoing;
use proto::packet::{Connect, Disconnect, ReasonCode};
use vencejo_engine::Limits;

use crate::wills::with_will;
use crate::world::{Client, World, durable, payload};

fn watched(shards: u16) -> (World, Client) {
    let mut world = World::with(shards, Limits::default());
    let watcher = world.connect("watcher");
    world.subscribe(watcher, "will", 2);
    (world, watcher)
}

/// Verifies [MQTT-3.3.2-6]: the Message Expiry Interval of a Will begins when it is published.
/// Verifies [MQTT-3.3.2-5]: and when it has passed, the Will is not delivered.
#[test]
fn a_will_expires_counted_from_its_publication() {
    for shards in 1..=3 {
        let (mut world, watcher) = watched(shards);
        let mut connect = with_will(durable("client"), 20);
        if let Some(will) = &mut connect.will {
            will.properties.message_expiry_interval_seconds = Some(10);
        }
        let client = world.connect_with(connect.clone());
        world.advance(1000);
        world.lose(client);
        world.advance(20);
        let deliveries = world.drain(watcher);
        assert_eq!(deliveries.len(), 1);
        let remaining = deliveries[0].message.remaining_expiry_seconds(world.now);
        assert_eq!(remaining, Some(10));
        let client = world.connect_with(connect);
        world.lose(watcher);
        world.lose(client);
        world.advance(20);
        world.advance(10);
        let watcher = world.connect("watcher");
        assert!(world.deliveries(watcher).is_empty());
    }
}

/// Verifies [MQTT-3.1.2-8]: 0x04 publishes the Will after its delay, like a lost connection.
/// Verifies [MQTT-3.14.4-3]: only 0x00 discards it.
#[test]
fn a_disconnect_with_will_message_respects_the_delay() {
    let (mut world, watcher) = watched(1);
    let connect = with_will(durable("client"), 20);
    let client = world.connect_with(connect.clone());
    let with_will_message = Disconnect::new(ReasonCode::DisconnectWithWillMessage);
    world.disconnect(client, &with_will_message);
    world.advance(19);
    assert!(world.received(watcher).is_empty());
    world.advance(1);
    assert_eq!(world.payloads(watcher), ["gone"]);
    // A return before the delay has passed cancels it, with a Will of its own.
    let client = world.connect_with(connect.clone());
    world.disconnect(client, &with_will_message);
    world.advance(10);
    let client = world.connect_with(connect);
    world.advance(100);
    assert!(world.received(watcher).is_empty());
    world.lose(client);
    world.advance(20);
    assert_eq!(world.payloads(watcher), ["gone"]);
}

/// Verifies [MQTT-3.1.2-10]: a Will that a stop has published is not published again by the close.
/// Verifies [MQTT-4.13.2-1]: a 5.0 Client hears 0x8B, an older one is only closed.
#[test]
fn a_stop_over_several_shards_reaches_everyone_once() {
    let (mut world, watcher) = watched(3);
    let versions = [Version::V31, Version::V311, Version::V5];
    let clients: Vec<_> = (0..9)
        .map(|number| {
            let version = versions[number % 3];
            let connect = Connect::new(version, format!("client-{number}"));
            let client = world.connect_with(with_will(connect, 0));
            world.connack(client);
            (version, client)
        })
        .collect();
    let now = world.now;
    world
        .engines
        .iter_mut()
        .for_each(|engine| engine.begin_stop(now));
    world.settle();
    assert_eq!(world.drain(watcher).len(), 9);
    for engine in &mut world.engines {
        engine.finish_stop(ReasonCode::ServerShuttingDown, None);
    }
    world.settle();
    for (version, client) in clients {
        assert_eq!(world.closed(client), Some(ReasonCode::ServerShuttingDown));
        let said: Vec<_> = world.received(client);
        assert_eq!(said.len(), usize::from(version == Version::V5));
        if let Some(Outgoing::Disconnect(disconnect)) = said.first() {
            assert_eq!(disconnect.reason, ReasonCode::ServerShuttingDown);
            assert_eq!(disconnect.server_reference, None);
        }
    }
    let wills: u64 = world
        .engines
        .iter()
        .map(|engine| engine.counters().wills_published)
        .sum();
    assert_eq!(wills, 9);
}

/// Verifies [MQTT-4.7.2-1]: `$SYS` values are retained for those who ask for `$SYS`, in every shard.
#[test]
fn sys_values_are_there_for_a_new_subscription_at_once() {
    let mut world = World::with_config(3, Limits::default(), |config| {
        config.sys_interval = Duration::from_secs(10);
    });
    world.advance(1);
    for number in 0..6 {
        let client = world.connect(&format!("client-{number}"));
        world.subscribe(client, "$SYS/broker/version", 1);
        let deliveries = world.drain(client);
        assert_eq!(deliveries.len(), 1);
        assert!(deliveries[0].retain);
        assert!(payload(&deliveries[0]).starts_with("vencejo version"));
    }
}

/// Verifies [MQTT-4.1.0-2]: Sessions end when their interval has passed, not before, each for itself.
#[test]
fn sessions_expire_each_at_its_own_time() {
    let mut world = World::with(2, Limits::default());
    let mut clients = Vec::new();
    for seconds in [1, 5, 5, 30, u32::MAX - 1, u32::MAX] {
        let mut connect = durable(&format!("client-{}", clients.len()));
        connect.properties.session_expiry_interval_seconds = Some(seconds);
        clients.push(world.connect_with(connect));
    }
    for client in clients {
        world.lose(client);
    }
    let sessions = |world: &World| -> u64 {
        let engines = world.engines.iter();
        engines.map(|engine| engine.counters().sessions).sum()
    };
    let mut left = Vec::new();
    for seconds in [0, 1, 4, 24, 1, 100_000_000] {
        world.advance(seconds);
        left.push(sessions(&world));
    }
    assert_eq!(left, [6, 5, 3, 3, 2, 2]);
}
