//! The async client against a Server that a test plays by hand, over a real socket.
//!
//! Owns: what only the driver does: when it acknowledges, waits, gives up, says goodbye.
//! Does not own: protocol rules (unit tests of `proto::connection`). Start reading at [`Peer`]. Invariant: what a
//! test has not sent, the client has not seen.

use std::num::NonZeroU16;

use tokio::net::TcpListener;
use tokio::time::timeout;
use vencejo_client::proto::connection::ClientSession;
use vencejo_client::proto::packet::{
    Ack, ConnAck, Packet, Publish, PublishProperties, ReasonCode, SubAck,
};
use vencejo_client::proto::{PacketIdentifier, Qos};
use vencejo_client::{
    ConnectError, Connection, DisconnectCause, Event, Events, Publication, ReceivedMessage,
    RequestError, Subscription,
};

use crate::DEADLINE;
use crate::played::{Played, connack, listener};

/// The Server's end of one connection.
struct Peer(Played);

impl Peer {
    /// Accepts a connection, takes its CONNECT and answers.
    async fn accept(listener: &TcpListener, connack: ConnAck) -> Self {
        let mut peer = Self(Played::accept(listener).await);
        assert_eq!(peer.next().await, "CONNECT");
        peer.send(&Packet::ConnAck(Box::new(connack))).await;
        peer
    }

    async fn send(&mut self, packet: &Packet<'_>) {
        self.0.send(packet).await;
    }

    /// The next packet, or "end".
    async fn next(&mut self) -> String {
        let described = self.0.next(describe).await;
        described.unwrap_or_else(|| "end".to_owned())
    }
}

fn describe(packet: &Packet<'_>) -> String {
    let name = packet.packet_type().name();
    match packet {
        Packet::Publish(publish) => {
            let dup = if publish.dup { " DUP" } else { "" };
            format!(
                "{name} {}{dup}",
                publish.packet_id.map_or(0, PacketIdentifier::get)
            )
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) => format!("{name} {}", ack.packet_id),
        _ => name.to_owned(),
    }
}

fn publish(topic: &str, qos: Qos, packet_id: u16) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: PacketIdentifier::new(packet_id),
        properties: PublishProperties::default(),
        payload: b"x",
    })
}

fn ack(packet_id: u16) -> Ack {
    Ack::new(
        PacketIdentifier::new(packet_id).unwrap(),
        ReasonCode::Success,
    )
}

async fn connected(connack: ConnAck) -> (Peer, Connection, Events) {
    let (listener, options) = listener().await;
    let (peer, client) = tokio::join!(
        Peer::accept(&listener, connack),
        Connection::connect(options)
    );
    let (client, events) = client.unwrap();
    (peer, client, events)
}

