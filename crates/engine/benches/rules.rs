//! What a decision costs with few rules and with many, and what it costs where it is kept.
//!
//! Owns: those figures. Does not own: what is decided (see the tests of `rules`). Start reading at `main`.
//! Run with `cargo bench -p vencejo-engine --bench rules`. Invariant: the lowest of several turns counts.

#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use std::hint::black_box;
use std::time::Instant;

use proto::Qos;
use vencejo_engine::{
    Notation, Principal, Request, Rule, Rules, Subject, TopicPattern, Topics, Who,
};

fn main() {
    println!("ns per decision, {} topics in turn", TOPICS);
    println!(
        "rules | first rule | last rule | none matches | by ${{clientid}} | applying, at CONNECT"
    );
    for count in [1, 20, 1_000, 100_000] {
        measure(count);
    }
}

/// `count` rules, a tenth of them for users, the last but one with a placeholder.
fn measure(count: usize) {
    let rule = |number: usize| {
        let text = match number {
            _ if number + 1 == count => "own/${clientid}/#".to_owned(),
            _ if number.is_multiple_of(3) => format!("site/{number}/+/temperature"),
            _ => format!("site/{number}/#"),
        };
        let pattern = TopicPattern::parse(&text, Notation::Braces).expect("a pattern");
        let mut who = Who::default();
        if number % 10 == 5 {
            who.users.insert(format!("user-{number}").as_str().into());
        }
        Rule {
            topics: Topics::Matching(vec![pattern]),
            who,
            ..Rule::allow("a rule")
        }
    };
    let rules = Rules::new((0..count).map(rule).collect());
    let principal = Principal {
        user: Some("user-5".into()),
        ..Principal::default()
    };
    let subject = Subject {
        principal: &principal,
        client_id: "client",
    };
    let applying = rules.applying(subject);
    let last = count.saturating_sub(2);
    let decide = |topic: &dyn Fn(usize) -> String, is_allowed: Option<bool>| {
        let topics: Vec<String> = (0..TOPICS).map(topic).collect();
        lowest(|| {
            for topic in &topics {
                let request = Request::Publish {
                    topic,
                    qos: Qos::AtMostOnce,
                    retain: false,
                };
                let decision = rules.decide(&applying, subject, black_box(request));
                let decided = black_box(decision.is_allowed);
                assert!(is_allowed.is_none_or(|wanted| wanted == decided));
            }
            TOPICS
        })
    };
    let first = decide(
        &|n| format!("site/0/{n}/temperature"),
        (count > 1).then_some(true),
    );
    let last = decide(&|n| format!("site/{last}/{n}/temperature"), None);
    let none = decide(&|n| format!("elsewhere/{n}/temperature"), Some(false));
    let own = decide(&|n| format!("own/client/{n}"), Some(true));
    let connect = lowest(|| {
        black_box(rules.applying(black_box(subject)));
        1
    });
    println!("{count:>7} | {first:.0} | {last:.0} | {none:.0} | {own:.0} | {connect:.0}");
}

/// Nanoseconds for one of what `work` says it did, in the best of several turns.
fn lowest(mut work: impl FnMut() -> usize) -> f64 {
    let turn = |work: &mut dyn FnMut() -> usize| {
        let began = Instant::now();
        let mut done = 0;
        while done < WORK {
            done += work();
        }
        began.elapsed().as_nanos() as f64 / done as f64
    };
    (0..TURNS).map(|_| turn(&mut work)).fold(f64::MAX, f64::min)
}

const TOPICS: usize = 64;
const WORK: usize = 20_000;
const TURNS: usize = 20;
