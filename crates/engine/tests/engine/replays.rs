//! Replays of retained messages to who reads them, whatever stands between: none is lost on the way.

use std::sync::Arc;

use vencejo_engine::{Limits, OverflowPolicy, Principal};

use crate::world::{Client, World, durable};

/// A World in which so many messages are retained below `a`.
fn with_retained(count: usize, payload: &str, limits: Limits) -> World {
    let mut world = World::with(1, limits);
    let sender = world.connect("sender");
    for number in 0..count {
        world.publish_retained(sender, &format!("a/{number}"), 1, payload);
        world.received(sender);
    }
    world
}

/// Subscribes; nothing is durable before the test says so.
fn subscribe_unsettled(world: &mut World, client: Client, filter: &str, qos: u8) {
    world.holds_store = true;
    world.subscribe(client, filter, qos);
}

fn lost(world: &World) -> u64 {
    let counters = world.engines[0].counters();
    counters.dropped_queue_full + counters.dropped_congested
}

/// The packets of a connection keep their order, so what is retained waits behind a SUBACK that waits for the disk.
#[test]
fn a_replay_at_qos_0_waits_while_the_store_is_slow_and_loses_nothing() {
    let mut world = with_retained(6000, "x", Limits::default());
    let receiver = world.connect("receiver");
    subscribe_unsettled(&mut world, receiver, "a/#", 0);
    world.persist_shard(0);
    subscribe_unsettled(&mut world, receiver, "b", 0);
    world.persist();
    assert_eq!(world.payloads(receiver).len(), 6000);
    assert_eq!(lost(&world), 0);
}

const POLICIES: [OverflowPolicy; 4] = [
    OverflowPolicy::Refuse,
    OverflowPolicy::DropNewest,
    OverflowPolicy::DropOldest,
    OverflowPolicy::Disconnect,
];

/// All that was retained comes to who has a window of ten messages and reads, and nobody is refused meanwhile; whether the
/// limits are those of all or of the listener.
fn all_arrive(count: usize, payload: &str, limits: &Limits) {
    for (overflow_policy, is_of_listener) in POLICIES
        .into_iter()
        .flat_map(|one| [(one, false), (one, true)])
    {
        let limits = Limits {
            overflow_policy,
            ..limits.clone()
        };
        let mut world = if is_of_listener {
            let mut world = with_retained(count, payload, Limits::default());
            world.set_limits_of(Limits::default(), [("narrow", limits)]);
            world.principal = Arc::new(Principal {
                listener: Some("narrow".into()),
                ..Principal::default()
            });
            world
        } else {
            with_retained(count, payload, limits)
        };
        let mut connect = durable("receiver");
        connect.properties.receive_maximum = std::num::NonZeroU16::new(10);
        let receiver = world.connect_with(connect);
        world.subscribe(receiver, "a/#", 1);
        let sender = world.connect("another");
        world.publish(sender, "a/live", 1, "live");
        let got = world.drain(receiver).len();
        assert_eq!(got, count + 1, "{overflow_policy:?}");
        assert_eq!(world.closed(receiver), None, "{overflow_policy:?}");
        assert_eq!(lost(&world), 0, "{overflow_policy:?}");
    }
}

#[test]
fn a_replay_leaves_half_of_a_short_queue_free() {
    for queued_messages_max in [2, 100] {
        all_arrive(
            1000,
            "x",
            &Limits {
                queued_messages_max,
                ..Limits::default()
            },
        );
    }
}

#[test]
fn a_replay_leaves_half_of_the_bytes_of_a_queue_free() {
    all_arrive(
        300,
        &"x".repeat(1000),
        &Limits {
            queued_bytes_max: 100_000,
            ..Limits::default()
        },
    );
}
