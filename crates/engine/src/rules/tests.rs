//! The rules against a naive reading of them, and each of their words.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use proto::Qos;
use proto::topic;

use super::*;

fn at(filter: &str) -> Topics {
    let pattern = TopicPattern::parse(filter, Notation::Braces).expect("a pattern");
    Topics::Matching(vec![pattern])
}

fn at_both(one: &str, other: &str) -> Topics {
    let patterns = [one, other].map(|filter| TopicPattern::parse(filter, Notation::Braces));
    Topics::Matching(patterns.map(|found| found.expect("a pattern")).into())
}

fn user(name: &str) -> Principal {
    Principal {
        user: Some(name.into()),
        ..Principal::default()
    }
}

fn ask<'a>(rules: &'a Rules, principal: &'a Principal, request: Request<'_>) -> Decision<'a> {
    let subject = Subject {
        principal,
        client_id: "c1",
    };
    rules.decide(&rules.applying(subject), subject, request)
}

fn may(rules: &Rules, principal: &Principal, request: Request<'_>) -> bool {
    ask(rules, principal, request).is_allowed
}

fn to_publish(topic: &str) -> Request<'_> {
    Request::Publish {
        topic,
        qos: Qos::AtMostOnce,
        retain: false,
    }
}

#[test]
fn first_rule_that_matches_decides_and_none_denies() {
    let rules = Rules::new(vec![
        Rule {
            topics: at("a/secret"),
            ..Rule::deny("secret")
        },
        Rule {
            topics: at("a/#"),
            ..Rule::allow("a")
        },
        Rule {
            topics: at("a/b"),
            ..Rule::deny("never reached")
        },
    ]);
    let nobody = Principal::default();
    for (topic, is_allowed, reason) in [
        ("a/secret", false, "secret"),
        ("a/b", true, "a"),
        ("a", true, "a"),
        ("b", false, "no rule allows it"),
        ("$SYS/a", false, "no rule allows it"),
    ] {
        let decision = ask(&rules, &nobody, to_publish(topic));
        assert_eq!(decision.is_allowed, is_allowed, "{topic}");
        assert_eq!(&*decision.reason(), reason, "{topic}");
    }
}

#[test]
fn subscription_is_allowed_only_where_all_of_it_is_and_denied_only_where_all_of_it_is() {
    let rules = Rules::new(vec![
        Rule {
            topics: at("a/secret/#"),
            ..Rule::deny("secret")
        },
        Rule {
            topics: at("a/#"),
            ..Rule::allow("a")
        },
    ]);
    let nobody = Principal::default();
    for (filter, is_allowed) in [
        ("a/#", true),
        ("a/+", true),
        ("a", true),
        ("a/+/x", true),
        ("$share/g/a/+", true),
        ("a/secret/x", false),
        ("a/secret/+", false),
        ("$share/g/a/secret/#", false),
        ("#", false),
        ("+/b", false),
        ("$share/a/b", false),
    ] {
        let request = Request::Subscribe { filter };
        assert_eq!(may(&rules, &nobody, request), is_allowed, "{filter}");
    }
    // What the wide one brings of the secret is not sent.
    let topic = "a/secret/x";
    assert!(!may(&rules, &nobody, Request::Receive { topic }));
}

/// A placeholder stands for a part of one level, whatever a Client is called (P12).
#[test]
fn no_name_takes_more_than_its_place() {
    let allow = Rule {
        topics: at("dev/${username}/x-${clientid}/#"),
        ..Rule::allow("own")
    };
    let rules = Rules::new(vec![allow]);
    assert!(may(&rules, &user("ann"), to_publish("dev/ann/x-c1/a/b")));
    assert!(!may(&rules, &user("ann"), to_publish("dev/bob/x-c1/a")));
    assert!(!may(&rules, &user("ann"), to_publish("dev/ann/x-c2/a")));
    let filter = "dev/ann/x-c1/+";
    assert!(may(&rules, &user("ann"), Request::Subscribe { filter }));
    let filter = "dev/+/x-c1/+";
    assert!(!may(&rules, &user("ann"), Request::Subscribe { filter }));
    for name in ["+", "#", "", "a/b", "a+", "#a"] {
        let topics = [
            "dev/ann/x-c1/a",
            "dev//x-c1/a",
            "dev/a/b/x-c1/a",
            "dev/+/x-c1/a",
        ];
        for topic in topics {
            assert!(
                !may(&rules, &user(name), to_publish(topic)),
                "{name}: {topic}"
            );
        }
        for filter in ["dev/+/x-c1/#", "dev/#", "dev/a/b/x-c1/#", "dev//x-c1/#"] {
            let request = Request::Subscribe { filter };
            assert!(!may(&rules, &user(name), request), "{name}: {filter}");
        }
    }
    assert!(!may(
        &rules,
        &Principal::default(),
        to_publish("dev/ann/x-c1/a")
    ));
}

