//! A Server from start to stop.
//!
//! Owns: [`Server`], its threads, what has to be there before the first shard runs.
//! Does not own: what a shard does (see `shard`). Start reading at [`Server::start`].
//! Invariant: when [`Server::join`] returns, every thread of it has ended.

use std::hash::BuildHasher;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{io, panic};

use engine::ShardIndex;
use mio::{Poll, Waker};
use store::disk::{Disk, RealDisk};
use store::{MemoryStore, OpenError, Recovered, RecoveryReport, SessionId, Store};

use crate::activation::ActivationError;
use crate::authentication::{Authentication, AuthenticationError, Users};
use crate::authorization::AuthorizationError;
use crate::config::{Address, Config, ListenerConfig, Transport};
use crate::governor::Budget;
use crate::listener::OpenError as ListenError;
use crate::outbound::Outbound;
use crate::persist::{self, DataFolder, Figures, FolderError, Restored};
use crate::reload::{Policy, PolicyError, ReloadError, Reloaded, Reloader};
use crate::shard::{
    Acceptor, Command, Door, Found, Links, Mailbox, Parts, Settings, Shard, Shared, WAKER,
    resident_bytes,
};
use crate::socket_file::{SocketFile, SocketFileError};
use crate::tls::TlsError;
use crate::{listener, open_files};

/// A running Server.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<Address>,
    /// Taken away when everything has ended.
    files: Vec<SocketFile>,
    shared: Arc<Shared>,
    /// One for each shard.
    commands: Vec<mpsc::Sender<Command>>,
    /// What it runs on, with what was reloaded.
    running: Arc<Mutex<Config>>,
    /// Authenticators that were given and not configured: a reload leaves them.
    given: Option<Authentication>,
    threads: Vec<JoinHandle<()>>,
    /// Sockets of QUIC that nobody serves yet, each with the number of its listener.
    datagrams: Vec<(u16, UdpSocket)>,
    #[cfg(feature = "quic")]
    quic: Option<crate::quic::Running>,
    /// What keeps state on disk.
    persist: Option<persist::Running>,
    restored: Option<Restored>,
}

/// What a shard runs on.
struct Seat {
    poll: Poll,
    doors: Vec<Door>,
}

/// What is there before the first shard runs; of the log and its folder nothing where everything is in memory.
pub(crate) struct Kept {
    pub(crate) figures: Option<Arc<Figures>>,
    /// Each has a file open.
    segments: usize,
    /// Those of the data folder.
    pub(crate) users: Option<Arc<Users>>,
    pub(crate) outbound: Arc<Outbound>,
}

impl Kept {
    fn with(outbound: Arc<Outbound>) -> Self {
        Self {
            figures: None,
            segments: 0,
            users: None,
            outbound,
        }
    }
}

