//! A Server that says anything: bytes of no meaning, and packets that are well-formed and wrong.
//!
//! Owns: what such a Server says, from a seed, and what has to hold of the Client meanwhile. Does not own: Servers that
//! keep the rules (see `faults`). Start reading at [`Hostile::run`]. Invariant: the Client keeps no more than its bounds,
//! and each connection ends with a cause that has words.
//!
//! `CLIENT_FAULT_RUNS=100000 cargo nextest run -p vencejo-client hostile` makes more runs, from `CLIENT_FAULT_SEED` on.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use proto::packet::{
    self, Ack, Auth, ConnAck, ConnAckProperties, Disconnect, Packet, PacketType, Property, Publish,
    PublishProperties, ReasonCode, SubAck, UnsubAck,
};
use proto::{PacketIdentifier, Qos, Version};
use tokio::sync::{mpsc, oneshot};

use super::faults::{Random, variable};
use super::{Core, Delivery, Happening, ToPublish, ToSubscribe};
use crate::{DisconnectCause, Inbox, Options, Publication, Subscription};

const MESSAGES_MAX: u32 = 64;
const RECEIVE_MAXIMUM: u16 = 16;

/// What such a Server says next.
pub(crate) struct Speech {
    pub(crate) random: Random,
    pub(crate) version: Version,
}

struct Hostile {
    speech: Speech,
    core: Core,
    now: Instant,
    input: BytesMut,
    out: Vec<u8>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    publications: u32,
}

impl Hostile {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let version = [Version::V5, Version::V311][random.below(2)];
        let inbox = Inbox {
            messages_max: NonZeroU32::new(MESSAGES_MAX).expect("not 0"),
            ..Inbox::default()
        };
        let options = Options::new("a server", 1883)
            .version(version)
            .client_id("me")
            .clean_start(random.one_in(2))
            .receive_maximum(NonZeroU16::new(RECEIVE_MAXIMUM).expect("not 0"))
            .inbox(inbox);
        let now = Instant::now();
        let mut core = Core::new(&options, seed, now);
        let (sender, deliveries) = mpsc::unbounded_channel();
        let (done, _) = oneshot::channel();
        core.subscribe(ToSubscribe {
            subscriptions: vec![Subscription::new("t/#", Qos::ExactlyOnce)],
            sender,
            ended: Arc::new(OnceLock::new()),
            done,
        });
        Self {
            speech: Speech { random, version },
            core,
            now,
            input: BytesMut::new(),
            out: Vec::new(),
            deliveries,
            publications: 0,
        }
    }

    /// Some connections, one after the other.
    fn run(mut self) {
        for _ in 0..4 {
            self.now += Duration::from_secs(60);
            self.core.on_dial();
            let connect = self.core.connect();
            let begun = self.core.begin(&connect, self.now, &mut self.out);
            begun.expect("CONNECT can be written");
            let cause = self.converse();
            assert!(!cause.is_none_or(|cause| cause.to_string().is_empty()));
            self.input.clear();
            self.out.clear();
            self.core.on_lost(false, self.now);
        }
        while self.deliveries.try_recv().is_ok() {}
    }

    /// Until the Client has had enough, or the Server has.
    fn converse(&mut self) -> Option<DisconnectCause> {
        if !self.speech.random.one_in(8) {
            let connack = self.speech.connack();
            self.speech.say(&connack, &mut self.input);
        }
        for _ in 0..200 {
            self.speech.say_something(&mut self.input);
            self.do_something();
            match self.read() {
                Ok(()) => {}
                Err(cause) => return Some(cause),
            }
            self.check();
        }
        Some(DisconnectCause::Closed)
    }

    fn read(&mut self) -> Result<(), DisconnectCause> {
        while let Some(happening) = self.core.next(&mut self.input, self.now, &mut self.out)? {
            match happening {
                Happening::Connected(connack) => {
                    self.core.on_connected(&connack, self.now, &mut self.out);
                }
                Happening::Refused(_) => return Err(DisconnectCause::Closed),
                Happening::Auth(_) | Happening::Handled => {}
            }
        }
        Ok(())
    }

    /// Whatever was said, no more is kept than there may be.
    fn check(&mut self) {
        assert!(self.deliveries.len() <= MESSAGES_MAX as usize + 1);
        let owed_max = match self.speech.version {
            // The Server of 3.x knows no bound: what waits for the application is one.
            Version::V311 | Version::V31 => MESSAGES_MAX as usize + 1,
            Version::V5 => usize::from(RECEIVE_MAXIMUM),
        };
        assert!(self.core.incoming.owed_count() <= owed_max);
        // The task reads no more while so much is unwritten; here the Server takes all, sometimes.
        if self.speech.random.one_in(4) {
            self.out.clear();
        }
        assert!(self.out.len() < 1024 * 1024, "{}", self.out.len());
    }

    /// The application goes on meanwhile.
    fn do_something(&mut self) {
        if self.speech.random.one_in(4) && self.publications < 1000 {
            self.publications += 1;
            let qos = self.speech.qos();
            self.core.publish(ToPublish {
                publication: Publication::new("t", vec![0; 10], qos),
                done: None,
                permits: None,
                kept: None,
            });
            self.core.pump(self.now, &mut self.out);
        }
        if self.speech.random.one_in(4)
            && let Ok(delivery) = self.deliveries.try_recv()
        {
            let taken = super::taken(&delivery);
            self.core.on_taken(taken, self.now, &mut self.out);
        }
    }
}