async fn message(events: &mut Events) -> ReceivedMessage {
    match timeout(DEADLINE, events.recv()).await.unwrap() {
        Some(Event::Message(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_is_acknowledged_when_it_is_taken() {
    let (mut peer, client, mut events) = connected(connack()).await;
    peer.send(&publish("a", Qos::AtLeastOnce, 7)).await;
    peer.send(&publish("b", Qos::ExactlyOnce, 8)).await;
    // Both are there, one is taken: one is acknowledged.
    assert_eq!(message(&mut events).await.topic, "a");
    assert_eq!(peer.next().await, "PUBACK 7");
    let receipt = client
        .start_publish(Publication::new("c", "x", Qos::AtLeastOnce))
        .await
        .unwrap();
    assert_eq!(peer.next().await, "PUBLISH 1");
    assert_eq!(message(&mut events).await.topic, "b");
    assert_eq!(peer.next().await, "PUBREC 8");
    peer.send(&Packet::PubAck(ack(1))).await;
    assert_eq!(receipt.wait().await.unwrap().reason, ReasonCode::Success);
}

/// Verifies [MQTT-3.14.4-2] [v3.1.1 MQTT-3.14.4-1]: the Client closes after its DISCONNECT.
#[tokio::test]
async fn dropping_the_last_handle_says_goodbye() {
    let (mut peer, client, events) = connected(connack()).await;
    let other = client.clone();
    drop(client);
    other
        .publish(Publication::new("a", "x", Qos::AtMostOnce))
        .await
        .unwrap();
    assert_eq!(peer.next().await, "PUBLISH 0");
    drop((other, events));
    assert_eq!(peer.next().await, "DISCONNECT");
    assert_eq!(peer.next().await, "end");
}

/// Verifies [MQTT-3.3.4-7] [MQTT-3.3.4-8]: PUBLISH waits for the Server's Receive Maximum, nothing else does.
#[tokio::test]
async fn publications_wait_for_the_servers_receive_maximum() {
    let mut connack = connack();
    connack.properties.receive_maximum = NonZeroU16::new(1);
    let (mut peer, client, _events) = connected(connack).await;
    let mut receipts = Vec::new();
    for _ in 0..3 {
        let publication = Publication::new("a", "x", Qos::AtLeastOnce);
        receipts.push(client.start_publish(publication).await.unwrap());
    }
    assert_eq!(peer.next().await, "PUBLISH 1");
    let other = client.clone();
    let subscribed = tokio::spawn(async move {
        let subscriptions = vec![Subscription::new("a", Qos::AtMostOnce)];
        other.subscribe(subscriptions, None, Vec::new()).await
    });
    assert_eq!(peer.next().await, "SUBSCRIBE");
    let packet_id = PacketIdentifier::new(2).unwrap();
    let reasons = vec![ReasonCode::Success];
    peer.send(&Packet::SubAck(SubAck {
        packet_id,
        reasons,
        properties: None,
    }))
    .await;
    subscribed.await.unwrap().unwrap();
    for number in [1, 3, 4] {
        peer.send(&Packet::PubAck(ack(number))).await;
        if number != 4 {
            let next = if number == 1 { 3 } else { 4 };
            assert_eq!(peer.next().await, format!("PUBLISH {next}"));
        }
    }
    for receipt in receipts {
        receipt.wait().await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_application_gets_every_message() {
    let (mut peer, _client, mut events) = connected(connack()).await;
    let sent = tokio::spawn(async move {
        for number in 0..5_000_u32 {
            let topic = format!("t/{number}");
            peer.send(&publish(&topic, Qos::AtMostOnce, 0)).await;
        }
        peer
    });
    for number in 0..5_000 {
        assert_eq!(message(&mut events).await.topic, format!("t/{number}"));
    }
    sent.await.unwrap();
}

#[tokio::test]
async fn an_acknowledgement_arrives_behind_many_messages_nobody_has_taken() {
    let (mut peer, client, mut events) = connected(connack()).await;
    let receipt = client
        .start_publish(Publication::new("a", "x", Qos::AtLeastOnce))
        .await
        .unwrap();
    assert_eq!(peer.next().await, "PUBLISH 1");
    for number in 0..500 {
        let topic = format!("t/{number}");
        peer.send(&publish(&topic, Qos::AtMostOnce, 0)).await;
    }
    peer.send(&Packet::PubAck(ack(1))).await;
    let published = timeout(DEADLINE, receipt.wait()).await.unwrap();
    assert_eq!(published.unwrap().reason, ReasonCode::Success);
    for number in 0..500 {
        assert_eq!(message(&mut events).await.topic, format!("t/{number}"));
    }
}

#[tokio::test]
async fn a_lost_connection_hands_out_its_session() {
    let (listener, options) = listener().await;
    let options = options.clean_start(false).session(ClientSession::default());
    let connect = Connection::connect(options.clone());
    let (mut peer, client) = tokio::join!(Peer::accept(&listener, connack()), connect);
    let (client, mut events) = client.unwrap();
    let publication = Publication::new("a", "x", Qos::AtLeastOnce);
    let receipt = client.start_publish(publication).await.unwrap();
    assert_eq!(peer.next().await, "PUBLISH 1");
    drop(peer);
    assert_eq!(receipt.wait().await, Err(RequestError::ConnectionLost));
    let Some(Event::Disconnected(disconnected)) = events.recv().await else {
        panic!("an end")
    };
    assert!(matches!(
        disconnected.cause,
        DisconnectCause::Closed | DisconnectCause::Io(_)
    ));
    assert_eq!(disconnected.session.unacknowledged_count(), 1);
    let present = ConnAck {
        session_present: true,
        ..connack()
    };
    let connect = Connection::connect(options.session(disconnected.session));
    let (mut peer, client) = tokio::join!(Peer::accept(&listener, present), connect);
    client.unwrap();
    assert_eq!(peer.next().await, "PUBLISH 1 DUP");
}

#[tokio::test]
async fn a_refusal_is_an_error_with_its_connack() {
    let (listener, options) = listener().await;
    let refusal = ConnAck::refusal(ReasonCode::NotAuthorized);
    let (_peer, client) = tokio::join!(
        Peer::accept(&listener, refusal),
        Connection::connect(options)
    );
    match client {
        Err(ConnectError::Refused(connack)) => {
            assert_eq!(connack.reason, ReasonCode::NotAuthorized);
        }
        other => panic!("{other:?}"),
    }
}
