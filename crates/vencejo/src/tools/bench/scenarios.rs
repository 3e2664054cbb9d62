//! Who publishes what to whom: scenarios by name, ours and those of the Open MQTT Benchmark Suite.
//!
//! Owns: [`Scenario`], names and what they stand for. Does not own: connections, time. Start reading at
//! [`Scenario::named`]. Invariant: who has to hear a message follows from the scenario alone.

use proto::Version;
use serde_json::{Value, json};

use super::schedule::{Rate, Scale, thousandths};

/// One of the named loads, with its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) load: Load,
    /// Of the suite: the version it is for, and its Keep Alive.
    pub(super) suite: Option<Version>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Messages go from publishers to subscribers.
    Flow(Flow),
    /// Clients connect, and stay.
    Connect { clients: u32, rate: Rate },
    /// Subscribers come to Retained Messages that are there.
    Retained {
        messages: u32,
        clients: u32,
        rate: Rate,
    },
}

/// Publishers, subscribers and how they find each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) publishers: u32,
    pub(super) subscribers: u32,
    pub(super) topics: u32,
    pub(super) listen: Listen,
    /// Of all publishers together.
    pub(super) rate: Rate,
}

/// What a subscriber subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// To one topic.
    One,
    /// To each topic by its name.
    Each,
    /// To all of them by a wildcard.
    All,
    /// To all of them, sharing them with the other subscribers.
    Shared,
}

/// What flags say of a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    pub(super) clients: Option<u32>,
    pub(super) publishers: Option<u32>,
    pub(super) subscribers: Option<u32>,
    pub(super) rate: Option<Rate>,
    pub(super) retained: Option<u32>,
    pub(super) scale: Option<Scale>,
}

/// Our own names, with what they do.
pub(super) const OWN: [(&str, &str); 6] = [
    ("pairs", "100 publishers, each with a subscriber of its own"),
    ("fan-in", "100 publishers, all heard by 1 subscriber"),
    ("fan-out", "1 publisher, heard by 100 subscribers"),
    (
        "shared",
        "100 publishers, 5 subscribers that share the work",
    ),
    (
        "connect",
        "1,000 clients connect, 200 in a second, and stay",
    ),
    (
        "retained",
        "20 subscribers, 10 in a second, come to 1,000 retained messages",
    ),
];

/// Names of the suite; others of the same form are understood, too.
pub(super) const SUITE: [(&str, &str); 8] = [
    (
        "conn-tcp-10K-100",
        "10,000 clients connect, 100 in a second",
    ),
    (
        "fanout-1-1000-1-1000K",
        "1 message a second to 1,000 subscribers",
    ),
    ("p2p-1K-1K-1K-1K", "1,000 pairs, 1,000 messages a second"),
    (
        "sharedsub-1K-5-1K-1K",
        "1,000 publishers, 5 subscribers that share, 1,000 messages a second",
    ),
    (
        "conn-tcp-1M-5K",
        "1,000,000 clients connect, 5,000 in a second",
    ),
    (
        "fanout-5-1000-5-250K",
        "5 publishers, 5 topics, 1,000 subscribers to each, 250,000 deliveries a second",
    ),
    (
        "p2p-50K-50K-50K-50K",
        "50,000 pairs, 50,000 messages a second",
    ),
    (
        "sharedsub-50K-500-50K-50K",
        "50,000 publishers, 500 subscribers that share, 50,000 messages a second",
    ),
];

