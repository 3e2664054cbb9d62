//! One connection, under the application's control: its requests, its events, its end.
//!
//! Owns: [`Connection`], what is asked of it and what comes of it. Does not own: the protocol (see
//! `proto::connection::ClientConnection`), when to connect again (see [`crate::Client`]).
//! Start reading at [`Connection::connect`]. Invariant: a message above QoS 0 is acknowledged when the
//! application has taken it from [`Events`], not earlier, and in order.

use std::sync::Arc;

use proto::connection::ClientSession;
use proto::packet::{
    ConnAck, Disconnect, ReasonCode, ReasonProperties, RetainHandling, SubAck, SubscriptionOptions,
    UnsubAck, UserProperties,
};
use proto::{PacketIdentifier, Qos, Version};
use tokio::sync::{mpsc, oneshot};

use crate::driver::{Command, Driver, Inlets, ToPublish};
use crate::error::{ConnectError, DisconnectCause, RequestError};
use crate::message::{Publication, ReceivedMessage};
use crate::options::Options;

/// A handle to one connection, which is not made again when it breaks: for programs that decide about that
/// themselves, as tools do. Applications want a [`crate::Client`]. Clones share it; when the last one is dropped, the connection ends
/// with a normal DISCONNECT.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use vencejo_client::{Connection, Event, Options, Publication, Subscription, proto::Qos};
///
/// let (client, mut events) = Connection::connect(Options::new("localhost", 1883)).await?;
/// client.subscribe(vec![Subscription::new("hello/#", Qos::AtLeastOnce)], None, vec![]).await?;
/// client.publish(Publication::new("hello/world", "it works!", Qos::AtLeastOnce)).await?;
/// if let Some(Event::Message(message)) = events.recv().await {
///     println!("{} {:?}", message.topic, message.payload);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Connection {
    publications: mpsc::Sender<ToPublish>,
    commands: mpsc::Sender<Command>,
    connack: Arc<ConnAck>,
    version: Version,
}

/// What comes from the Server, in order.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
    taken: mpsc::UnboundedSender<()>,
}

/// One thing that came from the Server.
#[derive(Debug)]
pub enum Event {
    /// An Application Message.
    Message(ReceivedMessage),
    /// The connection is over; nothing follows.
    Disconnected(Disconnected),
}

/// The end of a connection.
#[derive(Debug)]
pub struct Disconnected {
    /// Why it ended.
    pub cause: DisconnectCause,
    /// Session State for [`Options::session`] of the next connection.
    pub session: ClientSession,
}

/// How a PUBLISH ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Packet Identifier it had; none at QoS 0.
    pub packet_id: Option<PacketIdentifier>,
    /// Reason Code; always Success at QoS 0 and in 3.x.
    pub reason: ReasonCode,
    /// Reason String and User Properties of the acknowledgement.
    pub properties: Option<Box<ReasonProperties>>,
}

impl Published {
    /// At QoS 0 there is no answer.
    pub(crate) const fn unanswered() -> Self {
        Self {
            packet_id: None,
            reason: ReasonCode::Success,
            properties: None,
        }
    }
}

/// One Topic Filter to subscribe to, with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Topic Filter.
    pub filter: String,
    /// Subscription Options.
    pub options: SubscriptionOptions,
}

impl Subscription {
    /// A Subscription at most at this QoS, everything else as the standard defaults it.
    pub fn new(filter: impl Into<String>, qos: Qos) -> Self {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        Self {
            filter: filter.into(),
            options,
        }
    }

    /// Without what this client publishes itself (5.0 only).
    #[must_use]
    pub const fn no_local(mut self) -> Self {
        self.options.no_local = true;
        self
    }

    /// RETAIN as it was published (5.0 only).
    #[must_use]
    pub const fn retain_as_published(mut self) -> Self {
        self.options.retain_as_published = true;
        self
    }

    /// Which Retained Messages come when it is made (5.0 only).
    #[must_use]
    pub const fn retain_handling(mut self, handling: RetainHandling) -> Self {
        self.options.retain_handling = handling;
        self
    }
}

/// A PUBLISH on its way; await it for the acknowledgement.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Published, RequestError>>);

impl Receipt {
    /// Waits for PUBACK or PUBCOMP; at QoS 0 until the packet is on its way.
    /// # Errors
    /// The Server would refuse it, or the connection ended before it answered.
    pub async fn wait(self) -> Result<Published, RequestError> {
        self.0.await.unwrap_or(Err(RequestError::ConnectionLost))
    }
}

impl Connection {
    /// Connects and waits for CONNACK. Must be called within a tokio runtime.
    /// # Errors
    /// The host has no address, no address answers, or the Server refuses.
    pub async fn connect(options: Options) -> Result<(Self, Events), ConnectError> {
        let connect = |inlets, events| Driver::connect(&options, inlets, events);
        Self::begin(&options, connect).await
    }

    /// The same over a stream that a test holds the other end of.
    #[cfg(test)]
    pub(crate) async fn over(
        options: &Options,
        stream: tokio::io::DuplexStream,
    ) -> Result<(Self, Events), ConnectError> {
        let connect = |inlets, events| Driver::over_duplex(options, stream, inlets, events);
        Self::begin(options, connect).await
    }

