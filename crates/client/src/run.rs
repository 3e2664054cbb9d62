//! The task behind a [`crate::Client`]: gives its [`Core`] sockets, time and what the application asks for.
//!
//! Owns: the socket of the moment, both buffers, what the application can see of the connection.
//! Does not own: what is sent when (see `core`). Start reading at [`Task::run`]. Invariant: while much waits to be
//! written or taken nothing is read.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use proto::Version;
use proto::connection::ClientError;
use proto::packet::{Auth, ConnAck, Disconnect, PacketType, ReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant as TokioInstant, sleep_until, timeout};
use tracing::{info, warn};

use crate::authentication::{AuthenticationError, Proving};
use crate::core::{Answer, Core, Delivery, Happening, Kept, Taken, ToPublish, ToSubscribe};
use crate::driver::{answer_of, begin_proving, forget_written, write_some};
use crate::error::{Error, Mistake, Outage, Refusal};
use crate::outbox::Open;
use crate::socket::{self, Reader, Writer};
use crate::{ConnectError, DisconnectCause, Options, State, now};

/// What the application asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Publish(ToPublish),
    Subscribe(ToSubscribe),
    Unsubscribe {
        key: u32,
        done: Option<Answer<()>>,
    },
    Keep {
        key: u32,
    },
    TakeOthers(mpsc::UnboundedSender<Delivery>),
    Reauthenticate {
        done: Answer<()>,
    },
    Flush {
        done: oneshot::Sender<()>,
    },
    /// The last thing: DISCONNECT with this Reason Code.
    Disconnect {
        disconnect: Disconnect,
        done: Option<oneshot::Sender<()>>,
    },
}

/// The other ends of what a [`crate::Client`] and its streams hold.
#[derive(Debug)]
pub(crate) struct Inlets {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) taken: mpsc::UnboundedReceiver<Taken>,
}

#[derive(Debug)]
pub(crate) struct Task {
    core: Core,
    options: Options,
    inlets: Inlets,
    state: watch::Sender<State>,
    /// The answer to the first attempt, if someone waits for it.
    first: Option<oneshot::Sender<Result<(), Error>>>,
    flushes: Vec<oneshot::Sender<()>>,
    left: Option<oneshot::Sender<()>>,
    proven: Option<Answer<()>>,
    outbox: Option<Open>,
}

/// One connection.
#[derive(Debug)]
struct Link {
    reader: Reader,
    writer: Writer,
    input: BytesMut,
    out: Vec<u8>,
    /// How much of `out` is written.
    written: usize,
    /// What was written may still wait for the socket: TLS keeps it.
    is_unflushed: bool,
    proving: Option<Proving>,
    is_connected: bool,
}

/// Why a connection, or an attempt at one, is over.
#[derive(Debug)]
enum End {
    /// The application wants no more.
    Left,
    Failed(Error),
}

impl From<DisconnectCause> for End {
    fn from(cause: DisconnectCause) -> Self {
        Self::Failed(cause.into())
    }
}

impl Task {
    pub(crate) fn new(
        options: Options,
        inlets: Inlets,
        state: watch::Sender<State>,
        first: Option<oneshot::Sender<Result<(), Error>>>,
        seed: u64,
    ) -> Self {
        Self {
            core: Core::new(&options, seed, now()),
            options,
            inlets,
            state,
            first,
            flushes: Vec::new(),
            left: None,
            proven: None,
            outbox: None,
        }
    }

    /// With an outbox, and what is in it.
    pub(crate) fn restore(&mut self, outbox: Open, kept: Kept) {
        self.outbox = Some(outbox);
        self.core.restore(kept);
    }

    pub(crate) const fn core(&self) -> &Core {
        &self.core
    }

