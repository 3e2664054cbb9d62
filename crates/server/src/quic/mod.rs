//! QUIC: endpoints on threads of their own, in front of the shards.
//!
//! Owns: those threads ([`Running`]), what all connections over QUIC have in common. Does not own: who is let in (see
//! `door`), the bytes of one connection (see `bridge`), MQTT (the shards serve a stream as any other). Start reading at
//! [`Running::start`]. Invariants: there is no thread without a listener that speaks QUIC; what a peer can make this
//! side keep before the Server has answered it is small and named here.

mod bridge;
mod door;

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::config::QuicConfig;
use crate::reload::ListenerPolicy;
use crate::shard::Shared;
use crate::tls::TlsError;
use door::Door;

/// Takes the UDP port of a listener. It is never shared: one endpoint hands what comes to all shards.
/// # Errors
/// It is in use or not ours to bind.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // As far as the system lets us: what does not fit is lost and sent again, which costs time only.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES).ok();
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES).ok();
    socket.set_nonblocking(true)?;
    socket
        .bind(&address.into())
        .map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                io::Error::new(error.kind(), "another program has this port of UDP")
            }
            _ => error,
        })?;
    Ok(socket.into())
}

/// What connections of a listener are made with.
#[derive(Clone)]
pub(crate) struct Terms {
    crypto: Arc<QuicServerConfig>,
    transport: Arc<TransportConfig>,
}

impl Terms {
    /// From what handshakes over TCP would be made with.
    /// # Errors
    /// It does not speak TLS 1.3.
    pub(crate) fn new(tls: rustls::ServerConfig, config: QuicConfig) -> Result<Self, TlsError> {
        let crypto = QuicServerConfig::try_from(tls);
        let crypto = crypto.map_err(|error| TlsError::Other(error.to_string()))?;
        Ok(Self {
            crypto: Arc::new(crypto),
            transport: Arc::new(transport(config)),
        })
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Terms")
    }
}

/// Tells running endpoints what has changed.
#[derive(Clone, Debug)]
pub(crate) struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policies: Policies,
    /// Each with the number of its listener; none once they are closed, so that nobody who holds this keeps a port.
    endpoints: Mutex<Vec<(u16, Endpoint)>>,
    /// The first configuration of each: its key for tokens stays, so that one given before a reload is good after it.
    bases: Vec<ServerConfig>,
    is_stopping: watch::Sender<bool>,
}

/// What is said of all listeners now.
#[derive(Clone, Debug)]
struct Policies(Arc<Mutex<Arc<[ListenerPolicy]>>>);

