//! The Client: publishes, subscribes and asks, across as many connections as it takes.
//!
//! Owns: [`Client`], the bounds of its queue, requests that await a response. Does not own: what happens to what is
//! handed over (see `core`). Start reading at [`Client::connect`]. Invariant: what does not fit in the queue is not
//! handed over.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::packet::{ConnAck, Disconnect, Property, ReasonCode};
use proto::{Qos, Version, topic};
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::core::{Delivery, Taken, ToPublish, ToSubscribe};
use crate::error::{Error, Mistake, Outage};
use crate::run::{Command, Inlets, Task};
use crate::{
    Acknowledge, Message, Messages, Options, Publication, Published, Queue, Subscription,
    WhenQueueFull,
};

/// A client that connects again when its connection breaks, and goes on where it was. Clones share it; when the
/// last one is dropped it leaves with a normal DISCONNECT, as [`Client::disconnect`] does.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::UnboundedSender<Command>,
    taken: mpsc::UnboundedSender<Taken>,
    state: watch::Receiver<State>,
    dropped: Arc<AtomicU64>,
    has_outbox: bool,
    version: Version,
    queue: Queue,
    room: [Arc<Semaphore>; 2],
    requests: OnceCell<Requests>,
}

/// How a [`Client`] is connected.
#[derive(Clone, Debug)]
pub enum State {
    /// A socket is being opened, or CONNACK is awaited.
    Connecting,
    /// The Server has said yes.
    Connected {
        /// Ours, or the one it assigned.
        client_id: Arc<str>,
        /// All that it announced; Session Present says whether it kept the Session.
        connack: Arc<ConnAck>,
    },
    /// There is no connection; another is tried.
    Disconnected {
        /// Why the last one ended, or was not made.
        why: Error,
        /// When it is tried.
        next_attempt: Instant,
    },
    /// There will be no other.
    Ended(Error),
}

impl State {
    /// Whether there is a connection.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}

/// A publication that was handed over: await it for its acknowledgement. Dropping it takes nothing back.
#[derive(Debug)]
pub struct Handed(oneshot::Receiver<Result<Published, Error>>);

impl Future for Handed {
    type Output = Result<Published, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(Error::Caller(Mistake::Ended))))
    }
}

