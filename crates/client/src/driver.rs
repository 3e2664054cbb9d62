//! The task behind one connection: socket, protocol state, waiting requests.
//!
//! Owns: both buffers, the requests that await an acknowledgement.
//! Does not own: any protocol rule, how a socket is opened (see `socket`). Start reading at [`Driver::run`].
//! Invariant: while an event waits for the application nothing is read, unless a request waits for the
//! Server's answer; while much waits to be written no request is taken, and while more does nothing is read.

#[cfg(test)]
mod hostile;
mod proofs;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use proto::connection::{ClientConnection, ClientError, ClientEvent, SendError};
use proto::packet::{
    ConnAck, Connect, Disconnect, Publish, PublishProperties, ReasonCode, SubAck,
    SubscriptionRequest, UnsubAck, UserProperties,
};
use proto::{PacketIdentifier, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as TokioInstant, sleep_until, timeout};

use crate::authentication::{Authenticator, Proving};
use crate::socket::{self, Reader, Writer};
use crate::{
    ConnectError, DisconnectCause, Disconnected, Event, Options, PacketLog, Publication, Published,
    ReceivedMessage, RequestError, Subscription, now,
};

use proofs::connect_of;
pub(crate) use proofs::{answer_of, begin_proving};

pub(crate) type Answer<T> = oneshot::Sender<Result<T, RequestError>>;

/// A message to publish.
#[derive(Debug)]
pub(crate) struct ToPublish {
    pub(crate) publication: Publication,
    pub(crate) done: Answer<Published>,
}

/// What comes from the application. PUBLISH has its own way: where it waits for the Server's Receive
/// Maximum nothing else may, [MQTT-3.3.4-8].
#[derive(Debug)]
pub(crate) struct Inlets {
    pub(crate) publications: mpsc::Receiver<ToPublish>,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// One for each message above QoS 0 that the application has taken.
    pub(crate) taken: mpsc::UnboundedReceiver<()>,
}

/// Any other request from a [`crate::Client`].
#[derive(Debug)]
pub(crate) enum Command {
    Subscribe {
        subscriptions: Vec<Subscription>,
        subscription_identifier: Option<u32>,
        user_properties: UserProperties,
        done: Answer<SubAck>,
    },
    Unsubscribe {
        filters: Vec<String>,
        user_properties: UserProperties,
        done: Answer<UnsubAck>,
    },
    Reauthenticate {
        done: Answer<()>,
    },
    Disconnect {
        disconnect: Disconnect,
        done: oneshot::Sender<()>,
    },
}

/// A request that waits for its acknowledgement.
#[derive(Debug)]
enum Waiting {
    Publish(Answer<Published>),
    Subscribe(Answer<SubAck>),
    Unsubscribe(Answer<UnsubAck>),
}

#[derive(Debug)]
pub(crate) struct Driver {
    connection: ClientConnection,
    reader: Reader,
    writer: Writer,
    /// What was written may still wait for the socket: TLS keeps it.
    is_unflushed: bool,
    input: BytesMut,
    out: Vec<u8>,
    /// How much of `out` is written.
    written: usize,
    inlets: Inlets,
    events: mpsc::Sender<Event>,
    undelivered: VecDeque<Event>,
    /// Bytes of topics, payloads and properties in them.
    undelivered_bytes: usize,
    /// A PUBLISH that waits for the Server's Receive Maximum.
    blocked: Option<ToPublish>,
    waiting: BTreeMap<PacketIdentifier, Waiting>,
    authenticator: Option<Arc<dyn Authenticator>>,
    /// An exchange of proofs that goes on.
    proving: Option<Proving>,
    /// Who waits for its end, while connected.
    proven: Option<Answer<()>>,
    disconnect_done: Option<oneshot::Sender<()>>,
    packet_log: Option<PacketLog>,
}

impl Driver {
    /// Opens the socket, sends CONNECT and waits for CONNACK.
    pub(crate) async fn connect(
        options: &Options,
        inlets: Inlets,
        events: mpsc::Sender<Event>,
    ) -> Result<(Self, Box<ConnAck>), ConnectError> {
        let begun = connect_of(options).map_err(ConnectError::Authentication)?;
        let stream = socket::open(options).await?;
        Self::over(options, begun, stream, inlets, events).await
    }

