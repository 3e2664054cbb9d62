//! Both ends of one connection without a socket: bytes, values and the time go in and come out.
//!
//! Owns: nothing; an example. Start reading at [`main`]. Run it with
//! `cargo run -p vencejo-proto --example sans_io_loop`.

use std::error::Error;
use std::time::{Duration, Instant};

use vencejo_proto::connection::{
    ClientConnection, ClientEvent, ClientTimeouts, Event, Outgoing, ServerConnection, ServerLimits,
};
use vencejo_proto::packet::{
    Ack, ConnAck, ConnAckProperties, Connect, Publish, PublishProperties, ReasonCode,
};
use vencejo_proto::{Qos, Version};

fn main() -> Result<(), Box<dyn Error>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "whoever calls this crate tells it the time"
    )]
    let now = Instant::now();
    let mut to_server = Vec::new();
    let mut to_client = Vec::new();

    let connect = Connect::new(Version::V5, "example");
    let timeouts = ClientTimeouts::default();
    let mut client = ClientConnection::new(&connect, None, timeouts, now, &mut to_server)?;
    let mut server = ServerConnection::new(LIMITS, now);

    // CONNECT arrives, CONNACK goes back.
    serve(&mut server, &mut to_server, now, &mut to_client)?;
    listen(&mut client, &mut to_client, now, &mut to_server)?;

    // PUBLISH arrives, PUBACK goes back.
    let publish = Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: "hello/world",
        packet_id: None,
        properties: PublishProperties::default(),
        payload: b"it works!",
    };
    client.publish(&publish, now, &mut to_server)?;
    serve(&mut server, &mut to_server, now, &mut to_client)?;
    listen(&mut client, &mut to_client, now, &mut to_server)
}

/// The Server's part: every whole packet in `input`, and its answer.
fn serve(
    server: &mut ServerConnection,
    input: &mut Vec<u8>,
    now: Instant,
    out: &mut Vec<u8>,
) -> Result<(), Box<dyn Error>> {
    let mut taken = 0;
    while let Some((event, used)) =
        server.next_event(input.get(taken..).unwrap_or_default(), now)?
    {
        taken += used;
        println!("server: {event:?}");
        let answer = match event {
            Event::Connect(_) => Outgoing::ConnAck(Box::new(ConnAck {
                session_present: false,
                reason: ReasonCode::Success,
                properties: ConnAckProperties::default(),
            })),
            Event::Publish(publish) => match publish.packet_id {
                Some(packet_id) => Outgoing::PubAck(Ack::new(packet_id, ReasonCode::Success)),
                None => continue,
            },
            _ => continue,
        };
        server.send(&answer, now, out);
    }
    input.drain(..taken);
    Ok(())
}

/// The Client's part; its answers, if it owes any, go to `out`.
fn listen(
    client: &mut ClientConnection,
    input: &mut Vec<u8>,
    now: Instant,
    out: &mut Vec<u8>,
) -> Result<(), Box<dyn Error>> {
    let mut taken = 0;
    while let Some((event, used)) =
        client.next_event(input.get(taken..).unwrap_or_default(), now, out)?
    {
        taken += used;
        if let ClientEvent::Published { .. } = event {
            println!("client: acknowledged");
        } else {
            println!("client: {event:?}");
        }
    }
    input.drain(..taken);
    Ok(())
}

/// What this server allows a Client.
const LIMITS: ServerLimits = ServerLimits {
    maximum_packet_size_bytes: 1024 * 1024,
    receive_maximum: 10,
    topic_alias_maximum: 0,
    topic_alias_maximum_out: 0,
    user_properties_max: 1024,
    properties_bytes_max: 262_144,
    connect_timeout: Duration::from_secs(10),
};
