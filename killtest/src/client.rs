//! A blocking client whose session survives whatever happens to its connection.
//!
//! Owns: one socket, its bytes, the protocol's client side. Does not own: what is sent and expected.
//! Start reading at [`Client::connect`]. Invariant: a lost connection gives its session back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use proto::connection::{ClientConnection, ClientEvent, ClientSession, ClientTimeouts};
use proto::packet::{
    Connect, Disconnect, Publish, ReasonCode, SubscriptionOptions, SubscriptionRequest,
    UserProperties,
};
use proto::{PacketIdentifier, Qos};

/// What came over the connection.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A message; it is acknowledged already.
    Message {
        topic: String,
        payload: String,
        qos: Qos,
    },
    /// An exchange of ours has reached its end.
    Published(PacketIdentifier, ReasonCode),
    /// SUBACK or UNSUBACK, with its first Reason Code.
    Answered(PacketIdentifier, Option<ReasonCode>),
}

/// The connection is gone; this is what its client still knows.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) session: ClientSession,
    pub(crate) why: String,
}

/// A connected client.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    protocol: ClientConnection,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Client {
    /// Connects; also returns Session Present.
    pub(crate) fn connect(
        address: SocketAddr,
        connect: &Connect,
        session: Option<ClientSession>,
    ) -> Result<(Self, bool), Lost> {
        let kept = session.clone().unwrap_or_default();
        let lost = |why: String| Lost {
            session: kept.clone(),
            why,
        };
        let stream = TcpStream::connect_timeout(&address, ANSWER_MAX)
            .and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(ANSWER_MAX))?;
                Ok(stream)
            })
            .map_err(|error| lost(error.to_string()))?;
        let mut output = Vec::new();
        let timeouts = ClientTimeouts::default();
        let protocol =
            ClientConnection::new(connect, session, timeouts, Instant::now(), &mut output)
                .map_err(|error| lost(error.to_string()))?;
        let mut client = Self {
            stream,
            protocol,
            input: Vec::new(),
            output,
        };
        let until = Instant::now() + ANSWER_MAX;
        while Instant::now() < until {
            if let Err(why) = client.transfer(TURN) {
                return Err(lost(why));
            }
            let now = Instant::now();
            match client
                .protocol
                .next_event(&client.input, now, &mut client.output)
            {
                Ok(None) => {}
                Ok(Some((ClientEvent::Connected(connack), used))) => {
                    let is_present = connack.session_present;
                    client.input.drain(..used);
                    return Ok((client, is_present));
                }
                Ok(Some((other, _))) => return Err(lost(format!("{other:?}"))),
                Err(error) => return Err(lost(error.to_string())),
            }
        }
        Err(lost("no CONNACK".to_owned()))
    }

    /// Sends what is due, reads for at most `wait`, and tells `on` what came.
    pub(crate) fn turn(
        mut self,
        wait: Duration,
        mut on: impl FnMut(Happening),
    ) -> Result<Self, Lost> {
        let transferred = self.transfer(wait);
        let mut start = 0;
        let mut failure = transferred.err();
        loop {
            let now = Instant::now();
            let input = self.input.get(start..).unwrap_or_default();
            let (happening, used) = match self.protocol.next_event(input, now, &mut self.output) {
                Ok(None) => break,
                Ok(Some((event, used))) => (happening(event), used),
                Err(error) => {
                    failure.get_or_insert_with(|| error.to_string());
                    break;
                }
            };
            start += used;
            if let Some(Happening::Message { qos, .. }) = &happening
                && *qos != Qos::AtMostOnce
            {
                self.protocol.acknowledge(now, &mut self.output);
            }
            if let Some(happening) = happening {
                on(happening);
            }
        }
        self.input.drain(..start);
        if let Err(error) = self.protocol.on_timeout(Instant::now(), &mut self.output) {
            failure.get_or_insert_with(|| error.to_string());
        }
        match failure.or_else(|| self.flush().err()) {
            None => Ok(self),
            Some(why) => Err(Lost {
                session: self.protocol.into_session(),
                why,
            }),
        }
    }

    /// Queues a PUBLISH for the next turn; `None` if the quota is spent.
    pub(crate) fn publish(&mut self, publish: &Publish<'_>) -> Option<PacketIdentifier> {
        self.protocol
            .publish(publish, Instant::now(), &mut self.output)
            .ok()
            .flatten()
    }

    /// Queues a SUBSCRIBE for the next turn.
    pub(crate) fn subscribe(&mut self, filter: &str, qos: Qos) -> Option<PacketIdentifier> {
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        let requests = [SubscriptionRequest { filter, options }];
        let (none, now) = (UserProperties::default(), Instant::now());
        self.protocol
            .subscribe(&requests, None, &none, now, &mut self.output)
            .ok()
    }

    /// Queues an UNSUBSCRIBE for the next turn.
    pub(crate) fn unsubscribe(&mut self, filter: &str) -> Option<PacketIdentifier> {
        let (none, now) = (UserProperties::default(), Instant::now());
        self.protocol
            .unsubscribe(&[filter], &none, now, &mut self.output)
            .ok()
    }

    /// Says DISCONNECT and gives the session back.
    pub(crate) fn leave(mut self) -> ClientSession {
        let goodbye = Disconnect::new(ReasonCode::Success);
        let said = self
            .protocol
            .disconnect(&goodbye, Instant::now(), &mut self.output);
        if said.is_ok() {
            // A broker that is gone hears nothing; that is no concern of ours.
            self.flush().unwrap_or_default();
        }
        self.protocol.into_session()
    }

    fn flush(&mut self) -> Result<(), String> {
        let written = self.stream.write_all(&self.output);
        self.output.clear();
        written.map_err(|error| error.to_string())
    }

    fn transfer(&mut self, wait: Duration) -> Result<(), String> {
        self.flush()?;
        self.stream
            .set_read_timeout(Some(wait))
            .map_err(|error| error.to_string())?;
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err("closed by the broker".to_owned()),
            Ok(len) => {
                self.input
                    .extend_from_slice(buffer.get(..len).unwrap_or_default());
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

fn happening(event: ClientEvent<'_>) -> Option<Happening> {
    match event {
        ClientEvent::Publish(publish) => Some(Happening::Message {
            topic: publish.topic.to_owned(),
            payload: String::from_utf8_lossy(publish.payload).into_owned(),
            qos: publish.qos,
        }),
        ClientEvent::Published {
            packet_id, reason, ..
        } => Some(Happening::Published(packet_id, reason)),
        ClientEvent::SubAck(ack) => Some(Happening::Answered(
            ack.packet_id,
            ack.reasons.first().copied(),
        )),
        ClientEvent::UnsubAck(ack) => Some(Happening::Answered(
            ack.packet_id,
            ack.reasons.first().copied(),
        )),
        _ => None,
    }
}

/// How long a read waits before the client looks at other things.
pub(crate) const TURN: Duration = Duration::from_millis(5);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);