impl Speech {
    /// A packet, cut or with a wrong bit now and then.
    pub(crate) fn say(&mut self, packet: &Packet<'_>, said: &mut BytesMut) {
        let mut bytes = Vec::new();
        if packet::encode(packet, self.version, &mut bytes).is_err() {
            return;
        }
        if self.random.one_in(50) {
            let at = self.random.below(bytes.len());
            bytes[at] ^= 1 << self.random.below(8);
        }
        if self.random.one_in(100) {
            bytes.truncate(self.random.below(bytes.len()));
        }
        said.extend_from_slice(&bytes);
    }

    /// Whatever comes to its mind.
    pub(crate) fn say_something(&mut self, said: &mut BytesMut) {
        let packet_id = self.packet_id();
        let kind = self.random.below(16);
        let packet = match kind {
            0 => Packet::PubAck(Ack::new(packet_id, self.reason(PacketType::PubAck))),
            1 => Packet::PubRec(Ack::new(packet_id, self.reason(PacketType::PubRec))),
            2 | 3 => Packet::PubRel(Ack::new(packet_id, self.reason(PacketType::PubRel))),
            4 => Packet::PubComp(Ack::new(packet_id, self.reason(PacketType::PubComp))),
            5 => Packet::SubAck(SubAck {
                packet_id,
                reasons: vec![self.reason(PacketType::SubAck); self.random.below(3)],
                properties: None,
            }),
            6 => Packet::UnsubAck(UnsubAck {
                packet_id,
                reasons: vec![self.reason(PacketType::UnsubAck); self.random.below(3)],
                properties: None,
            }),
            7 => Packet::PingResp,
            8 if self.random.one_in(30) => {
                Packet::Disconnect(Disconnect::new(self.reason(PacketType::Disconnect)))
            }
            8 if self.random.one_in(30) => {
                let reason = self.reason(PacketType::Auth);
                Packet::Auth(Box::new(Auth::new(reason, "x", None)))
            }
            8 if self.random.one_in(30) => self.connack(),
            8 if self.random.one_in(30) => Packet::PingReq,
            8 if self.random.one_in(10) => {
                let noise: Vec<u8> = (0..20).map(|_| self.byte()).collect();
                return said.extend_from_slice(&noise);
            }
            _ => return self.say_publish(packet_id, said),
        };
        self.say(&packet, said);
    }

