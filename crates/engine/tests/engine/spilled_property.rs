//! One subscriber and its queue on disk, under any interleaving of acknowledgements, losses and crashes.
//!
//! Owns: [`Subscriber`], a Client that keeps its side. Start reading at [`Run::check`].
//! Invariants: what was acknowledged to the publisher arrives, in order, at QoS 2 once; the same message
//! always has the same Packet Identifier; no more than a window of it is in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use proptest::prelude::*;
use proto::Qos;
use proto::connection::{Delivery, Outgoing};
use proto::packet::{Ack, Publish, ReasonCode};
use vencejo_engine::{Limits, OverflowPolicy};

use crate::world::{Client, World, durable, id, payload, publish};

#[derive(Clone, Copy, Debug)]
enum Event {
    /// With a Message Expiry Interval or without.
    Publish {
        qos: u8,
        expires: bool,
    },
    Read(usize),
    Lose,
    Connect(u16),
    Congest(bool),
    Persist,
    Answer,
    Advance,
    /// A crash that finds up to so many batches that were not known to be durable.
    Crash(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => (1_u8..=2, prop::bool::weighted(0.1))
            .prop_map(|(qos, expires)| Event::Publish { qos, expires }),
        8 => (1_usize..5).prop_map(Event::Read),
        1 => Just(Event::Lose),
        2 => (1_u16..6).prop_map(Event::Connect),
        1 => any::<bool>().prop_map(Event::Congest),
        5 => Just(Event::Persist),
        5 => Just(Event::Answer),
        1 => Just(Event::Advance),
        1 => (0_usize..4).prop_map(Event::Crash),
    ]
}

/// A Client that remembers, whatever happens to the Server.
#[derive(Debug, Default)]
struct Subscriber {
    client: Option<Client>,
    unreleased: BTreeMap<u16, String>,
    packet_ids: BTreeMap<String, u16>,
    got: Vec<(String, Qos)>,
}

#[derive(Debug)]
struct Run {
    world: World,
    publisher: Client,
    subscriber: Subscriber,
    /// How many were published, and which of them were acknowledged and do not expire.
    published: usize,
    acknowledged: BTreeSet<usize>,
    expiring: BTreeSet<usize>,
    window: usize,
}

impl Run {
    fn new(window: usize, overflow_policy: OverflowPolicy, queued_messages_max: usize) -> Self {
        let limits = Limits {
            window_messages_max: window,
            maximum_inflight_messages: 5,
            overflow_policy,
            queued_messages_max,
            ..Limits::default()
        };
        let mut world = World::with(1, limits);
        let subscriber = world.connect("subscriber");
        world.subscribe(subscriber, "a", 2);
        let publisher = world.connect_clean("publisher");
        (world.holds_store, world.holds_loads) = (true, true);
        Self {
            world,
            publisher,
            subscriber: Subscriber {
                client: Some(subscriber),
                ..Subscriber::default()
            },
            published: 0,
            acknowledged: BTreeSet::new(),
            expiring: BTreeSet::new(),
            window,
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Publish { qos, expires } => self.publish(qos, expires),
            Event::Read(count) => drop(self.read(count)),
            Event::Lose => {
                if let Some(client) = self.subscriber.client.take() {
                    self.world.lose(client);
                }
            }
            Event::Connect(receive_maximum) => self.connect(receive_maximum),
            Event::Congest(congested) => {
                if let Some(client) = self.subscriber.client {
                    self.world.congest(client, congested);
                }
            }
            Event::Persist => self.world.persist(),
            Event::Answer => {
                self.world.answer_loads(0);
                self.world.settle();
            }
            Event::Advance => self.world.advance(6),
            Event::Crash(more) => {
                self.hear();
                self.world.crash_keeping(1, more);
                self.subscriber.client = None;
                self.publisher = self.world.connect_clean("publisher");
            }
        }
        self.hear();
        let counters = self.world.engines[0].counters();
        let in_memory = counters.queued_messages - counters.spilled_messages;
        assert!(in_memory <= self.window as u64 + 5, "{in_memory}");
    }

    fn publish(&mut self, qos: u8, expires: bool) {
        self.published += 1;
        let number = self.published;
        let text = number.to_string();
        let packet_id = u16::try_from(number).expect("few messages");
        let mut packet: Publish<'_> = publish("a", qos, &text, id(packet_id));
        if expires {
            packet.properties.message_expiry_interval_seconds = Some(5);
            self.expiring.insert(number);
        }
        self.world.send_publish(self.publisher, &packet);
        self.world.settle();
    }

    /// What the publisher is answered. It never repeats a message: what is not answered may be lost.
    fn hear(&mut self) {
        for packet in self.world.received(self.publisher) {
            let (Outgoing::PubAck(ack) | Outgoing::PubRec(ack)) = packet else {
                continue;
            };
            assert!(!ack.reason.is_error(), "{ack:?}");
            self.acknowledged.insert(usize::from(ack.packet_id.get()));
        }
    }

