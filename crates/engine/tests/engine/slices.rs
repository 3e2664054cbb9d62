//! What one Client asks for in one packet, or many at one moment, is done a part at a time.

use std::time::Duration;

use proto::connection::Outgoing;
use proto::packet::{
    Disconnect, FILTERS_MAX, ReasonCode, Subscribe, SubscriptionRequest, Unsubscribe,
};
use vencejo_engine::{Actions, Limits, OverflowPolicy, Rule, Rules};

use crate::world::{Client, World, at, durable, options};

/// What one call may add to the work of an engine: less than some milliseconds.
const WORK_MAX: u64 = 8192;

fn filters(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("many/{number}")).collect()
}

/// Asks for all of `filters`; nothing is settled.
fn ask(world: &mut World, client: Client, filters: &[String]) -> Subscribe<'static> {
    let requests = filters.iter().map(|filter| SubscriptionRequest {
        filter,
        options: options(1),
    });
    let subscribe = Subscribe {
        packet_id: world.packet_id(),
        subscription_identifier: None,
        user_properties: Vec::new(),
        requests: requests.collect(),
    };
    let now = world.now;
    world
        .engine(client)
        .on_subscribe(client.key, &subscribe, now);
    Subscribe {
        requests: Vec::new(),
        ..subscribe
    }
}

/// The Reason Codes of the SUBACK that has come, if one has.
fn granted(world: &mut World, client: Client) -> Option<Vec<ReasonCode>> {
    world.take(client, |packet| match packet {
        Outgoing::SubAck(suback) => Some(suback.reasons.clone()),
        _ => None,
    })
}

/// Promise P2, class U: a canary goes on between the slices.
#[test]
fn a_subscribe_of_very_many_filters_is_done_in_slices_and_answered_once() {
    for shards in 1..=2 {
        let mut world = World::with(shards, Limits::default());
        let (greedy, singer) = (world.connect("greedy"), world.connect("singer"));
        let listener = world.connect("listener");
        world.subscribe(listener, "canary", 0);
        let filters = filters(FILTERS_MAX);
        ask(&mut world, greedy, &filters);
        let mut songs = 0;
        while granted(&mut world, greedy).is_none() {
            assert!(world.engine(greedy).is_slicing(greedy.key) || songs > 10);
            let before = world.engine(greedy).work();
            world.turn();
            let work = world.engine(greedy).work() - before;
            assert!(work <= WORK_MAX, "{work} in one turn");
            let publish = crate::world::publish("canary", 0, "tweet", crate::world::id(1));
            world.send_publish(singer, &publish);
            world.carry_all();
            songs += 1;
            assert!(songs < 1000, "it never ends");
        }
        assert!(songs >= FILTERS_MAX / 512, "{songs} turns");
        world.settle();
        assert_eq!(world.deliveries(listener).len(), songs);
        assert!(!world.engine(greedy).is_slicing(greedy.key));
        let all = world.engines.iter().map(|one| one.counters().subscriptions);
        assert_eq!(all.sum::<u64>(), 10_001);
        world.publish(singer, "many/9999", 0, "x");
        assert_eq!(world.payloads(greedy), ["x"]);
    }
}

#[test]
fn an_unsubscribe_of_very_many_filters_is_done_in_slices_and_answered_once() {
    let mut world = World::new();
    let greedy = world.connect("greedy");
    let filters = filters(2000);
    ask(&mut world, greedy, &filters);
    world.settle();
    assert_eq!(
        granted(&mut world, greedy),
        Some(vec![ReasonCode::GrantedQos1; 2000])
    );
    let mut gone: Vec<&str> = filters.iter().map(String::as_str).collect();
    gone.push("never");
    let unsubscribe = Unsubscribe {
        packet_id: world.packet_id(),
        user_properties: Vec::new(),
        filters: gone,
    };
    let now = world.now;
    world
        .engine(greedy)
        .on_unsubscribe(greedy.key, &unsubscribe, now);
    let before = world.engine(greedy).work();
    world.turn();
    assert!(world.engine(greedy).work() - before <= WORK_MAX);
    assert!(world.engine(greedy).is_slicing(greedy.key));
    world.settle();
    let reasons = world.take(greedy, |packet| match packet {
        Outgoing::UnsubAck(unsuback) => Some(unsuback.reasons.clone()),
        _ => None,
    });
    let mut expected = vec![ReasonCode::Success; 2000];
    expected.push(ReasonCode::NoSubscriptionExisted);
    assert_eq!(reasons, Some(expected));
    assert_eq!(world.engine(greedy).counters().subscriptions, 0);
}