/// Why a Server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another program listens there.
    #[error("{addr} is in use by another program")]
    PortInUse {
        /// Where.
        addr: SocketAddr,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {addr}: {source}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A Unix socket cannot be listened at.
    #[error("cannot listen at unix:{}: {source}", path.display())]
    SocketFile {
        /// Where.
        path: PathBuf,
        /// Why.
        source: SocketFileError,
    },
    /// What the service manager was to open for us is not there.
    #[error("listener with activation = {name:?}: {source}")]
    Activation {
        /// Its name.
        name: String,
        /// Why.
        source: ActivationError,
    },
    /// A listener cannot be secured as it is configured.
    #[error("listener {listener}: {source}")]
    Tls {
        /// Its name.
        listener: String,
        /// Why.
        source: TlsError,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What is in it cannot be taken up.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// Who Clients are cannot be read.
    #[error(transparent)]
    Authentication(AuthenticationError),
    /// What Clients may do cannot be read.
    #[error(transparent)]
    Authorization(AuthorizationError),
    /// The system gives too little for QUIC.
    #[error("cannot start QUIC: {source}")]
    Quic {
        /// What the system said.
        source: io::Error,
    },
    /// The system has no thread or event queue for us.
    #[error("cannot start a shard: {source}")]
    Shard {
        /// What the system said.
        source: io::Error,
    },
}

/// Why a Server has stopped by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server has stopped by itself: {reason}")]
pub struct Stopped {
    reason: String,
}

impl Server {
    /// Opens the data folder, takes up what is in it, then listens and serves. Where `config` keeps nothing
    /// on disk, no folder is used.
    /// # Errors
    /// The folder is in use or damaged, an address is in use, or the system gives too little.
    pub fn start(config: Config) -> Result<Self, StartError> {
        if config.storage.is_in_memory() {
            let opened = open_all(&config.listeners, config.shards.get())?;
            return Self::start_at(opened, config, None, |_| MemoryStore::new());
        }
        let folder = DataFolder::lock(&config.storage.data)?;
        let disk = RealDisk::open(folder.path()).map_err(|source| FolderError::Unusable {
            path: folder.path().to_owned(),
            source,
        })?;
        Self::start_durable(config, disk, Some(folder))
    }

    /// The same with its log on `disk`, whatever the configuration says of a folder: for tests of what a disk
    /// can do to it.
    /// # Errors
    /// As with [`Self::start`].
    pub fn start_on(config: Config, disk: impl Disk) -> Result<Self, StartError> {
        Self::start_durable(config, disk, None)
    }

    /// With everything in memory, other authenticators, and the store that `store` makes for each shard.
    /// # Errors
    /// An address is in use, or the system gives too little.
    pub fn start_with<S: Store + Send + 'static>(
        config: Config,
        authentication: Authentication,
        store: impl FnMut(ShardIndex) -> S,
    ) -> Result<Self, StartError> {
        let opened = open_all(&config.listeners, config.shards.get())?;
        Self::start_at(opened, config, Some(authentication), store)
    }

    fn start_at<S: Store + Send + 'static>(
        opened: Vec<listener::Opened>,
        config: Config,
        given: Option<Authentication>,
        store: impl FnMut(ShardIndex) -> S,
    ) -> Result<Self, StartError> {
        let outbound = Arc::new(Outbound::default());
        let policy = Policy::new(&config, given.as_ref(), None, &outbound)?;
        let stores = (0..config.shards.get())
            .map(ShardIndex)
            .map(store)
            .collect();
        let (mut server, seats) = Self::prepare(opened, &config, given, Kept::with(outbound))?;
        let nothing = Recovered {
            sessions: Vec::new(),
            retained: Vec::new(),
            next_session: SessionId(1),
            report: RecoveryReport::default(),
        };
        server.start_shards(&config, policy, seats, stores, nothing)?;
        Ok(server)
    }

    fn start_durable<D: Disk>(
        config: Config,
        disk: D,
        folder: Option<DataFolder>,
    ) -> Result<Self, StartError> {
        // Before anything is touched.
        let users = folder.as_ref().map(|folder| Users::serve(folder.path()));
        let users = users.transpose().map_err(PolicyError::from)?.map(Arc::new);
        let outbound = Arc::new(Outbound::default());
        let policy = Policy::new(&config, None, users.as_ref(), &outbound)?;
        // A log may have more segments than the limit that we were started with allows files.
        open_files::raise();
        let (log, recovered, restored) = persist::Opened::open(disk, folder, &config.storage)?;
        let opened = open_all(&config.listeners, config.shards.get())?;
        let kept = Kept {
            figures: Some(log.figures()),
            segments: log.segment_count(),
            users,
            ..Kept::with(outbound)
        };
        let (mut server, seats) = Self::prepare(opened, &config, None, kept)?;
        let started = log.start(&server.shared);
        let (stores, running) = started.map_err(|source| StartError::Shard { source })?;
        server.persist = Some(running);
        server.restored = Some(restored);
        server.start_shards(&config, policy, seats, stores, recovered)?;
        Ok(server)
    }

    /// Everything but threads.
    fn prepare(
        opened: Vec<listener::Opened>,
        config: &Config,
        given: Option<Authentication>,
        kept: Kept,
    ) -> Result<(Self, Vec<Seat>), StartError> {
        let shard_count = config.shards.get();
        let mut opened = opened;
        let addresses = opened.iter().map(|one| one.address.clone()).collect();
        let files = opened.iter_mut().filter_map(|one| one.file.take());
        let files = files.collect();
        let datagrams = (0..).zip(&mut opened);
        let datagrams = datagrams.filter_map(|(number, one)| Some((number, one.datagrams.take()?)));
        let datagrams = datagrams.collect();
        let (polls, mailboxes) =
            polls(shard_count).map_err(|source| StartError::Shard { source })?;
        let settings = settings(config, kept.segments);
        let shared = Shared::new(mailboxes, settings, kept);
        let server = Self {
            addresses,
            files,
            shared: Arc::new(shared),
            commands: Vec::new(),
            running: Arc::new(Mutex::new(config.clone())),
            given,
            threads: Vec::new(),
            datagrams,
            #[cfg(feature = "quic")]
            quic: None,
            persist: None,
            restored: None,
        };
        // Too much where a large log was just read; it is looked at again every second.
        let (resident, _) = resident_bytes();
        server.shared.governor.on_resident(resident);
        let seats = polls.into_iter().zip(deal(opened, shard_count));
        let seats = seats.map(|(poll, doors)| Seat { poll, doors });
        Ok((server, seats.collect()))
    }

    /// Starts all shards with what was found for them; returns when every one of them accepts.
    fn start_shards<S: Store + Send + 'static>(
        &mut self,
        config: &Config,
        policy: Policy,
        seats: Vec<Seat>,
        stores: Vec<S>,
        recovered: Recovered,
    ) -> Result<(), StartError> {
        let failed = |source| StartError::Shard { source };
        self.shared.remember(&policy);
        let base = engine::Config {
            rules: Arc::clone(&policy.rules),
            limits: Arc::clone(&policy.bounds.engine),
            limits_by_listener: policy.bounds.by_listener.clone(),
            ..self.engine_config(config, &recovered)
        };
        let found = self.share(recovered);
        let policy = Arc::new(policy);
        let links = Links::mesh(&self.shared.mailboxes);
        let (sender, started) = mpsc::channel();
        let parts = seats.into_iter().zip(links).zip(stores).zip(found);
        for (shard, (((seat, links), store), found)) in (0..).zip(parts) {
            let (commander, commands) = mpsc::channel();
            self.commands.push(commander.clone());
            let thread = spawn(Parts {
                poll: seat.poll,
                engine: engine::Config {
                    shard: ShardIndex(shard),
                    ..base.clone()
                },
                store,
                found,
                links,
                acceptor: Acceptor::new(seat.doors),
                commands,
                commander,
                started: sender.clone(),
                policy: Arc::clone(&policy),
                shared: Arc::clone(&self.shared),
            });
            self.threads.push(thread.map_err(failed)?);
        }
        drop(sender);
        for _ in 0..self.threads.len() {
            let has_ended = |_| failed(io::Error::other("a shard has ended at its start"));
            started.recv().map_err(has_ended)?;
        }
        // Set once, by the only start of this Server.
        self.shared.commanders.set(self.commands.clone()).ok();
        self.start_endpoints(&policy)?;
        config.storage.log();
        self.shared.governor.log();
        for (address, of) in self.addresses.iter().zip(&config.listeners) {
            let protocol = match (of.transport, of.tls.is_some()) {
                (_, false) if of.sniff => "MQTT or WebSocket",
                (_, true) if of.sniff => "MQTT or WebSocket, with TLS or without",
                (Transport::Stream, false) if address.network().is_none() => "MQTT",
                (Transport::Stream, false) => "TCP",
                (Transport::Stream, true) => "TLS",
                (Transport::WebSocket, false) => "WebSocket",
                (Transport::WebSocket, true) => "WebSocket over TLS",
                (Transport::Quic, _) => "QUIC",
            };
            tracing::info!(listener = %address, protocol, "listening");
        }
        self.shared.standing.judge(config);
        Ok(())
    }

    /// Begins to serve QUIC, if a listener speaks it, when all shards can be given what comes.
    #[cfg(feature = "quic")]
    fn start_endpoints(&mut self, policy: &Policy) -> Result<(), StartError> {
        let sockets = std::mem::take(&mut self.datagrams);
        if sockets.is_empty() {
            return Ok(());
        }
        let running = crate::quic::Running::start(sockets, &policy.listeners, &self.shared);
        let running = running.map_err(|source| StartError::Quic { source })?;
        self.shared.quic.set(running.handle()).ok();
        self.quic = Some(running);
        Ok(())
    }

    #[cfg(not(feature = "quic"))]
    #[expect(clippy::unnecessary_wraps, reason = "nothing is started")]
    fn start_endpoints(&self, _: &Policy) -> Result<(), StartError> {
        assert!(
            self.datagrams.is_empty(),
            "a listener that a build without QUIC has refused"
        );
        Ok(())
    }

    /// What the engine of every shard is told, as if for the first.
    fn engine_config(&self, config: &Config, recovered: &Recovered) -> engine::Config {
        let settings = &self.shared.settings;
        engine::Config {
            sys_interval: config.sys_interval,
            shared_strategy: config.shared_strategy,
            response_topic_prefix: config.response_topic_prefix.clone(),
            started_at: persist::unix_millis(),
            first_session: recovered.next_session,
            // What keeps nothing cannot give it back.
            can_load: self.persist.is_some(),
            levels: config.storage.engine_levels(),
            ..engine::Config::new(ShardIndex(0), settings.shard_count, settings.hash_seed)
        }
    }

    /// What was found, for each shard.
    fn share(&self, recovered: Recovered) -> Vec<Found> {
        let settings = &self.shared.settings;
        let mut found: Vec<Found> = (0..settings.shard_count)
            .map(|_| Found {
                sessions: Vec::new(),
                retained: recovered.retained.clone(),
            })
            .collect();
        for session in recovered.sessions {
            let client_id = &session.session.client_id;
            let home = engine::home_shard(client_id, settings.hash_seed, settings.shard_count);
            if let Some(found) = found.get_mut(usize::from(home.0)) {
                found.sessions.push(session);
            }
        }
        found
    }

    /// Where it listens, with real ports, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The same without Unix sockets.
    #[must_use]
    pub fn listeners(&self) -> Vec<SocketAddr> {
        let networks = self.addresses.iter().filter_map(Address::network);
        networks.collect()
    }

    /// What it found in its data folder; `None` where everything is in memory.
    #[must_use]
    pub const fn restored(&self) -> Option<&Restored> {
        self.restored.as_ref()
    }

    /// Begins to stop: accepts no more, publishes wills, tells every Client, closes. Returns at once;
    /// [`Self::join`] returns when it is done, within 10 seconds, and
    /// 5 more where Clients over QUIC or questions to other machines keep it. Calling it again changes nothing.
    pub fn stop(&self) {
        self.shared.request_stop();
    }

    /// Disconnects a Client by its Client Identifier, with 0x98 (Administrative action) where its version
    /// has that; its Will is published. Waits for the shard that serves it. Returns whether it was
    /// connected; what it may do when it comes again is the authenticator's to say.
    pub fn disconnect(&self, client_id: &str) -> bool {
        let settings = &self.shared.settings;
        let home = engine::home_shard(client_id, settings.hash_seed, settings.shard_count);
        let home = usize::from(home.0);
        let (answer, answered) = mpsc::channel();
        let command = Command::Disconnect {
            client_id: client_id.to_owned(),
            answer,
        };
        let Some(sender) = self.commands.get(home) else {
            return false;
        };
        // A shard that has ended serves nobody.
        if sender.send(command).is_err() {
            return false;
        }
        if let Some(mailbox) = self.shared.mailboxes.get(home) {
            mailbox.wake();
        }
        answered.recv().unwrap_or(false)
    }

    /// Takes over what of `config` can change while it runs, at once in every shard when this returns; what
    /// cannot is named in the answer and in the log. Connected Clients stay.
    /// # Errors
    /// `config` cannot be used, or the Server stops. The old configuration stays.
    pub fn reload(&self, config: Config) -> Result<Reloaded, ReloadError> {
        self.reloader().reload(config)
    }

    /// A handle that reloads while something else waits in [`Self::join`].
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        let shared = Arc::clone(&self.shared);
        let running = Arc::clone(&self.running);
        Reloader::new(shared, self.commands.clone(), running, self.given.clone())
    }

    /// A handle that stops this Server while something else waits in [`Self::join`].
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.shared))
    }

    /// Waits until the Server has stopped, by [`Self::stop`] or by itself.
    /// # Errors
    /// It has stopped by itself: its store has failed, or a part of it has ended in a panic.
    pub fn join(mut self) -> Result<(), Stopped> {
        self.join_threads();
        match self.shared.failure.get() {
            None => Ok(()),
            Some(reason) => Err(Stopped {
                reason: reason.clone(),
            }),
        }
    }

    fn join_threads(&mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.stop_because("a shard's thread has panicked");
            }
        }
        #[cfg(feature = "quic")]
        if let Some(running) = self.quic.take() {
            running.finish();
        }
        self.shared.verifiers.stop();
        self.shared.outbound.stop();
        if let Some(running) = self.persist.take() {
            running.stop();
        }
        self.files.clear();
    }
}

