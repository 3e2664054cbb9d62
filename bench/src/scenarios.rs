//! What is measured, by name, and what it is to reach.
//!
//! Owns: the table of scenarios. Does not own: how they are run (see `suite`). Start reading at [`SCENARIOS`].
//! Invariant: a name means the same for every broker.

use std::time::Duration;

use crate::beside::Beside;
use crate::brokers::{Kind, Setup};
use crate::flow::{DASHBOARDS, Plan, Shape};
use crate::wire::Version;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) says: &'static str,
    pub(crate) load: Load,
    pub(crate) setup: Setup,
    /// The same with one shard.
    pub(crate) of_one_shard: Option<&'static str>,
    /// What a delivery costs others in parts of what it costs ours, at least: mosquitto, rumqttd.
    pub(crate) targets: [Option<f64>; 2],
    /// The same of the relay, in percent.
    pub(crate) relay_target: Option<f64>,
}

/// What is done to a broker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    Flow(Plan),
    /// It flows while others do something.
    Beside(Beside, Plan),
    /// So many retained messages, then a subscriber.
    Retained(usize),
    /// So many Sessions that are away, so many messages each.
    Offline(usize, usize),
    /// So many connections that say nothing.
    Idle(usize),
}

impl Scenario {
    /// Whether this broker can do it at all.
    pub(crate) fn is_for(&self, kind: Kind) -> bool {
        let is_plain = self.setup == Setup::PLAIN;
        let is_flow_through = match &self.load {
            Load::Flow(plan) if is_plain && !plan.keeps => {
                plan.shape != Shape::Shared
                    && plan.version == Version::V311
                    // Acknowledgements of many publishers to one subscriber cannot be told apart.
                    && (plan.publishers == 1 || plan.shape == Shape::Pairs || plan.qos == 0)
            }
            _ => false,
        };
        match kind {
            Kind::Vencejo => true,
            Kind::Mosquitto => self.setup.shards == 1,
            Kind::Rumqttd => match &self.load {
                Load::Flow(plan) => {
                    is_plain
                        && !plan.keeps
                        && plan.version == Version::V311
                        && !matches!(plan.shape, Shape::Table(_))
                }
                Load::Offline(..) => true,
                Load::Beside(..) | Load::Retained(_) | Load::Idle(_) => false,
            },
            Kind::Relay => is_flow_through,
        }
    }
}

const fn pairs(count: usize, qos: u8, payload_bytes: usize, window: usize) -> Plan {
    Plan {
        name: "flow",
        shape: Shape::Pairs,
        publishers: count,
        subscribers: count,
        version: Version::V311,
        qos,
        keeps: false,
        payload_bytes,
        window,
        rate: None,
        is_exact: true,
        is_raw: false,
        warmup: Duration::from_secs(1),
        measured: Duration::from_secs(3),
    }
}

const fn shaped(shape: Shape, publishers: usize, subscribers: usize, qos: u8) -> Plan {
    let mut plan = pairs(publishers, qos, 64, 16);
    plan.shape = shape;
    plan.subscribers = subscribers;
    plan
}

const fn at_rate(mut plan: Plan, rate: u64) -> Plan {
    plan.rate = Some(rate);
    plan
}

const fn in_v5(mut plan: Plan) -> Plan {
    plan.version = Version::V5;
    plan
}

const fn kept(mut plan: Plan) -> Plan {
    plan.keeps = true;
    plan
}

const fn table(topics: usize) -> Plan {
    let owners = if topics < 200 { topics } else { 200 };
    let mut plan = shaped(Shape::Table(topics), 20, owners + DASHBOARDS, 0);
    plan.window = 64;
    plan
}

const fn flow(name: &'static str, says: &'static str, plan: Plan) -> Scenario {
    Scenario {
        name,
        says,
        load: Load::Flow(plan),
        setup: Setup::PLAIN,
        of_one_shard: None,
        targets: [None, None],
        relay_target: None,
    }
}

