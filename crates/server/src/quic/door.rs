//! Who is let in by one endpoint: limits, handshakes, and the way to a shard.
//!
//! Owns: [`Door`], [`Handshakes`] (who waits for an answer). Does not own: what handshakes are made with (see
//! `crate::tls`), the limit on connections (see `shard`), the bytes (see `bridge`). Start reading at [`Door::take`].
//! Invariants: a connection that was let in is counted until it ends; one that has not opened its stream in the time
//! for CONNECT is closed; under load, nobody costs anything who has not shown that it is where it says.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use quinn::{Connection, ConnectionError, Endpoint, Incoming, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout_at;

use super::{Policies, bridge};
use crate::authentication::ClientCertificate;
use crate::byte_stream::ByteStream;
use crate::peer::{Origin, Peer};
use crate::shard::{Accepted, Shared};

/// One endpoint.
#[derive(Debug)]
pub(super) struct Door {
    endpoint: Endpoint,
    policies: Policies,
    handshakes: Arc<Handshakes>,
    hall: Hall,
}

/// What everybody needs who is let in.
#[derive(Clone, Debug)]
struct Hall {
    listener: u16,
    shared: Arc<Shared>,
    next_shard: Arc<AtomicUsize>,
    complaints: Arc<Complaints>,
    stopping: watch::Receiver<bool>,
    /// Held by everything that has still to end.
    _work: mpsc::Sender<()>,
}

impl Door {
    pub(super) fn new(
        listener: u16,
        endpoint: Endpoint,
        policies: Policies,
        shared: &Arc<Shared>,
        stopping: &watch::Receiver<bool>,
        work: &mpsc::Sender<()>,
    ) -> Self {
        Self {
            endpoint,
            policies,
            handshakes: Arc::default(),
            hall: Hall {
                listener,
                shared: Arc::clone(shared),
                next_shard: Arc::default(),
                complaints: Arc::default(),
                stopping: stopping.clone(),
                _work: work.clone(),
            },
        }
    }

    /// Lets Clients in until the Server stops.
    pub(super) async fn serve(self) {
        // Whether by an error or by a panic: a listener that is not there any more is not left out in silence.
        let mut open = Open(Some(Arc::clone(&self.hall.shared)));
        let mut stopping = self.hall.stopping.clone();
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.take(incoming),
                    None => return,
                },
                _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
            }
        }
        // Who comes now is told so by the endpoint.
        self.endpoint.set_server_config(None);
        open.0 = None;
    }

    /// A connection of which the first datagram is here.
    fn take(&self, incoming: Incoming) {
        let since = Instant::now();
        let peer = Peer::from(incoming.remote_address());
        let is_validated = incoming.remote_address_validated();
        let handshake = match Handshakes::begin(&self.handshakes, peer.origin(), is_validated) {
            Verdict::Take(handshake) => handshake,
            Verdict::Retry if incoming.may_retry() => {
                // It costs nothing here; who is not where it says never gets it.
                incoming.retry().ok();
                return;
            }
            // Whoever means it sends it again a little later.
            Verdict::Retry | Verdict::Ignore => return incoming.ignore(),
        };
        let policies = self.policies.now();
        let of = policies.get(usize::from(self.hall.listener));
        let Some(is_over_limit) = self.hall.shared.let_in(self.hall.listener, of) else {
            // Not even room to be told so.
            return incoming.refuse();
        };
        let guest = Guest {
            place: Place(self.hall.clone()),
            peer,
            since,
            is_over_limit,
            connect_timeout: of.map_or(Duration::ZERO, |of| of.server_limits.connect_timeout),
        };
        tokio::spawn(guest.attend(incoming, handshake));
    }
}

/// Stops the Server when it is dropped with that in it.
struct Open(Option<Arc<Shared>>);

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.stop_because("an endpoint of QUIC has failed");
        }
    }
}

/// A connection that was let in.
struct Guest {
    place: Place,
    peer: Peer,
    since: Instant,
    is_over_limit: bool,
    /// Time to the CONNACK.
    connect_timeout: Duration,
}