/// Stops a [`Server`].
#[derive(Clone, Debug)]
pub struct Stopper(Arc<Shared>);

impl Stopper {
    /// What [`Server::stop`] does.
    pub fn stop(&self) {
        self.0.request_stop();
    }
}

impl Drop for Server {
    /// Stops and waits, so that no thread outlives its Server.
    fn drop(&mut self) {
        if !self.threads.is_empty() || self.persist.is_some() {
            self.stop();
            self.join_threads();
        }
    }
}

fn open_all(
    listeners: &[ListenerConfig],
    shard_count: u16,
) -> Result<Vec<listener::Opened>, StartError> {
    let open = |listener: &ListenerConfig| {
        listener::open(listener, shard_count).map_err(|error| match error {
            ListenError::Network(addr, source) if is_of_tcp(listener, &source) => {
                StartError::PortInUse { addr }
            }
            ListenError::Network(addr, source) => StartError::Listen { addr, source },
            ListenError::Unix(path, source) => StartError::SocketFile { path, source },
            ListenError::Inherited(name, source) => StartError::Activation { name, source },
        })
    };
    listeners.iter().map(open).collect()
}

/// Open files of one connection, at most.
fn files_of_a_connection(config: &Config) -> usize {
    let is_quic = |of: &ListenerConfig| of.transport == Transport::Quic;
    // Behind QUIC stands a pair of sockets.
    if config.listeners.iter().any(is_quic) {
        2
    } else {
        1
    }
}

