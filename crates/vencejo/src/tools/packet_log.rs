//! The `-d` lines: every packet, in mosquitto's words.
//!
//! Owns: the wording. Does not own: when a packet is sent. Start reading at [`printer`].
//! Invariant: never a payload, a password or Authentication Data.

use std::io::Write;
use std::sync::Mutex;

use client::Direction;
use proto::Version;
use proto::packet::{Packet, ReasonCode, RetainHandling, SubscriptionOptions};

/// Prints each packet to standard output. The name is `(null)` until there is one.
pub(crate) fn printer(
    client_id: String,
    version: Version,
) -> impl Fn(Direction, &Packet<'_>) + Send + Sync {
    let name = Mutex::new(if client_id.is_empty() {
        "(null)".to_owned()
    } else {
        client_id
    });
    move |direction, packet| {
        let Ok(mut name) = name.lock() else { return };
        if let Packet::ConnAck(connack) = packet
            && let Some(assigned) = &connack.properties.assigned_client_id
        {
            name.clone_from(assigned);
        }
        for line in lines(direction, packet, version) {
            say(&format!("Client {name} {line}"));
        }
    }
}

fn lines(direction: Direction, packet: &Packet<'_>, version: Version) -> Vec<String> {
    let packet_name = packet.packet_type().name();
    let is_sent = direction == Direction::Sent;
    let detail = match packet {
        Packet::ConnAck(connack) => {
            let reason = connack.reason;
            let old_code = reason
                .connack_return_code()
                .filter(|_| version != Version::V5);
            format!(" ({})", old_code.unwrap_or_else(|| reason.value()))
        }
        Packet::Publish(publish) => format!(
            " (d{}, q{}, r{}, m{}, '{}', ... ({} bytes))",
            u8::from(publish.dup),
            publish.qos.level(),
            u8::from(publish.retain),
            publish.packet_id.map_or(0, proto::PacketIdentifier::get),
            publish.topic,
            publish.payload.len()
        ),
        Packet::PubAck(ack) | Packet::PubRec(ack) if is_sent => {
            format!(" (m{}, rc{})", ack.packet_id, ack.reason.value())
        }
        Packet::PubRel(ack) | Packet::PubComp(ack) if is_sent => format!(" (m{})", ack.packet_id),
        Packet::PubAck(ack) | Packet::PubComp(ack) => {
            format!(" (Mid: {}, RC:{})", ack.packet_id, ack.reason.value())
        }
        Packet::PubRec(ack) | Packet::PubRel(ack) => format!(" (Mid: {})", ack.packet_id),
        Packet::Subscribe(subscribe) => {
            return subscribe
                .requests
                .iter()
                .map(|request| {
                    format!(
                        "sending SUBSCRIBE (Mid: {}, Topic: {}, QoS: {}, Options: 0x{:02x})",
                        subscribe.packet_id,
                        request.filter,
                        request.options.qos.level(),
                        option_bits(request.options)
                    )
                })
                .collect();
        }
        Packet::Unsubscribe(unsubscribe) => {
            return unsubscribe
                .filters
                .iter()
                .map(|filter| {
                    format!(
                        "sending UNSUBSCRIBE (Mid: {}, Topic: {filter})",
                        unsubscribe.packet_id
                    )
                })
                .collect();
        }
        Packet::Disconnect(disconnect) if !is_sent => format!(" ({})", disconnect.reason.value()),
        _ => String::new(),
    };
    vec![format!(
        "{} {packet_name}{detail}",
        if is_sent { "sending" } else { "received" }
    )]
}

/// A line on standard output; a reader that is gone is noticed by the next message.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}

fn option_bits(options: SubscriptionOptions) -> u8 {
    let retain_handling = match options.retain_handling {
        RetainHandling::Send => 0,
        RetainHandling::SendIfNew => 0x10,
        RetainHandling::DoNotSend => 0x20,
    };
    u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3 | retain_handling
}

/// What mosquitto prints of a SUBACK with `-d`: the granted QoS or the failure, by number.
pub(crate) fn granted(reasons: &[ReasonCode], version: Version) -> String {
    let numbers: Vec<String> = reasons
        .iter()
        .map(|reason| {
            let is_old_failure = reason.is_error() && version != Version::V5;
            (if is_old_failure { 128 } else { reason.value() }).to_string()
        })
        .collect();
    numbers.join(", ")
}