/// The place of a connection among those that are counted.
struct Place(Hall);

impl Drop for Place {
    fn drop(&mut self) {
        let Self(hall) = self;
        hall.shared.depart(hall.listener);
    }
}

/// Why a connection has not come to a shard.
enum Missed {
    Handshake(ConnectionError),
    InTime,
    Room(io::Error),
    Stopping,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(error) => error.fmt(f),
            Self::InTime => f.write_str("no stream was opened in time"),
            Self::Room(error) => write!(f, "there is no way to a shard: {error}"),
            Self::Stopping => f.write_str("the Server stops"),
        }
    }
}

impl Guest {
    /// From the first datagram to the end.
    async fn attend(self, incoming: Incoming, handshake: Handshake) {
        // Until all of it has ended.
        let place = self.place;
        let hall = &place.0;
        let mut stopping = hall.stopping.clone();
        let deadline = self.since + self.connect_timeout;
        let opened = tokio::select! {
            opened = timeout_at(deadline.into(), open(incoming)) => match opened {
                Ok(opened) => opened.map_err(Missed::Handshake),
                Err(_) => Err(Missed::InTime),
            },
            _ = stopping.wait_for(|is_stopping| *is_stopping) => Err(Missed::Stopping),
        };
        let peer = self.peer;
        let handed = opened.and_then(|(connection, stream)| {
            let shard = hall.hand_over(&connection, peer, self.since, self.is_over_limit);
            let shard = shard.map_err(Missed::Room)?;
            Ok((connection, stream, shard))
        });
        match handed {
            Ok((connection, stream, shard)) => {
                bridge::run(connection, stream, shard, handshake).await;
            }
            Err(missed) if hall.complaints.is_worth_a_line(Instant::now()) => {
                tracing::warn!(%peer, protocol = "QUIC", error = %missed, "connection refused");
            }
            Err(missed) => {
                tracing::debug!(%peer, protocol = "QUIC", error = %missed, "connection refused");
            }
        }
    }
}

impl Hall {
    /// Gives a shard one end of a pair of sockets; returns the other.
    fn hand_over(
        &self,
        connection: &Connection,
        peer: Peer,
        since: Instant,
        is_over_limit: bool,
    ) -> io::Result<tokio::net::UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let ours = tokio::net::UnixStream::from_std(ours)?;
        let accepted = Accepted {
            stream: ByteStream::Unix(mio::net::UnixStream::from_std(theirs)),
            listener: self.listener,
            peer,
            certificate: certificate(connection).map(Box::new),
            is_over_limit,
            since,
        };
        let turn = self.next_shard.fetch_add(1, Ordering::Relaxed);
        self.shared.hand_over(turn, accepted);
        Ok(ours)
    }
}

/// The handshake, and the stream that the Client opens.
async fn open(
    incoming: Incoming,
) -> Result<(Connection, (SendStream, RecvStream)), ConnectionError> {
    let connection = incoming.await?;
    let stream = connection.accept_bi().await?;
    Ok((connection, stream))
}

/// The certificate that the Client has shown.
fn certificate(connection: &Connection) -> Option<ClientCertificate> {
    let shown = connection.peer_identity()?;
    let chain = shown.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Some(ClientCertificate::of(chain.first()?))
}

/// How much is said in the log of those that are refused: one datagram, from wherever it says it is, leads to a line.
#[derive(Debug, Default)]
struct Complaints(Mutex<Option<(Instant, u32)>>);

impl Complaints {
    fn is_worth_a_line(&self, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, lines) = said
            .filter(|(since, _)| now.duration_since(*since) < LINES_PER)
            .unwrap_or((now, 0));
        *said = Some((since, lines.saturating_add(1)));
        lines < LINES_MAX
    }
}

/// Connections to which the Server has said nothing yet, beyond the handshake.
#[derive(Debug, Default)]
struct Handshakes(Mutex<Begun>);

#[derive(Debug, Default)]
struct Begun {
    count: usize,
    of: HashMap<Origin, usize>,
}

