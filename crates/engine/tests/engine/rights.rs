//! Rights when something leaves: live, queued, retained and Will messages, under rules that change.

use proto::Version;
use proto::connection::Outgoing;
use proto::packet::ReasonCode;
use vencejo_engine::{Actions, Denied, DeniedAction, Effect, Limits, Principal, Rule, Rules, Who};

use crate::world::{Client, LIMITED, World, at, durable, limited, with_will_at};

/// A limited user that may receive `a/#` only, and may publish everything.
fn reader() -> Rules {
    limited(None, Some("a/#"))
}

fn open() -> Rules {
    limited(None, None)
}

fn closed() -> Rules {
    limited(Some("nothing"), Some("nothing"))
}

/// P11: what a Subscription was allowed for once it does not bring once the right is gone, in every shard.
#[test]
fn live_message_is_not_sent_once_the_right_is_gone() {
    for shards in 1..=3 {
        let mut world = World::with(shards, Limits::default());
        let publisher = world.connect("publisher");
        world.log_in(LIMITED);
        world.set_rules(open());
        let readers: Vec<_> = (0..6)
            .map(|n| world.connect(&format!("reader-{n}")))
            .collect();
        for reader in &readers {
            world.subscribe(*reader, "#", 1);
        }
        for (topic, qos) in [("a/x", 0), ("b/x", 1)] {
            world.publish(publisher, topic, qos, "before");
        }
        world.set_rules(reader());
        for (topic, qos) in [("a/x", 0), ("b/x", 0), ("b/x", 1), ("b/x", 2), ("a/x", 1)] {
            world.publish(publisher, topic, qos, topic);
        }
        for reader in &readers {
            let payloads = world.payloads(*reader);
            assert_eq!(payloads, ["before", "before", "a/x", "a/x"]);
        }
        world.set_rules(open());
        world.publish(publisher, "b/x", 1, "again");
        for reader in readers {
            assert_eq!(world.payloads(reader), ["again"]);
        }
    }
}

/// P11: what waits for a Client is skipped when its right is gone, counted, and gone from the store.
#[test]
fn queued_message_is_skipped_once_the_right_is_gone() {
    for is_connected in [true, false] {
        let mut world = World::new();
        let publisher = world.connect("publisher");
        world.log_in(LIMITED);
        world.set_rules(open());
        let mut connect = durable("reader");
        // One at a time, so that the rest waits.
        connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
        let mut client = world.connect_with(connect.clone());
        world.connack(client);
        world.subscribe(client, "#", 2);
        if !is_connected {
            world.lose(client);
        }
        for (n, topic) in ["a/1", "b/2", "b/3", "a/4"].iter().enumerate() {
            let qos = if n % 2 == 0 { 1 } else { 2 };
            world.publish(publisher, topic, qos, topic);
        }
        world.set_rules(reader());
        if !is_connected {
            client = world.connect_with(connect);
            world.connack(client);
        }
        let topics: Vec<_> = world
            .drain(client)
            .iter()
            .map(|delivery| delivery.message.topic().to_owned())
            .collect();
        assert_eq!(topics, ["a/1", "a/4"], "connected: {is_connected}");
        let counters = world.engines[0].counters();
        assert_eq!(counters.dropped_not_authorized, 2);
        assert_eq!(counters.queued_messages, 0);
        // Nothing of it comes back with the next connection, also after a restart.
        world.crash(1);
        world.set_rules(open());
        let client = world.connect("reader");
        assert!(world.payloads(client).is_empty());
    }
}

/// P11: what is in flight and was not acknowledged is not sent again.
#[test]
fn message_in_flight_is_not_repeated_once_the_right_is_gone() {
    let mut world = World::new();
    let publisher = world.connect("publisher");
    world.log_in(LIMITED);
    world.set_rules(open());
    let client = world.connect("reader");
    world.subscribe(client, "#", 1);
    world.publish(publisher, "b", 1, "x");
    assert_eq!(world.payloads(client), ["x"]);
    world.lose(client);
    world.set_rules(reader());
    let client = world.connect("reader");
    assert!(world.payloads(client).is_empty());
    assert_eq!(world.engines[0].counters().queued_messages, 0);
}

