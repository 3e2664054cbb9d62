//! What stands between the clients and the server, and can cut, stall and delay what passes.
//!
//! Owns: the address that stays, connections both ways. Does not own: what is said on them. Start reading at
//! [`Proxy::start`]. Invariant: a cut connection is closed at both ends; bytes behind the cut do not pass.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::Cut;

/// What goes wrong at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) is_stalled: bool,
    pub(crate) delay: Duration,
    /// Connections made before this rose are cut.
    generation: u64,
    /// Where the server is.
    target: Option<SocketAddr>,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    faults: watch::Sender<Faults>,
    cuts: Arc<Mutex<VecDeque<Cut>>>,
}

impl Proxy {
    pub(crate) fn start(handle: &Handle) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.unwrap_or_else(|error| panic!("no free port: {error}"));
        let address = listener.local_addr();
        let address = address.unwrap_or_else(|error| panic!("no address: {error}"));
        let (faults, seen) = watch::channel(Faults::default());
        let cuts = Arc::default();
        drop(handle.spawn(accept(listener, seen, Arc::clone(&cuts))));
        Self {
            address,
            faults,
            cuts,
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.faults.send_modify(change);
    }

    pub(crate) fn cut(&self) {
        self.change(|faults| faults.generation += 1);
    }

    pub(crate) fn cut_after(&self, cuts: VecDeque<Cut>) {
        *self.cuts.lock().unwrap_or_else(PoisonError::into_inner) = cuts;
    }

    pub(crate) fn heal(&self) {
        self.cut_after(VecDeque::new());
        self.change(|faults| {
            faults.is_stalled = false;
            faults.delay = Duration::ZERO;
        });
    }

    pub(crate) fn lead_to(&self, target: Option<SocketAddr>) {
        self.change(|faults| faults.target = target);
    }
}

async fn accept(
    listener: std::net::TcpListener,
    faults: watch::Receiver<Faults>,
    cuts: Arc<Mutex<VecDeque<Cut>>>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (client, _) = listener.accept().await?;
        let (faults, target) = (faults.clone(), faults.borrow().target);
        // Nobody is there: it is closed.
        let Some(target) = target else { continue };
        let cut = cuts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        drop(tokio::spawn(async move {
            // However a connection ends, it has ended.
            join(client, target, faults, cut).await.ok();
        }));
    }
}

/// Carries both ways until one end closes, or the connection is cut.
async fn join(
    client: TcpStream,
    target: SocketAddr,
    faults: watch::Receiver<Faults>,
    cut: Option<Cut>,
) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let generation = faults.borrow().generation;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (up_max, down_max) = match cut {
        None => (usize::MAX, usize::MAX),
        Some(Cut::FromClient(bytes)) => (bytes, usize::MAX),
        Some(Cut::ToClient(bytes)) => (usize::MAX, bytes),
    };
    let mut cut_now = faults.clone();
    let up = async {
        carry(from_client, to_server, faults.clone(), up_max).await?;
        // The client says no more, and may still be told something.
        std::future::pending().await
    };
    tokio::select! {
        result = up => result,
        // A server that says no more wants to hear no more.
        result = carry(from_server, to_client, faults.clone(), down_max) => result,
        _ = cut_now.wait_for(|faults| faults.generation != generation) => Ok(()),
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: watch::Receiver<Faults>,
    mut left: usize,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        // The proxy's own end comes with the broker's.
        let healed = faults.wait_for(|faults| !faults.is_stalled).await;
        let delay = healed.map_err(io::Error::other)?.delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let passed = read.min(left);
        left -= passed;
        to.write_all(buffer.get(..passed).unwrap_or_default())
            .await?;
        if read == 0 {
            return to.shutdown().await;
        }
        if passed < read {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

/// Bytes that pass at once.
const CHUNK_BYTES: usize = 16 * 1024;
