//! What one user may have in all shards together: Sessions and Subscriptions.

use std::sync::Arc;

use proptest::prelude::*;
use proto::Version;
use proto::packet::{Connect, ReasonCode};
use vencejo_engine::{Limits, Principal, UserTotals};

use crate::world::{Client, World, durable};

fn limits(sessions: usize, subscriptions: usize) -> Limits {
    Limits {
        sessions_per_user_max: Some(sessions),
        subscriptions_per_user_max: Some(subscriptions),
        ..Limits::default()
    }
}

fn totals(world: &World) -> Arc<UserTotals> {
    Arc::clone(&world.config.user_totals)
}

/// The Reason Code of a CONNACK, and its Client.
fn answer(world: &mut World, connect: Connect) -> (ReasonCode, Client) {
    let client = world.connect_with(connect);
    (world.connack(client).reason, client)
}

/// Verifies [MQTT-3.2.2-7]: one Session more than its user may have is refused in CONNACK, whatever shard it would be in, and
/// nobody else's is. Class M.
#[test]
fn sessions_of_one_user_are_bounded_over_all_shards() {
    for shards in [1, 3] {
        let mut world = World::with(shards, limits(3, 100));
        world.log_in("ann");
        for name in ["a", "b", "c"] {
            let (reason, client) = answer(&mut world, durable(name));
            assert_eq!(reason, ReasonCode::Success);
            world.lose(client);
        }
        for name in ["d", "e", "f", "g"] {
            let (reason, client) = answer(&mut world, durable(name));
            assert_eq!(reason, ReasonCode::QuotaExceeded, "{shards}");
            assert_eq!(world.closed(client), Some(ReasonCode::QuotaExceeded));
        }
        assert_eq!(totals(&world).of("ann"), (3, 0));
        // Her own are hers: again, anew, and over one another.
        for clean_start in [false, true, false] {
            for name in ["a", "b", "c"] {
                let mut connect = durable(name);
                connect.clean_start = clean_start;
                assert_eq!(answer(&mut world, connect).0, ReasonCode::Success);
                assert_eq!(totals(&world).of("ann"), (3, 0));
            }
        }
        for version in [Version::V31, Version::V311] {
            let mut connect = durable("old");
            connect.version = version;
            assert_eq!(answer(&mut world, connect).0, ReasonCode::QuotaExceeded);
        }
        world.log_in("otto");
        assert_eq!(answer(&mut world, durable("d")).0, ReasonCode::Success);
        world.principal = Arc::default();
        for name in ["e", "f", "g", "h"] {
            assert_eq!(answer(&mut world, durable(name)).0, ReasonCode::Success);
        }
        assert_eq!(totals(&world).len(), 2, "nobody has no user");
        let refused: u64 = world
            .engines
            .iter()
            .map(|engine| engine.counters().refused_sessions)
            .sum();
        assert_eq!(refused, 6);
    }
}

#[test]
fn a_session_that_has_ended_makes_room_for_its_user() {
    let mut world = World::with(2, limits(2, 2));
    world.log_in("ann");
    let clean = world.connect_clean("clean");
    world.subscribe(clean, "a", 1);
    let (_, short) = answer(&mut world, {
        let mut connect = durable("short");
        connect.properties.session_expiry_interval_seconds = Some(10);
        connect
    });
    world.subscribe(short, "b", 1);
    world.lose(short);
    assert_eq!(totals(&world).of("ann"), (2, 2));
    let full = ReasonCode::QuotaExceeded;
    assert_eq!(answer(&mut world, durable("next")).0, full);
    world.lose(clean);
    assert_eq!(totals(&world).of("ann"), (1, 1));
    let (reason, next) = answer(&mut world, durable("next"));
    assert_eq!(reason, ReasonCode::Success);
    assert_eq!(world.subscribe(next, "c", 1), [ReasonCode::GrantedQos1]);
    world.advance(11);
    assert_eq!(totals(&world).of("ann"), (1, 1));
    // A Session that takes over what ends with its connection is none more.
    let again = world.connect_clean("again");
    let over = world.connect_clean("again");
    assert_eq!(world.closed(again), Some(ReasonCode::SessionTakenOver));
    assert_eq!(totals(&world).of("ann"), (2, 1));
    world.lose(over);
    world.lose(next);
    assert_eq!(totals(&world).of("ann"), (1, 1));
}