    /// Until the application wants no more, or there is no further attempt.
    pub(crate) async fn run(mut self) {
        let why = loop {
            let end = match self.dial().await {
                Ok(link) => self.converse(link).await,
                Err(end) => end,
            };
            let error = match end {
                End::Left => {
                    self.core.on_lost(true, now());
                    break Error::Caller(Mistake::Ended);
                }
                End::Failed(error) => error,
            };
            if let Some(proven) = self.proven.take() {
                proven.send(Err(error.clone())).ok();
            }
            // Whoever waits for the first attempt decides what comes next.
            let is_last = self.first.is_some() || is_final(&error);
            let Some(next) = self.core.on_lost(is_last, now()) else {
                warn!(%error, "no connection, and no further attempt");
                break error;
            };
            let delay = next.saturating_duration_since(now());
            info!(%error, elapsed_ms = delay.as_millis(), "no connection; trying again");
            self.state.send_replace(State::Disconnected {
                why: error,
                next_attempt: next,
            });
        };
        self.core.end(&why);
        if let Some(first) = self.first.take() {
            first.send(Err(why.clone())).ok();
        }
        self.state.send_replace(State::Ended(why));
        if let Some(left) = self.left.take() {
            left.send(()).ok();
        }
    }

    /// Waits until a connection is due, and opens its socket, while the application goes on asking.
    async fn dial(&mut self) -> Result<Link, End> {
        while !self.core.wants_connection(now()) {
            let due = self.core.poll_timeout().map(TokioInstant::from_std);
            self.wait_for_application(due).await?;
            self.keep().await?;
        }
        self.core.on_dial();
        self.state.send_replace(State::Connecting);
        let options = self.options.clone();
        let mut opening = std::pin::pin!(socket::open(&options));
        loop {
            tokio::select! {
                opened = &mut opening => {
                    let socket = opened.map_err(|error| End::Failed(error.into()))?;
                    return Ok(Link::new(socket));
                }
                // What is kept is not to be given up in the middle: not in there, where it could be.
                asked = self.wait_for_application(None) => {
                    asked?;
                    self.keep().await?;
                }
            }
        }
    }

    /// Keeps what has to be kept: nothing that rests on it leaves before.
    async fn keep(&mut self) -> Result<(), End> {
        let Some(journal) = self.core.journal_mut() else {
            return Ok(());
        };
        let records = journal.take();
        let Some(mut outbox) = self.outbox.take_if(|_| !records.is_empty()) else {
            return Ok(());
        };
        let kept = spawn_blocking(move || {
            let kept = outbox.commit(records);
            (outbox, kept)
        });
        let kept = kept.await.map_err(io::Error::other);
        let kept = kept.and_then(|(outbox, kept)| {
            self.outbox = Some(outbox);
            kept
        });
        if let Err(error) = kept {
            return Err(End::Failed(Error::Caller(Mistake::Outbox(Arc::new(error)))));
        }
        if let Some(journal) = self.core.journal_mut() {
            journal.on_kept();
        }
        Ok(())
    }

    /// One thing that the application asks for while there is no connection.
    async fn wait_for_application(&mut self, due: Option<TokioInstant>) -> Result<(), End> {
        let mut nothing = Vec::new();
        tokio::select! {
            command = self.inlets.commands.recv() => {
                self.on_command(command, None)?;
                while let Ok(command) = self.inlets.commands.try_recv() {
                    self.on_command(Some(command), None)?;
                }
            }
            Some(taken) = self.inlets.taken.recv() => self.core.on_taken(taken, now(), &mut nothing),
            () = sleep_until(due.unwrap_or_else(TokioInstant::now)), if due.is_some() => {
                // Without a connection there is nothing that could fail.
                self.core.on_timeout(now(), &mut nothing).ok();
            }
        }
        Ok(())
    }

    /// From CONNECT to the end of the connection.
    async fn converse(&mut self, mut link: Link) -> End {
        let Err(end) = self.exchange(&mut link).await;
        if self.keep().await.is_err() {
            // What rests on it must not leave.
            link.out.clear();
            link.written = 0;
        }
        let patience = match &end {
            End::Left => FAREWELL_MAX,
            End::Failed(_) => LAST_WORDS_MAX,
        };
        // However it goes, the connection is over.
        timeout(patience, link.farewell(matches!(end, End::Left)))
            .await
            .ok();
        end
    }