/// P11: of what is retained a new Subscription gets what it may have.
#[test]
fn retained_message_is_not_replayed_without_the_right() {
    let mut world = World::new();
    let publisher = world.connect("publisher");
    for topic in ["a/1", "b/2", "a/3"] {
        world.publish_retained(publisher, topic, 1, topic);
    }
    world.log_in(LIMITED);
    world.set_rules(open());
    let client = world.connect("reader");
    // A Subscription that is there when the right goes is asked again, too.
    world.subscribe(client, "#", 1);
    assert_eq!(world.payloads(client), ["a/1", "a/3", "b/2"]);
    world.set_rules(reader());
    assert_eq!(world.subscribe(client, "#", 1), [ReasonCode::NotAuthorized]);
    world.subscribe(client, "a/#", 1);
    assert_eq!(world.payloads(client), ["a/1", "a/3"]);
    // A part of what the filter matches is denied, so the Subscription is not.
    world.set_rules(Rules::new(vec![
        Rule {
            topics: at("b/#"),
            ..Rule::deny("b")
        },
        Rule::allow("everything else"),
    ]));
    assert_eq!(world.subscribe(client, "#", 1), [ReasonCode::GrantedQos1]);
    assert_eq!(world.payloads(client), ["a/1", "a/3"]);
}

/// P11: a Will is published by the rights of the moment, not by those of the CONNECT.
#[test]
fn will_is_not_published_once_the_right_is_gone() {
    for delay in [0, 10] {
        let mut world = World::new();
        let watcher = world.connect("watcher");
        world.subscribe(watcher, "#", 1);
        world.log_in(LIMITED);
        world.set_rules(open());
        let client = world.connect_with(with_will_at("client", "wills/a", delay));
        if delay > 0 {
            world.lose(client);
        }
        world.set_rules(closed());
        world.lose(client);
        world.advance(20);
        assert!(world.payloads(watcher).is_empty());
        assert_eq!(world.engines[0].counters().wills_published, 0);
        // And it stays unpublished when the right comes back.
        world.set_rules(open());
        world.advance(20);
        assert!(world.payloads(watcher).is_empty());
    }
}

/// A member of a Shared Subscription that may not have a message does not take it from those that may.
#[test]
fn shared_message_goes_to_a_member_that_may_have_it() {
    for shards in 1..=3 {
        let mut world = World::with(shards, Limits::default());
        let publisher = world.connect("publisher");
        let member = world.connect("member");
        world.subscribe(member, "$share/g/#", 1);
        world.log_in(LIMITED);
        world.set_rules(open());
        let others: Vec<_> = (0..4)
            .map(|n| world.connect(&format!("other-{n}")))
            .collect();
        for other in &others {
            world.subscribe(*other, "$share/g/#", 1);
        }
        world.set_rules(reader());
        for n in 0..10 {
            world.publish(publisher, "b/x", 1, &n.to_string());
        }
        let mut payloads: Vec<_> = world
            .drain(member)
            .iter()
            .map(crate::world::payload)
            .collect();
        payloads.sort_unstable();
        let all: Vec<_> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(payloads, all, "{shards} shards");
        for other in others {
            assert!(world.payloads(other).is_empty());
        }
    }
}

/// A user's rights may be others when it connects again; what waits is judged by those.
#[test]
fn rights_of_the_new_connection_count_for_what_waits() {
    let mut world = World::new();
    let publisher = world.connect("publisher");
    world.set_rules(Rules::new(vec![
        Rule {
            who: Who {
                groups: ["cleared".into()].into(),
                ..Who::default()
            },
            ..Rule::allow("cleared")
        },
        Rule {
            topics: at("a/#"),
            ..Rule::allow("all")
        },
        Rule {
            actions: Actions::PUBLISH,
            ..Rule::allow("publish")
        },
    ]));
    let mut principal = Principal {
        user: Some("ann".into()),
        groups: ["cleared".into()].into(),
        ..Principal::default()
    };
    world.principal = principal.clone().into();
    let client = world.connect("ann");
    assert_eq!(world.subscribe(client, "#", 1), [ReasonCode::GrantedQos1]);
    world.lose(client);
    for topic in ["b/1", "a/2"] {
        world.publish(publisher, topic, 1, topic);
    }
    principal.groups.clear();
    world.principal = principal.into();
    let client = world.connect("ann");
    world.publish(publisher, "b/3", 1, "b/3");
    world.publish(publisher, "a/4", 1, "a/4");
    assert_eq!(world.payloads(client), ["a/2", "a/4"]);
}

/// Refusals are told with the rule that made them, and a flood of them is not.
#[test]
fn refusals_name_their_rule_and_do_not_flood_the_log() {
    let mut world = World::new();
    world.limit(Some("mine/#"), Some("mine/#"));
    let client = world.connect("client");
    world.publish(client, "other", 0, "x");
    world.subscribe(client, "#", 0);
    let denied = |action, topic: &str| Denied {
        client_id: "client".into(),
        connection: Some(client.key),
        action,
        topic: topic.into(),
        rule: "the limited user may not".into(),
    };
    let expected = [
        denied(DeniedAction::Publish, "other"),
        denied(DeniedAction::Subscribe, "#"),
    ];
    assert_eq!(world.denied, expected);
    for _ in 0..1000 {
        world.publish(client, "other", 0, "x");
    }
    assert_eq!(world.denied.len(), 10);
    assert_eq!(world.engines[0].counters().dropped_not_authorized, 1001);
    world.advance(1);
    world.publish(client, "other", 0, "x");
    assert_eq!(world.denied.len(), 11);
}

