//! Which streams there are, what the Server knows of them, and whose a message is.
//!
//! Owns: Subscription Identifiers, SUBSCRIBE and UNSUBSCRIBE across connections. Does not own: messages that wait
//! (see `incoming`). Start reading at [`Subscriptions::takers`]. Invariant: a stream is subscribed at the Server, or
//! will be as soon as there is a connection, until it is dropped or refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use proto::connection::{ClientConnection, SendError};
use proto::packet::{
    ConnAckProperties, Property, ReasonCode, RetainHandling, SubAck, SubscriptionOptions,
    SubscriptionRequest, UnsubAck,
};
use proto::{PacketIdentifier, Version, topic};
use tokio::sync::{mpsc, oneshot};

use super::Delivery;
use crate::error::{Error, Mistake, Refusal};
use crate::{ReceivedMessage, Subscription};

/// Who waits for one answer.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// A stream that is asked for.
#[derive(Debug)]
pub(crate) struct ToSubscribe {
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) sender: mpsc::UnboundedSender<Delivery>,
    /// Why the stream has ended, if it was not its application that ended it.
    pub(crate) ended: Arc<OnceLock<Error>>,
    /// Gets the key of the stream and what was granted.
    pub(crate) done: Answer<(u32, Vec<ReasonCode>)>,
}

/// What the Server knows of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// To be asked for.
    Wanted,
    /// Granted once, and to be asked for again in case it is not known any more.
    Doubted,
    Asked(PacketIdentifier),
    Granted,
}

#[derive(Debug)]
struct Stream {
    subscriptions: Vec<Subscription>,
    sender: mpsc::UnboundedSender<Delivery>,
    ended: Arc<OnceLock<Error>>,
    standing: Standing,
    done: Option<Answer<(u32, Vec<ReasonCode>)>>,
}

/// Filters to unsubscribe from.
#[derive(Debug)]
struct Farewell {
    filters: Vec<String>,
    asked: Option<PacketIdentifier>,
    done: Option<Answer<()>>,
}

/// Whose a message is: filled for each anew, so that none has to be made for each.
#[derive(Debug, Default)]
pub(super) struct Takers {
    identified: Vec<u32>,
    pub(super) senders: Vec<mpsc::UnboundedSender<Delivery>>,
}

#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// By their key, which is their Subscription Identifier.
    streams: BTreeMap<u32, Stream>,
    /// Filters that streams have had under a key of their own and others still have: the Server knows them by that key.
    retired: BTreeMap<u32, Vec<String>>,
    farewells: Vec<Farewell>,
    last_key: u32,
    has_identifiers: bool,
}

impl Subscriptions {
    /// Takes a stream and returns its key.
    pub(super) fn add(&mut self, to_subscribe: ToSubscribe) -> u32 {
        // [MQTT-3.3.4-6] seen from here: a Subscription Identifier is never 0.
        loop {
            self.last_key = self.last_key % SUBSCRIPTION_IDENTIFIER_MAX + 1;
            if !self.streams.contains_key(&self.last_key) {
                break;
            }
        }
        let ToSubscribe {
            subscriptions,
            sender,
            ended,
            done,
        } = to_subscribe;
        // What is asked for again is not to be given up.
        for farewell in self
            .farewells
            .iter_mut()
            .filter(|farewell| farewell.asked.is_none())
        {
            let is_wanted =
                |filter: &String| subscriptions.iter().any(|other| other.filter == *filter);
            farewell.filters.retain(|filter| !is_wanted(filter));
        }
        let stream = Stream {
            subscriptions,
            sender,
            ended,
            standing: Standing::Wanted,
            done: Some(done),
        };
        self.streams.insert(self.last_key, stream);
        self.last_key
    }

    pub(super) fn sender(&self, key: u32) -> Option<mpsc::UnboundedSender<Delivery>> {
        Some(self.streams.get(&key)?.sender.clone())
    }

    /// Forgets a stream that the Session is to keep.
    pub(super) fn keep(&mut self, key: u32) {
        self.streams.remove(&key);
    }

    /// Ends a stream, and tells the Server of the filters that no other stream has.
    pub(super) fn remove(&mut self, key: u32, done: Option<Answer<()>>) {
        let stream = self.streams.remove(&key);
        let subscriptions = stream
            .map(|stream| stream.subscriptions)
            .unwrap_or_default();
        let still: BTreeSet<&str> = self
            .streams
            .values()
            .flat_map(|stream| &stream.subscriptions)
            .map(|subscription| subscription.filter.as_str())
            .collect();
        let filters = subscriptions
            .into_iter()
            .map(|subscription| subscription.filter);
        let (kept, filters): (Vec<_>, Vec<_>) =
            filters.partition(|filter| still.contains(filter.as_str()));
        self.retired.insert(key, kept);
        self.retired.retain(|_, kept| {
            kept.retain(|filter| still.contains(filter.as_str()));
            !kept.is_empty()
        });
        let farewell = Farewell {
            filters,
            asked: None,
            done,
        };
        if farewell.filters.is_empty() {
            farewell.answer(Ok(()));
        } else {
            self.farewells.push(farewell);
        }
    }