    async fn exchange(&mut self, link: &mut Link) -> Result<Infallible, End> {
        let mut connect = self.core.connect();
        let authenticator = self.options.authenticator.as_deref();
        let proving = begin_proving(authenticator, &mut connect);
        link.proving = proving
            .map_err(ConnectError::Authentication)
            .map_err(failed)?;
        let begun = self.core.begin(&connect, now(), &mut link.out);
        begun.map_err(ConnectError::Options).map_err(failed)?;
        link.log_sent(0, &self.options, self.core.version());
        loop {
            self.on_input(link)?;
            self.answer_flushes();
            self.keep().await?;
            self.turn(link).await?;
        }
    }

    /// Waits for one thing and does it.
    async fn turn(&mut self, link: &mut Link) -> Result<(), End> {
        let deadline = self.core.poll_timeout().map(TokioInstant::from_std);
        let is_reading = !self.core.is_paused() && link.unwritten() < UNWRITTEN_MAX;
        let is_writing = link.is_writing();
        let is_computing = link.proving.as_ref().is_some_and(Proving::is_computing);
        let start = link.out.len();
        tokio::select! {
            answer = answer_of(&mut link.proving), if is_computing => {
                let auth = answer.map_err(|error| self.refuse_proof(error, link))?;
                let sent = self.core.send_auth(&auth, now(), &mut link.out);
                sent.map_err(ConnectError::Options).map_err(failed)?;
            }
            command = self.inlets.commands.recv() => {
                self.on_command(command, Some(link))?;
                while let Ok(command) = self.inlets.commands.try_recv() {
                    self.on_command(Some(command), Some(link))?;
                    if link.unwritten() >= UNWRITTEN_MAX {
                        break;
                    }
                }
                self.core.pump(now(), &mut link.out);
            }
            Some(taken) = self.inlets.taken.recv() => {
                self.core.on_taken(taken, now(), &mut link.out);
                while let Ok(taken) = self.inlets.taken.try_recv() {
                    self.core.on_taken(taken, now(), &mut link.out);
                }
            }
            result = write_some(&mut link.writer, link.out.get(link.written..).unwrap_or_default()), if is_writing => {
                link.on_written(result.map_err(DisconnectCause::Io)?);
                if !link.is_writing() {
                    self.core.pump(now(), &mut link.out);
                    link.log_sent(0, &self.options, self.core.version());
                }
                return Ok(());
            }
            result = link.reader.read_buf(&mut link.input), if is_reading => {
                if result.map_err(|error| link.broken(error))? == 0 {
                    return Err(link.closed());
                }
            }
            () = sleep_until(deadline.unwrap_or_else(TokioInstant::now)), if deadline.is_some() => {
                self.core.on_timeout(now(), &mut link.out)?;
            }
        }
        link.log_sent(start, &self.options, self.core.version());
        Ok(())
    }

    /// Everything in the input, until the application or the socket has to take something first.
    fn on_input(&mut self, link: &mut Link) -> Result<(), End> {
        while link.unwritten() < UNWRITTEN_MAX {
            link.log_received(&self.options, self.core.version());
            let start = link.out.len();
            match self.core.next(&mut link.input, now(), &mut link.out) {
                Ok(None) => return Ok(()),
                Ok(Some(happening)) => self.on_happening(happening, link)?,
                // It has answered our CONNECT by an alert.
                Err(_) if !link.is_connected && link.input.starts_with(&TLS_ALERT) => {
                    return Err(failed(ConnectError::SpeaksTls));
                }
                Err(cause) => return Err(cause.into()),
            }
            link.log_sent(start, &self.options, self.core.version());
        }
        Ok(())
    }