    async fn begin<C>(
        options: &Options,
        connect: impl FnOnce(Inlets, mpsc::Sender<Event>) -> C,
    ) -> Result<(Self, Events), ConnectError>
    where
        C: Future<Output = Result<(Driver, Box<ConnAck>), ConnectError>>,
    {
        let (publication_sender, publications) = mpsc::channel(COMMANDS_MAX);
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let (taken, taken_receiver) = mpsc::unbounded_channel();
        let inlets = Inlets {
            publications,
            commands,
            taken: taken_receiver,
        };
        let (driver, connack) = connect(inlets, event_sender).await?;
        // The task ends by itself: with the connection, or when all handles are gone.
        drop(tokio::spawn(driver.run()));
        let connection = Self {
            publications: publication_sender,
            commands: command_sender,
            connack: Arc::new(*connack),
            version: options.protocol_version(),
        };
        Ok((connection, Events { events, taken }))
    }

    /// The Server's CONNACK, with all it announced.
    #[must_use]
    pub fn connack(&self) -> &ConnAck {
        &self.connack
    }

    /// The version spoken.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Publishes and waits for the acknowledgement. An application that takes [`Events`] in the same task
    /// may do so while the Server says fewer than some thousand messages (1024, or 16 MiB of payloads)
    /// before its acknowledgement: so many are kept for it. Beyond that nothing is read until it takes some,
    /// and [`Self::start_publish`] is the better way.
    /// # Errors
    /// The Server would refuse it, or the connection ended before it answered.
    pub async fn publish(&self, publication: Publication) -> Result<Published, RequestError> {
        self.start_publish(publication).await?.wait().await
    }

    /// Publishes without waiting for the acknowledgement; waits only while too much is on its way.
    /// # Errors
    /// The connection is over.
    pub async fn start_publish(&self, publication: Publication) -> Result<Receipt, RequestError> {
        let (done, receipt) = oneshot::channel();
        let to_publish = ToPublish { publication, done };
        self.publications
            .send(to_publish)
            .await
            .map_err(|_| RequestError::ConnectionLost)?;
        Ok(Receipt(receipt))
    }

    /// Subscribes, with a Subscription Identifier if there is one, and waits for SUBACK.
    /// # Errors
    /// A filter is not well-formed, the Server announced that it does not do this, or the connection
    /// ended. A refused filter is no error: see the Reason Codes.
    pub async fn subscribe(
        &self,
        subscriptions: Vec<Subscription>,
        subscription_identifier: Option<u32>,
        user_properties: UserProperties,
    ) -> Result<SubAck, RequestError> {
        let (done, answer) = oneshot::channel();
        let command = Command::Subscribe {
            subscriptions,
            subscription_identifier,
            user_properties,
            done,
        };
        self.send(command).await?;
        answer.await.unwrap_or(Err(RequestError::ConnectionLost))
    }

    /// Unsubscribes and waits for UNSUBACK.
    /// # Errors
    /// A filter is not well-formed, or the connection ended.
    pub async fn unsubscribe(
        &self,
        filters: Vec<String>,
        user_properties: UserProperties,
    ) -> Result<UnsubAck, RequestError> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Unsubscribe {
            filters,
            user_properties,
            done,
        })
        .await?;
        answer.await.unwrap_or(Err(RequestError::ConnectionLost))
    }

    /// Proves again, by the [`Authenticator`](crate::Authenticator) of [`Options::authenticator`], who we are, and waits until the Server is
    /// content: before a proof expires, or for rights that have changed. If either side is not content the connection
    /// ends; [`Event::Disconnected`] says why.
    /// # Errors
    /// There is no authenticator, another exchange goes on, or the connection has ended.
    pub async fn reauthenticate(&self) -> Result<(), RequestError> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Reauthenticate { done }).await?;
        answer.await.unwrap_or(Err(RequestError::ConnectionLost))
    }

    /// Sends DISCONNECT after everything asked for before, and waits until it is written.
    /// # Errors
    /// The connection ended before.
    pub async fn disconnect(&self, disconnect: Disconnect) -> Result<(), RequestError> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Disconnect { disconnect, done }).await?;
        answer.await.map_err(|_| RequestError::ConnectionLost)
    }

    async fn send(&self, command: Command) -> Result<(), RequestError> {
        self.commands
            .send(command)
            .await
            .map_err(|_| RequestError::ConnectionLost)
    }
}

impl Events {
    /// The next event; `None` after [`Event::Disconnected`]. Taking a message acknowledges it.
    pub async fn recv(&mut self) -> Option<Event> {
        let event = self.events.recv().await?;
        if let Event::Message(message) = &event
            && message.qos != Qos::AtMostOnce
        {
            // The driver is gone when the connection is: then there is nobody to acknowledge to.
            self.taken.send(()).ok();
        }
        Some(event)
    }

    /// Waits until the connection is closed, without taking any further message.
    pub async fn close(mut self) {
        while let Some(event) = self.events.recv().await {
            if matches!(event, Event::Disconnected(_)) {
                return;
            }
        }
    }
}

/// Requests that wait for the driver.
const COMMANDS_MAX: usize = 32;
/// Events that wait for the application; beyond this nothing is read from the socket, unless a request
/// waits for what may come behind.
const EVENTS_MAX: usize = 64;
