//! The clients: each a thread that goes on over every end of the broker until it is told to stop.
//!
//! Owns: what each client does and what it enters in the ledger. Does not own: the broker's life.
//! Start reading at [`publisher`]. Invariant: a client keeps to the standard: it resends what is not
//! acknowledged under the same Packet Identifier, and never starts a Session anew that it was granted.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::connection::ClientSession;
use proto::packet::{Connect, Publish, PublishProperties, ReasonCode, Will, WillProperties};
use proto::{PacketIdentifier, Qos, Version};

use crate::client::{Client, Happening, Lost, TURN};
use crate::ledger::{Ledger, Sent};
use crate::random::Random;

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) address: SocketAddr,
    pub(crate) ledger: Mutex<Ledger>,
    phase: AtomicU8,
    /// Subscribers that have their Subscriptions.
    subscribed: AtomicUsize,
}

/// What the clients are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Subscribe: nothing that is owed may be published before all subscribers are there.
    Subscribe = 0,
    /// New messages, subscriptions, wills.
    Work = 1,
    /// Nothing new; finish what is open.
    Finish = 2,
    /// Leave.
    Leave = 3,
}

impl Scene {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            ledger: Mutex::default(),
            phase: AtomicU8::new(Phase::Subscribe as u8),
            subscribed: AtomicUsize::new(0),
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    /// How many subscribers have their Subscriptions.
    pub(crate) fn subscribed(&self) -> usize {
        self.subscribed.load(Ordering::SeqCst)
    }

    fn has(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::SeqCst) >= phase as u8
    }

    /// Waits until all subscribers are there.
    fn wait_for_work(&self) {
        while !self.has(Phase::Work) {
            thread::sleep(RETRY);
        }
    }

    fn broken(&self, what: String) {
        self.ledger().broken.push(what);
    }
}

/// A client that keeps its Session over many connections.
#[derive(Debug)]
struct Persistent<'a> {
    scene: &'a Scene,
    name: String,
    version: Version,
    session: ClientSession,
    /// Whether the broker has granted the Session.
    is_granted: bool,
    random: Random,
}

impl<'a> Persistent<'a> {
    fn new(scene: &'a Scene, name: &str, version: Version) -> Self {
        let seed = name.bytes().fold(7_u64, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(byte))
        });
        Self {
            scene,
            name: name.to_owned(),
            version,
            session: ClientSession::default(),
            is_granted: false,
            random: Random::new(seed),
        }
    }

    /// Connects, however long that takes; `None` when it is time to leave.
    fn connect(&mut self, will: Option<&Will>) -> Option<Client> {
        while !self.scene.has(Phase::Leave) {
            let mut connect = Connect::new(self.version, self.name.as_str());
            // Clean Session of 3.x would leave nothing behind.
            connect.clean_start = self.version == Version::V5 && !self.is_granted;
            if self.version == Version::V5 {
                connect.properties.session_expiry_interval_seconds = Some(3600);
            }
            connect.will = will.cloned();
            let session = Some(self.session.clone());
            match Client::connect(self.scene.address, &connect, session) {
                Ok((client, is_present)) => {
                    if self.is_granted && !is_present {
                        self.scene.broken(format!("{}: Session lost", self.name));
                    }
                    self.is_granted = true;
                    return Some(client);
                }
                Err(_) => thread::sleep(RETRY),
            }
        }
        None
    }

    /// Keeps what a lost connection leaves; whatever the broker says before it is lost must be the truth.
    fn lost(&mut self, lost: Lost) {
        if lost.why.contains("protocol") || lost.why.contains("unexpected") {
            self.scene.broken(format!("{}: {}", self.name, lost.why));
        }
        self.session = lost.session;
    }
}

/// Publishes QoS 1 and 2 in turn, and finishes everything it began.
pub(crate) fn publisher(scene: &Scene, name: &str, version: Version) {
    let mut me = Persistent::new(scene, name, version);
    let mut numbers = [0_u64; 3];
    let mut open: BTreeMap<PacketIdentifier, Sent> = BTreeMap::new();
    scene.wait_for_work();
    while let Some(mut client) = me.connect(None) {
        loop {
            if scene.has(Phase::Finish) && (open.is_empty() || scene.has(Phase::Leave)) {
                client.leave();
                return;
            }
            while open.len() < IN_FLIGHT && !scene.has(Phase::Finish) {
                let qos = 1 + u8::from(me.random.below(2) == 0);
                let number = numbers[usize::from(qos)] + 1;
                let sent = Sent {
                    publisher: name.to_owned(),
                    qos,
                    number,
                };
                let (topic, payload) = (format!("t/{name}/{qos}"), sent.payload());
                let message = message(&topic, &payload, qos, false);
                let Some(packet_id) = client.publish(&message) else {
                    break;
                };
                numbers[usize::from(qos)] = number;
                open.insert(packet_id, sent);
            }
            let turned = client.turn(TURN, |happening| {
                if let Happening::Published(packet_id, reason) = happening
                    && let Some(sent) = open.remove(&packet_id)
                {
                    // PUBREL sent again after the crash that came before its PUBCOMP: 0x92 says that the
                    // exchange had ended, and the message is counted as acknowledged all the same.
                    let is_end = reason == ReasonCode::PacketIdentifierNotFound && sent.qos == 2;
                    if reason.is_error() && !is_end {
                        scene.broken(format!("{sent:?} refused: {reason:?}"));
                    } else {
                        scene.ledger().acknowledge(sent);
                    }
                }
            });
            match turned {
                Ok(next) => client = next,
                Err(lost) => {
                    me.lost(lost);
                    break;
                }
            }
        }
    }
}