/// What a denying rule means for a Client whose name fits no place is not known: everything there.
#[test]
fn deny_with_a_name_that_does_not_fit_denies_more_not_less() {
    let deny = Rule {
        topics: at("box/${username}/in"),
        ..Rule::deny("own box")
    };
    let rules = Rules::new(vec![deny, Rule::allow("rest")]);
    assert!(!may(&rules, &user("ann"), to_publish("box/ann/in")));
    assert!(may(&rules, &user("ann"), to_publish("box/bob/in")));
    for who in [Principal::default(), user("a/b"), user("+")] {
        assert!(!may(&rules, &who, to_publish("box/ann/in")));
        assert!(may(&rules, &who, to_publish("box/ann/out")));
        let filter = "box/+/in";
        assert!(!may(&rules, &who, Request::Subscribe { filter }));
    }
}

#[test]
fn qos_and_retain_limit_what_a_rule_allows() {
    let rules = Rules::new(vec![Rule {
        qos_max: Some(Qos::AtLeastOnce),
        retain: Some(false),
        ..Rule::allow("small")
    }]);
    let nobody = Principal::default();
    for (qos, retain, is_allowed) in [
        (Qos::AtMostOnce, false, true),
        (Qos::AtLeastOnce, false, true),
        (Qos::ExactlyOnce, false, false),
        (Qos::AtMostOnce, true, false),
    ] {
        let topic = "a";
        let request = Request::Publish { topic, qos, retain };
        assert_eq!(may(&rules, &nobody, request), is_allowed, "{request:?}");
    }
    let decision = ask(&rules, &nobody, Request::Subscribe { filter: "a" });
    assert!(decision.is_allowed);
    assert_eq!(decision.qos_max(), Qos::AtLeastOnce);
}

#[test]
fn every_condition_on_who_has_to_hold() {
    let strings = |list: &[&str]| list.iter().map(|one| Arc::from(*one)).collect();
    let full = Principal {
        user: Some("ann".into()),
        groups: strings(&["ops", "dev"]),
        attributes: [("site".into(), "north".into())].into(),
        is_administrator: true,
        address: Some([10, 1, 2, 3].into()),
        listener: Some("internal".into()),
        mount_point: None,
        own_rules: Some(Arc::new(Rules::of_client(Vec::new()))),
        is_listed: true,
    };
    let who = Who {
        users: strings(&["ann", "bob"]),
        groups: strings(&["ops"]),
        client_ids: strings(&["c1"]),
        addresses: vec!["10.0.0.0/8".parse().expect("a network")],
        listeners: strings(&["internal"]),
        anonymous: Some(false),
        loopback: Some(false),
        administrator: Some(true),
        attributes: [("site".into(), "north".into())].into(),
        plain_names: true,
        own_rules: Some(true),
    };
    let is_meant = |who: &Who, principal: &Principal| {
        let rule = Rule {
            who: who.clone(),
            ..Rule::allow("who")
        };
        may(&Rules::new(vec![rule]), principal, to_publish("a"))
    };
    assert!(is_meant(&who, &full));
    let changes: [fn(&mut Who); 10] = [
        |who| who.users = ["eve".into()].into(),
        |who| who.groups = ["sales".into()].into(),
        |who| who.client_ids = ["c2".into()].into(),
        |who| who.addresses = vec!["192.0.2.0/24".parse().expect("a network")],
        |who| who.listeners = ["public".into()].into(),
        |who| who.anonymous = Some(true),
        |who| who.loopback = Some(true),
        |who| who.administrator = Some(false),
        |who| who.attributes = [("site".into(), "south".into())].into(),
        |who| who.own_rules = Some(false),
    ];
    for change in changes {
        let mut other = who.clone();
        change(&mut other);
        assert!(!is_meant(&other, &full), "{other:?}");
        assert!(!is_meant(&who, &Principal::default()));
    }
    let plain = Who {
        plain_names: true,
        ..Who::default()
    };
    assert!(is_meant(&plain, &Principal::default()));
    assert!(!is_meant(&plain, &user("a+")));
}

