//! A Server that says anything, in any pieces, to a Client whose application goes on: bytes as they are, packets that are
//! well-formed and wrong, connections that end and begin again. Each end has words, what is kept stays within its bounds,
//! and what the Client writes is well-formed.
//!
//! Owns: [`run`]. Does not own: the Client (see `fuzzed` of the client). Start reading at [`run`]. Invariant: the same
//! bytes make the same run, but for the nonce of a proof.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use vencejo_client::fuzzing::Fuzzed;
use vencejo_client::proto::packet::{
    Ack, Auth, ConnAck, ConnAckProperties, Disconnect, Packet, PacketType, Property, Publish,
    PublishProperties, ReasonCode, SubAck, UnsubAck, decode, encode,
};
use vencejo_client::proto::{PacketIdentifier, Qos, Secret, Version};

/// A Server, and the Client it speaks to.
struct Server {
    client: Fuzzed,
    version: Version,
    /// The packet it said last.
    last: Vec<u8>,
}

/// What the input says next; 0 when it has ended.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn is_one_in(&mut self, chances: u8) -> bool {
        self.next() % chances == 1
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.next()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    /// Few, so that they mean something now and then.
    fn packet_id(&mut self) -> PacketIdentifier {
        PacketIdentifier::new(1 + u16::from(self.next() % 24)).expect("not 0")
    }

    fn qos(&mut self) -> Qos {
        [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(self.next() % 3)]
    }

    /// One that such a packet may carry; in half of the cases that of success.
    fn reason(&mut self, packet_type: PacketType) -> ReasonCode {
        let choice = usize::from(self.next());
        let reasons = ReasonCode::ALL.iter().copied();
        let allowed: Vec<_> = reasons
            .filter(|reason| reason.is_allowed_in(packet_type))
            .collect();
        allowed[if choice < 128 {
            0
        } else {
            choice % allowed.len()
        }]
    }
}

/// The first byte says which Client it is; the rest is what happens to it.
pub(crate) fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let kind = choices.next();
    let version = [Version::V5, Version::V5, Version::V311, Version::V31][usize::from(kind & 3)];
    let mut server = Server {
        client: Fuzzed::new(version, kind & 4 != 0, kind & 8 != 0),
        version,
        last: Vec::new(),
    };
    server.client.connect();
    while !choices.0.is_empty() {
        let happened = server.happen(&mut choices);
        check(&server.client, version);
        if let Err(why) = happened {
            assert!(!why.is_empty(), "an end without words");
            server.client.connect();
        }
    }
}

impl Server {
    /// One thing.
    fn happen(&mut self, choices: &mut Choices<'_>) -> Result<(), String> {
        let client = &mut self.client;
        match choices.next() % 32 {
            0 => client.hear(choices.bytes()),
            1 => {
                client.connect();
                Ok(())
            }
            2 | 3 => {
                let (qos, len) = (choices.qos(), usize::from(choices.next()) * 16);
                client.publish(qos, len);
                Ok(())
            }
            4..=6 => client.take(usize::from(choices.next())),
            7 => {
                client.change(usize::from(choices.next()));
                Ok(())
            }
            8 => client.pass(Duration::from_millis(u64::from(choices.next()) * 500)),
            9..=11 => {
                check_written(&client.written()?, self.version);
                Ok(())
            }
            12 => self.say(&connack(choices)),
            13..=19 => self.say_publish(choices),
            20 => (0..choices.next()).try_for_each(|_| client.hear(&self.last)),
            kind => self.say(&packet(kind, choices)),
        }
    }

    fn say(&mut self, packet: &Packet<'_>) -> Result<(), String> {
        self.last.clear();
        match encode(packet, self.version, &mut self.last) {
            Ok(_) => self.client.hear(&self.last),
            // There is no such packet in this version.
            Err(_) => {
                self.last.clear();
                Ok(())
            }
        }
    }

    fn say_publish(&mut self, choices: &mut Choices<'_>) -> Result<(), String> {
        let mut raw = Vec::new();
        let property = choices.next();
        let text = "x".repeat(usize::from(choices.next()) * 64);
        let property = match property % 8 {
            0 => Some(Property::TopicAlias(u16::from(choices.next() % 3))),
            1 | 2 => Some(Property::SubscriptionIdentifier(u32::from(
                choices.next() % 6,
            ))),
            3 => Some(Property::UserProperty("a", &text)),
            _ => None,
        };
        if let Some(property) = property {
            property.put(&mut raw).expect("it is short");
        }
        let Ok(properties) = PublishProperties::parse(&raw) else {
            return Ok(());
        };
        let qos = choices.qos();
        let payload = vec![0; usize::from(choices.next()) * 64];
        let publish = Publish {
            dup: qos != Qos::AtMostOnce && choices.is_one_in(3),
            qos,
            retain: choices.is_one_in(2),
            topic: ["t/a", "t", "elsewhere", "$SYS/x", ""][usize::from(choices.next() % 5)],
            packet_id: Some(choices.packet_id()).filter(|_| qos != Qos::AtMostOnce),
            properties,
            payload: &payload,
        };
        self.say(&Packet::Publish(publish))
    }
}