    fn on_happening(&mut self, happening: Happening, link: &mut Link) -> Result<(), End> {
        match happening {
            Happening::Handled => Ok(()),
            Happening::Refused(connack) => Err(failed(ConnectError::Refused(connack))),
            Happening::Auth(auth) => self.on_auth(&auth, link),
            Happening::Connected(connack) => self.on_connected(*connack, link),
        }
    }

    fn on_connected(&mut self, connack: ConnAck, link: &mut Link) -> Result<(), End> {
        if let Some(proving) = link.proving.take() {
            let data = connack.properties.authentication_data.as_ref();
            let proven = proving.finish(data);
            proven.map_err(|error| self.refuse_proof(error, link))?;
        }
        link.is_connected = true;
        self.core.on_connected(&connack, now(), &mut link.out);
        info!(
            client_id = self.core.client_id(),
            protocol = %self.core.version(),
            "connected"
        );
        self.state.send_replace(State::Connected {
            client_id: self.core.client_id().into(),
            connack: Arc::new(connack),
        });
        if let Some(first) = self.first.take() {
            first.send(Ok(())).ok();
        }
        Ok(())
    }

    /// The next step of an exchange of proofs, or its end.
    fn on_auth(&mut self, auth: &Auth, link: &mut Link) -> Result<(), End> {
        let unexpected = ClientError::UnexpectedPacket(PacketType::Auth);
        let Some(mut proving) = link.proving.take() else {
            return Err(if link.is_connected {
                DisconnectCause::Protocol(unexpected).into()
            } else {
                failed(ConnectError::AuthenticationExchange)
            });
        };
        let result = match (auth.reason, link.is_connected) {
            (ReasonCode::Success, true) => proving.finish(auth.data.as_ref()).map(|()| {
                if let Some(proven) = self.proven.take() {
                    proven.send(Ok(())).ok();
                }
            }),
            (ReasonCode::Success, false) => return Err(failed(ConnectError::Protocol(unexpected))),
            _ => {
                let begun = proving.on_continue(auth);
                link.proving = Some(proving);
                begun
            }
        };
        result.map_err(|error| self.refuse_proof(error, link))
    }

    /// [MQTT-4.13.2-1] seen from here: DISCONNECT, and nothing of what waits.
    fn refuse_proof(&mut self, error: AuthenticationError, link: &mut Link) -> End {
        link.out.truncate(link.written);
        let disconnect = Disconnect::new(ReasonCode::UnspecifiedError);
        self.core.disconnect(disconnect, now(), &mut link.out);
        failed(ConnectError::Authentication(error))
    }

    fn reauthenticate(&mut self, done: Answer<()>, link: Option<&mut Link>) {
        let Some(link) = link.filter(|link| link.is_connected) else {
            done.send(Err(Error::Network(Outage::Offline))).ok();
            return;
        };
        let authenticator = self.options.authenticator.as_deref();
        let authenticator = authenticator.filter(|_| link.proving.is_none());
        let begun = authenticator.map(Proving::begin).and_then(Result::ok);
        let Some((proving, data)) = begun else {
            done.send(Err(Error::Caller(Mistake::NoAuthenticator))).ok();
            return;
        };
        // [MQTT-4.12.1-1]
        let auth = proving.auth(ReasonCode::ReAuthenticate, data);
        match self.core.send_auth(&auth, now(), &mut link.out) {
            Ok(()) => {
                link.proving = Some(proving);
                self.proven = Some(done);
            }
            Err(error) => {
                done.send(Err(Error::Caller(Mistake::Request(error)))).ok();
            }
        }
    }

    fn on_command(&mut self, command: Option<Command>, link: Option<&mut Link>) -> Result<(), End> {
        match command {
            Some(Command::Publish(to_publish)) => self.core.publish(to_publish),
            Some(Command::Subscribe(to_subscribe)) => self.core.subscribe(to_subscribe),
            Some(Command::Unsubscribe { key, done }) => self.core.unsubscribe(key, done),
            Some(Command::Keep { key }) => self.core.keep(key),
            Some(Command::TakeOthers(others)) => self.core.take_others(others),
            Some(Command::Reauthenticate { done }) => self.reauthenticate(done, link),
            Some(Command::Flush { done }) => {
                self.flushes.push(done);
                self.answer_flushes();
            }
            Some(Command::Disconnect { disconnect, done }) => {
                self.left = done;
                self.leave(disconnect, link);
                return Err(End::Left);
            }
            None => {
                self.leave(Disconnect::new(ReasonCode::Success), link);
                return Err(End::Left);
            }
        }
        Ok(())
    }