impl Scenario {
    const fn with_load(mut self, load: Load) -> Self {
        self.load = load;
        self
    }

    const fn beside(mut self, others: Beside) -> Self {
        if let Load::Flow(mut plan) = self.load {
            // Who looks at the clock all the time leaves the others nothing of the generator's core.
            plan.is_exact = false;
            self.load = Load::Beside(others, plan);
        }
        self
    }

    const fn at_level(mut self, level: &'static str) -> Self {
        self.setup.level = level;
        self
    }

    const fn secured(mut self) -> Self {
        self.setup.is_secured = true;
        self
    }

    /// With two shards, what `one` is with one.
    const fn of_two_shards(mut self, one: &'static str) -> Self {
        self.setup.shards = 2;
        self.of_one_shard = Some(one);
        self
    }

    const fn to_reach(mut self, mosquitto: f64, rumqttd: Option<f64>, relay: Option<f64>) -> Self {
        self.targets = [Some(mosquitto), rumqttd];
        self.relay_target = relay;
        self
    }
}

const FLOW: Plan = pairs(50, 0, 64, 64);
const FAN_OUT: Plan = shaped(Shape::All, 1, 1000, 0);
const PAIR: Plan = at_rate(pairs(1, 0, 64, 64), 1000);
/// Many, so that a group that is synced has many messages.
const MANY_KEPT: Plan = kept(pairs(1000, 1, 64, 16));

