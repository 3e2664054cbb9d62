//! Single cases of what happens between connections.
//!
//! Owns: nothing but tests. Start reading at [`Peer`]. Invariant: time does not pass unless a test says so.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::BytesMut;
use proto::packet::{
    self, ConnAck, ConnAckProperties, Packet, Property, Publish, PublishProperties, ReasonCode,
    RetainHandling, SubAck,
};
use proto::{PacketIdentifier, Qos, Version};
use tokio::sync::{mpsc, oneshot};

use super::{Core, Delivery, Happening, ToSubscribe};
use crate::{Inbox, Options, Subscription, WhenInboxFull};

/// A Client, and a Server that says what a test says.
struct Peer {
    core: Core,
    now: Instant,
    input: BytesMut,
    out: Vec<u8>,
}

impl Peer {
    fn new(options: &Options) -> Self {
        let now = Instant::now();
        Self {
            core: Core::new(options, 1, now),
            now,
            input: BytesMut::new(),
            out: Vec::new(),
        }
    }

    fn begin(&mut self) {
        self.core.on_dial();
        let connect = self.core.connect();
        let begun = self.core.begin(&connect, self.now, &mut self.out);
        begun.expect("CONNECT can be written");
    }

    fn say(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet::encode(packet, Version::V5, &mut bytes).expect("can be written");
        self.input.extend_from_slice(&bytes);
        loop {
            let next = self.core.next(&mut self.input, self.now, &mut self.out);
            match next.expect("no rule is broken") {
                None => return,
                Some(Happening::Connected(connack)) => {
                    self.core.on_connected(&connack, self.now, &mut self.out);
                }
                Some(_) => {}
            }
        }
    }

    fn connect(&mut self, session_present: bool) {
        self.begin();
        self.say(&Packet::ConnAck(Box::new(ConnAck {
            session_present,
            reason: ReasonCode::Success,
            properties: ConnAckProperties::default(),
        })));
    }

    fn lose(&mut self) {
        self.out.clear();
        self.input.clear();
        self.core.on_lost(false, self.now);
    }

    /// The handling of Retained Messages of each SUBSCRIBE, all of which are granted.
    fn grant(&mut self) -> Vec<RetainHandling> {
        let out = std::mem::take(&mut self.out);
        let mut rest = out.as_slice();
        let mut asked = Vec::new();
        while let Some((packet, used)) =
            packet::decode(rest, Version::V5, u32::MAX).expect("well-formed")
        {
            if let Packet::Subscribe(subscribe) = packet {
                asked.push(subscribe.requests[0].options.retain_handling);
                self.say(&Packet::SubAck(SubAck {
                    packet_id: subscribe.packet_id,
                    reasons: vec![ReasonCode::GrantedQos1],
                    properties: None,
                }));
            }
            rest = &rest[used..];
        }
        asked
    }

    fn subscribe(&mut self, filter: &str) -> mpsc::UnboundedReceiver<Delivery> {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let (done, _) = oneshot::channel();
        self.core.subscribe(ToSubscribe {
            subscriptions: vec![Subscription::new(filter, Qos::AtLeastOnce)],
            sender,
            ended: Arc::new(OnceLock::new()),
            done,
        });
        deliveries
    }
}

/// A Server that had lost the Session, made a new one and could not say so calls that present: it is subscribed to again,
/// without Retained Messages where it did know.
#[test]
fn a_session_of_a_connect_without_an_answer_is_subscribed_to_again() {
    let mut peer = Peer::new(&Options::new("a server", 1883).client_id("me"));
    let (done, granted) = oneshot::channel();
    let (sender, _deliveries) = mpsc::unbounded_channel();
    peer.core.subscribe(ToSubscribe {
        subscriptions: vec![Subscription::new("a", Qos::AtLeastOnce)],
        sender,
        ended: Arc::new(OnceLock::new()),
        done,
    });
    peer.connect(false);
    assert_eq!(peer.grant(), [RetainHandling::Send]);
    drop(granted);
    peer.lose();
    peer.connect(true);
    assert_eq!(peer.grant(), []);
    peer.lose();
    peer.begin();
    peer.lose();
    peer.connect(true);
    // Not answered: it stays in doubt.
    peer.lose();
    peer.connect(true);
    assert_eq!(peer.grant(), [RetainHandling::SendIfNew]);
    peer.lose();
    peer.connect(true);
    assert_eq!(peer.grant(), []);
}

/// What a message takes is not its payload alone: a Server that sends large properties without payload is read no further
/// than one that sends payloads.
#[test]
fn topics_and_properties_count_in_an_inbox() {
    let inbox = Inbox {
        bytes_max: NonZeroU32::new(1000).expect("not 0"),
        ..Inbox::default()
    };
    let mut peer = Peer::new(&Options::new("a server", 1883).inbox(inbox));
    let mut deliveries = peer.subscribe("a");
    peer.connect(false);
    let mut raw = Vec::new();
    let property = Property::UserProperty("name", &"x".repeat(292)).put(&mut raw);
    property.expect("short");
    for _ in 0..10 {
        peer.say(&Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "a",
            packet_id: None,
            properties: PublishProperties::parse(&raw).expect("well-formed"),
            payload: &[],
        }));
    }
    assert!(peer.core.is_paused());
    let waiting = std::iter::from_fn(|| deliveries.try_recv().ok()).count();
    assert_eq!(waiting, 4);
}

/// At QoS 0 an inbox that drops keeps half of its room for what is acknowledged; an inbox that waits reads no more.
#[test]
fn an_inbox_that_is_full_does_what_its_policy_says() {
    for when_full in [WhenInboxFull::Wait, WhenInboxFull::DropNewest] {
        let inbox = Inbox {
            messages_max: NonZeroU32::new(4).expect("not 0"),
            when_full,
            ..Inbox::default()
        };
        let mut peer = Peer::new(&Options::new("a server", 1883).inbox(inbox));
        let mut deliveries = peer.subscribe("a");
        peer.connect(false);
        for number in 0..10_u16 {
            let is_acknowledged = number % 5 == 4;
            peer.say(&Packet::Publish(Publish {
                dup: false,
                qos: if is_acknowledged {
                    Qos::AtLeastOnce
                } else {
                    Qos::AtMostOnce
                },
                retain: false,
                topic: "a",
                packet_id: PacketIdentifier::new(number).filter(|_| is_acknowledged),
                properties: PublishProperties::default(),
                payload: &[0],
            }));
        }
        let mut count = 0;
        while deliveries.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, 4, "{when_full:?}");
        let is_dropping = when_full == WhenInboxFull::DropNewest;
        assert!(peer.core.is_paused());
        assert_eq!(peer.input.is_empty(), is_dropping);
        let dropped = peer
            .core
            .dropped()
            .load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(dropped, if is_dropping { 6 } else { 0 });
    }
}