/// What is retained comes behind the SUBACK, whichever slice its filter was in.
#[test]
fn what_is_retained_comes_behind_the_suback_of_a_sliced_packet() {
    let mut world = World::new();
    let (sender, greedy) = (world.connect("sender"), world.connect("greedy"));
    for topic in ["many/0", "many/1500"] {
        world.publish_retained(sender, topic, 1, topic);
    }
    let filters = filters(1600);
    ask(&mut world, greedy, &filters);
    world.settle();
    let first = world.next(greedy);
    assert!(matches!(first, Some(Outgoing::SubAck(_))), "{first:?}");
    let mut payloads = world.payloads(greedy);
    payloads.sort_unstable();
    assert_eq!(payloads, ["many/0", "many/1500"]);
}

/// Class L: who vanishes in the middle leaves nothing that goes on.
#[test]
fn a_connection_that_vanishes_in_the_middle_of_its_slices_ends_them() {
    let mut world = World::new();
    let filters = filters(5000);
    for is_taken_over in [false, true] {
        let greedy = world.connect_clean("greedy");
        ask(&mut world, greedy, &filters);
        world.turn();
        assert!(world.engine(greedy).is_slicing(greedy.key));
        if is_taken_over {
            world.connect_clean("greedy");
        } else {
            world.disconnect(greedy, &Disconnect::new(ReasonCode::Success));
        }
        world.settle();
        assert!(!world.engine(greedy).has_work());
        let counters = world.engine(greedy).counters();
        assert_eq!(counters.subscriptions, 0);
        assert_eq!(counters.sessions, u64::from(is_taken_over));
    }
}

/// Promise P2: very many Sessions that end at one moment do so in many turns.
#[test]
fn sessions_that_expire_at_one_moment_end_a_part_at_a_time() {
    let mut world = World::new();
    for number in 0..20_000 {
        let mut connect = durable(&format!("client-{number}"));
        connect.properties.session_expiry_interval_seconds = Some(10);
        let client = world.connect_with(connect);
        world.lose(client);
    }
    world.now += Duration::from_secs(11);
    let now = world.now;
    let engine = &mut world.engines[0];
    let mut calls = 0;
    while engine.poll_timeout().is_some_and(|at| at <= now) {
        let before = engine.work();
        engine.on_timeout(now);
        assert!(engine.work() - before <= WORK_MAX);
        calls += 1;
    }
    assert!(calls >= 4, "{calls}");
    assert_eq!(engine.counters().sessions, 0);
    assert_eq!(engine.counters().sessions_expired, 20_000);
}

/// Promise P2: a long queue goes with its Session, but not in one turn.
#[test]
fn queue_of_a_session_that_ends_is_let_go_of_a_part_at_a_time() {
    let mut world = World::without_loads(Limits::default());
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "a", 1);
    world.lose(receiver);
    for _ in 0..20_000 {
        world.publish(sender, "a", 1, "x");
        world.received(sender);
    }
    assert_eq!(world.engines[0].counters().queued_messages, 20_000);
    let mut anew = durable("receiver");
    anew.clean_start = true;
    let before = world.engines[0].work();
    let client = world.connect_unsettled(anew);
    assert!(world.engines[0].work() - before <= WORK_MAX);
    assert_eq!(world.engines[0].counters().queued_messages, 0);
    let mut turns = 0;
    while world.engines[0].has_work() {
        let before = world.engines[0].work();
        world.turn();
        assert!(world.engines[0].work() - before <= WORK_MAX);
        turns += 1;
    }
    assert!((2..10).contains(&turns), "{turns}");
    assert!(!world.connack(client).session_present);
}

/// What a message costs is known, or a server could not stop in time.
#[test]
fn work_counts_deliveries_and_subscriptions_that_were_looked_at() {
    let mut world = World::new();
    let sender = world.connect("sender");
    for number in 0..100 {
        let receiver = world.connect(&format!("receiver-{number}"));
        world.subscribe(receiver, "wide", 0);
    }
    let before = world.engines[0].work();
    world.publish(sender, "wide", 0, "x");
    let first = world.engines[0].work() - before;
    world.publish(sender, "wide", 0, "x");
    let second = world.engines[0].work() - before - first;
    assert_eq!((first, second), (201, 101), "the second answer is known");
}