/// Whether another program has a port of TCP, which it can be asked for.
fn is_of_tcp(listener: &ListenerConfig, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse && listener.transport != Transport::Quic
}

impl From<PolicyError> for StartError {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Authentication(error) => Self::Authentication(error),
            PolicyError::Authorization(error) => Self::Authorization(error),
            PolicyError::Tls { listener, source } => Self::Tls { listener, source },
        }
    }
}

/// An event queue and a mailbox for each shard.
fn polls(shard_count: u16) -> io::Result<(Vec<Poll>, Arc<[Mailbox]>)> {
    let mut polls = Vec::new();
    let mut mailboxes = Vec::new();
    for _ in 0..shard_count {
        let poll = Poll::new()?;
        mailboxes.push(Mailbox::new(Waker::new(poll.registry(), WAKER)?));
        polls.push(poll);
    }
    Ok((polls, mailboxes.into()))
}

/// The sockets of each shard: its own of every address, or shard 0's the only one of it.
fn deal(opened: Vec<listener::Opened>, shard_count: u16) -> impl Iterator<Item = Vec<Door>> {
    let mut dealt: Vec<Vec<_>> = (0..shard_count).map(|_| Vec::new()).collect();
    for (listener, one) in (0..).zip(opened) {
        let is_for_all = one.sockets.len() < usize::from(shard_count);
        for (shard, socket) in dealt.iter_mut().zip(one.sockets) {
            shard.push(Door {
                listener,
                socket,
                is_for_all,
            });
        }
    }
    dealt.into_iter()
}