/// A 3.1.1 subscriber without the right is refused as one of 5.0 is.
#[test]
fn refused_subscription_gets_nothing_in_any_version() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::speaking(version);
        let publisher = world.connect("publisher");
        world.limit(None, Some("a/#"));
        let client = world.connect("client");
        assert_eq!(world.subscribe(client, "b", 1), [ReasonCode::NotAuthorized]);
        world.publish(publisher, "b", 1, "x");
        let received = world.received(client);
        assert!(
            !received
                .iter()
                .any(|packet| matches!(packet, Outgoing::Publish(_)))
        );
    }
}

/// What a Client is sent, which acknowledges all of it.
fn payloads(world: &mut World, client: Client) -> Vec<String> {
    let drained = world.drain(client);
    drained.iter().map(crate::world::payload).collect()
}

/// Rights of `ann` that have come with its proof: to receive what these filters match.
fn ann_with(filters: &[&str]) -> std::sync::Arc<Principal> {
    let own = filters.iter().map(|filter| Rule {
        actions: Actions::SUBSCRIBE.and(Actions::RECEIVE),
        topics: at(filter),
        ..Rule::allow("token")
    });
    std::sync::Arc::new(Principal {
        user: Some("ann".into()),
        own_rules: Some(Rules::of_client(own.collect()).into()),
        ..Principal::default()
    })
}

/// P11: rights that are renewed by a re-authentication end the old ones at once: for what is live, for what
/// waits, for what is retained, and after a restart.
#[test]
fn rights_of_a_renewed_proof_take_the_place_of_the_old_ones_everywhere() {
    let mut world = World::new();
    world.set_rules(Rules::new(vec![Rule {
        who: Who {
            users: ["publisher".into()].into(),
            ..Who::default()
        },
        ..Rule::allow("publisher")
    }]));
    world.log_in("publisher");
    let publisher = world.connect("publisher");
    world.publish_retained(publisher, "a/r", 1, "a/r");
    world.publish_retained(publisher, "b/r", 1, "b/r");
    world.principal = ann_with(&["#"]);
    let mut connect = durable("reader");
    // One at a time, so that the rest waits.
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let client = world.connect_with(connect);
    world.connack(client);
    assert_eq!(world.subscribe(client, "#", 1), [ReasonCode::GrantedQos1]);
    assert_eq!(payloads(&mut world, client), ["a/r", "b/r"]);
    for topic in ["b/0", "b/1", "a/2", "b/3"] {
        world.publish(publisher, topic, 1, topic);
    }
    let renewed = ann_with(&["a/#"]);
    assert!(
        world
            .engine(client)
            .on_reauthenticated(client.key, &renewed)
    );
    world.settle();
    // What was sent before is sent.
    assert_eq!(payloads(&mut world, client), ["b/0", "a/2"]);
    world.publish(publisher, "b/4", 0, "b/4");
    world.publish(publisher, "b/5", 1, "b/5");
    world.publish(publisher, "a/6", 1, "a/6");
    assert_eq!(payloads(&mut world, client), ["a/6"]);
    assert_eq!(world.subscribe(client, "#", 1), [ReasonCode::NotAuthorized]);
    world.subscribe(client, "a/#", 1);
    assert_eq!(payloads(&mut world, client), ["a/r"]);
    world.lose(client);
    world.crash(2);
    world.log_in("publisher");
    let publisher = world.connect("publisher");
    world.publish(publisher, "b/7", 1, "b/7");
    world.publish(publisher, "a/8", 1, "a/8");
    // What it had the right for when it came back last says nothing any more.
    world.principal = ann_with(&["#"]);
    let client = world.connect("reader");
    assert_eq!(payloads(&mut world, client), ["a/8"]);
}

/// A Session that nobody has come back to after a restart is judged by where its Client was: also one of
/// an anonymous Client.
#[test]
fn rules_with_addresses_and_listeners_hold_for_a_session_that_a_restart_has_found() {
    for user in [Some("ann"), None] {
        let inside = Principal {
            user: user.map(Into::into),
            address: Some([10, 0, 0, 1].into()),
            listener: Some("inside".into()),
            ..Principal::default()
        };
        let outside = Principal {
            address: Some([192, 0, 2, 1].into()),
            listener: Some("outside".into()),
            ..inside.clone()
        };
        let by_address = Who {
            addresses: vec!["10.0.0.0/8".parse().expect("a network")],
            ..Who::default()
        };
        let by_listener = Who {
            listeners: ["inside".into()].into(),
            ..Who::default()
        };
        for who in [by_address, by_listener] {
            let mut world = World::new();
            let publishing = Rule {
                actions: Actions::PUBLISH,
                ..Rule::allow("publishing")
            };
            let there = Rule {
                who,
                ..Rule::allow("there")
            };
            world.set_rules(Rules::new(vec![publishing, there.clone()]));
            world.principal = inside.clone().into();
            let client = world.connect("client");
            assert_eq!(world.subscribe(client, "#", 1), [ReasonCode::GrantedQos1]);
            world.lose(client);
            world.crash(2);
            let publisher = world.connect("publisher");
            world.publish(publisher, "a", 1, "allowed");
            let not_there = Rule {
                effect: Effect::Deny,
                ..there
            };
            world.set_rules(Rules::new(vec![not_there, Rule::allow("all")]));
            world.publish(publisher, "b", 1, "denied");
            world.principal = outside.clone().into();
            let client = world.connect("client");
            assert_eq!(payloads(&mut world, client), ["allowed"], "{user:?}");
        }
    }
}

