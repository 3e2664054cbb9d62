//! What an application holds of a subscription: a stream of messages, each of which it acknowledges.
//!
//! Owns: [`Messages`], [`Message`], [`Acknowledge`]. Does not own: whose a message is and when its acknowledgement
//! leaves (see `core`). Start reading at [`Messages::next`]. Invariant: a message above QoS 0 is acknowledged when it
//! is taken or when the application says so, not earlier, and in order.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_core::Stream;
use proto::packet::{Property, ReasonCode};

use tokio::sync::{mpsc, oneshot};

use crate::ReceivedMessage;
use crate::core::{Delivery, Taken};
use crate::error::{Error, Mistake};
use crate::run::Command;

/// When a message above QoS 0 is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// When the application takes it from [`Messages`].
    #[default]
    WhenTaken,
    /// When it calls [`Message::acknowledge`]. Until then the Server sends nothing beyond its share
    /// (Receive Maximum), and acknowledges of later messages wait, since they leave in order. A message that is
    /// dropped without it comes again when the Session is resumed.
    ByApplication,
}

/// The messages of one subscription, also over several connections. Dropping it ends the subscription.
///
/// ```no_run
/// # async fn example(client: vencejo_client::Client) -> Result<(), vencejo_client::Error> {
/// use vencejo_client::Qos;
///
/// let mut temperatures = client.subscribe("sensors/+/temperature", Qos::AtLeastOnce).await?;
/// while let Some(message) = temperatures.next().await {
///     println!("{}: {}", message.topic, String::from_utf8_lossy(&message.payload));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Messages {
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    acknowledge: Acknowledge,
    /// None: what is for no subscription.
    key: Option<u32>,
    granted: Vec<ReasonCode>,
    ended: Arc<OnceLock<Error>>,
    taken: mpsc::UnboundedSender<Taken>,
    commands: mpsc::UnboundedSender<Command>,
}

/// A message, and what it takes to acknowledge it.
#[derive(Debug)]
pub struct Message {
    received: ReceivedMessage,
    seq: Option<u64>,
    taken: mpsc::UnboundedSender<Taken>,
}

impl Messages {
    pub(crate) const fn new(
        deliveries: mpsc::UnboundedReceiver<Delivery>,
        acknowledge: Acknowledge,
        ended: Arc<OnceLock<Error>>,
        taken: mpsc::UnboundedSender<Taken>,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self {
            deliveries,
            acknowledge,
            key: None,
            granted: Vec::new(),
            ended,
            taken,
            commands,
        }
    }

    /// The Server has said yes.
    pub(crate) fn granted_as(mut self, key: u32, granted: Vec<ReasonCode>) -> Self {
        self.key = Some(key);
        self.granted = granted;
        self
    }

    /// The next message; waits for it, over reconnects too. `None` when the [`crate::Client`] has ended or the Server
    /// refused to subscribe again; see [`Self::error`]. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Message> {
        let delivery = self.deliveries.recv().await?;
        Some(self.take(delivery))
    }

    /// A message that has come already.
    pub fn try_next(&mut self) -> Option<Message> {
        let delivery = self.deliveries.try_recv().ok()?;
        Some(self.take(delivery))
    }

    /// What the Server granted, for each filter: Granted QoS.
    #[must_use]
    pub fn granted(&self) -> &[ReasonCode] {
        &self.granted
    }

    /// Why there is no next message.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.ended.get()
    }

    /// Unsubscribes, and waits for the Server's answer. Messages that have come and were not taken are let go, as
    /// when it is dropped.
    /// # Errors
    /// The client has ended.
    pub async fn unsubscribe(mut self) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let key = self.key.take();
        self.let_go();
        let Some(key) = key else {
            return Ok(());
        };
        let command = Command::Unsubscribe {
            key,
            done: Some(done),
        };
        let ended = Error::Caller(Mistake::Ended);
        self.commands.send(command).map_err(|_| ended.clone())?;
        answer.await.unwrap_or(Err(ended))
    }

    /// Ends the stream and leaves the subscription in the Session: its messages wait at the Server for the next
    /// program that resumes it, as do those that have come and were not taken. For programs that end soon: meanwhile
    /// the Server keeps them, up to Receive Maximum, as on their way.
    pub fn keep(mut self) {
        self.deliveries.close();
        while let Ok(delivery) = self.deliveries.try_recv() {
            let waited_bytes = crate::core::taken(&delivery).waited_bytes;
            let taken = Taken {
                waited_bytes,
                acknowledged: None,
            };
            self.taken.send(taken).ok();
        }
        if let Some(key) = self.key.take() {
            self.commands.send(Command::Keep { key }).ok();
        }
    }

    fn take(&self, delivery: Delivery) -> Message {
        let Delivery { message, seq } = delivery;
        let is_acknowledged = self.acknowledge == Acknowledge::WhenTaken;
        let taken = Taken {
            waited_bytes: Some(message.len_bytes()),
            acknowledged: seq.filter(|_| is_acknowledged),
        };
        // The task is gone when the client has ended: then there is nobody to acknowledge to.
        self.taken.send(taken).ok();
        Message {
            received: message,
            seq: seq.filter(|_| !is_acknowledged),
            taken: self.taken.clone(),
        }
    }

    /// What waits is not wanted: it is acknowledged.
    fn let_go(&mut self) {
        self.deliveries.close();
        while let Ok(delivery) = self.deliveries.try_recv() {
            self.taken.send(crate::core::taken(&delivery)).ok();
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.let_go();
        if let Some(key) = self.key {
            self.commands
                .send(Command::Unsubscribe { key, done: None })
                .ok();
        }
    }
}

impl Stream for Messages {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let polled = self.deliveries.poll_recv(context);
        polled.map(|delivery| delivery.map(|delivery| self.take(delivery)))
    }
}

impl Message {
    /// Acknowledges it, with [`Acknowledge::ByApplication`]; otherwise, and at QoS 0, it is done already.
    pub fn acknowledge(self) {
        let taken = Taken {
            waited_bytes: None,
            acknowledged: self.seq,
        };
        if self.seq.is_some() {
            self.taken.send(taken).ok();
        }
    }

    /// Where an answer is expected, if one is.
    #[must_use]
    pub fn response_topic(&self) -> Option<&str> {
        self.received
            .properties()
            .find_map(|property| match property {
                Property::ResponseTopic(topic) => Some(topic),
                _ => None,
            })
    }

    /// What an answer has to repeat.
    #[must_use]
    pub fn correlation_data(&self) -> Option<&[u8]> {
        self.received
            .properties()
            .find_map(|property| match property {
                Property::CorrelationData(data) => Some(data),
                _ => None,
            })
    }

    /// The message alone.
    #[must_use]
    pub fn into_received(self) -> ReceivedMessage {
        self.received
    }
}

impl Deref for Message {
    type Target = ReceivedMessage;

    fn deref(&self) -> &ReceivedMessage {
        &self.received
    }
}