    fn connect(&mut self, receive_maximum: u16) {
        let mut connect = durable("subscriber");
        connect.properties.receive_maximum = NonZeroU16::new(receive_maximum);
        self.subscriber.client = Some(self.world.connect_with(connect));
    }

    fn read(&mut self, count: usize) -> usize {
        for done in 0..count {
            let client = self.subscriber.client;
            let next = client.and_then(|client| Some((client, self.world.next(client)?)));
            let Some((client, packet)) = next else {
                return done;
            };
            match packet {
                Outgoing::Publish(delivery) => self.take(client, &delivery),
                Outgoing::PubRel(ack) => {
                    self.subscriber.unreleased.remove(&ack.packet_id.get());
                    self.world.pubcomp(client, ack.packet_id.get());
                }
                Outgoing::ConnAck(connack) => {
                    assert_eq!(connack.reason, ReasonCode::Success);
                    assert!(connack.session_present);
                }
                Outgoing::Disconnect(_) => self.subscriber.client = None,
                other => panic!("unexpected {other:?}"),
            }
        }
        count
    }

    fn take(&mut self, client: Client, delivery: &Delivery) {
        let text = payload(delivery);
        let packet_id = delivery.packet_id.expect("above QoS 0").get();
        let subscriber = &mut self.subscriber;
        // Without an acknowledgement the message, and its number, may be gone after a crash.
        let is_kept = delivery.qos == Qos::ExactlyOnce;
        let before = subscriber.packet_ids.insert(text.clone(), packet_id);
        assert_eq!(before.unwrap_or(packet_id), packet_id, "{text}");
        let (now, ack) = (self.world.now, Ack::new(id(packet_id), ReasonCode::Success));
        if !is_kept {
            subscriber.got.push((text, delivery.qos));
            self.world.engine(client).on_puback(client.key, &ack, now);
        } else {
            match subscriber.unreleased.get(&packet_id) {
                Some(open) => assert_eq!(*open, text, "identifier {packet_id} was in use"),
                None => {
                    subscriber.unreleased.insert(packet_id, text.clone());
                    subscriber.got.push((text, delivery.qos));
                }
            }
            self.world.engine(client).on_pubrec(client.key, &ack, now);
        }
        self.world.settle();
    }

    fn finish(&mut self) {
        (self.world.holds_store, self.world.holds_loads) = (false, false);
        self.world.answer_loads(0);
        self.world.persist();
        self.connect(3);
        loop {
            self.world.settle();
            self.hear();
            if self.read(usize::MAX) == 0 {
                break;
            }
        }
    }

    fn check(&self, may_drop: bool) {
        let mut first = Vec::new();
        for (text, qos) in &self.subscriber.got {
            let number: usize = text.parse().expect("a number");
            if !first.contains(&number) {
                first.push(number);
            } else {
                assert_eq!(*qos, Qos::AtLeastOnce, "{text} twice");
            }
        }
        assert!(first.is_sorted(), "{first:?}");
        let missing = self.acknowledged.difference(&self.expiring);
        let missing: Vec<_> = missing.filter(|number| !first.contains(number)).collect();
        assert!(may_drop || missing.is_empty(), "lost {missing:?}");
        let counters = self.world.engines[0].counters();
        let queued = (counters.queued_messages, counters.queued_bytes);
        assert_eq!(queued, (0, 0));
        let spilled = (counters.spilled_messages, counters.spilled_bytes);
        assert_eq!(spilled, (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Verifies [MQTT-4.6.0-6]: in order, across the disk and crashes.
    /// Verifies [MQTT-4.3.3-2]: a QoS 2 message is not sent as new while its identifier is open.
    #[test]
    fn what_was_acknowledged_arrives_in_order_over_disk_losses_and_crashes(
        window in 1_usize..5,
        events in prop::collection::vec(event(), 1..150),
    ) {
        let mut run = Run::new(window, OverflowPolicy::DropNewest, 1000);
        for event in events {
            run.apply(event);
        }
        run.finish();
        run.check(false);
    }

    /// The same with a queue so short that messages are dropped from it, in memory and on disk.
    #[test]
    fn a_queue_that_overflows_on_disk_keeps_its_order(
        window in 1_usize..5,
        drops_oldest in any::<bool>(),
        events in prop::collection::vec(event(), 1..150),
    ) {
        let overflow_policy = if drops_oldest {
            OverflowPolicy::DropOldest
        } else {
            OverflowPolicy::DropNewest
        };
        let mut run = Run::new(window, overflow_policy, 6);
        for event in events {
            run.apply(event);
        }
        run.finish();
        run.check(true);
    }
}
