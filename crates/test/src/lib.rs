//! An MQTT broker for tests: in the process of the test, on a free port, in milliseconds, with faults on demand.
//!
//! ```sh
//! cargo add vencejo-test --dev --path ../vencejo/crates/test    # a clone of the repository beside your program
//! ```
//!
//! ```
//! use std::time::Duration;
//! use vencejo_test::Broker;
//! use vencejo_test::client::{Client, Publication, Qos};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut broker = Broker::start();
//!
//! // Whatever is to be tested connects to `broker.addr()`; here it is our own client.
//! let client = Client::connect(broker.options()).await?;
//! client.publish(Publication::new("sensors/kitchen", "21.5", Qos::AtLeastOnce)).await?;
//!
//! // What was published in the test, whoever did it.
//! let seen = broker.expect_publish("sensors/+").within(Duration::from_secs(5)).await;
//! assert_eq!(seen.payload, "21.5");
//!
//! // The process of the broker ends, its disk stays; the client connects again by itself.
//! broker.kill();
//! broker.restart();
//! client.publish(Publication::new("sensors/kitchen", "22.0", Qos::AtLeastOnce)).await?;
//! broker.expect_publish("sensors/+").with("22.0").within(Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is shared between two brokers, and nothing is global: tests run side by side. It is the whole server of
//! Vencejo: MQTT 3.1, 3.1.1 and 5.0, Sessions, Retained Messages, all three QoS. Between a client and it stands a
//! proxy that can cut ([`Broker::cut`], [`Broker::cut_after`]), stall ([`Broker::stall`]) and delay
//! ([`Broker::delay`]) what passes; [`Broker::kill`], [`Broker::lose_power`] and [`Broker::restart`] do the same to
//! the server itself. State lies on a disk in memory: no file is written.
//!
//! Further listeners go into the configuration ([`Broker::start_with`]): TLS, WebSocket, and QUIC with the Cargo feature
//! `quic`; with it and the feature `websocket` our own client goes there, too.
//!
//! Owns: the broker's life, its faults, what was published. Does not own: the server, the client.
//! Start reading at [`Broker::start`]. Invariant: when a [`Broker`] is gone, so are its threads and sockets.
#![allow(
    clippy::panic,
    reason = "a test fails by a panic, also in what tests call"
)]

mod expectation;
mod proxy;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use client;
use client::{Acknowledge, Client, Messages, Options, Qos, ReceivedMessage, Subscription};
pub use server;
use server::Server;
use server::config::{Config, StorageConfig};
use store::disk::fault::{FaultDisk, FaultPlan};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

pub use expectation::Expectation;
use expectation::Recorder;
use proxy::Proxy;

/// A broker. Dropped, it is gone.
///
/// Its methods panic where something is wrong with it, since it is for tests.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    disk: FaultDisk,
    /// None while it is killed.
    server: Option<Server>,
    proxy: Proxy,
    recorder: Arc<Recorder>,
    runtime: Background,
}

