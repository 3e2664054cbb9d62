//! Members of a Shared Subscription that may not have a message, or have no room for it, in shards of their own: it goes
//! on until it has found the one that takes it.

use std::time::Duration;

use proto::connection::Outgoing;
use vencejo_engine::{Actions, Limits, Rule, Rules, SharedStrategy, Who};

use crate::world::{Client, LIMITED, World, durable, name_in, payload};

const STRATEGIES: [SharedStrategy; 5] = [
    SharedStrategy::RoundRobin,
    SharedStrategy::LeastInFlight,
    SharedStrategy::Sticky,
    SharedStrategy::HashTopic,
    SharedStrategy::HashClientId,
];

/// A World in which one user may subscribe and gets nothing.
fn world(shards: u16, strategy: SharedStrategy, limits: Limits) -> World {
    let mut world = World::with_config(shards, limits, |config| {
        config.sys_interval = Duration::ZERO;
        config.shared_strategy = strategy;
    });
    world.set_rules(Rules::new(vec![
        Rule {
            actions: Actions::RECEIVE,
            who: Who {
                users: [LIMITED.into()].into(),
                ..Who::default()
            },
            ..Rule::deny("the limited user gets nothing")
        },
        Rule::allow("everyone may"),
    ]));
    world
}

/// A member in each shard, of which only the one in shard `open` may have messages.
fn members(world: &mut World, shards: u16, open: usize) -> Client {
    let mut found = None;
    for shard in 0..usize::from(shards) {
        world.log_in(if shard == open { "open" } else { LIMITED });
        let client = world.connect(&name_in(shard, shards, "member"));
        world.subscribe(client, "$share/group/+", 1);
        if shard == open {
            found = Some(client);
        }
    }
    world.log_in("sender");
    found.expect("the open one")
}

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

#[test]
fn the_member_that_may_have_a_message_gets_it_whoever_is_asked_before() {
    for (shards, strategy) in [2, 3, 4]
        .into_iter()
        .flat_map(|shards| STRATEGIES.map(|of| (shards, of)))
    {
        for open in 0..usize::from(shards) {
            let mut world = world(shards, strategy, Limits::default());
            let member = members(&mut world, shards, open);
            for shard in 0..usize::from(shards) {
                let sender = world.connect(&name_in(shard, shards, "sender"));
                for topic in TOPICS {
                    world.publish(sender, topic, 1, topic);
                }
                let got: Vec<_> = world.drain(member).iter().map(payload).collect();
                assert_eq!(got, TOPICS, "{shards} {strategy:?}: from {shard} to {open}");
            }
        }
    }
}

/// Promise P5: where nobody else may have it, what was acknowledged is kept by the one that has no room.
#[test]
fn the_member_without_room_keeps_what_was_acknowledged_and_no_other_may_have() {
    for strategy in STRATEGIES {
        for sender in 0..3 {
            let limits = Limits {
                queued_messages_max: 2,
                maximum_inflight_messages: 1,
                ..Limits::default()
            };
            let mut world = world(3, strategy, limits);
            members(&mut world, 3, 1);
            let sender = world.connect(&name_in(sender, 3, "sender"));
            let acknowledged = acknowledged(&mut world, sender);
            world.log_in("open");
            let member = world.connect_with(durable(&name_in(1, 3, "member")));
            assert_eq!(world.drain(member).len(), acknowledged, "{strategy:?}");
        }
    }
}

#[test]
fn a_member_that_may_not_have_a_message_is_no_room_for_it() {
    let limits = Limits {
        queued_messages_max: 2,
        ..Limits::default()
    };
    let mut world = world(1, SharedStrategy::RoundRobin, limits);
    for (user, name) in [("open", "full"), (LIMITED, "denied")] {
        world.log_in(user);
        let client = world.connect(name);
        world.subscribe(client, "$share/group/+", 1);
        world.lose(client);
    }
    world.log_in("sender");
    let sender = world.connect("sender");
    assert_eq!(acknowledged(&mut world, sender), 2);
}

/// How many of eight messages are taken.
fn acknowledged(world: &mut World, sender: Client) -> usize {
    let mut is_taken = |topic: &&str| {
        world.publish(sender, topic, 1, topic);
        let taken = world.take(sender, |packet| match packet {
            Outgoing::PubAck(ack) => Some(!ack.reason.is_error()),
            _ => None,
        });
        taken.expect("a PUBACK")
    };
    TOPICS
        .into_iter()
        .cycle()
        .take(8)
        .filter(|topic| is_taken(topic))
        .count()
}
