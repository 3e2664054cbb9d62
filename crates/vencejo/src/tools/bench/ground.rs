//! What a run stands on: the server, how clients connect to it, how they leave.
//!
//! Owns: Client Identifiers, topics, connecting and leaving many at once. Does not own: what they do (see `flow`, `storm`,
//! `replay`). Start reading at [`Ground`]. Invariant: never more than [`AT_ONCE`] clients connect or leave at one time,
//! unless a scenario says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{Connection, Event, Events, Options, Subscription};
use proto::packet::{Disconnect, ReasonCode};
use proto::{Qos, Version};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::scenarios::grouped;
use crate::tools::{Failure, failure_of};

/// One server, one invocation.
#[derive(Debug)]
pub(super) struct Ground {
    options: Options,
    /// Prefix of Client Identifiers.
    prefix: String,
    /// Of this invocation, in payloads and topics.
    pub(super) run: u32,
    room: String,
    /// How long what is missing at the end is waited for.
    pub(super) patience: Duration,
    /// Somebody wants it to end.
    pub(super) stop: Arc<AtomicBool>,
}

/// A client that is connected.
pub(super) type Connected = (Connection, Events);

impl Ground {
    /// `prefix`: of Client Identifiers; `room`: what all topics begin with.
    pub(super) fn new(options: Options, prefix: String, room: &str, patience: Duration) -> Self {
        let run = std::process::id();
        Self {
            // A small packet that waits for an acknowledgement of TCP would be measured as a slow server.
            options: options.nodelay(true),
            prefix,
            run,
            room: format!("{room}/{run}"),
            patience,
            stop: Arc::default(),
        }
    }

    /// What the topics of one round begin with: what is left of another is not heard.
    pub(super) fn room(&self, round: u32) -> String {
        format!("{}-{round}", self.room)
    }

    pub(super) const fn version(&self) -> Version {
        self.options.protocol_version()
    }

    /// How a client with a role and a number connects.
    pub(super) fn options(&self, role: &str, number: u32) -> Options {
        let client_id = format!("{}-{role}{number}", self.prefix);
        self.options.clone().client_id(client_id)
    }

    /// Whether somebody wants it to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// # Errors
    /// Somebody wants it to end.
    pub(super) fn go_on(&self) -> Result<(), Failure> {
        if self.is_stopped() {
            return Err(Failure {
                text: "Interrupted.".to_owned(),
                code: INTERRUPTED,
            });
        }
        Ok(())
    }

    /// All clients of a role, by their numbers.
    /// # Errors
    /// One is not let in: then nobody is measured.
    pub(super) async fn connect_all(
        &self,
        role: &str,
        count: u32,
    ) -> Result<Vec<Connected>, Failure> {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        let mut connected = Vec::new();
        for number in 0..count {
            self.go_on()?;
            let permit = Arc::clone(&room).acquire_owned().await;
            let options = self.options(role, number);
            tasks.spawn(async move {
                let _permit = permit;
                (number, Connection::connect(options).await)
            });
            while let Some(ended) = tasks.try_join_next() {
                connected.push(self.checked(ended, connected.len())?);
            }
        }
        while let Some(ended) = tasks.join_next().await {
            connected.push(self.checked(ended, connected.len())?);
        }
        connected.sort_by_key(|(number, _)| *number);
        Ok(connected.into_iter().map(|(_, client)| client).collect())
    }

    fn checked(
        &self,
        ended: Result<(u32, Result<Connected, client::ConnectError>), tokio::task::JoinError>,
        before: usize,
    ) -> Result<(u32, Connected), Failure> {
        let (number, connected) =
            ended.map_err(|error| Failure::new(format!("Error: {error}.")))?;
        let connected = connected.map_err(|error| {
            let mut failure = failure_of(&error, &self.options, self.version());
            let before = grouped(before as u64);
            failure.text = format!("{} ({before} clients were let in before.)", failure.text);
            failure
        })?;
        Ok((number, connected))
    }

    /// Subscribes one client.
    /// # Errors
    /// A Topic Filter is refused, or the connection is lost.
    pub(super) async fn subscribe(
        client: &Connection,
        filters: &[String],
        qos: Qos,
    ) -> Result<(), Failure> {
        let subscriptions = filters
            .iter()
            .map(|filter| Subscription::new(filter, qos))
            .collect();
        let suback = client.subscribe(subscriptions, None, Vec::new()).await;
        let suback = suback.map_err(|error| Failure::new(format!("Error: {error}.")))?;
        for (reason, filter) in suback.reasons.iter().zip(filters) {
            let words = reason.text();
            if reason.is_error() {
                let text =
                    format!("Error: the server refuses the subscription to {filter}: {words}.");
                return Err(Failure::new(text));
            }
            if *reason != granted(qos) {
                let text = format!("Error: the server gives {filter} at {words} only; say -q.");
                return Err(Failure::new(text));
            }
        }
        Ok(())
    }

    /// DISCONNECT of all, and none of their Sessions stays.
    pub(super) async fn leave_all(&self, clients: Vec<Connection>) {
        let mut disconnect = Disconnect::new(ReasonCode::Success);
        if self.version() == Version::V5 {
            disconnect.session_expiry_interval_seconds = Some(0);
        }
        let disconnect = Arc::new(disconnect);
        let work = clients.into_iter().map(|client| {
            let disconnect = Arc::clone(&disconnect);
            async move {
                // Whoever is gone has left already.
                client.disconnect((*disconnect).clone()).await.ok();
            }
        });
        each(work).await;
    }
}

/// The Reason Code of a subscription that is granted as it was asked for.
const fn granted(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}

/// Does all of `work`, so much of it at one time.
pub(super) async fn each<W>(work: impl Iterator<Item = W>)
where
    W: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for one in work {
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await;
        }
        tasks.spawn(one);
    }
    while tasks.join_next().await.is_some() {}
}

/// The version that the server says it is, in `$SYS`; most servers do.
pub(super) async fn server_version(client: &Connection, events: &mut Events) -> Option<String> {
    let subscription = Subscription::new(VERSION_TOPIC, Qos::AtMostOnce);
    let asked = client.subscribe(vec![subscription], None, Vec::new());
    let suback = timeout(VERSION_WITHIN, asked).await.ok()?.ok()?;
    suback.reasons.first().filter(|reason| !reason.is_error())?;
    match timeout(VERSION_WITHIN, events.recv()).await.ok()?? {
        Event::Message(message) => {
            let text = String::from_utf8_lossy(&message.payload);
            Some(
                text.chars()
                    .filter(|one| !one.is_control())
                    .take(100)
                    .collect(),
            )
        }
        Event::Disconnected(_) => None,
    }
}

const VERSION_TOPIC: &str = "$SYS/broker/version";
const VERSION_WITHIN: Duration = Duration::from_millis(500);
/// Clients that connect, subscribe or leave at one time.
const AT_ONCE: usize = 64;
/// As a shell has it for SIGINT.
pub(super) const INTERRUPTED: u8 = 130;