impl Scenario {
    /// The scenario that has this name.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let own = |load| Self {
            name: name.to_owned(),
            load,
            suite: None,
        };
        let flow = |publishers, subscribers, topics, listen, rate| {
            own(Load::Flow(Flow {
                publishers,
                subscribers,
                topics,
                listen,
                rate: Rate::per_second(rate),
            }))
        };
        Ok(match name {
            "pairs" => flow(100, 100, 100, Listen::One, 1000),
            "fan-in" => flow(100, 1, 100, Listen::All, 1000),
            "fan-out" => flow(1, 100, 1, Listen::Each, 50),
            "shared" => flow(100, 5, 100, Listen::Shared, 1000),
            "connect" => own(Load::Connect {
                clients: 1000,
                rate: Rate::per_second(200),
            }),
            "retained" => own(Load::Retained {
                messages: 1000,
                clients: 20,
                rate: Rate::per_second(10),
            }),
            _ => return Self::of_suite(name).ok_or_else(|| unknown(name)),
        })
    }

    /// `p2p-PUBLISHERS-SUBSCRIBERS-TOPICS-RATE` and its like.
    fn of_suite(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let short = lower.strip_prefix("singlenode-").unwrap_or(&lower);
        let parts: Vec<&str> = short.split('-').collect();
        let (load, version) = match parts.as_slice() {
            ["conn", "tcp", clients, rate] => {
                let (clients, rate) = (clients_of(clients)?, rate_of(rate)?);
                (Load::Connect { clients, rate }, Version::V311)
            }
            // The suite's text has 1 message and 1,000 deliveries in a second; its name says 1000K.
            ["fanout", "1", "1000" | "1k", "1", "1000k"] => {
                let parts = ["1", "1000", "1", "1000"];
                (Load::Flow(flow(Listen::Each, parts)?), Version::V311)
            }
            ["fanout", p, s, t, r] => {
                (Load::Flow(flow(Listen::Each, [p, s, t, r])?), Version::V311)
            }
            ["fanin", p, s, t, r] => (Load::Flow(flow(Listen::All, [p, s, t, r])?), Version::V311),
            ["p2p", p, s, t, r] => (Load::Flow(flow(Listen::One, [p, s, t, r])?), Version::V311),
            ["sharesub" | "sharedsub", p, s, t, r] => {
                (Load::Flow(flow(Listen::Shared, [p, s, t, r])?), Version::V5)
            }
            _ => return None,
        };
        Some(Self {
            name: name.to_owned(),
            load,
            suite: Some(version),
        })
    }

    /// The same with what the flags say.
    pub(super) fn changed(mut self, changes: &Changes) -> Result<Self, String> {
        let name = &self.name;
        let unused = |flag: &str| Err(format!("{flag} means nothing to {name}."));
        let scale = changes.scale.unwrap_or(Scale::ONE);
        match &mut self.load {
            Load::Flow(flow) => {
                if changes.retained.is_some() {
                    return unused("--retained");
                }
                flow.change(changes, scale);
            }
            Load::Connect { clients, rate } => {
                let flags = [
                    (changes.publishers.is_some(), "--publishers"),
                    (changes.subscribers.is_some(), "--subscribers"),
                    (changes.retained.is_some(), "--retained"),
                ];
                if let Some((_, flag)) = flags.iter().find(|(is_set, _)| *is_set) {
                    return unused(flag);
                }
                *clients = changes.clients.unwrap_or_else(|| scale.clients(*clients));
                *rate = changes.rate.unwrap_or_else(|| rate.scaled(scale));
            }
            Load::Retained {
                messages,
                clients,
                rate,
            } => {
                if changes.publishers.is_some() {
                    return unused("--publishers");
                }
                let asked = changes.clients.or(changes.subscribers);
                *clients = asked.unwrap_or_else(|| scale.clients(*clients));
                *messages = changes.retained.unwrap_or_else(|| scale.clients(*messages));
                *rate = changes.rate.unwrap_or_else(|| rate.scaled(scale));
            }
        }
        Ok(self)
    }

    /// How many connections there are.
    pub(super) const fn clients(&self) -> u32 {
        match &self.load {
            Load::Flow(flow) => flow.publishers.saturating_add(flow.subscribers),
            Load::Connect { clients, .. } => *clients,
            Load::Retained { clients, .. } => clients.saturating_add(1),
        }
    }

    /// What is done, in words.
    pub(super) fn says(&self) -> String {
        match &self.load {
            Load::Flow(flow) => format!(
                "{}, {}, {}, {} messages/s",
                counted(flow.publishers, "publisher"),
                counted(flow.subscribers, "subscriber"),
                counted(flow.topics, "topic"),
                flow.rate
            ),
            Load::Connect { clients, rate } => {
                format!(
                    "{} connect, {rate} in a second",
                    counted(*clients, "client")
                )
            }
            Load::Retained {
                messages,
                clients,
                rate,
            } => format!(
                "{} come to {}, {rate} in a second",
                counted(*clients, "subscriber"),
                counted(*messages, "retained message")
            ),
        }
    }

    /// The same for programs.
    pub(super) fn as_json(&self) -> Value {
        match &self.load {
            Load::Flow(flow) => json!({
                "name": self.name, "publishers": flow.publishers, "subscribers": flow.subscribers,
                "topics": flow.topics, "listen": flow.listen.name(), "rate": flow.rate.as_f64(),
            }),
            Load::Connect { clients, rate } => {
                json!({ "name": self.name, "clients": clients, "rate": rate.as_f64() })
            }
            Load::Retained {
                messages,
                clients,
                rate,
            } => json!({
                "name": self.name, "clients": clients, "retained": messages, "rate": rate.as_f64(),
            }),
        }
    }
}