#[test]
fn networks_hold_their_addresses_in_both_writings() {
    let contains = |network: &str, address: &str| {
        let network: Network = network.parse().expect("a network");
        network.contains(address.parse().expect("an address"))
    };
    assert!(contains("10.0.0.0/8", "10.255.0.1"));
    assert!(contains("10.0.0.0/8", "::ffff:10.1.1.1"));
    assert!(!contains("10.0.0.0/8", "11.0.0.1"));
    assert!(contains("0.0.0.0/0", "11.0.0.1"));
    assert!(!contains("0.0.0.0/0", "fd00::1"));
    assert!(contains("fd00::/8", "fdff::1"));
    assert!(contains("192.0.2.1", "192.0.2.1"));
    assert!(!contains("192.0.2.1", "192.0.2.2"));
    for text in [
        "",
        "10.0.0.0/33",
        "10.0.0/8",
        "a/8",
        "10.0.0.0/-1",
        "fd00::/129",
    ] {
        assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
    }
}

#[test]
fn patterns_that_are_none_are_refused() {
    for text in [
        "",
        "a/#/b",
        "a+",
        "#a",
        "a/${username",
        "a/${user}",
        "a/${attribute.}",
        "+${username}",
        "$share/g/a",
    ] {
        assert!(
            TopicPattern::parse(text, Notation::Braces).is_err(),
            "{text}"
        );
    }
    // In mosquitto's notation these are names like any other.
    assert!(TopicPattern::parse("a/${user}/%x", Notation::Percent).is_ok());
}

fn level() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "", "$x", "c1", "ann"])
}

fn pattern() -> impl Strategy<Value = String> {
    let level = select(vec![
        "a",
        "b",
        "",
        "$x",
        "+",
        "${username}",
        "${clientid}",
        "a${clientid}",
        "${attribute.t}b",
    ]);
    (prop::collection::vec(level, 1..5), any::<bool>()).prop_filter_map(
        "is a filter",
        |(levels, is_multi)| {
            let mut text = levels.join("/");
            if is_multi {
                text.push_str("/#");
            }
            TopicPattern::parse(&text, Notation::Braces)
                .is_ok()
                .then_some(text)
        },
    )
}