pub(crate) const SCENARIOS: &[Scenario] = &[
    flow("pairs-q0", "50 pairs, QoS 0, 64 B", FLOW).to_reach(31.0, Some(7.0), Some(34.0)),
    flow("pairs-q1", "50 pairs, QoS 1, 64 B", pairs(50, 1, 64, 64)).to_reach(
        40.0,
        Some(5.5),
        Some(50.0),
    ),
    flow("pairs-q2", "50 pairs, QoS 2, 64 B", pairs(50, 2, 64, 64)).to_reach(
        50.0,
        Some(3.5),
        Some(45.0),
    ),
    flow(
        "pairs-q0-1k",
        "50 pairs, QoS 0, 1 KiB",
        pairs(50, 0, 1024, 64),
    )
    .to_reach(22.0, Some(5.0), Some(50.0)),
    flow(
        "pairs-q1-1k",
        "50 pairs, QoS 1, 1 KiB",
        pairs(50, 1, 1024, 64),
    )
    .to_reach(23.0, Some(5.5), Some(43.0)),
    flow("pairs-q0-v5", "50 pairs, QoS 0, 64 B, MQTT 5", in_v5(FLOW)),
    flow(
        "pairs-q1-v5",
        "50 pairs, QoS 1, 64 B, MQTT 5",
        in_v5(pairs(50, 1, 64, 64)),
    ),
    flow(
        "one-in-flight",
        "50 pairs, QoS 0, one in flight each",
        pairs(50, 0, 64, 1),
    )
    .to_reach(1.55, Some(1.8), Some(90.0)),
    flow("fan-out-q0", "1 to 1,000, QoS 0", FAN_OUT).to_reach(21.0, Some(2.6), Some(77.0)),
    flow(
        "fan-out-q1",
        "1 to 1,000, QoS 1",
        shaped(Shape::All, 1, 1000, 1),
    )
    .to_reach(23.0, Some(3.0), Some(73.0)),
    flow(
        "fan-in-q0",
        "500 to 1, QoS 0",
        shaped(Shape::All, 500, 1, 0),
    )
    .to_reach(17.0, Some(6.0), Some(85.0)),
    flow(
        "shared-q1",
        "500 to 10 that share, QoS 1",
        shaped(Shape::Shared, 500, 10, 1),
    )
    .to_reach(27.0, Some(11.0), None),
    flow(
        "table-10",
        "10 subscriptions in the table, 2 match",
        table(10),
    ),
    // To as many connections as what follows: what follows costs more than this by matching alone.
    flow("table-200", "200 subscriptions, 2 match", table(200)),
    flow("table-1k", "1,000 subscriptions, 2 match", table(1000)),
    flow(
        "table-100k",
        "100,000 subscriptions, 2 match",
        table(100_000),
    ),
    flow(
        "table-1m",
        "1,000,000 subscriptions, 2 match",
        table(1_000_000),
    )
    .to_reach(22.0, None, None),
    flow(
        "retained",
        "200,000 retained messages to one subscriber",
        FLOW,
    )
    .with_load(Load::Retained(200_000))
    .to_reach(15.0, None, None),
    flow("offline", "1,000 queues of 1,000, drained", FLOW).with_load(Load::Offline(1000, 1000)),
    flow("idle", "10,000 connections, one subscription each", FLOW).with_load(Load::Idle(10_000)),
    flow(
        "idle-tls",
        "5,000 connections over TLS, one subscription each",
        FLOW,
    )
    .with_load(Load::Idle(5000))
    .secured(),
    flow(
        "latency-1k",
        "50 pairs, QoS 0, 1,000 a second",
        at_rate(FLOW, 1000),
    ),
    flow(
        "latency-20k",
        "50 pairs, QoS 1, 20,000 a second",
        at_rate(pairs(50, 1, 64, 4096), 20_000),
    ),
    flow(
        "latency-fan-out",
        "1 to 1,000, QoS 0, 20 messages a second",
        at_rate(FAN_OUT, 20),
    ),
    flow(
        "kept-q1",
        "1,000 pairs, QoS 1 to Sessions that are kept, in memory",
        MANY_KEPT,
    ),
    flow(
        "durable-q1",
        "1,000 pairs, QoS 1 to Sessions that are kept, synced",
        MANY_KEPT,
    )
    .at_level("synced"),
    flow("shards-pairs-q0", "50 pairs, QoS 0, two shards", FLOW).of_two_shards("pairs-q0"),
    flow(
        "shards-pairs-q1",
        "50 pairs, QoS 1, two shards",
        pairs(50, 1, 64, 64),
    )
    .of_two_shards("pairs-q1"),
    flow("shards-fan-out", "1 to 1,000, QoS 0, two shards", FAN_OUT).of_two_shards("fan-out-q0"),
    flow(
        "beside-10",
        "50 pairs, QoS 0, beside 10 idle connections",
        FLOW,
    )
    .beside(Beside::Idle(10)),
    flow(
        "beside-1k",
        "50 pairs, QoS 0, beside 1,000 idle connections",
        FLOW,
    )
    .beside(Beside::Idle(1000)),
    flow(
        "beside-19k",
        "50 pairs, QoS 0, beside 19,000 idle connections",
        FLOW,
    )
    .beside(Beside::Idle(19_000)),
    flow(
        "returning",
        "a pair, 1,000 a second, beside 15,000 who connect again at once",
        PAIR,
    )
    .beside(Beside::Returning(15_000)),
    flow(
        "joining",
        "a pair, 1,000 a second, beside a subscriber of 1,000,000 retained messages",
        PAIR,
    )
    .beside(Beside::Joining(1_000_000)),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_words_of_a_command_line_and_each_is_one_scenario() {
        let names: BTreeSet<_> = SCENARIOS.iter().map(|one| one.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        let is_word = |name: &&str| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        assert!(names.iter().all(is_word));
    }

    #[test]
    fn what_has_two_shards_is_compared_with_a_scenario_that_has_one() {
        for scenario in SCENARIOS {
            let one = SCENARIOS
                .iter()
                .find(|one| Some(one.name) == scenario.of_one_shard);
            assert_eq!(
                one.is_some(),
                scenario.setup.shards > 1,
                "{}",
                scenario.name
            );
            assert!(one.is_none_or(|one| one.setup == Setup::PLAIN));
        }
    }
}