fn settings(config: &Config, segments: usize) -> Settings {
    let shard_count = config.shards.get();
    let random = || std::hash::RandomState::new().hash_one(0_u8);
    let others = open_files::Others {
        shard_count,
        segments,
        questions: config.questions_max(),
    };
    let connections_room = open_files::connections_room(
        config.bounds.connections_max,
        files_of_a_connection(config),
        others,
    );
    Settings {
        is_quic: config
            .listeners
            .iter()
            .map(|listener| listener.transport == Transport::Quic)
            .collect(),
        connections_max: config.bounds.connections_max.min(connections_room),
        connections_room,
        refusals_max: open_files::refusals_max(files_of_a_connection(config), others),
        hash_seed: random(),
        shard_count,
        client_id_prefix: format!("auto-{:016x}", random()),
        memory_budget: Budget::new(config.bounds.memory_max_bytes),
        login_threads: config.bounds.login_threads,
        logins_waiting_max: config.bounds.logins_waiting_max,
        crowds: (&config.bounds).into(),
    }
}

fn spawn<S: Store + Send + 'static>(parts: Parts<S>) -> io::Result<JoinHandle<()>> {
    let shard = parts.engine.shard.0;
    std::thread::Builder::new()
        .name(format!("vencejo-shard-{shard}"))
        .spawn(move || {
            let shared = Arc::clone(&parts.shared);
            let run = panic::AssertUnwindSafe(|| Shard::new(parts, Instant::now()).run());
            if let Err(panic) = panic::catch_unwind(run) {
                shared.stop_because(&format!("shard {shard} has panicked"));
                panic::resume_unwind(panic);
            }
        })
}