    /// The same over a stream that is there.
    async fn over(
        options: &Options,
        (connect, proving): (Connect, Option<Proving>),
        (reader, writer): (Reader, Writer),
        inlets: Inlets,
        events: mpsc::Sender<Event>,
    ) -> Result<(Self, Box<ConnAck>), ConnectError> {
        let mut out = Vec::new();
        let connection = ClientConnection::new(
            &connect,
            options.session.clone(),
            options.timeouts,
            now(),
            &mut out,
        )
        .map_err(ConnectError::Options)?;
        let mut driver = Self {
            connection,
            reader,
            writer,
            is_unflushed: false,
            input: BytesMut::new(),
            out,
            written: 0,
            inlets,
            events,
            undelivered: VecDeque::new(),
            undelivered_bytes: 0,
            blocked: None,
            waiting: BTreeMap::new(),
            authenticator: options.authenticator.clone(),
            proving,
            proven: None,
            disconnect_done: None,
            packet_log: options.packet_log.clone(),
        };
        driver.log_sent(0);
        let connack = timeout(options.timeouts.connack, driver.await_connack())
            .await
            .map_err(|_| ConnectError::Timeout)??;
        Ok((driver, connack))
    }

    async fn await_connack(&mut self) -> Result<Box<ConnAck>, ConnectError> {
        write_out(&mut self.writer, &self.out)
            .await
            .map_err(ConnectError::Tcp)?;
        self.out.clear();
        loop {
            self.log_received();
            let (event, used) = {
                let result = self
                    .connection
                    .next_event(&self.input, now(), &mut self.out);
                match result {
                    Ok(Some((ClientEvent::Connected(connack), used))) => (Ok(connack), used),
                    Ok(Some((ClientEvent::Refused(connack), _))) => {
                        return Err(ConnectError::Refused(connack));
                    }
                    Ok(Some((ClientEvent::Auth(auth), used))) => (Err(Some(auth)), used),
                    Ok(Some(_)) => return Err(ConnectError::AuthenticationExchange),
                    Ok(None) => (Err(None), 0),
                    // It has answered our CONNECT by an alert.
                    Err(_) if self.input.starts_with(&TLS_ALERT) => {
                        return Err(ConnectError::SpeaksTls);
                    }
                    Err(error) => return Err(self.refuse_server(error).await),
                }
            };
            self.input.advance(used);
            match event {
                Ok(connack) => {
                    self.check_connack(&connack).await?;
                    self.log_sent(0);
                    return Ok(connack);
                }
                Err(Some(auth)) => {
                    self.prove(&auth).await?;
                    continue;
                }
                Err(None) => {}
            }
            let read = self
                .reader
                .read_buf(&mut self.input)
                .await
                .map_err(ConnectError::Tcp)?;
            if read == 0 {
                return Err(ConnectError::Closed);
            }
        }
    }

    async fn refuse_server(&mut self, error: ClientError) -> ConnectError {
        self.connection.refuse(&error, now(), &mut self.out);
        // Best effort: the connection is given up either way.
        write_out(&mut self.writer, &self.out).await.ok();
        ConnectError::Protocol(error)
    }

    /// Until the connection ends.
    pub(crate) async fn run(mut self) {
        let cause = self.drive().await;
        self.farewell().await;
        let Self {
            connection,
            events,
            mut undelivered,
            disconnect_done,
            waiting,
            ..
        } = self;
        if let Some(done) = disconnect_done {
            done.send(()).ok();
        }
        drop(waiting);
        let session = connection.into_session();
        undelivered.push_back(Event::Disconnected(Disconnected { cause, session }));
        for event in undelivered {
            // Nobody listens any more: then nobody needs to know.
            if events.send(event).await.is_err() {
                return;
            }
        }
    }

    async fn drive(&mut self) -> DisconnectCause {
        loop {
            if let Some(cause) = self.on_input() {
                return cause;
            }
            self.retry_blocked();
            match self.turn().await {
                Ok(Turn::Continue) => {}
                Ok(Turn::Ended) => return DisconnectCause::Requested,
                Err(cause) => return cause,
            }
        }
    }

