//! One face for rumqttc's two clients: its v3.1.1 module and its v5 module have the same shape but no common type.
//!
//! Owns: one client and its event loop, and the messages that came in while something else was awaited.
//! Does not own: what is tested (see `suite`). Start reading at [`Peer::connect`].
//! Invariant: nothing waits longer than [`DEADLINE`].

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::Transport;
use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

/// How long any one thing may take before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Larger than the largest payload of any suite.
const PACKET_SIZE_MAX_BYTES: usize = 8 * 1024 * 1024;

pub type Result<T> = std::result::Result<T, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

#[derive(Clone, Debug)]
pub struct Will {
    pub topic: String,
    pub payload: String,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub version: Version,
    pub host: String,
    pub port: u16,
    pub client_id: String,
    pub clean: bool,
    pub will: Option<Will>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub properties: Option<PublishProperties>,
}

enum Event {
    Connected {
        session_present: bool,
    },
    Subscribed {
        granted: bool,
    },
    Acknowledged,
    /// A PUBLISH was handed to the socket.
    Sent,
    Message(Message),
    Other,
}

enum Client {
    V311(rumqttc::AsyncClient, Box<rumqttc::EventLoop>),
    V5(v5::AsyncClient, Box<v5::EventLoop>),
}

pub struct Peer {
    client: Client,
    inbox: VecDeque<Message>,
    pub session_present: bool,
}

impl Peer {
    /// Connects and waits for the CONNACK.
    pub async fn connect(options: &Options) -> Result<Self> {
        let client = match options.version {
            Version::V311 => connect_v311(options),
            Version::V5 => connect_v5(options),
        };
        let mut peer = Self {
            client,
            inbox: VecDeque::new(),
            session_present: false,
        };
        loop {
            if let Event::Connected { session_present } = peer.poll("CONNACK").await? {
                peer.session_present = session_present;
                return Ok(peer);
            }
        }
    }

    /// Subscribes and waits for the SUBACK.
    pub async fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        match &self.client {
            Client::V311(client, _) => client
                .subscribe(filter, qos_v311(qos))
                .await
                .map_err(text)?,
            Client::V5(client, _) => client.subscribe(filter, qos_v5(qos)).await.map_err(text)?,
        }
        loop {
            match self.poll("SUBACK").await? {
                Event::Subscribed { granted: true } => return Ok(()),
                Event::Subscribed { granted: false } => {
                    return Err(format!("{filter}: refused by SUBACK"));
                }
                _ => {}
            }
        }
    }

    /// Publishes and waits for the PUBACK or PUBCOMP, at QoS 0 until the socket has it.
    pub async fn publish(
        &mut self,
        topic: &str,
        qos: u8,
        retain: bool,
        payload: &[u8],
    ) -> Result<()> {
        self.publish_with(topic, qos, retain, payload, PublishProperties::default())
            .await
    }

    /// The same, with properties; v3.1.1 has none and leaves them out.
    pub async fn publish_with(
        &mut self,
        topic: &str,
        qos: u8,
        retain: bool,
        payload: &[u8],
        properties: PublishProperties,
    ) -> Result<()> {
        let payload = payload.to_vec();
        match &self.client {
            Client::V311(client, _) => {
                client
                    .publish(topic, qos_v311(qos), retain, payload)
                    .await
                    .map_err(text)?;
            }
            Client::V5(client, _) => client
                .publish_with_properties(topic, qos_v5(qos), retain, payload, properties)
                .await
                .map_err(text)?,
        }
        loop {
            match self.poll("PUBACK or PUBCOMP").await? {
                Event::Sent if qos == 0 => return Ok(()),
                Event::Acknowledged => return Ok(()),
                _ => {}
            }
        }
    }

    /// The next message that came or comes.
    pub async fn message(&mut self) -> Result<Message> {
        while self.inbox.is_empty() {
            self.poll("a message").await?;
        }
        Ok(self.inbox.pop_front().expect("invariant: not empty"))
    }

    /// Sends DISCONNECT after all that was published, and sees the connection end.
    pub async fn disconnect(mut self) -> Result<()> {
        match &self.client {
            Client::V311(client, _) => client.disconnect().await.map_err(text)?,
            Client::V5(client, _) => client.disconnect().await.map_err(text)?,
        }
        tokio::time::timeout(DEADLINE, async { while self.next().await.is_ok() {} })
            .await
            .map_err(|_| "the connection did not end after DISCONNECT".to_owned())
    }

    /// Whether a message comes before the broker has answered one more SUBSCRIBE.
    pub async fn is_quiet(&mut self, fence: &str) -> Result<bool> {
        self.subscribe(fence, 0).await?;
        Ok(self.inbox.is_empty())
    }

    async fn poll(&mut self, awaited: &str) -> Result<Event> {
        match tokio::time::timeout(DEADLINE, self.next()).await {
            Err(_) => Err(format!("no {awaited} within {DEADLINE:?}")),
            Ok(Err(error)) => Err(format!("while waiting for {awaited}: {error}")),
            Ok(Ok(Event::Message(message))) => {
                self.inbox.push_back(message);
                Ok(Event::Other)
            }
            Ok(Ok(event)) => Ok(event),
        }
    }

    async fn next(&mut self) -> Result<Event> {
        match &mut self.client {
            Client::V311(_, events) => events.poll().await.map(event_v311).map_err(text),
            Client::V5(_, events) => events.poll().await.map(event_v5).map_err(text),
        }
    }
}