/// What becomes of a first datagram.
#[derive(Debug)]
enum Verdict {
    Take(Handshake),
    /// It has to show first that it is where it says.
    Retry,
    Ignore,
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Handshake {
    all: Arc<Handshakes>,
    origin: Origin,
}

impl Handshakes {
    /// Whether one more can begin. O(1).
    fn begin(this: &Arc<Self>, origin: Origin, is_validated: bool) -> Verdict {
        let origin = origin.block();
        let mut begun = this.lock();
        if begun.count >= UNVALIDATED_MAX && !is_validated {
            return Verdict::Retry;
        }
        let of_origin = begun.of.get(&origin).copied().unwrap_or(0);
        if begun.count >= HANDSHAKES_MAX || of_origin >= OF_ORIGIN_MAX {
            return Verdict::Ignore;
        }
        begun.count += 1;
        begun.of.insert(origin, of_origin + 1);
        Verdict::Take(Handshake {
            all: Arc::clone(this),
            origin,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut begun = self.all.lock();
        begun.count -= 1;
        let left = begun.of.get(&self.origin).map_or(0, |count| count - 1);
        if left == 0 {
            begun.of.remove(&self.origin);
        } else {
            begun.of.insert(self.origin, left);
        }
    }
}

/// So many lines
const LINES_MAX: u32 = 20;
/// in so much time.
const LINES_PER: Duration = Duration::from_secs(1);
/// So many at once, and each further Client has to show that it is where it says: a datagram can lie about that.
const UNVALIDATED_MAX: usize = 64;
/// So many at once; each holds some 40 KiB, so that all of them together stay below 24 MiB.
const HANDSHAKES_MAX: usize = 512;
/// So many of them from one address or /64, so that one cannot keep all others out.
const OF_ORIGIN_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(last: u8) -> Origin {
        Peer::from(([192, 0, 2, last], 1)).origin()
    }

    fn taken(all: &Arc<Handshakes>, from: Origin, count: usize) -> Vec<Handshake> {
        let begin = |_| match Handshakes::begin(all, from, true) {
            Verdict::Take(handshake) => Some(handshake),
            Verdict::Retry | Verdict::Ignore => None,
        };
        (0..count).map_while(begin).collect()
    }

    #[test]
    fn the_log_is_not_flooded_with_refusals() {
        let complaints = Complaints::default();
        let now = Instant::now();
        let lines = |now| (0..100).filter(|_| complaints.is_worth_a_line(now)).count();
        assert_eq!(lines(now), 20);
        assert_eq!(lines(now + LINES_PER / 2), 0);
        assert_eq!(lines(now + LINES_PER), 20);
    }

    #[test]
    fn under_load_a_client_has_to_show_where_it_is() {
        let all = Arc::default();
        let begin = || Handshakes::begin(&all, origin(1), false);
        let few: Vec<_> = (0..UNVALIDATED_MAX).map(|_| begin()).collect();
        assert!(few.iter().all(|one| matches!(one, Verdict::Take(_))));
        assert!(matches!(begin(), Verdict::Retry));
        assert_eq!(taken(&all, origin(1), 1).len(), 1);
        drop(few);
        assert!(matches!(begin(), Verdict::Take(_)));
    }

    /// Verifies P10: who does not finish keeps neither all places nor the memory of all of them.
    #[test]
    fn one_address_cannot_keep_all_others_out() {
        let all = Arc::default();
        let greedy = taken(&all, origin(1), HANDSHAKES_MAX);
        assert_eq!(greedy.len(), OF_ORIGIN_MAX);
        let others: Vec<_> = (2..6)
            .map(|n| taken(&all, origin(n), OF_ORIGIN_MAX))
            .collect();
        let count = greedy.len() + others.iter().map(Vec::len).sum::<usize>();
        assert_eq!(count, HANDSHAKES_MAX);
        drop(greedy);
        assert_eq!(taken(&all, origin(9), 1).len(), 1);
        drop(others);
        let begun = all.lock();
        assert_eq!((begun.count, begun.of.len()), (0, 0));
    }
}