impl Broker {
    /// A broker on a free port of 127.0.0.1 that lets everyone in, with an empty disk.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same with a configuration that `change` has changed: limits, users, rules. Its first listener is the one
    /// that [`Self::addr`] leads to.
    #[must_use]
    pub fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            listeners: vec![([127, 0, 0, 1], 0).into()],
            shards: const { NonZeroU16::new(1).expect("invariant: not 0") },
            storage: StorageConfig {
                segment_bytes: SEGMENT_BYTES,
                spares: 0,
                disk_low_bytes: Some(0),
                ..StorageConfig::default()
            },
            ..Config::default()
        };
        change(&mut config);
        let runtime = Background::start();
        let proxy = Proxy::start(&runtime.handle);
        let mut broker = Self {
            config,
            disk: FaultDisk::new(0, FaultPlan::default()),
            server: None,
            proxy,
            recorder: Arc::default(),
            runtime,
        };
        broker.restart();
        broker
    }

    /// Where it listens, also after a restart.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.proxy.address
    }

    /// `mqtt://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.addr())
    }

    /// Options of our own client that lead here, with delays between two attempts that suit a test.
    #[must_use]
    pub fn options(&self) -> Options {
        let reconnect = client::Reconnect {
            delay_min: Duration::from_millis(20),
            delay_max: Duration::from_millis(200),
            attempts_max: None,
        };
        Options::new(self.addr().ip().to_string(), self.addr().port()).reconnect(reconnect)
    }

    /// What is to be published to a topic that this Topic Filter matches. Each message counts for one expectation, in
    /// the order in which they came; those that came before this call count, too.
    pub fn expect_publish(&self, filter: impl Into<String>) -> Expectation {
        let handle = self.runtime.handle.clone();
        Expectation::new(filter.into(), Arc::clone(&self.recorder), handle)
    }

    /// All that was published so far (of a hundred thousand messages the latest), in its order.
    #[must_use]
    pub fn published(&self) -> Vec<ReceivedMessage> {
        self.recorder.all()
    }

    /// Cuts every connection there is, now.
    pub fn cut(&self) {
        self.proxy.cut();
    }

    /// Cuts each connection that comes from now on, one after the other by one of these: after so many bytes from the
    /// client, or after so many bytes to it. When all are used connections are left alone.
    pub fn cut_after(&self, cuts: impl IntoIterator<Item = Cut>) {
        self.proxy.cut_after(cuts.into_iter().collect());
    }

    /// From now on nothing passes, either way, and nobody is told; until [`Self::heal`].
    pub fn stall(&self) {
        self.proxy.change(|faults| faults.is_stalled = true);
    }

    /// From now on, all that passes takes so much longer, either way.
    pub fn delay(&self, delay: Duration) {
        self.proxy.change(|faults| faults.delay = delay);
    }

    /// Ends what [`Self::stall`] and [`Self::delay`] began, and forgets the rest of [`Self::cut_after`].
    pub fn heal(&self) {
        self.proxy.heal();
    }

    /// Ends the server as `kill -9` does: no client hears a word, and its disk keeps what it had written. Connections
    /// that come are closed at once, until [`Self::restart`].
    pub fn kill(&mut self) {
        let disk = self.disk.kill();
        self.end(disk);
    }

    /// Ends it as a loss of power does: of what was not synced the seed says what is left. What was acknowledged is.
    pub fn lose_power(&mut self, seed: u64) {
        let disk = self.disk.crash(seed);
        self.end(disk);
    }

    /// Stops it as an operator does: clients hear of it, Wills are published.
    pub fn stop(&mut self) {
        self.server = None;
        self.proxy.lead_to(None);
        self.disk = self.disk.kill();
    }

    /// Starts it again, with the state on its disk, at the same address; if it runs, it is killed before.
    /// # Panics
    /// It does not start.
    pub fn restart(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
        let server = Server::start_on(self.config.clone(), self.disk.clone());
        let server = server.unwrap_or_else(|error| panic!("the broker does not start: {error}"));
        let address = server.listeners().first().copied();
        let address = address.expect("invariant: there is a listener");
        self.server = Some(server);
        self.watch(address);
        self.proxy.lead_to(Some(address));
    }

    /// The same with an empty disk: Sessions and Retained Messages are lost.
    pub fn restart_empty(&mut self) {
        if self.server.is_some() {
            self.kill();
        }
        self.disk = FaultDisk::new(0, FaultPlan::default());
        self.restart();
    }

    /// The running server: for what it can be asked.
    #[must_use]
    pub const fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    fn end(&mut self, disk: FaultDisk) {
        self.recorder.end();
        self.proxy.lead_to(None);
        self.proxy.cut();
        // What it does from here on nobody sees any more.
        self.disk.stop();
        self.server = None;
        self.disk = disk;
    }

    /// Records what is published, from before the first client comes.
    fn watch(&self, address: SocketAddr) {
        let recorder = Arc::clone(&self.recorder);
        let server = recorder.server();
        let (ready, is_ready) = oneshot::channel();
        drop(self.runtime.handle.spawn(async move {
            match subscribe(address).await {
                Ok((client, mut messages)) => {
                    ready.send(Ok(())).ok();
                    while let Some(message) = messages.next().await {
                        recorder.record(server, message.into_received());
                    }
                    drop(client);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        }));
        let ready = wait(is_ready);
        if let Err(error) = ready {
            panic!("the broker lets nobody in who watches it: {error}");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.proxy.lead_to(None);
        self.proxy.cut();
        self.server = None;
    }
}

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// After so many bytes from the client.
    FromClient(usize),
    /// After so many bytes to the client.
    ToClient(usize),
}

async fn subscribe(address: SocketAddr) -> Result<(Client, Messages), client::Error> {
    let reconnect = client::Reconnect {
        attempts_max: Some(0),
        ..client::Reconnect::default()
    };
    let options = Options::new(address.ip().to_string(), address.port()).reconnect(reconnect);
    let client = Client::connect(options).await?;
    let everything = Subscription::new("#", Qos::ExactlyOnce)
        .retain_handling(client::proto::packet::RetainHandling::DoNotSend);
    let messages = client
        .subscribe_with(vec![everything], Acknowledge::WhenTaken)
        .await?;
    Ok((client, messages))
}

/// Waits on a thread that may itself run a runtime.
fn wait<T: Send>(answer: oneshot::Receiver<T>) -> T {
    let waited = std::thread::scope(|scope| scope.spawn(|| answer.blocking_recv()).join());
    waited
        .ok()
        .and_then(Result::ok)
        .expect("invariant: the thread of the broker answers")
}

/// A thread with a runtime of its own, so that a test may have any or none.
#[derive(Debug)]
struct Background {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            // Ends when the broker is gone, with everything that was spawned.
            runtime.block_on(ended).ok();
        });
        Self {
            handle,
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Small: a test writes little, and a segment is made at every start.
const SEGMENT_BYTES: u32 = 1024 * 1024;