/// How a subscriber comes and goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presence {
    pub(crate) qos: Qos,
    /// Stays away most of the time.
    pub(crate) is_mostly_away: bool,
}

/// Gets everything published, and the wills.
pub(crate) fn subscriber(scene: &Scene, name: &str, version: Version, presence: Presence) {
    let mut me = Persistent::new(scene, name, version);
    let qos = presence.qos.level();
    let mut is_subscribed = false;
    while let Some(mut client) = me.connect(None) {
        let mut asked = VecDeque::new();
        if !is_subscribed {
            asked.extend(client.subscribe("t/#", presence.qos));
            asked.extend(client.subscribe("w", presence.qos));
        }
        let leaves_at = Instant::now() + Duration::from_millis(20 + me.random.below(200));
        loop {
            if scene.has(Phase::Leave) {
                client.leave();
                return;
            }
            let is_away = presence.is_mostly_away && !scene.has(Phase::Finish);
            if is_away && is_subscribed && Instant::now() > leaves_at {
                me.session = client.leave();
                let back_at = Instant::now() + AWAY;
                while Instant::now() < back_at && !scene.has(Phase::Finish) {
                    thread::sleep(RETRY);
                }
                break;
            }
            let turned = client.turn(TURN, |happening| match happening {
                Happening::Message { topic, payload, .. } => {
                    take(scene, name, qos, &topic, &payload);
                }
                Happening::Answered(packet_id, reason) => {
                    if reason.is_some_and(ReasonCode::is_error) {
                        scene.broken(format!("{name}: SUBACK {reason:?}"));
                    }
                    asked.retain(|open| *open != packet_id);
                }
                Happening::Published(..) => {}
            });
            match turned {
                Ok(next) => client = next,
                Err(lost) => {
                    me.lost(lost);
                    break;
                }
            }
            if !is_subscribed && asked.is_empty() {
                is_subscribed = true;
                scene.ledger().subscribed(name, qos);
                scene.subscribed.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

fn take(scene: &Scene, name: &str, qos: u8, topic: &str, payload: &str) {
    if topic == "w" {
        match payload.parse() {
            Ok(number) => scene.ledger().receive_will(name, qos, number),
            Err(_) => scene.broken(format!("{name}: will {payload:?}")),
        }
        return;
    }
    match Sent::parse(payload) {
        Some(sent) => scene.ledger().receive(name, qos, sent),
        None => scene.broken(format!("{name}: payload {payload:?} on {topic}")),
    }
}

/// Connects with a new Will each time, and loses its connection only by the broker's end.
pub(crate) fn mortal(scene: &Scene, name: &str) {
    let mut me = Persistent::new(scene, name, Version::V5);
    let mut number = 0;
    scene.wait_for_work();
    while !scene.has(Phase::Finish) {
        number += 1;
        let will = Will {
            topic: "w".to_owned(),
            payload: Bytes::from(number.to_string()),
            qos: Qos::ExactlyOnce,
            retain: false,
            properties: WillProperties::default(),
        };
        let Some(mut client) = me.connect(Some(&will)) else {
            return;
        };
        loop {
            if scene.has(Phase::Finish) {
                client.leave();
                return;
            }
            match client.turn(TURN, |_| {}) {
                Ok(next) => client = next,
                Err(lost) => {
                    scene.ledger().owe_will(number);
                    me.lost(lost);
                    break;
                }
            }
        }
    }
}

/// Sets and removes retained messages; each topic has one change on its way at most.
pub(crate) fn retainer(scene: &Scene, name: &str) {
    let mut me = Persistent::new(scene, name, Version::V5);
    let mut values: BTreeMap<u64, Value> = BTreeMap::new();
    let mut open: BTreeMap<PacketIdentifier, u64> = BTreeMap::new();
    let mut number = 0;
    while let Some(mut client) = me.connect(None) {
        loop {
            if scene.has(Phase::Finish) && (open.is_empty() || scene.has(Phase::Leave)) {
                client.leave();
                check_retained(scene, &values);
                return;
            }
            while open.len() < RETAINED_TOPICS && !scene.has(Phase::Finish) {
                let topic = me.random.below(RETAINED_TOPICS as u64);
                if open.values().any(|of| *of == topic) {
                    break;
                }
                number += 1;
                let is_removal = me.random.below(5) == 0;
                let payload = if is_removal {
                    String::new()
                } else {
                    number.to_string()
                };
                let qos = 1 + u8::from(me.random.below(2) == 0);
                let name = format!("r/{topic}");
                let Some(packet_id) = client.publish(&message(&name, &payload, qos, true)) else {
                    break;
                };
                values.insert(topic, Value { payload });
                open.insert(packet_id, topic);
            }
            let turned = client.turn(TURN, |happening| {
                if let Happening::Published(packet_id, _) = happening {
                    open.remove(&packet_id);
                }
            });
            match turned {
                Ok(next) => client = next,
                Err(lost) => {
                    me.lost(lost);
                    break;
                }
            }
        }
    }
}

/// The last value of a topic; empty if it was removed.
#[derive(Debug)]
struct Value {
    payload: String,
}

/// Everything is acknowledged, so what a new Subscription gets is what was set last.
fn check_retained(scene: &Scene, values: &BTreeMap<u64, Value>) {
    let mut reader = Persistent::new(scene, "retained-reader", Version::V5);
    let Some(mut client) = reader.connect(None) else {
        return;
    };
    client.subscribe("r/#", Qos::AtLeastOnce);
    let mut found = BTreeMap::new();
    let until = Instant::now() + QUIET;
    while Instant::now() < until {
        let turned = client.turn(TURN, |happening| {
            if let Happening::Message { topic, payload, .. } = happening {
                found.insert(topic, payload);
            }
        });
        match turned {
            Ok(next) => client = next,
            Err(lost) => {
                scene.broken(format!("retained-reader: {}", lost.why));
                return;
            }
        }
    }
    client.leave();
    for (topic, Value { payload }) in values {
        let name = format!("r/{topic}");
        let read = found.get(&name).map_or("", String::as_str);
        if read != payload {
            scene.broken(format!("{name} is {read:?}, acknowledged was {payload:?}"));
        }
    }
}

/// Subscribes and unsubscribes, one change at a time, each repeated until it is acknowledged.
pub(crate) fn changer(scene: &Scene, name: &str) {
    let mut me = Persistent::new(scene, name, Version::V5);
    let mut is_subscribed = [false; CHANGED_TOPICS];
    let mut next: Option<(usize, bool)> = None;
    while let Some(mut client) = me.connect(None) {
        let mut asked = None;
        loop {
            if scene.has(Phase::Finish) && (next.is_none() || scene.has(Phase::Leave)) {
                check_subscriptions(scene, client, is_subscribed);
                return;
            }
            let (topic, wanted) = *next.get_or_insert_with(|| {
                let topic = me.random.below(CHANGED_TOPICS as u64);
                let topic = usize::try_from(topic).unwrap_or(0);
                (topic, !is_subscribed[topic])
            });
            if asked.is_none() {
                let filter = format!("c/{topic}");
                asked = if wanted {
                    client.subscribe(&filter, Qos::AtLeastOnce)
                } else {
                    client.unsubscribe(&filter)
                };
            }
            let mut is_answered = false;
            let turned = client.turn(TURN, |happening| {
                if let Happening::Answered(packet_id, _) = happening {
                    is_answered |= asked == Some(packet_id);
                }
            });
            if is_answered {
                is_subscribed[topic] = wanted;
                (next, asked) = (None, None);
            }
            match turned {
                Ok(turned) => client = turned,
                Err(lost) => {
                    me.lost(lost);
                    break;
                }
            }
        }
    }
}

/// Publishes to every topic: what comes is what was acknowledged as subscribed.
fn check_subscriptions(scene: &Scene, mut client: Client, is_subscribed: [bool; CHANGED_TOPICS]) {
    for topic in 0..CHANGED_TOPICS {
        let name = format!("c/{topic}");
        client.publish(&message(&name, "x", 1, false));
    }
    let mut found = [false; CHANGED_TOPICS];
    let until = Instant::now() + QUIET;
    while Instant::now() < until {
        let turned = client.turn(TURN, |happening| {
            if let Happening::Message { topic, .. } = happening {
                let number = topic.strip_prefix("c/").and_then(|rest| rest.parse().ok());
                if let Some(place) = number.and_then(|number: usize| found.get_mut(number)) {
                    *place = true;
                }
            }
        });
        match turned {
            Ok(next) => client = next,
            Err(lost) => {
                scene.broken(format!("changer: {}", lost.why));
                return;
            }
        }
    }
    client.leave();
    if found != is_subscribed {
        scene.broken(format!(
            "subscriptions: acknowledged {is_subscribed:?}, delivered {found:?}"
        ));
    }
}

pub(crate) fn message<'a>(topic: &'a str, payload: &'a str, qos: u8, retain: bool) -> Publish<'a> {
    Publish {
        dup: false,
        qos: if qos == 2 {
            Qos::ExactlyOnce
        } else {
            Qos::AtLeastOnce
        },
        retain,
        topic,
        packet_id: None,
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    }
}

/// Exchanges one publisher has open.
const IN_FLIGHT: usize = 16;
const RETAINED_TOPICS: usize = 8;
const CHANGED_TOPICS: usize = 10;
/// Until the next attempt to connect.
const RETRY: Duration = Duration::from_millis(3);
/// How long who is mostly away is away.
const AWAY: Duration = Duration::from_secs(2);
/// How long nothing must come for everything to have come.
const QUIET: Duration = Duration::from_secs(1);
