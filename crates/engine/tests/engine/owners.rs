//! A Session belongs to the user that made it (P12).

use std::sync::Arc;

use proto::connection::Outgoing;
use proto::packet::ReasonCode;
use proto::{Qos, Version};
use vencejo_engine::{Actions, Principal, Rule, Rules, Who};

use crate::world::{World, at, durable, with_will_at};

fn nobody(world: &mut World) {
    world.principal = Arc::default();
}

/// The Reason Code of a CONNACK to `client_id` with Clean Start or without.
fn answer(world: &mut World, client_id: &str, version: Version, clean_start: bool) -> ReasonCode {
    let mut connect = durable(client_id);
    connect.version = version;
    connect.clean_start = clean_start;
    let client = world.connect_with(connect);
    let connack = world.connack(client);
    assert_eq!(world.closed(client).is_some(), connack.reason.is_error());
    connack.reason
}

/// P12: neither another user nor an anonymous Client gets, ends or takes over the Session of a user, while it
/// is connected, afterwards, and after a restart.
#[test]
fn session_of_a_user_is_refused_to_everyone_else() {
    let others: [fn(&mut World); 2] = [|world| world.log_in("eve"), nobody];
    for version in [Version::V311, Version::V5] {
        for clean_start in [true, false] {
            let mut world = World::new();
            let publisher = world.connect("publisher");
            world.log_in("ann");
            let client = world.connect("device");
            world.subscribe(client, "a", 1);
            let refused = ReasonCode::ClientIdentifierNotValid;
            for other in others {
                other(&mut world);
                assert_eq!(answer(&mut world, "device", version, clean_start), refused);
            }
            // It has not noticed.
            world.publish(publisher, "a", 1, "live");
            assert_eq!(world.drain(client).len(), 1);
            world.lose(client);
            world.publish(publisher, "a", 1, "queued");
            for other in others {
                other(&mut world);
                assert_eq!(answer(&mut world, "device", version, clean_start), refused);
            }
            world.crash(2);
            for other in others {
                other(&mut world);
                assert_eq!(answer(&mut world, "device", version, clean_start), refused);
            }
            world.log_in("ann");
            let (client, session_present) = world.resume("device");
            assert!(session_present);
            assert_eq!(world.payloads(client), ["queued"]);
        }
    }
}

/// A Session that ends with its connection is its user's as long as that lasts, and nobody's afterwards.
#[test]
fn client_identifier_is_free_again_once_the_session_has_ended() {
    let mut world = World::new();
    world.log_in("ann");
    let client = world.connect_clean("device");
    world.log_in("eve");
    let refused = ReasonCode::ClientIdentifierNotValid;
    assert_eq!(answer(&mut world, "device", Version::V5, true), refused);
    world.lose(client);
    assert_eq!(
        answer(&mut world, "device", Version::V5, true),
        ReasonCode::Success
    );
}

/// What an anonymous Client has left is no user's: it ends, and stands in nobody's way.
#[test]
fn session_of_an_anonymous_client_ends_when_a_user_comes() {
    for is_connected in [true, false] {
        for has_crashed in [false, true] {
            let mut world = World::new();
            let publisher = world.connect("publisher");
            let client = world.connect("device");
            world.subscribe(client, "a", 1);
            if !is_connected || has_crashed {
                world.lose(client);
            }
            world.publish(publisher, "a", 1, "for the anonymous one");
            if has_crashed {
                world.crash(1);
            }
            world.log_in("ann");
            let (ann, session_present) = world.resume("device");
            assert!(!session_present);
            assert!(world.payloads(ann).is_empty());
            if is_connected && !has_crashed {
                assert_eq!(world.closed(client), Some(ReasonCode::SessionTakenOver));
            }
            nobody(&mut world);
            let refused = ReasonCode::ClientIdentifierNotValid;
            assert_eq!(answer(&mut world, "device", Version::V5, true), refused);
        }
    }
}

/// Anonymous Clients have no owners to tell apart: they resume as ever.
#[test]
fn anonymous_client_resumes_its_session() {
    let mut world = World::new();
    let client = world.connect("device");
    world.lose(client);
    assert!(world.resume("device").1);
    world.crash(1);
    assert!(world.resume("device").1);
}

/// Only who is in the group may publish wills, and everyone everything else.
fn wills_of(group: &str) -> Rules {
    let who = Who {
        groups: [group.into()].into(),
        ..Who::default()
    };
    Rules::new(vec![
        Rule {
            who,
            ..Rule::allow("the group")
        },
        Rule {
            actions: Actions::PUBLISH,
            topics: at("wills/#"),
            ..Rule::deny("the others")
        },
        Rule::allow("everything else"),
    ])
}

/// P11 over a restart: what is known of the user is there again, and the rules of that moment judge its Will.
#[test]
fn will_after_a_restart_is_judged_by_the_rights_of_its_user() {
    for (group, published) in [("senders", 1), ("others", 0)] {
        let mut world = World::new();
        world.set_rules(Rules::allow_all());
        let watcher = world.connect("watcher");
        world.subscribe(watcher, "#", 1);
        world.principal = Arc::new(Principal {
            user: Some("ann".into()),
            groups: ["senders".into(), "x".into()].into(),
            attributes: [("site".into(), "north".into())].into(),
            is_administrator: true,
            ..Principal::default()
        });
        let client = world.connect_with(with_will_at("device", "wills/a", 10));
        world.connack(client);
        world.crash(1);
        world.set_rules(wills_of(group));
        nobody(&mut world);
        let watcher = world.connect("watcher");
        world.advance(20);
        assert_eq!(world.payloads(watcher).len(), published, "{group}");
        let engine = &world.engines[0];
        assert_eq!(engine.counters().wills_published, published as u64);
    }
}

/// P11 over a restart: what waits is judged by the rules of the new process.
#[test]
fn queue_found_at_a_restart_is_judged_before_it_leaves() {
    let mut world = World::new();
    let publisher = world.connect("publisher");
    world.log_in("ann");
    let client = world.connect("reader");
    world.subscribe(client, "#", 2);
    world.lose(client);
    for topic in ["a", "secret", "b"] {
        world.publish(publisher, topic, 1, topic);
    }
    world.crash(1);
    world.set_rules(Rules::new(vec![
        Rule {
            topics: at("secret"),
            ..Rule::deny("secret")
        },
        Rule::allow("everything else"),
    ]));
    let client = world.connect("reader");
    let deliveries = world.drain(client);
    let topics: Vec<_> = deliveries.iter().map(|one| one.message.topic()).collect();
    assert_eq!(topics, ["a", "b"]);
    assert!(deliveries.iter().all(|one| one.qos == Qos::AtLeastOnce));
    assert_eq!(world.engines[0].counters().queued_messages, 0);
    let rest = world.received(client);
    assert!(
        !rest
            .iter()
            .any(|packet| matches!(packet, Outgoing::Publish(_)))
    );
}
