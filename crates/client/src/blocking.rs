//! The same client for programs without an async runtime: every call waits.
//!
//! ```no_run
//! use vencejo_client::blocking::Client;
//! use vencejo_client::{Error, Options, Publication, Qos};
//!
//! fn main() -> Result<(), Error> {
//!     let client = Client::connect(Options::new("localhost", 1883))?;
//!     let mut temperatures = client.subscribe("sensors/+/temperature", Qos::AtLeastOnce)?;
//!     client.publish(Publication::new("sensors/kitchen/temperature", "21.5", Qos::AtLeastOnce))?;
//!     for message in &mut temperatures {
//!         println!("{}: {}", message.topic, String::from_utf8_lossy(&message.payload));
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Owns: the thread that the client runs on. Does not own: what it does (see [`crate::Client`]). Start reading at
//! [`Client::connect`]. Invariant: when the last handle is gone, so is the thread, and the server has heard of it.
//!
//! None of this may be called within an async runtime: it would panic, since it would stop that runtime.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::error::{Error, Outage};
use crate::{
    Acknowledge, ConnectError, Message, Options, Publication, Published, Qos, State, Subscription,
};

/// See [`crate::Client`]. Clones share it, on any thread; the last one that goes leaves with a normal DISCONNECT.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

/// The messages of one subscription: an iterator that waits for the next.
#[derive(Debug)]
pub struct Messages {
    messages: crate::Messages,
    background: Arc<Background>,
}

/// A publication that was handed over.
#[derive(Debug)]
pub struct Handed {
    handed: crate::Handed,
    background: Arc<Background>,
}

#[derive(Debug)]
struct Shared {
    /// None only while it goes.
    client: Option<crate::Client>,
    state: watch::Receiver<State>,
    background: Arc<Background>,
}

impl Client {
    /// See [`crate::Client::connect`].
    /// # Errors
    /// There is no connection, or the Server refuses it.
    pub fn connect(options: Options) -> Result<Self, Error> {
        let background = Arc::new(Background::start()?);
        let client = background.wait(crate::Client::connect(options))?;
        Ok(Self::new(client, background))
    }

    /// See [`crate::Client::start`].
    /// # Errors
    /// [`Error::Caller`]: the options contradict each other.
    pub fn start(options: Options) -> Result<Self, Error> {
        let background = Arc::new(Background::start()?);
        let client = background.wait(async { crate::Client::start(options) })?;
        Ok(Self::new(client, background))
    }

    fn new(client: crate::Client, background: Arc<Background>) -> Self {
        let shared = Shared {
            state: client.state(),
            client: Some(client),
            background,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The state of the connection.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// Publishes, and waits for the acknowledgement.
    /// # Errors
    /// As of [`crate::Client::publish`].
    pub fn publish(&self, publication: Publication) -> Result<Published, Error> {
        let publishing = self.client().publish(publication);
        self.shared.background.wait(publishing)
    }

    /// Publishes without waiting for the acknowledgement.
    /// # Errors
    /// As of [`crate::Client::hand_over`].
    pub fn hand_over(&self, publication: Publication) -> Result<Handed, Error> {
        let background = Arc::clone(&self.shared.background);
        let handed = background.wait(self.client().hand_over(publication))?;
        Ok(Handed { handed, background })
    }

    /// Subscribes to one Topic Filter, and waits for the Server's answer.
    /// # Errors
    /// As of [`crate::Client::subscribe`].
    pub fn subscribe(&self, filter: impl Into<String>, qos: Qos) -> Result<Messages, Error> {
        let subscription = Subscription::new(filter, qos);
        self.subscribe_with(vec![subscription], Acknowledge::WhenTaken)
    }

    /// Subscribes to one or several Topic Filters, whose messages come in one stream.
    /// # Errors
    /// As of [`crate::Client::subscribe_with`].
    pub fn subscribe_with(
        &self,
        subscriptions: Vec<Subscription>,
        acknowledge: Acknowledge,
    ) -> Result<Messages, Error> {
        let background = Arc::clone(&self.shared.background);
        let subscribing = self.client().subscribe_with(subscriptions, acknowledge);
        let messages = background.wait(subscribing)?;
        Ok(Messages {
            messages,
            background,
        })
    }

    /// Asks, and waits for the response.
    /// # Errors
    /// As of [`crate::Client::request`].
    pub fn request(
        &self,
        topic: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Result<Message, Error> {
        let asking = self.client().request(topic, payload);
        self.shared.background.wait(asking)
    }

    /// Answers a request.
    /// # Errors
    /// As of [`crate::Client::respond`].
    pub fn respond(
        &self,
        request: &Message,
        payload: impl Into<Bytes>,
    ) -> Result<Published, Error> {
        let answering = self.client().respond(request, payload);
        self.shared.background.wait(answering)
    }

    /// Waits until everything that was handed over is answered.
    /// # Errors
    /// The client has ended.
    pub fn flush(&self) -> Result<(), Error> {
        self.shared.background.wait(self.client().flush())
    }

    /// Sends DISCONNECT, and waits until the connection is closed; the other handles have ended, too.
    pub fn disconnect(self) {
        let leaving = self.client().clone().disconnect();
        self.shared.background.wait(leaving);
    }

    fn client(&self) -> &crate::Client {
        let client = self.shared.client.as_ref();
        client.expect("invariant: it goes with the last handle")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.client = None;
        let ended = async {
            let ended = self
                .state
                .wait_for(|state| matches!(state, State::Ended(_)));
            timeout(LEAVING_MAX, ended).await.is_ok()
        };
        // A socket that takes nothing any more is not waited for.
        self.background.wait(ended);
    }
}

impl Messages {
    /// The next message, if one comes in this time.
    pub fn next_within(&mut self, patience: Duration) -> Option<Message> {
        // Made where it is polled: a timer wants its runtime.
        let next = async { timeout(patience, self.messages.next()).await };
        self.background.wait(next).ok().flatten()
    }

    /// Why there is no next message.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        self.messages.error()
    }

    /// Unsubscribes, and waits for the Server's answer.
    /// # Errors
    /// The client has ended.
    pub fn unsubscribe(self) -> Result<(), Error> {
        self.background.wait(self.messages.unsubscribe())
    }

    /// See [`crate::Messages::keep`].
    pub fn keep(self) {
        self.messages.keep();
    }
}

impl Iterator for Messages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        self.background.wait(self.messages.next())
    }
}

impl Handed {
    /// Waits for the acknowledgement.
    /// # Errors
    /// As of [`Client::publish`].
    pub fn wait(self) -> Result<Published, Error> {
        self.background.wait(self.handed)
    }
}

/// A thread that runs the client.
#[derive(Debug)]
struct Background {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    fn start() -> Result<Self, Error> {
        let failed = |error| Error::Network(Outage::Connect(Arc::new(ConnectError::Tcp(error))));
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("mqtt-client".to_owned());
        let thread = thread.spawn(move || {
            // Its sender is dropped with the last handle.
            runtime.block_on(ended).ok();
        });
        Ok(Self {
            handle,
            end: Some(end),
            thread: Some(thread.map_err(failed)?),
        })
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked: whoever waited for it has heard of that.
            thread.join().ok();
        }
    }
}

/// How long the last handle waits for the client to leave.
const LEAVING_MAX: Duration = Duration::from_secs(5);