impl Flow {
    fn change(&mut self, changes: &Changes, scale: Scale) {
        let scaled = [self.publishers, self.subscribers, self.topics].map(|of| scale.clients(of));
        // Where each message goes to all, it is the deliveries that are scaled.
        let rate = match self.listen {
            Listen::Each => self
                .rate
                .times(self.subscribers)
                .scaled(scale)
                .over(scaled[1]),
            Listen::One | Listen::All | Listen::Shared => self.rate.scaled(scale),
        };
        let has_pairs = self.publishers == self.topics && self.subscribers == self.topics;
        let has_own_topics = self.publishers == self.topics;
        [self.publishers, self.subscribers, self.topics] = scaled;
        self.rate = changes.rate.unwrap_or(rate);
        let is_fan_out = !has_pairs && self.publishers < self.subscribers;
        match changes.clients {
            Some(clients) if has_pairs => (self.publishers, self.subscribers) = (clients, clients),
            Some(clients) if is_fan_out => self.subscribers = clients,
            Some(clients) => self.publishers = clients,
            None => {}
        }
        self.publishers = changes.publishers.unwrap_or(self.publishers);
        self.subscribers = changes.subscribers.unwrap_or(self.subscribers);
        if has_own_topics {
            self.topics = self.publishers;
        }
    }

    /// The number of the topic that a publisher publishes to.
    pub(super) const fn topic_of(&self, publisher: u32) -> u32 {
        publisher % self.topics
    }

    /// The Topic Filters of a subscriber, below `room`.
    pub(super) fn filters(&self, subscriber: u32, room: &str) -> Vec<String> {
        match self.listen {
            Listen::One => vec![format!("{room}/{}", subscriber % self.topics)],
            Listen::Each => (0..self.topics)
                .map(|topic| format!("{room}/{topic}"))
                .collect(),
            Listen::All => vec![format!("{room}/#")],
            Listen::Shared => vec![format!("$share/bench/{room}/#")],
        }
    }

    /// Whether a subscriber may hear a publisher.
    pub(super) const fn hears(&self, subscriber: u32, publisher: u32) -> bool {
        match self.listen {
            Listen::One => subscriber % self.topics == publisher % self.topics,
            Listen::Each | Listen::All | Listen::Shared => true,
        }
    }

    /// How many subscribers have to hear a message of this publisher.
    pub(super) fn audience(&self, publisher: u32) -> u64 {
        let audience = match self.listen {
            Listen::One => {
                let topic = self.topic_of(publisher);
                let rest = u32::from(topic < self.subscribers % self.topics);
                self.subscribers / self.topics + rest
            }
            Listen::Each | Listen::All => self.subscribers,
            Listen::Shared => self.subscribers.min(1),
        };
        u64::from(audience)
    }
}

impl Listen {
    const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Each => "each",
            Self::All => "all",
            Self::Shared => "shared",
        }
    }
}

/// The four numbers of a name of the suite.
fn flow(listen: Listen, [publishers, subscribers, topics, rate]: [&str; 4]) -> Option<Flow> {
    let subscribers = clients_of(subscribers)?;
    let rate = rate_of(rate)?;
    Some(Flow {
        publishers: clients_of(publishers)?,
        subscribers,
        topics: clients_of(topics)?,
        listen,
        rate: match listen {
            // There it is that of deliveries.
            Listen::Each => rate.over(subscribers),
            Listen::One | Listen::All | Listen::Shared => rate,
        },
    })
}

fn clients_of(text: &str) -> Option<u32> {
    let thousandths = thousandths(text).filter(|number| number.is_multiple_of(1000))?;
    let count = u32::try_from(thousandths / 1000).ok()?;
    Some(count).filter(|count| (1..=CLIENTS_MAX).contains(count))
}

fn rate_of(text: &str) -> Option<Rate> {
    text.parse().ok()
}

fn unknown(name: &str) -> String {
    let names: Vec<&str> = OWN.iter().chain(&SUITE).map(|(name, _)| *name).collect();
    let near = names.iter().max_by(|a, b| {
        let of = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
        of(a).total_cmp(&of(b))
    });
    let near = near.filter(|near| strsim::jaro_winkler(name, near) > 0.8);
    let near = near.map_or_else(String::new, |near| format!(" Did you mean {near}?"));
    format!("there is no scenario {name}.{near} `vencejo bench list` shows them.")
}

/// "1 client", "2 clients".
pub(super) fn counted(count: u32, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(u64::from(count)))
}