impl Policies {
    fn now(&self) -> Arc<[ListenerPolicy]> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Handle {
    /// Goes by these policies from the next connection on; those that there are stay.
    pub(crate) fn take_over(&self, listeners: &Arc<[ListenerPolicy]>) {
        let Self(inner) = self;
        let current = inner.policies.0.lock();
        *current.unwrap_or_else(PoisonError::into_inner) = Arc::clone(listeners);
        let endpoints = inner
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for ((number, endpoint), base) in endpoints.iter().zip(&inner.bases) {
            let of = listeners.get(usize::from(*number));
            if let Some(Terms { crypto, transport }) = of.and_then(|of| of.quic.clone())
                && !*inner.is_stopping.borrow()
            {
                let mut config = base.clone();
                config.crypto = crypto;
                config.transport_config(transport);
                endpoint.set_server_config(Some(config));
            }
        }
    }

    /// Lets nobody in any more.
    pub(crate) fn stop(&self) {
        self.0.is_stopping.send_replace(true);
    }
}

/// The threads of all endpoints.
#[derive(Debug)]
pub(crate) struct Running {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Running {
    /// Begins to let Clients in by `sockets`, each with the number of its listener.
    /// # Errors
    /// The system has no threads for it, or a socket cannot be used.
    pub(crate) fn start(
        sockets: Vec<(u16, UdpSocket)>,
        listeners: &Arc<[ListenerPolicy]>,
        shared: &Arc<Shared>,
    ) -> io::Result<Self> {
        let workers = shared.settings.shard_count.min(WORKERS_MAX);
        let runtime = Builder::new_multi_thread()
            .worker_threads(usize::from(workers))
            .thread_name("vencejo-quic")
            .enable_all()
            .build()?;
        let (is_stopping, stopping) = watch::channel(false);
        let policies = Policies(Arc::new(Mutex::new(Arc::clone(listeners))));
        let opened = {
            let _context = runtime.enter();
            let open = |(number, socket)| open(number, socket, listeners);
            sockets
                .into_iter()
                .map(open)
                .collect::<io::Result<Vec<_>>>()
        };
        let (endpoints, bases): (Vec<_>, Vec<_>) = match opened {
            Ok(opened) => opened.into_iter().unzip(),
            Err(error) => {
                // Where this is called from another runtime, it may not wait for its threads.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let (work, ended) = mpsc::channel(1);
        let door = |(number, endpoint): &(u16, Endpoint)| {
            let (endpoint, policies) = (endpoint.clone(), policies.clone());
            Door::new(*number, endpoint, policies, shared, &stopping, &work)
        };
        let doors: Vec<_> = endpoints.iter().map(door).collect();
        drop(work);
        let handle = Handle(Arc::new(Inner {
            policies,
            endpoints: Mutex::new(endpoints),
            bases,
            is_stopping,
        }));
        let (give, runtimes) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("vencejo-quic".to_owned())
            .spawn({
                let handle = handle.clone();
                move || {
                    if let Ok(runtime) = runtimes.recv() {
                        run(runtime, doors, &handle, stopping, ended);
                    }
                }
            });
        match thread {
            Ok(thread) => {
                // It waits for it.
                give.send(runtime).ok();
                Ok(Self { handle, thread })
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// What is told of reloads and of the stop.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until the last words of the shards, which have ended, have reached the Clients, for a while.
    pub(crate) fn finish(self) {
        self.handle.stop();
        // What has failed in there was said, and took down one connection.
        self.thread.join().ok();
    }
}

/// The endpoint of a listener, and what it was made with.
fn open(
    number: u16,
    socket: UdpSocket,
    listeners: &[ListenerPolicy],
) -> io::Result<((u16, Endpoint), ServerConfig)> {
    let of = listeners.get(usize::from(number));
    let terms = of.and_then(|of| of.quic.clone());
    let terms = terms.ok_or_else(|| io::Error::other("it has no TLS"))?;
    let config = server_config(terms);
    let endpoint = Endpoint::new(
        EndpointConfig::default(),
        Some(config.clone()),
        socket,
        Arc::new(TokioRuntime),
    )?;
    Ok(((number, endpoint), config))
}

/// Lets Clients in until the Server stops, then waits for those that are there.
fn run(
    runtime: Runtime,
    doors: Vec<Door>,
    handle: &Handle,
    mut stopping: watch::Receiver<bool>,
    mut ended: mpsc::Receiver<()>,
) {
    runtime.block_on(async {
        for door in doors {
            tokio::spawn(door.serve());
        }
        // The sender is here, in `handle`.
        stopping.wait_for(|is_stopping| *is_stopping).await.ok();
        // Nobody sends: it ends when the last of those that could has.
        timeout(FINISH_MAX, ended.recv()).await.ok();
        let endpoints = handle.0.endpoints.lock();
        let endpoints = std::mem::take(&mut *endpoints.unwrap_or_else(PoisonError::into_inner));
        for (_, endpoint) in &endpoints {
            endpoint.close(NO_ERROR, b"");
        }
        let all_idle = async {
            for (_, endpoint) in &endpoints {
                endpoint.wait_idle().await;
            }
        };
        timeout(CLOSING_MAX, all_idle).await.ok();
    });
    runtime.shutdown_timeout(CLOSING_MAX);
}

fn server_config(Terms { crypto, transport }: Terms) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(crypto);
    config
        .transport_config(transport)
        // A connection that cannot be looked at yet keeps its first datagram and little more.
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_TOTAL_BYTES_MAX);
    config
}

fn transport(config: QuicConfig) -> TransportConfig {
    let idle_millis = u32::try_from(config.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let idle = IdleTimeout::from(VarInt::from_u32(idle_millis));
    let mut transport = TransportConfig::default();
    transport
        // One stream, which the Client opens. QUIC itself keeps it from opening another.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        // Widened once the shard has said something.
        .receive_window(VarInt::from_u32(FIRST_RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(idle))
        // MQTT's Keep Alive may be long or none; a NAT on the way forgets a silent connection much sooner, and many
        // Clients take 30 s of silence for the end.
        .keep_alive_interval(Some(config.keep_alive).filter(|every| !every.is_zero()));
    transport
}

/// What a connection is closed with where nothing is wrong.
const NO_ERROR: VarInt = VarInt::from_u32(0);
/// Bytes of a Client that the shard has not taken yet.
const RECEIVE_WINDOW_BYTES: u32 = 256 * 1024;
/// The same before the Server has said anything to it.
const FIRST_RECEIVE_WINDOW_BYTES: u32 = 16 * 1024;
/// Bytes for a Client that it has not acknowledged.
const SEND_WINDOW_BYTES: u64 = 256 * 1024;
/// Connections whose first datagram was not looked at yet.
const INCOMING_MAX: usize = 1024;
/// What is kept of each beyond it.
const INCOMING_BYTES_MAX: u64 = 16 * 1024;
/// The same of all.
const INCOMING_TOTAL_BYTES_MAX: u64 = 1024 * 1024;
/// More threads than this are not worth it: one endpoint takes its datagrams one after the other.
const WORKERS_MAX: u16 = 8;
/// How long last words may take after the shards have ended.
const FINISH_MAX: Duration = Duration::from_secs(3);
/// How long Clients are told of the end, should they have missed it.
const CLOSING_MAX: Duration = Duration::from_millis(500);
/// The system's buffers of a port, for the datagrams of all connections.
const SOCKET_BUFFER_BYTES: usize = 2 * 1024 * 1024;