impl Client {
    /// Connects, and waits for the Server to say yes. Whoever calls this decides what a first failure means; after
    /// that every connection that breaks is made again, as [`Options::reconnect`] says. Must be called within a tokio
    /// runtime.
    /// # Errors
    /// There is no connection, or the Server refuses it.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let (first, answer) = oneshot::channel();
        let client = Self::spawn(options, Some(first))?;
        answer.await.unwrap_or(Err(Error::Caller(Mistake::Ended)))?;
        Ok(client)
    }

    /// The same without waiting: it connects when it can, and what is handed over before waits for that.
    /// # Errors
    /// [`Error::Caller`]: the options contradict each other.
    pub fn start(options: Options) -> Result<Self, Error> {
        Self::spawn(options, None)
    }

    fn spawn(
        options: Options,
        first: Option<oneshot::Sender<Result<(), Error>>>,
    ) -> Result<Self, Error> {
        options.check().map_err(Error::Caller)?;
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (taken, taken_receiver) = mpsc::unbounded_channel();
        let (state_sender, state) = watch::channel(State::Connecting);
        let inlets = Inlets {
            commands: command_receiver,
            taken: taken_receiver,
        };
        let queue = options.bounds.queue;
        let version = options.protocol_version();
        // Hashing nothing with keys that differ from one to the next is a random number.
        let seed = RandomState::new().hash_one(());
        let outbox = options.outbox.as_ref();
        let has_outbox = outbox.is_some();
        let opened = outbox.map(|outbox| outbox.open(&options.connect.client_id));
        let opened = opened.transpose().map_err(Arc::new);
        let opened = opened.map_err(|error| Error::Caller(Mistake::Outbox(error)))?;
        let mut task = Task::new(options, inlets, state_sender, first, seed);
        if let Some((outbox, kept)) = opened {
            task.restore(outbox, kept);
        }
        let shared = Shared {
            commands,
            taken,
            state,
            dropped: task.core().dropped(),
            has_outbox,
            version,
            queue,
            room: [
                Arc::new(Semaphore::new(queue.messages_max.get() as usize)),
                Arc::new(Semaphore::new(queue.bytes_max.get() as usize)),
            ],
            requests: OnceCell::new(),
        };
        // The task ends by itself: when all handles are gone, or when there is no further attempt.
        drop(tokio::spawn(task.run()));
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The state of the connection, to look at and to wait for changes of.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state.clone()
    }

    /// How many messages of the Server were dropped: for want of room ([`crate::WhenInboxFull::DropNewest`]), or
    /// because nothing in this program subscribes to them.
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until there is a connection.
    /// # Errors
    /// There will be none.
    pub async fn connected(&self) -> Result<(), Error> {
        let mut state = self.state();
        let reached =
            state.wait_for(|state| matches!(state, State::Connected { .. } | State::Ended(_)));
        match reached.await.as_deref() {
            Ok(State::Ended(why)) => Err(why.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Caller(Mistake::Ended)),
        }
    }

    /// Publishes, and waits for the acknowledgement: at QoS 1 and 2 the Server's, over reconnects too; at QoS 0 until
    /// the message is on its way. A call that is dropped after it has handed the message over takes nothing back.
    /// # Errors
    /// [`Error::Caller`]: it cannot be sent, or the queue is full. [`Error::Server`]: the Server refused it.
    pub async fn publish(&self, publication: Publication) -> Result<Published, Error> {
        self.hand_over(publication).await?.await
    }

    /// Publishes without waiting for the acknowledgement; waits only for room in the queue, if its policy is to wait, and
    /// until the [`crate::Outbox`] has it, if there is one.
    /// # Errors
    /// [`Error::Caller`]: it cannot be sent, or the queue is full.
    pub async fn hand_over(&self, publication: Publication) -> Result<Handed, Error> {
        topic::check_name(&publication.topic)
            .map_err(|error| Error::Caller(Mistake::Request(error.into())))?;
        let bytes = publication.len_bytes();
        let room = u32::try_from(bytes).ok();
        let room = room.filter(|bytes| *bytes <= self.shared.queue.bytes_max.get());
        let Some(room) = room else {
            return Err(Error::Caller(Mistake::LargerThanQueue { bytes }));
        };
        let [messages, bytes] = &self.shared.room;
        let permits = match self.shared.queue.when_full {
            WhenQueueFull::Wait => {
                let message = Arc::clone(messages).acquire_owned().await.ok();
                let bytes = Arc::clone(bytes).acquire_many_owned(room).await.ok();
                message.zip(bytes)
            }
            WhenQueueFull::Refuse | WhenQueueFull::DropNewest => {
                let message = Arc::clone(messages).try_acquire_owned().ok();
                let bytes = Arc::clone(bytes).try_acquire_many_owned(room).ok();
                message.zip(bytes)
            }
        };
        let (done, answer) = oneshot::channel();
        let Some((message, bytes)) = permits else {
            if self.shared.queue.when_full == WhenQueueFull::Refuse {
                return Err(Error::Caller(Mistake::QueueFull));
            }
            done.send(Err(Error::Caller(Mistake::Dropped))).ok();
            return Ok(Handed(answer));
        };
        let (kept, is_kept) = if self.shared.has_outbox && publication.qos != Qos::AtMostOnce {
            let (kept, is_kept) = oneshot::channel();
            (Some(kept), Some(is_kept))
        } else {
            (None, None)
        };
        self.send(Command::Publish(ToPublish {
            publication,
            done: Some(done),
            permits: Some([message, bytes]),
            kept,
        }))?;
        if let Some(is_kept) = is_kept
            && is_kept.await.is_err()
        {
            return Err(self.why());
        }
        Ok(Handed(answer))
    }

    /// Subscribes to one Topic Filter, and waits for the Server's answer, over reconnects too.
    /// # Errors
    /// [`Error::Caller`]: the filter is not well-formed. [`Error::Server`]: the Server refused it.
    pub async fn subscribe(&self, filter: impl Into<String>, qos: Qos) -> Result<Messages, Error> {
        let subscription = Subscription::new(filter, qos);
        self.subscribe_with(vec![subscription], Acknowledge::WhenTaken)
            .await
    }

    /// Subscribes to one or several Topic Filters, whose messages come in one stream.
    /// # Errors
    /// [`Error::Caller`]: a filter is not well-formed, or there is none. [`Error::Server`]: the Server refused one.
    pub async fn subscribe_with(
        &self,
        subscriptions: Vec<Subscription>,
        acknowledge: Acknowledge,
    ) -> Result<Messages, Error> {
        if subscriptions.is_empty() {
            let text = "a subscription needs a topic filter".to_owned();
            return Err(Error::Caller(Mistake::Options(text)));
        }
        for subscription in &subscriptions {
            topic::check_filter(&subscription.filter)
                .map_err(|error| Error::Caller(Mistake::Request(error.into())))?;
        }
        let (sender, ended, messages) = self.stream(acknowledge);
        let (done, answer) = oneshot::channel();
        self.send(Command::Subscribe(ToSubscribe {
            subscriptions,
            sender,
            ended,
            done,
        }))?;
        let (key, granted) = answer.await.unwrap_or(Err(Error::Caller(Mistake::Ended)))?;
        Ok(messages.granted_as(key, granted))
    }

    /// The messages that are for no subscription of this program: of a Session that is older than it, say. Where
    /// nobody takes them they wait for a subscription for a minute, at QoS 0 not at all.
    /// # Errors
    /// The client has ended.
    pub fn others(&self, acknowledge: Acknowledge) -> Result<Messages, Error> {
        let (sender, _, messages) = self.stream(acknowledge);
        self.send(Command::TakeOthers(sender))?;
        Ok(messages)
    }

    fn stream(
        &self,
        acknowledge: Acknowledge,
    ) -> (
        mpsc::UnboundedSender<Delivery>,
        Arc<OnceLock<Error>>,
        Messages,
    ) {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let ended = Arc::new(OnceLock::new());
        let (taken, commands) = (self.shared.taken.clone(), self.shared.commands.clone());
        let messages = Messages::new(deliveries, acknowledge, Arc::clone(&ended), taken, commands);
        (sender, ended, messages)
    }

    /// Asks whoever answers at `topic`, at QoS 1, and waits 30 seconds for the response (5.0 only).
    /// # Errors
    /// As of [`Self::publish`], or nobody answers in time.
    pub async fn request(
        &self,
        topic: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Result<Message, Error> {
        let publication = Publication::new(topic, payload, Qos::AtLeastOnce);
        self.request_with(publication, RESPONSE_MAX).await
    }

    /// The same with all that a publication can have but Response Topic and Correlation Data, and with another patience.
    /// # Errors
    /// As of [`Self::publish`], or nobody answers in time.
    pub async fn request_with(
        &self,
        publication: Publication,
        patience: Duration,
    ) -> Result<Message, Error> {
        if self.shared.version != Version::V5 {
            return Err(Error::Caller(Mistake::NotInThisVersion("requests")));
        }
        let requests = self
            .shared
            .requests
            .get_or_try_init(|| self.listen())
            .await?;
        let waits = requests.begin();
        let publication = publication
            .property(&Property::ResponseTopic(&requests.topic))
            .and_then(|publication| {
                publication.property(&Property::CorrelationData(&waits.number.to_be_bytes()))
            })
            .map_err(|error| Error::Caller(Mistake::Request(error.into())))?;
        let answered = timeout(patience, waits.answer(self.publish(publication)));
        answered
            .await
            .unwrap_or(Err(Error::Network(Outage::Timeout)))
    }

    /// Answers a request: to its Response Topic, with its Correlation Data, at its QoS.
    /// # Errors
    /// [`Mistake::NoResponseTopic`]: it does not say where to. Otherwise as of [`Self::publish`].
    pub async fn respond(
        &self,
        request: &Message,
        payload: impl Into<Bytes>,
    ) -> Result<Published, Error> {
        let topic = request.response_topic();
        let topic = topic.ok_or(Error::Caller(Mistake::NoResponseTopic))?;
        let mut publication = Publication::new(topic, payload, request.qos);
        if let Some(data) = request.correlation_data() {
            publication = publication
                .property(&Property::CorrelationData(data))
                .map_err(|error| Error::Caller(Mistake::Request(error.into())))?;
        }
        self.publish(publication).await
    }

    /// Subscribes to what responses come to.
    async fn listen(&self) -> Result<Requests, Error> {
        self.connected().await?;
        let topic = match &*self.shared.state.borrow() {
            State::Connected { client_id, connack } => {
                let base = connack.properties.response_information.as_deref();
                let name = client_id.replace(['+', '#', '/'], "-");
                format!(
                    "{}/{name}",
                    base.unwrap_or("responses").trim_end_matches('/')
                )
            }
            _ => return Err(Error::Network(Outage::Offline)),
        };
        let mut responses = self.subscribe(topic.as_str(), Qos::AtLeastOnce).await?;
        let pending = Arc::new(Mutex::new(Pending::default()));
        let answering = Arc::clone(&pending);
        // It ends with the client, whose task ends the stream.
        drop(tokio::spawn(async move {
            while let Some(response) = responses.next().await {
                answer(&answering, response);
            }
            let mut pending = answering.lock().unwrap_or_else(PoisonError::into_inner);
            pending.waiting.clear();
        }));
        Ok(Requests { topic, pending })
    }

    /// Proves again, by the [`crate::Authenticator`] of [`Options::authenticator`], who we are, and waits until the
    /// Server is content.
    /// # Errors
    /// There is no authenticator, another exchange goes on, or the connection has ended.
    pub async fn reauthenticate(&self) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Reauthenticate { done })?;
        answer.await.unwrap_or(Err(Error::Caller(Mistake::Ended)))
    }

    /// Waits until everything that was handed over is answered.
    /// # Errors
    /// The client has ended.
    pub async fn flush(&self) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Flush { done })?;
        answer.await.map_err(|_| Error::Caller(Mistake::Ended))
    }

    /// Sends DISCONNECT, and waits until the connection is closed. What was handed over and not answered by then
    /// is answered with [`Mistake::Ended`]: [`Self::flush`] first, if it matters.
    pub async fn disconnect(self) {
        self.disconnect_with(ReasonCode::Success).await;
    }

    /// The same with a Reason Code: [`ReasonCode::DisconnectWithWillMessage`] publishes the Will.
    pub async fn disconnect_with(self, reason: ReasonCode) {
        self.disconnect_by(Disconnect::new(reason)).await;
    }

    /// The same by this packet, with its properties.
    pub async fn disconnect_by(self, disconnect: Disconnect) {
        let (done, left) = oneshot::channel();
        let command = Command::Disconnect {
            disconnect,
            done: Some(done),
        };
        // An end of either kind is one.
        if self.send(command).is_ok() {
            left.await.ok();
        }
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        let sent = self.shared.commands.send(command);
        sent.map_err(|_| self.why())
    }

    /// Why nothing goes on.
    fn why(&self) -> Error {
        match &*self.shared.state.borrow() {
            State::Ended(why) => why.clone(),
            _ => Error::Caller(Mistake::Ended),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let command = Command::Disconnect {
            disconnect: Disconnect::new(ReasonCode::Success),
            done: None,
        };
        // The task may have ended before.
        self.commands.send(command).ok();
    }
}