/// A Topic Name and a Topic Filter that matches it.
fn topic_and_filter() -> impl Strategy<Value = (String, String)> {
    let level = (
        select(vec!["a", "b", "ann", "c1", "ac1", "tb"]),
        any::<bool>(),
    );
    (
        prop::collection::vec(level, 1..5),
        any::<bool>(),
        0..5_usize,
    )
        .prop_map(|(levels, is_multi, kept)| {
            let names: Vec<_> = levels.iter().map(|(name, _)| *name).collect();
            let wild = |(name, is_wild): &(&'static str, bool)| if *is_wild { "+" } else { name };
            let mut filter: Vec<_> = levels.iter().map(wild).collect();
            if is_multi {
                filter.truncate(kept);
                filter.push("#");
            }
            (names.join("/"), filter.join("/"))
        })
}

#[derive(Clone, Debug)]
struct Written {
    patterns: Vec<String>,
    is_allow: bool,
    actions: u8,
    user: Option<&'static str>,
    qos_max: Option<u8>,
}

fn written() -> impl Strategy<Value = Written> {
    (
        prop::collection::vec(pattern(), 0..3),
        any::<bool>(),
        1..8_u8,
        prop::option::of(select(vec!["ann", "bob"])),
        prop::option::of(0..3_u8),
    )
        .prop_map(|(patterns, is_allow, actions, user, qos_max)| Written {
            patterns,
            is_allow,
            actions,
            user,
            qos_max: qos_max.filter(|_| is_allow),
        })
}

fn rule(number: usize, written: &Written) -> Rule {
    let patterns = written.patterns.iter();
    let patterns = patterns.map(|text| TopicPattern::parse(text, Notation::Braces));
    let all = [Actions::PUBLISH, Actions::SUBSCRIBE, Actions::RECEIVE].into_iter();
    let actions = all
        .enumerate()
        .filter(|(bit, _)| written.actions & (1 << bit) != 0)
        .map(|(_, action)| action)
        .reduce(Actions::and)
        .expect("at least one");
    Rule {
        name: number.to_string().into(),
        effect: if written.is_allow {
            Effect::Allow
        } else {
            Effect::Deny
        },
        actions,
        who: Who {
            users: written.user.into_iter().map(Arc::from).collect(),
            ..Who::default()
        },
        topics: if written.patterns.is_empty() {
            Topics::Every
        } else {
            Topics::Matching(patterns.collect::<Result<_, _>>().expect("patterns"))
        },
        qos_max: written.qos_max.and_then(Qos::from_level),
        retain: None,
        is_first: false,
    }
}

/// The places of `pattern` taken, as text: `None` where a name does not fit.
fn written_out(pattern: &str, who: &Principal, is_deny: bool) -> Option<String> {
    let fits = |name: Option<&Arc<str>>| {
        let name = name.filter(|name| !name.is_empty() && !name.contains(['+', '#', '/']));
        name.map(|name| name.to_string())
    };
    let mut levels = Vec::new();
    for level in pattern.split('/') {
        let mut text = level.replace("${clientid}", "c1");
        for (place, name) in [
            ("${username}", fits(who.user.as_ref())),
            ("${attribute.t}", fits(who.attributes.get("t"))),
        ] {
            if !text.contains(place) {
                continue;
            }
            match name {
                Some(name) => text = text.replace(place, &name),
                None if is_deny => text = "+".to_owned(),
                None => return None,
            }
        }
        levels.push(text);
    }
    Some(levels.join("/"))
}

/// What the rules say, one after the other, with everything written out.
fn naive(rules: &[Written], who: &Principal, bit: u8, qos: u8, topic: &str) -> Option<usize> {
    rules.iter().position(|rule| {
        let matches = |pattern: &String| {
            written_out(pattern, who, !rule.is_allow)
                .is_some_and(|filter| matches_even_first(&filter, pattern, topic))
        };
        rule.actions & (1 << bit) != 0
            && rule
                .user
                .is_none_or(|user| who.user.as_deref() == Some(user))
            && (bit != 0 || rule.qos_max.is_none_or(|most| qos <= most))
            && (rule.patterns.is_empty() || rule.patterns.iter().any(matches))
    })
}

/// A wildcard that was written reaches no `$` topic; one that stands for a name that does not fit does.
fn matches_even_first(filter: &str, pattern: &str, name: &str) -> bool {
    if pattern.starts_with('+') || pattern.starts_with('#') || !filter.starts_with('+') {
        return topic::matches(filter, name);
    }
    topic::matches(&format!("x/{filter}"), &format!("x/{name}"))
}

proptest! {
    /// The tree decides as reading one rule after the other does.
    #[test]
    fn rules_decide_as_when_they_are_read_one_by_one(
        all in prop::collection::vec(written(), 0..12),
        levels in prop::collection::vec(level(), 1..5),
        user in prop::option::of(select(vec!["ann", "bob", "a/b", "+"])),
        attribute in prop::option::of(select(vec!["t", "#", ""])),
        qos in 0..3_u8,
        bit in select(vec![0_u8, 2]),
    ) {
        let topic = levels.join("/");
        prop_assume!(!topic.is_empty());
        let who = Principal {
            user: user.map(Arc::from),
            attributes: attribute.map(|value| ("t".into(), value.into())).into_iter().collect(),
            ..Principal::default()
        };
        let rules = Rules::new(all.iter().enumerate().map(|(n, one)| rule(n, one)).collect());
        let request = if bit == 0 {
            let qos = Qos::from_level(qos).expect("a QoS");
            Request::Publish { topic: &topic, qos, retain: false }
        } else {
            Request::Receive { topic: &topic }
        };
        let decision = ask(&rules, &who, request);
        let found = decision.rule.map(|rule| rule.name.to_string());
        let expected = naive(&all, &who, bit, qos, &topic);
        prop_assert_eq!(found, expected.map(|number| number.to_string()));
        let is_allowed = expected.and_then(|number| all.get(number)).is_some_and(|one| one.is_allow);
        prop_assert_eq!(decision.is_allowed, is_allowed);
    }

    /// A Subscription that is allowed brings nothing that no rule allows, where rules speak of both alike.
    #[test]
    fn allowed_subscription_is_covered_by_one_rule(
        all in prop::collection::vec(written(), 0..8),
        (topic, filter) in topic_and_filter(),
    ) {
        let who = user("ann");
        let rules = Rules::new(all.iter().enumerate().map(|(n, one)| rule(n, one)).collect());
        let decision = ask(&rules, &who, Request::Subscribe { filter: &filter });
        if let Some(by) = decision.rule {
            let number: usize = by.name.parse().expect("a number");
            let one = all.get(number).expect("it is there");
            let is_there = one.patterns.is_empty() || one.patterns.iter().any(|pattern| {
                written_out(pattern, &who, !one.is_allow)
                    .is_some_and(|text| matches_even_first(&text, pattern, &topic))
            });
            prop_assert!(is_there, "{} by {:?}", filter, one);
        }
    }

    /// What is asked once for a Topic Filter is what is asked for each topic that it matches.
    #[test]
    fn filter_that_may_be_received_at_once_holds_no_topic_that_may_not(
        all in prop::collection::vec(written(), 0..8),
        filter in topic_and_filter().prop_map(|(_, filter)| filter),
        topics in prop::collection::vec(topic_and_filter().prop_map(|(topic, _)| topic), 0..20),
        name in select(vec!["ann", "a/b"]),
    ) {
        let who = user(name);
        let rules = Rules::new(all.iter().enumerate().map(|(n, one)| rule(n, one)).collect());
        let is_at_once = allows_all(&rules, &who, &filter);
        for topic in topics.iter().chain([&filter.replace(['+', '#'], "$x")]) {
            let is_allowed = may(&rules, &who, Request::Receive { topic });
            let is_lost = topic::matches(&filter, topic) && !is_allowed;
            prop_assert!(!(is_at_once && is_lost), "{} in {}", topic, filter);
        }
    }
}

fn allows_all(rules: &Rules, principal: &Principal, filter: &str) -> bool {
    let subject = Subject {
        principal,
        client_id: "c1",
    };
    rules.allows_all(&rules.applying(subject), subject, filter)
}

#[test]
fn rule_that_denies_elsewhere_leaves_a_filter_to_be_asked_at_once() {
    let deny = |filter| Rule {
        topics: at(filter),
        ..Rule::deny("no")
    };
    let rules = Rules::new(vec![deny("$SYS/#"), deny("a/+/x"), Rule::allow("yes")]);
    let nobody = Principal::default();
    for (filter, is_at_once) in [
        ("b/#", true),
        ("a/b/y", true),
        ("a", true),
        ("a/b/c/#", true),
        ("#", false),
        ("+/b/x", false),
        ("a/#", false),
        ("a/b/#", false),
        ("$SYS/#", false),
    ] {
        assert_eq!(allows_all(&rules, &nobody, filter), is_at_once, "{filter}");
    }
    let rules = Rules::new(vec![deny("$SYS/#"), Rule::allow("yes")]);
    assert!(allows_all(&rules, &nobody, "#"));
    assert!(!allows_all(&Rules::new(vec![]), &nobody, "b"));
}

/// A local rule of each kind, and one that is first.
fn local_rules() -> Rules {
    let topics = |name: &str, filter| Rule {
        topics: at(filter),
        ..Rule::allow(name)
    };
    let no_own_rules = Who {
        own_rules: Some(false),
        ..Who::default()
    };
    Rules::new(vec![
        Rule {
            effect: Effect::Deny,
            ..topics("local deny", "a/x")
        },
        topics("local allow", "c/#"),
        topics("local allow of a secret", "a/secret"),
        Rule {
            effect: Effect::Deny,
            is_first: true,
            ..topics("first", "b/locked/#")
        },
        Rule {
            who: no_own_rules,
            ..Rule::allow("who has no own rules")
        },
    ])
}

/// Who has rights of its own.
fn with_own_rules() -> Principal {
    let own = Rules::of_client(vec![
        Rule {
            topics: at("a/secret"),
            ..Rule::deny("own deny")
        },
        Rule {
            topics: at_both("a/#", "b/#"),
            qos_max: Some(Qos::AtLeastOnce),
            ..Rule::allow("own allow")
        },
    ]);
    Principal {
        own_rules: Some(own.into()),
        ..Principal::default()
    }
}

/// Rights of a proof stand behind the rules that are `first`, and before all others; what none of them says
/// anything to is denied.
#[test]
fn own_rules_stand_behind_the_first_ones_and_before_all_others() {
    let rules = local_rules();
    for (topic, with_own, without_own) in [
        ("a/x", "own allow", "local deny"),
        ("a/secret", "own deny", "local allow of a secret"),
        ("b/locked/x", "first", "first"),
        ("c/x", "local allow", "local allow"),
        ("d", "no rule allows it", "who has no own rules"),
    ] {
        for (principal, expected) in [
            (with_own_rules(), with_own),
            (Principal::default(), without_own),
        ] {
            for request in [
                to_publish(topic),
                Request::Receive { topic },
                Request::Subscribe { filter: topic },
            ] {
                let said = ask(&rules, &principal, request).reason();
                assert_eq!(&*said, expected, "{request:?}");
            }
        }
    }
}

#[test]
fn own_rules_limit_the_qos_as_others_do() {
    let (rules, principal) = (local_rules(), with_own_rules());
    let filter = "$share/g/b/#";
    let granted = ask(&rules, &principal, Request::Subscribe { filter });
    assert!(granted.is_allowed && granted.qos_max() == Qos::AtLeastOnce);
    let publish = Request::Publish {
        topic: "b",
        qos: Qos::ExactlyOnce,
        retain: false,
    };
    assert!(!may(&rules, &principal, publish));
}