    /// Waits for one thing and does it.
    async fn turn(&mut self) -> Result<Turn, DisconnectCause> {
        let is_paused = self.is_paused();
        let is_reading = !is_paused && self.unwritten() < UNWRITTEN_MAX;
        let is_writing = self.unwritten() > 0 || self.is_unflushed;
        let takes_commands = self.unwritten() < OUT_BYTES_MAX;
        let takes_publications = takes_commands && self.blocked.is_none();
        let deadline = self.connection.poll_timeout().map(TokioInstant::from_std);
        let events = self.events.clone();
        let is_computing = self.proving.as_ref().is_some_and(Proving::is_computing);
        tokio::select! {
            answer = answer_of(&mut self.proving), if is_computing => self.go_on_proving(answer)?,
            Some(()) = self.inlets.taken.recv() => self.acknowledge(),
            permit = events.reserve(), if !self.undelivered.is_empty() => self.hand_over(permit),
            result = write_some(&mut self.writer, self.out.get(self.written..).unwrap_or_default()), if is_writing => {
                let written = result.map_err(DisconnectCause::Io)?;
                self.is_unflushed = written > 0;
                self.written += written;
                forget_written(&mut self.out, &mut self.written);
            }
            result = self.reader.read_buf(&mut self.input), if is_reading => {
                if result.map_err(DisconnectCause::Io)? == 0 {
                    return Err(DisconnectCause::Closed);
                }
            }
            Some(to_publish) = self.inlets.publications.recv(), if takes_publications => {
                self.publish_logged(to_publish);
            }
            command = self.inlets.commands.recv(), if takes_commands => {
                return Ok(self.on_command(command));
            }
            () = sleep_until(deadline.unwrap_or_else(TokioInstant::now)), if deadline.is_some() => {
                self.on_timeout(is_paused)?;
            }
        }
        Ok(Turn::Continue)
    }

    /// Whether the application has to take something before more is read. Behind what it has not taken
    /// there may be the answer it waits for, so that is read on to, within a bound.
    fn is_paused(&self) -> bool {
        let may_read_on = (!self.waiting.is_empty() || self.proving.is_some())
            && self.undelivered.len() < UNDELIVERED_MAX
            && self.undelivered_bytes < UNDELIVERED_BYTES_MAX;
        !self.undelivered.is_empty() && !may_read_on
    }

    /// Bytes that the socket has not taken.
    const fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    fn on_message(&mut self, message: ReceivedMessage) {
        let len = message.len_bytes();
        let event = Event::Message(message);
        // What waits already goes first.
        let kept = if self.undelivered.is_empty() {
            match self.events.try_send(event) {
                Err(mpsc::error::TrySendError::Full(event)) => Some(event),
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
            }
        } else {
            Some(event)
        };
        if let Some(event) = kept {
            self.undelivered.push_back(event);
            self.undelivered_bytes += len;
        }
    }

    /// There is room for an event, or nobody takes events any more: then they are dropped, and what is left
    /// is done for the requests.
    fn hand_over(&mut self, permit: Result<mpsc::Permit<'_, Event>, mpsc::error::SendError<()>>) {
        let event = self.undelivered.pop_front();
        let (Ok(permit), Some(event)) = (permit, event) else {
            self.undelivered.clear();
            self.undelivered_bytes = 0;
            return;
        };
        if let Event::Message(message) = &event {
            self.undelivered_bytes -= message.len_bytes();
        }
        permit.send(event);
    }

    fn on_timeout(&mut self, is_paused: bool) -> Result<(), DisconnectCause> {
        let start = self.out.len();
        match self.connection.on_timeout(now(), &mut self.out) {
            Ok(()) => {
                self.log_sent(start);
                Ok(())
            }
            // The PINGRESP may wait in the socket we do not read: our fault, not the Server's.
            Err(ClientError::PingTimeout) if is_paused => {
                self.connection.forget_ping(now());
                Ok(())
            }
            Err(error) => Err(self.on_error(error)),
        }
    }

    fn acknowledge(&mut self) {
        let start = self.out.len();
        self.connection.acknowledge(now(), &mut self.out);
        self.log_sent(start);
    }

    /// Everything in the input, until the application or the socket has to take something first.
    fn on_input(&mut self) -> Option<DisconnectCause> {
        while !self.is_paused() && self.unwritten() < UNWRITTEN_MAX {
            self.log_received();
            let start = self.out.len();
            let result = self
                .connection
                .next_event(&self.input, now(), &mut self.out);
            let used = match result {
                Ok(None) => return None,
                Err(error) => return Some(self.on_error(error)),
                Ok(Some((ClientEvent::Disconnect(disconnect), _))) => {
                    return Some(DisconnectCause::ByServer(disconnect));
                }
                Ok(Some((ClientEvent::Auth(auth), used))) => {
                    self.input.advance(used);
                    if let Err(cause) = self.on_auth(&auth) {
                        return Some(cause);
                    }
                    continue;
                }
                Ok(Some((ClientEvent::Publish(publish), used))) => {
                    let message = ReceivedMessage::from_publish(&publish);
                    self.on_message(message);
                    used
                }
                Ok(Some((event, used))) => {
                    answer(&mut self.waiting, event);
                    used
                }
            };
            self.log_sent(start);
            self.input.advance(used);
        }
        None
    }