/// What an anonymous Client has left becomes a user's Session only where that may have one more.
#[test]
fn a_user_takes_no_session_of_nobody_beyond_its_limit() {
    let mut world = World::with(1, limits(1, 9));
    let nobodys = world.connect("name");
    world.lose(nobodys);
    world.log_in("ann");
    world.connect("own");
    let full = ReasonCode::QuotaExceeded;
    assert_eq!(answer(&mut world, durable("name")).0, full);
    world.principal = Arc::default();
    assert!(world.resume("name").1, "it is there");
}

/// Verifies [MQTT-3.8.4-6], [v3.1.1 MQTT-3.8.4-5]: one Subscription more than the user may have is refused in SUBACK, and no
/// other one is.
#[test]
fn subscriptions_of_one_user_are_bounded_over_all_its_sessions() {
    for version in [Version::V5, Version::V311] {
        let refused = ReasonCode::QuotaExceeded;
        let mut world = World::speaking(version);
        world.set_limits(limits(100, 3));
        world.log_in("ann");
        let (one, other) = (world.connect("one"), world.connect("other"));
        let granted = ReasonCode::GrantedQos1;
        assert_eq!(world.subscribe(one, "a", 1), [granted]);
        assert_eq!(world.subscribe(one, "$share/g/a", 1), [granted]);
        assert_eq!(world.subscribe(other, "a", 1), [granted]);
        for client in [one, other] {
            assert_eq!(world.subscribe(client, "more", 1), [refused]);
            assert_eq!(world.subscribe(client, "a", 1), [granted], "is there");
        }
        world.unsubscribe(one, "$share/g/a");
        assert_eq!(world.subscribe(other, "more", 1), [granted]);
        assert_eq!(world.subscribe(other, "and more", 1), [refused]);
        world.log_in("otto");
        let otto = world.connect("otto");
        assert_eq!(world.subscribe(otto, "more", 1), [granted]);
        assert_eq!(totals(&world).of("ann"), (2, 3));
        assert_eq!(totals(&world).of("otto"), (1, 1));
    }
}

#[test]
fn what_a_restart_finds_is_counted_and_stays_whatever_the_limit() {
    let mut world = World::with(2, limits(3, 3));
    world.log_in("ann");
    for name in ["a", "b", "c"] {
        let client = world.connect(name);
        world.subscribe(client, name, 1);
    }
    world.change_config(|config| config.limits = Arc::new(limits(2, 2)));
    world.crash(3);
    assert_eq!(totals(&world).of("ann"), (3, 3));
    let full = ReasonCode::QuotaExceeded;
    assert_eq!(answer(&mut world, durable("d")).0, full);
    let (client, session_present) = world.resume("b");
    assert!(session_present);
    assert_eq!(world.subscribe(client, "more", 1), [full]);
    assert_eq!(world.subscribe(client, "b", 1), [ReasonCode::GrantedQos1]);
}

/// As with every limit that a reload turns on: who is there is counted.
#[test]
fn a_limit_that_is_turned_on_counts_who_is_there_and_one_that_is_turned_off_counts_nobody() {
    let mut world = World::with(2, Limits::default());
    world.log_in("ann");
    let clients: Vec<_> = ["a", "b", "c"].map(|name| world.connect(name)).into();
    for (client, filter) in clients.iter().zip(["x", "y", "z"]) {
        world.subscribe(*client, filter, 1);
    }
    assert!(totals(&world).is_empty(), "nothing is shared");
    world.set_limits(limits(2, 4));
    assert_eq!(totals(&world).of("ann"), (3, 3));
    let full = ReasonCode::QuotaExceeded;
    assert_eq!(answer(&mut world, durable("d")).0, full);
    assert_eq!(
        world.subscribe(clients[0], "more", 1),
        [ReasonCode::GrantedQos1]
    );
    assert_eq!(world.subscribe(clients[1], "more", 1), [full]);
    world.set_limits(limits(4, 4));
    assert_eq!(answer(&mut world, durable("d")).0, ReasonCode::Success);
    world.set_limits(Limits::default());
    assert!(totals(&world).is_empty());
    assert_eq!(answer(&mut world, durable("e")).0, ReasonCode::Success);
    world.set_limits(limits(9, 9));
    assert_eq!(totals(&world).of("ann"), (5, 4));
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Connect {
        name: u8,
        user: u8,
        clean_start: bool,
        expiry_seconds: u32,
        is_mounted: bool,
    },
    Subscribe {
        at: usize,
        filter: u8,
    },
    Unsubscribe {
        at: usize,
        filter: u8,
    },
    Lose {
        at: usize,
    },
    Wait {
        seconds: u64,
    },
    Crash {
        shards: u16,
    },
    Limit {
        sessions: Option<usize>,
        subscriptions: Option<usize>,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..6_u8, 0..3_u8, any::<bool>(), 0..3_u32, any::<bool>()).prop_map(
            |(name, user, clean_start, expiry, is_mounted)| Step::Connect {
                name,
                user,
                clean_start,
                expiry_seconds: [0, 5, u32::MAX][expiry as usize],
                is_mounted,
            }
        ),
        6 => (0..8_usize, 0..6_u8).prop_map(|(at, filter)| Step::Subscribe { at, filter }),
        2 => (0..8_usize, 0..6_u8).prop_map(|(at, filter)| Step::Unsubscribe { at, filter }),
        4 => (0..8_usize).prop_map(|at| Step::Lose { at }),
        1 => (1..10_u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => (1..4_u16).prop_map(|shards| Step::Crash { shards }),
        1 => (prop::option::of(0..4_usize), prop::option::of(0..4_usize)).prop_map(
            |(sessions, subscriptions)| Step::Limit { sessions, subscriptions }
        ),
    ];
    prop::collection::vec(step, 1..80)
}