/// With commas.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// More than any machine opens.
pub(super) const CLIENTS_MAX: u32 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn flow_of(name: &str, changes: &Changes) -> Flow {
        match Scenario::named(name)
            .unwrap()
            .changed(changes)
            .unwrap()
            .load
        {
            Load::Flow(flow) => flow,
            other => panic!("{other:?}"),
        }
    }

    fn numbers(flow: &Flow) -> (u32, u32, u32, f64) {
        (
            flow.publishers,
            flow.subscribers,
            flow.topics,
            flow.rate.as_f64(),
        )
    }

    #[test]
    fn every_name_that_is_listed_is_understood() {
        for (name, _) in OWN.iter().chain(&SUITE) {
            let scenario = Scenario::named(name).unwrap();
            assert!(!scenario.says().is_empty());
            assert_eq!(
                scenario.suite.is_some(),
                SUITE.iter().any(|(of, _)| of == name)
            );
        }
        let wrong = Scenario::named("fanin").unwrap_err();
        assert!(wrong.contains("Did you mean fan-in?"), "{wrong}");
        for name in [
            "",
            "p2p",
            "p2p-1-1-1",
            "p2p-0-1-1-1",
            "p2p-1-1-1-x",
            "conn-tcp-1.5-1",
        ] {
            assert!(Scenario::named(name).is_err(), "{name}");
        }
    }

    #[test]
    fn names_of_the_suite_are_its_numbers() {
        let none = Changes::default();
        let p2p = flow_of("singlenode-p2p-50K-50K-50K-50K", &none);
        assert_eq!(numbers(&p2p), (50_000, 50_000, 50_000, 50_000.0));
        assert_eq!(
            numbers(&flow_of("fanout-5-1000-5-250K", &none)),
            (5, 1000, 5, 250.0)
        );
        for name in ["fanout-1-1000-1-1000K", "fanout-1-1k-1-1K"] {
            assert_eq!(numbers(&flow_of(name, &none)), (1, 1000, 1, 1.0));
        }
        let shared = flow_of("sharesub-50K-500-50K-50K", &none);
        assert_eq!(numbers(&shared), (50_000, 500, 50_000, 50_000.0));
        let connect = Scenario::named("conn-tcp-1M-5K").unwrap();
        let rate = Rate::per_second(5000);
        assert_eq!(
            connect.load,
            Load::Connect {
                clients: 1_000_000,
                rate
            }
        );
        assert_eq!(connect.suite, Some(Version::V311));
    }

    #[test]
    fn scaled_are_clients_and_deliveries() {
        let scale = |text: &str| Changes {
            scale: Some(text.parse().unwrap()),
            ..Changes::default()
        };
        let p2p = flow_of("p2p-50K-50K-50K-50K", &scale("0.01"));
        assert_eq!(numbers(&p2p), (500, 500, 500, 500.0));
        let fan_out = flow_of("fanout-5-1000-5-250K", &scale("0.2"));
        assert_eq!(numbers(&fan_out), (1, 200, 1, 250.0));
        // One subscriber is left: what it gets is scaled.
        let fan_out = flow_of("fanout-5-1000-5-250K", &scale("0.0001"));
        assert_eq!(numbers(&fan_out), (1, 1, 1, 25.0));
    }

    #[test]
    fn flags_change_the_side_that_a_scenario_is_about() {
        let clients = |clients| Changes {
            clients: Some(clients),
            ..Changes::default()
        };
        assert_eq!(numbers(&flow_of("pairs", &clients(7))), (7, 7, 7, 1000.0));
        assert_eq!(numbers(&flow_of("fan-in", &clients(7))), (7, 1, 7, 1000.0));
        assert_eq!(numbers(&flow_of("fan-out", &clients(7))), (1, 7, 1, 50.0));
        assert_eq!(numbers(&flow_of("shared", &clients(7))), (7, 5, 7, 1000.0));
        let both = Changes {
            publishers: Some(2),
            subscribers: Some(3),
            rate: Some(Rate::per_second(9)),
            ..Changes::default()
        };
        assert_eq!(numbers(&flow_of("fan-out", &both)), (2, 3, 2, 9.0));
        let refused = Scenario::named("connect").unwrap().changed(&both);
        assert!(refused.unwrap_err().contains("--publishers means nothing"));
    }

    /// The audience of all publishers is what all subscribers hear, counted from the other side.
    #[test]
    fn who_hears_whom_is_the_same_from_both_sides() {
        for listen in [Listen::One, Listen::Each, Listen::All] {
            for (publishers, subscribers, topics) in [(5, 3, 2), (2, 9, 4), (4, 4, 4), (1, 5, 1)] {
                let rate = Rate::per_second(1);
                let flow = Flow {
                    publishers,
                    subscribers,
                    topics,
                    listen,
                    rate,
                };
                let audience: u64 = (0..publishers).map(|one| flow.audience(one)).sum();
                let mut heard = 0;
                for subscriber in 0..subscribers {
                    let filters = flow.filters(subscriber, "r");
                    for publisher in 0..publishers {
                        let topic = format!("r/{}", flow.topic_of(publisher));
                        let matches = filters.contains(&topic) || filters == ["r/#"];
                        let is_heard = flow.hears(subscriber, publisher);
                        assert_eq!(matches, is_heard, "{flow:?}");
                        heard += u64::from(is_heard);
                    }
                }
                assert_eq!(audience, heard, "{flow:?}");
            }
        }
    }

    #[test]
    fn numbers_have_commas() {
        let texts = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            (counted(1, "client"), counted(1000, "client")),
            ("1 client".into(), "1,000 clients".into())
        );
    }
}