/// What it is told to connect to: over WebSocket that is a URL.
fn address(options: &Options) -> String {
    let Options { host, port, .. } = options;
    match (is_websocket(), said("INTEROP_CAFILE").is_some()) {
        (false, _) => host.clone(),
        (true, false) => format!("ws://{host}:{port}/mqtt"),
        (true, true) => format!("wss://{host}:{port}/mqtt"),
    }
}

/// What carries packets, as the variables of `run` say; every client here is told by them.
fn transport() -> Transport {
    let Some(ca) = said("INTEROP_CAFILE").map(read) else {
        return if is_websocket() {
            Transport::ws()
        } else {
            Transport::tcp()
        };
    };
    let own = said("INTEROP_CERTIFICATE").zip(said("INTEROP_KEY"));
    let own = own.map(|(certificate, key)| (read(certificate), read(key)));
    if is_websocket() {
        Transport::wss(ca, own, None)
    } else {
        Transport::tls(ca, own, None)
    }
}

fn is_websocket() -> bool {
    said("INTEROP_WEBSOCKET").is_some()
}

fn said(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read(file: String) -> Vec<u8> {
    std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn connect_v311(options: &Options) -> Client {
    let mut raw = rumqttc::MqttOptions::new(&options.client_id, address(options), options.port);
    raw.set_transport(transport());
    raw.set_clean_session(options.clean);
    raw.set_max_packet_size(PACKET_SIZE_MAX_BYTES, PACKET_SIZE_MAX_BYTES);
    if let Some(will) = &options.will {
        let qos = rumqttc::QoS::AtLeastOnce;
        raw.set_last_will(rumqttc::LastWill::new(
            &will.topic,
            will.payload.clone(),
            qos,
            false,
        ));
    }
    let (client, events) = rumqttc::AsyncClient::new(raw, 100);
    Client::V311(client, Box::new(events))
}

fn connect_v5(options: &Options) -> Client {
    let mut raw = v5::MqttOptions::new(&options.client_id, address(options), options.port);
    raw.set_transport(transport());
    raw.set_clean_start(options.clean);
    raw.set_session_expiry_interval(if options.clean { None } else { Some(60) });
    raw.set_max_packet_size(u32::try_from(PACKET_SIZE_MAX_BYTES).ok());
    if let Some(will) = &options.will {
        let qos = v5::mqttbytes::QoS::AtLeastOnce;
        let will =
            v5::mqttbytes::v5::LastWill::new(&will.topic, will.payload.clone(), qos, false, None);
        raw.set_last_will(will);
    }
    let (client, events) = v5::AsyncClient::new(raw, 100);
    Client::V5(client, Box::new(events))
}

fn event_v311(event: rumqttc::Event) -> Event {
    use rumqttc::{Event as Raw, Outgoing, Packet, SubscribeReasonCode};
    let packet = match event {
        Raw::Incoming(packet) => packet,
        Raw::Outgoing(Outgoing::Publish(_)) => return Event::Sent,
        Raw::Outgoing(_) => return Event::Other,
    };
    match packet {
        Packet::ConnAck(connack) => Event::Connected {
            session_present: connack.session_present,
        },
        Packet::SubAck(suback) => Event::Subscribed {
            granted: suback
                .return_codes
                .iter()
                .all(|code| matches!(code, SubscribeReasonCode::Success(_))),
        },
        Packet::PubAck(_) | Packet::PubComp(_) => Event::Acknowledged,
        Packet::Publish(publish) => Event::Message(Message {
            topic: publish.topic,
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
            properties: None,
        }),
        _ => Event::Other,
    }
}

fn event_v5(event: v5::Event) -> Event {
    use rumqttc::Outgoing;
    use v5::Event as Raw;
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    let packet = match event {
        Raw::Incoming(packet) => packet,
        Raw::Outgoing(Outgoing::Publish(_)) => return Event::Sent,
        Raw::Outgoing(_) => return Event::Other,
    };
    match packet {
        Packet::ConnAck(connack) => Event::Connected {
            session_present: connack.session_present,
        },
        Packet::SubAck(suback) => Event::Subscribed {
            granted: suback
                .return_codes
                .iter()
                .all(|code| matches!(code, SubscribeReasonCode::Success(_))),
        },
        Packet::PubAck(_) | Packet::PubComp(_) => Event::Acknowledged,
        Packet::Publish(publish) => Event::Message(Message {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
            properties: publish.properties,
        }),
        _ => Event::Other,
    }
}

fn qos_v311(level: u8) -> rumqttc::QoS {
    [
        rumqttc::QoS::AtMostOnce,
        rumqttc::QoS::AtLeastOnce,
        rumqttc::QoS::ExactlyOnce,
    ][usize::from(level)]
}

fn qos_v5(level: u8) -> v5::mqttbytes::QoS {
    use v5::mqttbytes::QoS;
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(level)]
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