    fn say_publish(&mut self, packet_id: PacketIdentifier, said: &mut BytesMut) {
        let mut raw = Vec::new();
        let alias = u16::try_from(self.random.below(3)).expect("small");
        let key = u32::try_from(self.random.below(4)).expect("small");
        for property in [
            Property::TopicAlias(alias),
            Property::SubscriptionIdentifier(key),
        ] {
            if self.random.one_in(40) {
                property.put(&mut raw).expect("small");
            }
        }
        let Ok(properties) = PublishProperties::parse(&raw) else {
            return;
        };
        let qos = self.qos();
        let publish = Publish {
            dup: qos != Qos::AtMostOnce && self.random.one_in(3),
            qos,
            retain: self.random.one_in(2),
            topic: ["t/a", "t", "elsewhere", "$SYS/x"][self.random.below(4)],
            packet_id: Some(packet_id).filter(|_| qos != Qos::AtMostOnce),
            properties,
            payload: b"payload",
        };
        self.say(&Packet::Publish(publish), said);
    }

    /// A CONNACK, mostly of success.
    pub(crate) fn connack(&mut self) -> Packet<'static> {
        let is_refused = self.random.one_in(20);
        let number = |random: &mut Random| u16::try_from(random.below(4)).expect("small");
        Packet::ConnAck(Box::new(ConnAck {
            session_present: !is_refused && self.random.one_in(2),
            reason: if is_refused {
                ReasonCode::NotAuthorized
            } else {
                ReasonCode::Success
            },
            properties: ConnAckProperties {
                receive_maximum: NonZeroU16::new(number(&mut self.random)),
                topic_alias_maximum: Some(number(&mut self.random)),
                maximum_packet_size_bytes: NonZeroU32::new(20).filter(|_| self.random.one_in(9)),
                subscription_identifier_available: Some(self.random.one_in(2)),
                server_keep_alive_seconds: Some(number(&mut self.random)),
                assigned_client_id: Some("other".to_owned()).filter(|_| self.random.one_in(9)),
                ..ConnAckProperties::default()
            },
        }))
    }

    /// One that such a packet may carry.
    fn reason(&mut self, packet_type: PacketType) -> ReasonCode {
        let reasons = ReasonCode::ALL.iter().copied();
        let allowed: Vec<_> = reasons
            .filter(|reason| reason.is_allowed_in(packet_type))
            .collect();
        allowed[self.random.below(allowed.len())]
    }

    /// Few, so that they mean something now and then.
    fn packet_id(&mut self) -> PacketIdentifier {
        let number = 1 + u16::try_from(self.random.below(12)).expect("small");
        PacketIdentifier::new(number).expect("not 0")
    }

    pub(crate) fn qos(&mut self) -> Qos {
        [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][self.random.below(3)]
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.random.next().to_le_bytes()[0]
    }
}

/// No panic, nothing beyond the bounds, and words for every end.
#[test]
fn hostile_packets_end_connections_and_nothing_else() {
    let first = variable("CLIENT_FAULT_SEED", 1);
    for seed in first..first + variable("CLIENT_FAULT_RUNS", 1000) {
        let ran = std::panic::catch_unwind(|| Hostile::new(seed).run());
        ran.unwrap_or_else(|cause| {
            eprintln!("CLIENT_FAULT_SEED={seed}");
            std::panic::resume_unwind(cause)
        });
    }
}

/// Bytes of no meaning, in pieces of any size, before CONNACK and after.
#[test]
fn hostile_bytes_end_connections_and_nothing_else() {
    let first = variable("CLIENT_FAULT_SEED", 1);
    for seed in first..first + variable("CLIENT_FAULT_RUNS", 1000) {
        let mut hostile = Hostile::new(seed);
        hostile.core.on_dial();
        let connect = hostile.core.connect();
        let begun = hostile.core.begin(&connect, hostile.now, &mut hostile.out);
        begun.expect("CONNECT can be written");
        if seed % 2 == 0 {
            hostile
                .input
                .extend_from_slice(match hostile.speech.version {
                    Version::V5 => &[0x20, 3, 0, 0, 0],
                    _ => &[0x20, 2, 0, 0],
                });
        }
        for _ in 0..100 {
            let len = hostile.speech.random.below(40);
            let noise: Vec<u8> = (0..len).map(|_| hostile.speech.byte()).collect();
            hostile.input.extend_from_slice(&noise);
            if hostile.read().is_err() {
                break;
            }
            hostile.check();
        }
    }
}