fn packet(kind: u8, choices: &mut Choices<'_>) -> Packet<'static> {
    let packet_id = choices.packet_id();
    let mut reasons = |packet_type| {
        let count = choices.next() % 3;
        (0..count).map(|_| choices.reason(packet_type)).collect()
    };
    match kind {
        21 => Packet::SubAck(SubAck {
            packet_id,
            reasons: reasons(PacketType::SubAck),
            properties: None,
        }),
        22 => Packet::UnsubAck(UnsubAck {
            packet_id,
            reasons: reasons(PacketType::UnsubAck),
            properties: None,
        }),
        23 => Packet::PubAck(Ack::new(packet_id, choices.reason(PacketType::PubAck))),
        24 => Packet::PubRec(Ack::new(packet_id, choices.reason(PacketType::PubRec))),
        25 | 26 => Packet::PubRel(Ack::new(packet_id, choices.reason(PacketType::PubRel))),
        27 => Packet::PubComp(Ack::new(packet_id, choices.reason(PacketType::PubComp))),
        28 => Packet::Disconnect(Disconnect::new(choices.reason(PacketType::Disconnect))),
        29 => {
            let reason = choices.reason(PacketType::Auth);
            let method = ["SCRAM-SHA-256", "x"][usize::from(choices.next() % 2)];
            let data = Some(Secret::new(choices.bytes().to_vec()));
            Packet::Auth(Box::new(Auth::new(reason, method, data)))
        }
        30 => Packet::PingReq,
        _ => Packet::PingResp,
    }
}

fn connack(choices: &mut Choices<'_>) -> Packet<'static> {
    let is_refused = choices.is_one_in(20);
    let mut number = || u16::from(choices.next() % 8);
    let (receive_maximum, aliases, keep_alive) = (number(), number(), number());
    Packet::ConnAck(Box::new(ConnAck {
        session_present: !is_refused && choices.is_one_in(2),
        reason: if is_refused {
            ReasonCode::NotAuthorized
        } else {
            ReasonCode::Success
        },
        properties: ConnAckProperties {
            receive_maximum: NonZeroU16::new(receive_maximum),
            topic_alias_maximum: Some(aliases),
            maximum_packet_size_bytes: NonZeroU32::new(20).filter(|_| choices.is_one_in(9)),
            subscription_identifier_available: Some(!choices.is_one_in(4)),
            server_keep_alive_seconds: Some(keep_alive),
            assigned_client_id: Some("other".to_owned()).filter(|_| choices.is_one_in(9)),
            authentication_data: Some(Secret::new(choices.bytes().to_vec()))
                .filter(|data| !data.expose().is_empty()),
            ..ConnAckProperties::default()
        },
    }))
}

/// No more is kept than may be, whatever was said: one message beyond the bounds, for each stream it is for.
fn check(client: &Fuzzed, version: Version) {
    let (messages, bytes, owed, unwritten) = client.kept();
    assert!(
        messages < Fuzzed::MESSAGES_MAX as usize + Fuzzed::STREAMS,
        "{messages} messages wait"
    );
    assert!(
        bytes < Fuzzed::BYTES_MAX as usize + Fuzzed::STREAMS * PACKET_BYTES_MAX,
        "{bytes} bytes wait"
    );
    let open_max = match version {
        Version::V5 => usize::from(Fuzzed::RECEIVE_MAXIMUM),
        // The Server of 3.x knows no bound: its identifiers are one.
        Version::V311 | Version::V31 => Fuzzed::MESSAGES_MAX as usize + PACKET_IDS,
    };
    // Each is delivered once, and a repeat of it may wait.
    assert!(owed <= 3 * open_max, "{owed} are owed");
    assert!(unwritten < 1024 * 1024, "{unwritten} bytes are not written");
}

/// Whole packets of this version.
fn check_written(written: &[u8], version: Version) {
    let mut rest = written;
    while !rest.is_empty() {
        let decoded = decode(rest, version, u32::MAX);
        let (_, used) = decoded.expect("a valid packet").expect("a whole packet");
        rest = &rest[used..];
    }
}

/// What [`Server::say_publish`] and [`Server::happen`] make, and some more.
const PACKET_BYTES_MAX: usize = 48 * 1024;
/// Packet Identifiers that are used.
const PACKET_IDS: usize = 24;