    fn on_error(&mut self, error: ClientError) -> DisconnectCause {
        let start = self.out.len();
        self.connection.refuse(&error, now(), &mut self.out);
        self.log_sent(start);
        DisconnectCause::Protocol(error)
    }

    fn on_command(&mut self, command: Option<Command>) -> Turn {
        // What was asked for before goes before, unless it has to wait.
        while self.blocked.is_none() {
            let Ok(to_publish) = self.inlets.publications.try_recv() else {
                break;
            };
            self.publish_logged(to_publish);
        }
        let start = self.out.len();
        let turn = match command {
            Some(Command::Subscribe {
                subscriptions,
                subscription_identifier,
                user_properties,
                done,
            }) => {
                self.subscribe(
                    &subscriptions,
                    subscription_identifier,
                    &user_properties,
                    done,
                );
                Turn::Continue
            }
            Some(Command::Unsubscribe {
                filters,
                user_properties,
                done,
            }) => {
                let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
                let sent =
                    self.connection
                        .unsubscribe(&filters, &user_properties, now(), &mut self.out);
                self.wait(sent, done, Waiting::Unsubscribe);
                Turn::Continue
            }
            Some(Command::Reauthenticate { done }) => {
                self.reauthenticate(done);
                return Turn::Continue;
            }
            Some(Command::Disconnect { disconnect, done }) => {
                self.disconnect_done = Some(done);
                self.say_goodbye(&disconnect);
                return Turn::Ended;
            }
            None => {
                self.say_goodbye(&Disconnect::new(ReasonCode::Success));
                return Turn::Ended;
            }
        };
        self.log_sent(start);
        turn
    }

    /// DISCONNECT, after the acknowledgements of all that the application has taken.
    fn say_goodbye(&mut self, disconnect: &Disconnect) {
        while self.inlets.taken.try_recv().is_ok() {
            self.acknowledge();
        }
        let start = self.out.len();
        let sent = self.connection.disconnect(disconnect, now(), &mut self.out);
        if sent.is_err() {
            // The properties do not fit: without them it always does.
            let plain = Disconnect::new(disconnect.reason);
            self.connection
                .disconnect(&plain, now(), &mut self.out)
                .ok();
        }
        self.log_sent(start);
    }

    fn publish(&mut self, to_publish: ToPublish) {
        let ToPublish { publication, done } = to_publish;
        let is_v5 = self.connection.version() == Version::V5;
        let raw = if is_v5 {
            publication.properties.as_slice()
        } else {
            &[]
        };
        let properties = match PublishProperties::parse(raw) {
            Ok(properties) => properties,
            Err(malformed) => {
                done.send(Err(RequestError::Properties(malformed))).ok();
                return;
            }
        };
        let publish = Publish {
            dup: false,
            qos: publication.qos,
            retain: publication.retain,
            topic: &publication.topic,
            packet_id: None,
            properties,
            payload: &publication.payload,
        };
        match self.connection.publish(&publish, now(), &mut self.out) {
            Ok(Some(packet_id)) => {
                self.waiting.insert(packet_id, Waiting::Publish(done));
            }
            Ok(None) => {
                let published = Published {
                    packet_id: None,
                    reason: ReasonCode::Success,
                    properties: None,
                };
                done.send(Ok(published)).ok();
            }
            Err(SendError::QuotaExhausted) => self.blocked = Some(ToPublish { publication, done }),
            Err(error) => {
                done.send(Err(RequestError::NotSent(error))).ok();
            }
        }
    }

    fn retry_blocked(&mut self) {
        if let Some(to_publish) = self.blocked.take() {
            self.publish_logged(to_publish);
        }
    }

    fn publish_logged(&mut self, to_publish: ToPublish) {
        let start = self.out.len();
        self.publish(to_publish);
        self.log_sent(start);
    }