/// Groups that have changed count for Clients that are connected, for those that are gone, and after a restart.
#[test]
fn what_is_known_of_a_user_changes_without_a_login() {
    let mut world = World::new();
    let cleared = Who {
        groups: ["cleared".into()].into(),
        ..Who::default()
    };
    world.set_rules(Rules::new(vec![
        Rule {
            who: cleared,
            ..Rule::allow("cleared")
        },
        Rule {
            actions: Actions::PUBLISH,
            ..Rule::allow("publish")
        },
    ]));
    let publisher = world.connect("publisher");
    let ann = Principal {
        user: Some("ann".into()),
        groups: ["cleared".into()].into(),
        is_listed: true,
        ..Principal::default()
    };
    world.principal = ann.clone().into();
    let [here, gone] = ["here", "gone"].map(|name| world.connect(name));
    for client in [here, gone] {
        world.subscribe(client, "#", 1);
    }
    world.lose(gone);
    world.publish(publisher, "before", 1, "before");
    assert_eq!(payloads(&mut world, here), ["before"]);
    for engine in &mut world.engines {
        engine.on_users_changed(|principal| {
            (principal.user.is_some() && principal.is_listed).then(|| Principal {
                groups: std::collections::BTreeSet::new(),
                ..principal.clone()
            })
        });
    }
    world.settle();
    world.publish(publisher, "after", 1, "after");
    assert!(payloads(&mut world, here).is_empty());
    world.crash(1);
    world.principal = std::sync::Arc::default();
    let publisher = world.connect("publisher");
    world.publish(publisher, "later", 1, "later");
    world.principal = ann.into();
    let gone = world.connect("gone");
    // It may have all that again, but only what it had the right for was kept for it.
    assert_eq!(payloads(&mut world, gone), ["before"]);
}

/// P11: that a Client was allowed just such a PUBLISH before says nothing once its rights, or the rules, are others, nor
/// about another QoS.
#[test]
fn publisher_that_was_allowed_is_judged_again_once_its_rights_have_changed() {
    let may_publish = |qos_max| Rule {
        actions: Actions::PUBLISH,
        topics: at("a/#"),
        qos_max,
        ..Rule::allow("token")
    };
    let ann = |rules: Vec<Rule>| {
        std::sync::Arc::new(Principal {
            user: Some("ann".into()),
            own_rules: Some(Rules::of_client(rules).into()),
            ..Principal::default()
        })
    };
    let others = Rule {
        who: Who {
            users: ["reader".into()].into(),
            ..Who::default()
        },
        ..Rule::allow("reader")
    };
    let mut world = World::new();
    world.set_rules(Rules::new(vec![others.clone()]));
    world.log_in("reader");
    let reader = world.connect("reader");
    world.subscribe(reader, "#", 1);
    world.principal = ann(vec![may_publish(Some(proto::Qos::AtMostOnce))]);
    let publisher = world.connect("publisher");
    for (qos, text) in [(0, "1"), (0, "2"), (1, "too high"), (0, "3")] {
        world.publish(publisher, "a/x", qos, text);
    }
    assert_eq!(payloads(&mut world, reader), ["1", "2", "3"]);
    let none = ann(Vec::new());
    let engine = world.engine(publisher);
    assert!(engine.on_reauthenticated(publisher.key, &none));
    world.publish(publisher, "a/x", 0, "not any more");
    let again = ann(vec![may_publish(None)]);
    let engine = world.engine(publisher);
    assert!(engine.on_reauthenticated(publisher.key, &again));
    world.publish(publisher, "a/x", 0, "4");
    let denied = Rule {
        actions: Actions::PUBLISH,
        is_first: true,
        ..Rule::deny("nobody publishes")
    };
    world.set_rules(Rules::new(vec![denied, others]));
    world.publish(publisher, "a/x", 0, "not by the new rules");
    assert_eq!(payloads(&mut world, reader), ["4"]);
}
