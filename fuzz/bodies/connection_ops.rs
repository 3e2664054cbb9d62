//! A Client's bytes in any pieces, the Server's packets in between: what is written is always whole,
//! within the Client's limits, and nothing follows a refusal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vencejo_proto::connection::{Delivery, Event, Outgoing, ServerConnection, ServerLimits};
use vencejo_proto::packet::{Ack, Auth, ConnAck, Disconnect, ReasonCode, SubAck, UnsubAck, decode};
use vencejo_proto::{Message, PacketIdentifier, Qos};

const LIMITS: ServerLimits = ServerLimits {
    user_properties_max: 8,
    properties_bytes_max: 1024,
    maximum_packet_size_bytes: 4096,
    receive_maximum: 8,
    topic_alias_maximum: 4,
    topic_alias_maximum_out: 4,
    connect_timeout: Duration::from_secs(10),
};

/// The first byte is a seed for pieces and sends, the rest is the Client's.
#[allow(
    clippy::disallowed_methods,
    reason = "any instant will do to start from"
)]
pub(crate) fn run(data: &[u8]) {
    let Some((seed, mut input)) = data.split_first() else {
        return;
    };
    let mut choice = u32::from(*seed);
    let mut now = Instant::now();
    let mut server = ServerConnection::new(LIMITS, now);
    let mut client_packet_size_max = u32::MAX;
    let mut piece_len = 0;
    loop {
        choice = choice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        now += Duration::from_millis(u64::from(choice >> 20));
        piece_len = (piece_len + usize::from((choice >> 24) as u8 % 16) + 1).min(input.len());
        let is_last = piece_len == input.len();
        let mut out = Vec::new();
        match server.next_event(&input[..piece_len], now) {
            Ok(None) if is_last => return,
            Ok(None) => continue,
            Ok(Some((event, used))) => {
                assert!(used > 0 && used <= piece_len);
                if let Event::Connect(connect) = &event {
                    let size = connect.properties.maximum_packet_size_bytes;
                    client_packet_size_max = size.map_or(u32::MAX, |size| size.get());
                }
                drop(event);
                input = &input[used..];
                piece_len = 0;
            }
            Err(error) => {
                server.refuse(&error, &mut out);
                check(&server, &out, client_packet_size_max);
                assert!(!server.send(&Outgoing::PingResp, now, &mut Vec::new()));
                return;
            }
        }
        let packet = outgoing(choice >> 8, now);
        assert_eq!(server.send(&packet, now, &mut out), !out.is_empty());
        check(&server, &out, client_packet_size_max);
        if let Some(error) = server.on_timeout(now) {
            server.refuse(&error, &mut out);
            check(&server, &out, client_packet_size_max);
            return;
        }
    }
}

/// Whole packets, none larger than the Client takes.
fn check(server: &ServerConnection, out: &[u8], client_packet_size_max: u32) {
    let mut rest = out;
    while !rest.is_empty() {
        let decoded = decode(rest, server.version(), client_packet_size_max);
        let (_, used) = decoded.expect("a valid packet").expect("a whole packet");
        rest = &rest[used..];
    }
}

fn outgoing(choice: u32, now: Instant) -> Outgoing {
    let packet_id = PacketIdentifier::FIRST;
    let ack = |reason| Ack::new(packet_id, reason).with_reason_string("why");
    match choice % 11 {
        0..=2 => Outgoing::ConnAck(Box::new(ConnAck::refusal(ReasonCode::Success))),
        3 => Outgoing::Publish(Delivery {
            message: Arc::new(Message::new(
                if choice & 0x1000 == 0 { "a/b" } else { "c" },
                Bytes::from(vec![0; choice as usize % 600]),
                Qos::AtMostOnce,
                false,
                now,
            )),
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            packet_id: None,
            subscription_identifiers: None,
        }),
        4 => Outgoing::PubAck(ack(ReasonCode::Success)),
        5 => Outgoing::PubRec(ack(ReasonCode::QuotaExceeded)),
        6 => Outgoing::PubComp(ack(ReasonCode::PacketIdentifierNotFound)),
        7 => Outgoing::SubAck(SubAck {
            packet_id,
            reasons: vec![ReasonCode::NotAuthorized],
            properties: None,
        }),
        8 => Outgoing::UnsubAck(UnsubAck {
            packet_id,
            reasons: vec![ReasonCode::Success],
            properties: None,
        }),
        9 if choice & 0xF000 == 0 => {
            Outgoing::Disconnect(Box::new(Disconnect::new(ReasonCode::ServerBusy)))
        }
        9 => Outgoing::PingResp,
        _ => {
            let auth = Auth::new(ReasonCode::ContinueAuthentication, "m", None);
            Outgoing::Auth(Box::new(auth))
        }
    }
}