const FILTERS: [&str; 6] = ["a", "b/+", "#", "$share/g/a", "$share/h/b", "c"];

fn take(world: &mut World, clients: &mut Vec<Client>, step: &Step) {
    let at = |at: usize, clients: &[Client]| clients.get(at % clients.len().max(1)).copied();
    match *step {
        Step::Connect {
            name,
            user,
            clean_start,
            expiry_seconds,
            is_mounted,
        } => {
            world.principal = Arc::new(Principal {
                user: [None, Some("ann".into()), Some("otto".into())][usize::from(user)].clone(),
                mount_point: is_mounted.then(|| "mounted/".into()),
                ..Principal::default()
            });
            let mut connect = durable(&format!("client-{name}"));
            connect.clean_start = clean_start;
            connect.properties.session_expiry_interval_seconds = Some(expiry_seconds);
            let (reason, client) = answer(world, connect);
            if reason == ReasonCode::Success {
                clients.push(client);
            }
        }
        Step::Subscribe { at: place, filter } => {
            if let Some(client) = at(place, clients) {
                world.subscribe(client, FILTERS[usize::from(filter)], 1);
            }
        }
        Step::Unsubscribe { at: place, filter } => {
            if let Some(client) = at(place, clients) {
                world.unsubscribe(client, FILTERS[usize::from(filter)]);
            }
        }
        Step::Lose { at: place } => {
            if let Some(client) = at(place, clients) {
                world.lose(client);
            }
        }
        Step::Wait { seconds } => world.advance(seconds),
        Step::Crash { shards } => {
            world.crash(shards);
            clients.clear();
        }
        Step::Limit {
            sessions,
            subscriptions,
        } => world.set_limits(Limits {
            sessions_per_user_max: sessions,
            subscriptions_per_user_max: subscriptions,
            ..Limits::default()
        }),
    }
    clients.retain(|client| world.closed(*client).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: what is counted is what is there, and it grows only below its limit.
    #[test]
    fn totals_are_what_users_have_and_grow_only_below_their_limit(steps in steps()) {
        let mut world = World::with(2, limits(2, 3));
        let mut clients = Vec::new();
        for step in &steps {
            let before = ["ann", "otto"].map(|user| totals(&world).of(user));
            take(&mut world, &mut clients, step);
            let limits = (*world.config.limits).clone();
            let maxima = (limits.sessions_per_user_max, limits.subscriptions_per_user_max);
            let counted = ["ann", "otto"].map(|user| totals(&world).of(user));
            if maxima == (None, None) {
                prop_assert!(totals(&world).is_empty());
                continue;
            }
            // Counted anew it is the same.
            world.set_limits(Limits::default());
            prop_assert!(totals(&world).is_empty());
            world.set_limits(limits);
            let anew = ["ann", "otto"].map(|user| totals(&world).of(user));
            prop_assert_eq!(counted, anew, "{:?}", step);
            if !matches!(step, Step::Connect { .. } | Step::Subscribe { .. }) {
                continue;
            }
            for (now, before) in counted.into_iter().zip(before) {
                let is_within = |now: usize, before: usize, max: Option<usize>| {
                    now <= before || max.is_none_or(|max| now <= max)
                };
                prop_assert!(is_within(now.0, before.0, maxima.0), "{step:?}");
                prop_assert!(is_within(now.1, before.1, maxima.1), "{step:?}");
            }
        }
    }
}