    /// The streams that take a message: by the Subscription Identifiers it carries, or by its topic.
    pub(super) fn takers(&self, message: &ReceivedMessage, takers: &mut Takers) {
        takers.identified.clear();
        takers.senders.clear();
        let identified = message.properties().filter_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier),
            _ => None,
        });
        for key in identified {
            // Of an earlier program, perhaps, for which it stood for something else.
            let is_new = !takers.identified.contains(&key);
            if is_new && self.matching(key, &message.topic).next().is_some() {
                takers.identified.push(key);
            }
        }
        let identified = takers.identified.as_slice();
        let is_taker = |key: u32, stream: &Stream| {
            if identified.is_empty() {
                return stream.is_for(&message.topic);
            }
            // Of two streams with the same filter the Server knows the later one.
            identified.contains(&key) || self.is_twin(stream, identified, &message.topic)
        };
        let streams = self.streams.iter();
        let found = streams.filter(|(key, stream)| is_taker(**key, stream));
        let found = found.map(|(_, stream)| stream.sender.clone());
        takers.senders.extend(found);
    }

    fn is_twin(&self, stream: &Stream, identified: &[u32], topic: &str) -> bool {
        let mut filters = identified.iter().flat_map(|key| self.matching(*key, topic));
        filters.any(|filter| stream.matching(topic).any(|own| own == filter))
    }

    /// The filters that a key stands for at the Server, and that match.
    fn matching<'a>(&'a self, key: u32, topic: &'a str) -> impl Iterator<Item = &'a str> {
        let stream = self.streams.get(&key);
        let retired = self.retired.get(&key).into_iter().flatten();
        let retired = retired
            .map(String::as_str)
            .filter(|filter| is_match(filter, topic));
        let stream = stream.into_iter().flat_map(|stream| stream.matching(topic));
        stream.chain(retired)
    }

    /// Whether the stream `key` has a filter for this message.
    pub(super) fn is_for(&self, key: u32, message: &ReceivedMessage) -> bool {
        let stream = self.streams.get(&key);
        stream.is_some_and(|stream| stream.is_for(&message.topic))
    }

    /// A connection: what the Server does not know is asked for again.
    /// Of a Session that is doubtful it may know nothing, though it says that it is present.
    pub(super) fn on_connected(
        &mut self,
        is_resumed: bool,
        is_doubtful: bool,
        announced: &ConnAckProperties,
    ) {
        self.has_identifiers = announced.subscription_identifier_available != Some(false);
        if is_resumed {
            let streams = self.streams.values_mut().filter(|_| is_doubtful);
            for stream in streams.filter(|stream| stream.standing == Standing::Granted) {
                stream.standing = Standing::Doubted;
            }
            return;
        }
        self.retired.clear();
        for stream in self.streams.values_mut() {
            stream.standing = Standing::Wanted;
        }
        // It knows nothing to be given up.
        for farewell in self.farewells.drain(..) {
            farewell.answer(Ok(()));
        }
    }

    /// What was asked for on the connection that is gone has to be asked for again.
    pub(super) fn on_lost(&mut self) {
        for stream in self.streams.values_mut() {
            if let Standing::Asked(_) = stream.standing {
                let was_granted = stream.done.is_none();
                stream.standing = if was_granted {
                    Standing::Doubted
                } else {
                    Standing::Wanted
                };
            }
        }
        for farewell in &mut self.farewells {
            farewell.asked = None;
        }
    }

    /// Sends what is to be asked for.
    pub(super) fn pump(
        &mut self,
        connection: &mut ClientConnection,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        self.pump_farewells(connection, now, out);
        let has_identifiers = self.has_identifiers && connection.version() == Version::V5;
        let mut refused = Vec::new();
        for (key, stream) in &mut self.streams {
            let is_doubted = stream.standing == Standing::Doubted;
            if !is_doubted && stream.standing != Standing::Wanted {
                continue;
            }
            let requests: Vec<_> = stream
                .subscriptions
                .iter()
                .map(|subscription| SubscriptionRequest {
                    filter: &subscription.filter,
                    options: subscription.asked_with(is_doubted),
                })
                .collect();
            let identifier = has_identifiers.then_some(*key);
            match connection.subscribe(&requests, identifier, &Vec::new(), now, out) {
                Ok(packet_id) => stream.standing = Standing::Asked(packet_id),
                Err(SendError::NoPacketIdentifier | SendError::NotConnected) => break,
                Err(error) => refused.push((*key, Error::Caller(Mistake::Request(error)))),
            }
        }
        for (key, error) in refused {
            self.refuse(key, error);
        }
    }

    fn pump_farewells(
        &mut self,
        connection: &mut ClientConnection,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        for mut farewell in std::mem::take(&mut self.farewells) {
            if farewell.asked.is_none() && !farewell.filters.is_empty() {
                let filters: Vec<&str> = farewell.filters.iter().map(String::as_str).collect();
                match connection.unsubscribe(&filters, &Vec::new(), now, out) {
                    Ok(packet_id) => farewell.asked = Some(packet_id),
                    Err(SendError::NoPacketIdentifier | SendError::NotConnected) => {}
                    Err(error) => {
                        farewell.answer(Err(Error::Caller(Mistake::Request(error))));
                        continue;
                    }
                }
            }
            if farewell.filters.is_empty() {
                farewell.answer(Ok(()));
            } else {
                self.farewells.push(farewell);
            }
        }
    }

    pub(super) fn on_suback(&mut self, suback: &SubAck) {
        let asked = Standing::Asked(suback.packet_id);
        let found = self
            .streams
            .iter_mut()
            .find(|(_, stream)| stream.standing == asked);
        let Some((key, stream)) = found else { return };
        let key = *key;
        let answers = stream.subscriptions.iter().zip(&suback.reasons);
        let mut refusals = answers.filter(|(_, reason)| reason.is_error());
        // One answer for each filter, [MQTT-3.8.4-6]; where one is missing, nothing is granted.
        let refusal = if suback.reasons.len() == stream.subscriptions.len() {
            refusals
                .next()
                .map(|(subscription, reason)| Refusal::Subscribe {
                    filter: subscription.filter.clone(),
                    reason: *reason,
                })
        } else {
            Some(Refusal::Answers)
        };
        if let Some(refusal) = refusal {
            self.refuse(key, Error::Server(refusal));
            return;
        }
        stream.standing = Standing::Granted;
        let done = stream.done.take();
        let is_unwanted = |done: Answer<_>| done.send(Ok((key, suback.reasons.clone()))).is_err();
        // Whoever asked has gone while it waited.
        if done.is_some_and(is_unwanted) {
            self.remove(key, None);
        }
    }

    /// The Server does not want to have this stream: it ends.
    fn refuse(&mut self, key: u32, error: Error) {
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        let done = stream.done.take();
        stream.ended.set(error.clone()).ok();
        // Of several filters some may be granted.
        self.remove(key, None);
        if let Some(done) = done {
            done.send(Err(error)).ok();
        }
    }

    pub(super) fn on_unsuback(&mut self, unsuback: &UnsubAck) {
        let asked = Some(unsuback.packet_id);
        let position = self
            .farewells
            .iter()
            .position(|farewell| farewell.asked == asked);
        if let Some(at) = position {
            self.farewells.remove(at).answer(Ok(()));
        }
    }

    pub(super) fn end(&mut self, why: &Error) {
        for (_, stream) in std::mem::take(&mut self.streams) {
            stream.ended.set(why.clone()).ok();
            if let Some(done) = stream.done {
                done.send(Err(why.clone())).ok();
            }
        }
        for farewell in self.farewells.drain(..) {
            farewell.answer(Err(why.clone()));
        }
    }
}

impl Stream {
    fn is_for(&self, topic: &str) -> bool {
        self.matching(topic).next().is_some()
    }

    /// Its filters that match.
    fn matching<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let filters = self.subscriptions.iter();
        let filters = filters.map(|subscription| subscription.filter.as_str());
        filters.filter(move |filter| is_match(filter, name))
    }
}

/// Also of a Shared Subscription.
fn is_match(filter: &str, name: &str) -> bool {
    let plain = topic::split_shared(filter).map_or(filter, |(_, plain)| plain);
    topic::matches(plain, name)
}

impl Subscription {
    /// Its options; where the Server may know it already, Retained Messages come only if it does not.
    fn asked_with(&self, is_doubted: bool) -> SubscriptionOptions {
        let mut options = self.options;
        if is_doubted && options.retain_handling == RetainHandling::Send {
            options.retain_handling = RetainHandling::SendIfNew;
        }
        options
    }
}

impl Farewell {
    fn answer(self, result: Result<(), Error>) {
        if let Some(done) = self.done {
            done.send(result).ok();
        }
    }
}

/// The largest number that fits in a Variable Byte Integer.
const SUBSCRIPTION_IDENTIFIER_MAX: u32 = 268_435_455;