/// What the threads of a Server share, for tests of one of them.
#[cfg(test)]
pub(crate) fn shared_for_tests(shard_count: u16, config: &Config) -> Arc<Shared> {
    let config = Config {
        shards: std::num::NonZeroU16::new(shard_count).expect("not zero"),
        ..config.clone()
    };
    let (_, mailboxes) = polls(shard_count).expect("the system has room");
    let settings = settings(&config, 0);
    let kept = Kept::with(Arc::default());
    Arc::new(Shared::new(mailboxes, settings, kept))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn one_listener_can_serve_all_shards() {
        let config = Config {
            shards: std::num::NonZeroU16::new(4).expect("not zero"),
            ..Config::default()
        };
        let of = ListenerConfig::from(([127, 0, 0, 1], 0));
        let opened = listener::open(&of, 1).expect("a free port");
        let server = Server::start_at(vec![opened], config, None, |_| MemoryStore::new())
            .expect("the Server starts");
        let clients: Vec<TcpStream> = (b'a'..=b'p')
            .map(|name| {
                let mut client = TcpStream::connect(server.listeners()[0]).expect("accepted");
                let connect = [
                    &b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01"[..],
                    &[name],
                ];
                client.write_all(&connect.concat()).expect("is read");
                client
            })
            .collect();
        for mut client in clients {
            let mut connack = [0; 4];
            client.read_exact(&mut connack).expect("a CONNACK");
            assert_eq!(connack, [0x20, 2, 0, 0]);
        }
    }
}