    /// DISCONNECT, after what can still be sent and the acknowledgements of all that the application has taken.
    fn leave(&mut self, disconnect: Disconnect, link: Option<&mut Link>) {
        let Some(link) = link else { return };
        while let Ok(taken) = self.inlets.taken.try_recv() {
            self.core.on_taken(taken, now(), &mut link.out);
        }
        self.core.pump(now(), &mut link.out);
        self.core.disconnect(disconnect, now(), &mut link.out);
    }

    fn answer_flushes(&mut self) {
        if self.core.unanswered_count() > 0 {
            return;
        }
        for done in self.flushes.drain(..) {
            // Whoever waited may have gone.
            done.send(()).ok();
        }
    }
}

impl Link {
    fn new((reader, writer): (Reader, Writer)) -> Self {
        Self {
            reader,
            writer,
            input: BytesMut::new(),
            out: Vec::new(),
            written: 0,
            is_unflushed: false,
            proving: None,
            is_connected: false,
        }
    }

    const fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    const fn is_writing(&self) -> bool {
        self.unwritten() > 0 || self.is_unflushed
    }

    fn on_written(&mut self, written: usize) {
        self.is_unflushed = written > 0;
        self.written += written;
        forget_written(&mut self.out, &mut self.written);
    }

    fn closed(&self) -> End {
        if self.is_connected {
            DisconnectCause::Closed.into()
        } else {
            failed(ConnectError::Closed)
        }
    }

    fn broken(&self, error: io::Error) -> End {
        if self.is_connected {
            DisconnectCause::Io(error).into()
        } else {
            failed(ConnectError::Tcp(error))
        }
    }

    /// Writes what is left; then, if it is we who leave, reads until the Server has closed as well: a socket closed
    /// over unread bytes is reset, and the Server might then never see our DISCONNECT.
    async fn farewell(&mut self, awaits_end: bool) -> io::Result<()> {
        let rest = self.out.get(self.written..).unwrap_or_default();
        self.writer.write_all(rest).await?;
        self.writer.shutdown().await?;
        let mut discarded = [0; 4096];
        while awaits_end && self.reader.read(&mut discarded).await? > 0 {}
        Ok(())
    }

    fn log_sent(&self, start: usize, options: &Options, version: Version) {
        if let Some(log) = &options.packet_log {
            log.sent(self.out.get(start..).unwrap_or_default(), version);
        }
    }

    fn log_received(&self, options: &Options, version: Version) {
        if let Some(log) = &options.packet_log {
            log.received(&self.input, version);
        }
    }
}

fn failed(error: ConnectError) -> End {
    End::Failed(error.into())
}

/// What another attempt cannot mend.
const fn is_final(error: &Error) -> bool {
    match error {
        Error::Caller(_) => true,
        // Another client has our name, and would take it back from us in turn.
        Error::Server(Refusal::Disconnect(disconnect)) => {
            matches!(disconnect.reason, ReasonCode::SessionTakenOver)
        }
        Error::Server(_) | Error::Network(_) => false,
    }
}

/// How an alert of TLS begins: RFC 8446, section 5.1.
const TLS_ALERT: [u8; 2] = [0x15, 3];
/// Unsent bytes above which nothing is read: the Server does not read either.
const UNWRITTEN_MAX: usize = 256 * 1024;
/// How long a Client that leaves waits for the Server to close as well.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// How long a connection that has failed may take to say why.
const LAST_WORDS_MAX: Duration = Duration::from_millis(200);