    fn subscribe(
        &mut self,
        subscriptions: &[Subscription],
        subscription_identifier: Option<u32>,
        user_properties: &UserProperties,
        done: Answer<SubAck>,
    ) {
        let requests: Vec<_> = subscriptions
            .iter()
            .map(|Subscription { filter, options }| SubscriptionRequest {
                filter,
                options: *options,
            })
            .collect();
        let sent = self.connection.subscribe(
            &requests,
            subscription_identifier,
            user_properties,
            now(),
            &mut self.out,
        );
        self.wait(sent, done, Waiting::Subscribe);
    }

    fn wait<T>(
        &mut self,
        sent: Result<PacketIdentifier, SendError>,
        done: Answer<T>,
        waiting: impl FnOnce(Answer<T>) -> Waiting,
    ) {
        match sent {
            Ok(packet_id) => {
                self.waiting.insert(packet_id, waiting(done));
            }
            Err(error) => {
                done.send(Err(RequestError::NotSent(error))).ok();
            }
        }
    }

    /// [MQTT-3.14.4-2] [v3.1.1 MQTT-3.14.4-1] Closes after DISCONNECT:
    /// writes what is left, then reads until the Server has closed: a socket closed over unread bytes
    /// is reset, and the Server might then never see our DISCONNECT.
    async fn farewell(&mut self) {
        let rest = self.out.get(self.written..).unwrap_or_default();
        let goodbye = async {
            self.writer.write_all(rest).await?;
            self.writer.shutdown().await?;
            let mut discarded = [0; 4096];
            while self.reader.read(&mut discarded).await? > 0 {}
            io::Result::Ok(())
        };
        // However it goes, the connection is over.
        timeout(FAREWELL_MAX, goodbye).await.ok();
    }

    fn log_sent(&self, start: usize) {
        if let Some(log) = &self.packet_log {
            let bytes = self.out.get(start..).unwrap_or_default();
            log.sent(bytes, self.connection.version());
        }
    }

    fn log_received(&self) {
        if let Some(log) = &self.packet_log {
            log.received(&self.input, self.connection.version());
        }
    }
}

/// Whether the connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Continue,
    Ended,
}

/// Gives an acknowledgement to whoever waits for it.
fn answer(waiting: &mut BTreeMap<PacketIdentifier, Waiting>, event: ClientEvent<'_>) {
    // Whoever dropped the other end does not want to know.
    match event {
        ClientEvent::Published {
            packet_id,
            reason,
            properties,
        } => {
            if let Some(Waiting::Publish(done)) = waiting.remove(&packet_id) {
                done.send(Ok(Published {
                    packet_id: Some(packet_id),
                    reason,
                    properties,
                }))
                .ok();
            }
        }
        ClientEvent::SubAck(suback) => {
            if let Some(Waiting::Subscribe(done)) = waiting.remove(&suback.packet_id) {
                done.send(Ok(suback)).ok();
            }
        }
        ClientEvent::UnsubAck(unsuback) => {
            if let Some(Waiting::Unsubscribe(done)) = waiting.remove(&unsuback.packet_id) {
                done.send(Ok(unsuback)).ok();
            }
        }
        _ => {}
    }
}

/// A step of writing that can be given up at any time: some bytes, or, if there are none, all that TLS has kept.
pub(crate) async fn write_some(writer: &mut Writer, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        writer.flush().await.map(|()| 0)
    } else {
        writer.write(bytes).await
    }
}

/// Takes what is written out of `out`, all of it or, behind a Server that reads slowly, when it is much.
pub(crate) fn forget_written(out: &mut Vec<u8>, written: &mut usize) {
    if *written == out.len() {
        out.clear();
        *written = 0;
    } else if *written >= WRITTEN_MAX {
        out.drain(..*written);
        *written = 0;
    }
}

async fn write_out(writer: &mut Writer, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// How an alert of TLS begins: RFC 8446, section 5.1.
const TLS_ALERT: [u8; 2] = [0x15, 3];
/// Messages the application has not taken that are kept while it waits for an answer.
const UNDELIVERED_MAX: usize = 1024;
/// The same in bytes of topics, payloads and properties.
const UNDELIVERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Unsent bytes above which no further request is taken.
const OUT_BYTES_MAX: usize = 64 * 1024;
/// Unsent bytes above which nothing is read: a Server that does not read its answers is not asked for more.
const UNWRITTEN_MAX: usize = 256 * 1024;
/// Sent bytes that are kept before those that are not.
const WRITTEN_MAX: usize = 64 * 1024;
/// How long a closing connection waits for the Server to close as well.
const FAREWELL_MAX: std::time::Duration = std::time::Duration::from_secs(2);