/// How much one PUBLISH to `topic` adds to the work of the engine of its sender.
fn work_of(world: &mut World, sender: Client, topic: &str) -> u64 {
    let before = world.engine(sender).work();
    world.publish(sender, topic, 1, "x");
    world.engine(sender).work() - before
}

/// Promise P2: what matches a beginning of a topic only is looked at as well, and a Client chooses how much that is.
#[test]
fn the_way_to_where_nothing_matches_is_work() {
    let mut world = World::new();
    let (greedy, sender) = (world.connect("greedy"), world.connect("sender"));
    for number in 0..1024_u16 {
        let start: String = (0..10)
            .map(|bit| if number >> bit & 1 == 0 { "+/" } else { "a/" })
            .collect();
        world.subscribe(greedy, &format!("{start}{}x", "+/".repeat(112)), 0);
    }
    // 2,047 nodes to where all are apart, and 112 behind each of 1,024: about 116,000.
    let topic = |last: u8| format!("{}{last}", "a/".repeat(122));
    for last in 0..2 {
        let work = work_of(&mut world, sender, &topic(last));
        assert!((10_000..20_000).contains(&work), "{work}");
    }
    assert_eq!(work_of(&mut world, sender, "a/b"), 1, "a short way is none");
}

/// The same of the members of a Shared Subscription of whom none may have the message, or has room for it.
#[test]
fn members_that_are_looked_at_in_vain_are_work() {
    const MEMBERS: u64 = 200;
    for (is_full, at_least) in [(false, MEMBERS), (true, MEMBERS / 8)] {
        let mut world = World::with(
            1,
            Limits {
                queued_messages_max: 1,
                ..Limits::default()
            },
        );
        let sender = world.connect("sender");
        world.set_rules(Rules::new(vec![
            Rule {
                actions: Actions::RECEIVE,
                topics: at("closed/#"),
                ..Rule::deny("nobody gets it")
            },
            Rule::allow("everyone may"),
        ]));
        let topic = if is_full { "open/a" } else { "closed/a" };
        for member in 0..MEMBERS {
            let client = world.connect_with(durable(&member.to_string()));
            world.subscribe(client, "$share/group/+/a", 1);
            world.lose(client);
        }
        if is_full {
            for _ in 0..MEMBERS {
                world.publish(sender, topic, 1, "x");
            }
        }
        let work = work_of(&mut world, sender, topic);
        assert!((at_least..4 * MEMBERS).contains(&work), "{topic}: {work}");
    }
}

/// Class U: to drop the oldest message of each of many full Sessions takes as long for each, however many they are.
#[test]
fn work_of_a_message_for_full_sessions_grows_with_their_number_and_no_faster() {
    for can_load in [true, false] {
        let work = [100, 1000].map(|sessions| {
            let limits = Limits {
                queued_messages_max: 1,
                overflow_policy: OverflowPolicy::DropOldest,
                ..Limits::default()
            };
            let mut world = World::with_config(1, limits, |config| {
                config.sys_interval = Duration::ZERO;
                config.can_load = can_load;
            });
            let sender = world.connect("sender");
            for number in 0..sessions {
                let client = world.connect(&number.to_string());
                world.subscribe(client, "a", 1);
                world.lose(client);
            }
            world.publish(sender, "a", 1, "first");
            work_of(&mut world, sender, "a")
        });
        assert!(work[1] <= work[0] * 11, "{can_load}: {work:?}");
    }
}

/// Promise P6: what many Clients have waiting, and read at last, is not taken from all queues in one turn.
#[test]
fn what_an_acknowledgement_lets_go_is_work() {
    for qos in 1..=2 {
        let mut world = World::new();
        let mut connect = durable("receiver");
        connect.properties.receive_maximum = std::num::NonZeroU16::new(10);
        let (sender, receiver) = (world.connect("sender"), world.connect_with(connect));
        world.subscribe(receiver, "a", qos);
        for _ in 0..100 {
            world.publish(sender, "a", qos, "x");
            let packets = world.received(sender);
            if let [Outgoing::PubRec(ack)] = &packets[..] {
                world.pubrel(sender, ack.packet_id.get());
                world.received(sender);
            }
        }
        let before = world.engines[0].work();
        let got = world.drain(receiver).len();
        let work = world.engines[0].work() - before;
        // Those after the first ten.
        assert!((90..400).contains(&work), "{work} for {got} at QoS {qos}");
        assert_eq!(got, 100, "QoS {qos}");
    }
}