/// Requests that await their response.
#[derive(Debug)]
struct Requests {
    topic: String,
    pending: Arc<Mutex<Pending>>,
}

#[derive(Debug, Default)]
struct Pending {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Message>>,
}

/// One of them; dropped, it is forgotten.
struct Waits {
    number: u64,
    response: oneshot::Receiver<Message>,
    pending: Arc<Mutex<Pending>>,
}

impl Requests {
    fn begin(&self) -> Waits {
        let (sender, response) = oneshot::channel();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.last += 1;
        let number = pending.last;
        pending.waiting.insert(number, sender);
        Waits {
            number,
            response,
            pending: Arc::clone(&self.pending),
        }
    }
}

impl Waits {
    /// The response, which may come before the acknowledgement of the request.
    async fn answer(
        mut self,
        published: impl Future<Output = Result<Published, Error>>,
    ) -> Result<Message, Error> {
        let ended = Error::Caller(Mistake::Ended);
        tokio::select! {
            response = &mut self.response => return response.map_err(|_| ended),
            published = published => published?,
        };
        (&mut self.response).await.map_err(|_| ended)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.waiting.remove(&self.number);
    }
}

fn answer(pending: &Mutex<Pending>, response: Message) {
    let number = response
        .correlation_data()
        .and_then(|data| data.try_into().ok());
    let Some(number) = number.map(u64::from_be_bytes) else {
        return;
    };
    let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(waiting) = pending.waiting.remove(&number) {
        // Whoever asked may have gone.
        waiting.send(response).ok();
    }
}

/// How long [`Client::request`] waits.
const RESPONSE_MAX: Duration = Duration::from_secs(30);
