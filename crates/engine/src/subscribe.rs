//! SUBSCRIBE and UNSUBSCRIBE: what a Client is granted, and when it may be told.
//!
//! Owns: checks of each Topic Filter, SUBACK and UNSUBACK, announcing interest to other shards.
//! Does not own: matching (see `subscriptions`), the replay itself (see `replay`).
//! Start reading at [`Engine::on_subscribe`]. Invariant: SUBACK leaves only when whatever is published
//! afterwards, in any shard, reaches this one.

use std::sync::Arc;
use std::time::Instant;

use proto::Qos;
use proto::connection::Outgoing;
use proto::packet::{
    ReasonCode, RetainHandling, SubAck, Subscribe, SubscriptionRequest, UnsubAck, Unsubscribe,
};
use proto::topic::split_shared;
use store::{Record, SubscriptionRecord};

use crate::keys::SessionKey;
use crate::pending::Wait;
use crate::routing::ShardItem;
use crate::shared_subscriptions::{GroupChange, MemberCounts};
use crate::slices::{FILTERS_PER_SLICE, Sliced};
use crate::subscriptions::Subscription;
use crate::{ConnectionKey, Engine, Request, ShardIndex};

impl Engine {
    /// SUBSCRIBE from the Client. [MQTT-3.8.4-1] [v3.1.1 MQTT-3.8.4-1]
    pub fn on_subscribe(
        &mut self,
        connection: ConnectionKey,
        subscribe: &Subscribe<'_>,
        now: Instant,
    ) {
        let Some(key) = self.on_packet(connection) else {
            return;
        };
        let identifier = subscribe.subscription_identifier;
        if subscribe.requests.len() > FILTERS_PER_SLICE {
            let (packet_id, requests) = (subscribe.packet_id, &subscribe.requests);
            let sliced = Sliced::subscribe(connection, packet_id, identifier, requests);
            return self.slice(sliced);
        }
        self.refresh_rights(key);
        let mut reasons = Vec::with_capacity(subscribe.requests.len());
        let mut wait = Wait::default();
        let mut replays = Vec::new();
        // [MQTT-3.8.4-5] [v3.1.1 MQTT-3.8.4-4] As if each filter had come in a packet of its own.
        for request in &subscribe.requests {
            let (reason, waits, is_replayed) = self.subscribe_one(key, request, identifier, now);
            reasons.push(reason);
            wait = wait.and(waits);
            if is_replayed {
                replays.push(request.filter);
            }
        }
        // [MQTT-2.2.1-6] [MQTT-3.8.4-2] [MQTT-3.8.4-6] [v3.1.1 MQTT-2.3.1-7] [v3.1.1 MQTT-3.8.4-2] [v3.1.1 MQTT-3.8.4-5]
        let suback = SubAck {
            packet_id: subscribe.packet_id,
            reasons,
            properties: None,
        };
        self.emit(key, Outgoing::SubAck(suback), wait);
        for filter in replays {
            self.start_replay(key, filter, wait);
        }
        self.begin_replays();
    }

    /// One Topic Filter of a SUBSCRIBE: its Reason Code, what SUBACK waits for, and whether what is retained is sent.
    pub(crate) fn subscribe_one(
        &mut self,
        key: SessionKey,
        request: &SubscriptionRequest<'_>,
        identifier: Option<u32>,
        now: Instant,
    ) -> (ReasonCode, Wait, bool) {
        self.work += WORK_PER_FILTER;
        match self.check_subscription(key, request, identifier, now) {
            Err(reason) => (reason, Wait::default(), false),
            Ok(qos) => {
                let (existed, wait) = self.place(key, request, qos, identifier);
                (granted(qos), wait, is_replayed(request, existed))
            }
        }
    }

    fn check_subscription(
        &mut self,
        key: SessionKey,
        request: &SubscriptionRequest<'_>,
        identifier: Option<u32>,
        now: Instant,
    ) -> Result<Qos, ReasonCode> {
        let limits = Arc::clone(self.limits_of(key));
        let told = Arc::clone(self.told_of(key));
        let filter = request.filter;
        if identifier.is_some() && !told.subscription_identifiers_available {
            return Err(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        let shared = split_shared(filter);
        if shared.is_some() && !told.shared_subscription_available {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        let inner = shared.map_or(filter, |(_, inner)| inner);
        if limits.exceeds_topic(inner) {
            self.counters.refused_topics += 1;
            return Err(ReasonCode::TopicFilterInvalid);
        }
        if inner.contains(['+', '#']) && !told.wildcard_subscription_available {
            return Err(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        let Some(session) = self.sessions.get(key) else {
            return Err(ReasonCode::NotAuthorized);
        };
        let asked = Request::Subscribe { filter };
        let decision = self.rights.decide(session, asked);
        let qos_max = decision.qos_max().min(told.maximum_qos);
        if !decision.is_allowed {
            let rule = decision.reason();
            self.tell_denied(key, asked, rule, now);
            return Err(ReasonCode::NotAuthorized);
        }
        let shard_max = self
            .limits
            .subscriptions_max
            .div_ceil(usize::from(self.config.shard_count));
        let is_shard_full = self.counters.subscriptions >= shard_max as u64;
        let is_new = !session.filters.contains(filter);
        let is_full = is_shard_full
            || session.filters.len() >= limits.subscriptions_per_session_max
            || self.is_memory_short;
        let of_user_max = self.limits.subscriptions_per_user_max;
        if is_new && (is_full || !self.take_subscription(key, of_user_max)) {
            self.counters.refused_subscriptions += 1;
            return Err(ReasonCode::QuotaExceeded);
        }
        // [MQTT-3.2.2-10]
        Ok(request.options.qos.min(qos_max))
    }

    /// Makes or replaces one Subscription; returns whether it existed, and what SUBACK waits for.
    fn place(
        &mut self,
        key: SessionKey,
        request: &SubscriptionRequest<'_>,
        qos: Qos,
        subscription_identifier: Option<u32>,
    ) -> (bool, Wait) {
        let filter = request.filter;
        let subscription = Subscription {
            qos,
            no_local: request.options.no_local,
            retain_as_published: request.options.retain_as_published,
            subscription_identifier,
        };
        let is_shared = split_shared(filter).is_some();
        let existed = self.hang_in(key, filter, subscription, true);
        // Also where another Session made the interest known a moment ago.
        let mut wait = self.routing.wait_for_interest();
        if !existed {
            self.counters.subscriptions += 1;
            self.counters.shared_subscriptions += u64::from(is_shared);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return (existed, wait);
        };
        if session.filters.insert(filter) {
            self.touch(key);
            self.on_filter(key, filter, true);
        }
        let Some(session) = self.sessions.get(key) else {
            return (existed, wait);
        };
        if session.is_stored {
            let record = SubscriptionRecord {
                session: session.id,
                filter: filter.into(),
                qos: qos.level(),
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
                subscription_identifier,
            };
            wait = wait.and(self.record(Record::SubscriptionPut(Box::new(record))));
        }
        (existed, wait)
    }

    /// Puts a Subscription into the index, and tells the other shards; returns whether it existed.
    pub(crate) fn hang_in(
        &mut self,
        key: SessionKey,
        filter: &str,
        subscription: Subscription,
        is_online: bool,
    ) -> bool {
        if split_shared(filter).is_some() {
            let change = self.shared.join(filter, key, subscription, is_online);
            self.on_group_change(filter, change);
            return change.existed;
        }
        let placed = self.subscriptions.subscribe(key, filter, subscription);
        if placed.is_new_interest {
            self.tell_interest(filter, true);
        }
        placed.existed
    }

    /// UNSUBSCRIBE from the Client: stops what is new, [MQTT-3.10.4-2] [v3.1.1 MQTT-3.10.4-2]; what the
    /// Session has already is completed, [MQTT-3.10.4-3] [v3.1.1 MQTT-3.10.4-3].
    pub fn on_unsubscribe(
        &mut self,
        connection: ConnectionKey,
        unsubscribe: &Unsubscribe<'_>,
        _now: Instant,
    ) {
        let Some(key) = self.on_packet(connection) else {
            return;
        };
        if unsubscribe.filters.len() > FILTERS_PER_SLICE {
            let (packet_id, filters) = (unsubscribe.packet_id, &unsubscribe.filters);
            return self.slice(Sliced::unsubscribe(connection, packet_id, filters));
        }
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut wait = Wait::default();
        for filter in &unsubscribe.filters {
            let (reason, waits) = self.unsubscribe_one(key, filter);
            reasons.push(reason);
            wait = wait.and(waits);
        }
        // [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]
        // [v3.1.1 MQTT-3.10.4-6] [v3.1.1 MQTT-3.10.4-4] [v3.1.1 MQTT-3.10.4-5]
        let unsuback = UnsubAck {
            packet_id: unsubscribe.packet_id,
            reasons,
            properties: None,
        };
        self.emit(key, Outgoing::UnsubAck(unsuback), wait);
    }

    /// One Topic Filter of an UNSUBSCRIBE: its Reason Code, and what UNSUBACK waits for.
    pub(crate) fn unsubscribe_one(&mut self, key: SessionKey, filter: &str) -> (ReasonCode, Wait) {
        self.work += WORK_PER_FILTER;
        if self.remove_subscription(key, filter) {
            (ReasonCode::Success, self.record_unsubscribed(key, filter))
        } else {
            (ReasonCode::NoSubscriptionExisted, Wait::default())
        }
    }

    fn record_unsubscribed(&mut self, key: SessionKey, filter: &str) -> Wait {
        let Some(session) = self.sessions.get(key).filter(|session| session.is_stored) else {
            return Wait::default();
        };
        let session = session.id;
        self.record(Record::SubscriptionDelete {
            session,
            filter: filter.into(),
        })
    }

    /// Takes one Subscription away; returns whether there was one.
    fn remove_subscription(&mut self, key: SessionKey, filter: &str) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        if !session.filters.remove(filter) {
            return false;
        }
        if let Some(asked) = session.asked_mut() {
            asked.forget_subscription(filter);
        }
        self.touch(key);
        self.give_subscription(key);
        self.counters.subscriptions = self.counters.subscriptions.saturating_sub(1);
        if split_shared(filter).is_some() {
            self.counters.shared_subscriptions =
                self.counters.shared_subscriptions.saturating_sub(1);
            if let Some(change) = self.shared.leave(filter, key) {
                self.on_group_change(filter, change);
            }
        } else {
            let removed = self.subscriptions.unsubscribe(key, filter);
            if removed.is_some_and(|removed| removed.was_last_interest) {
                self.tell_interest(filter, false);
            }
            self.cancel_replay(key, filter);
        }
        self.on_filter(key, filter, false);
        true
    }

    /// The Session ends: so do its Subscriptions.
    pub(crate) fn drop_subscriptions(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let filters: Vec<_> = session.filters.iter().collect();
        self.work += WORK_PER_FILTER * filters.len() as u64;
        for filter in filters {
            self.remove_subscription(key, &filter);
        }
    }

    /// The members of Shared Subscriptions that this Session is go online or offline.
    pub(crate) fn set_members_online(&mut self, key: SessionKey, is_online: bool) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let filters: Vec<Arc<str>> = session
            .filters
            .from("$share/")
            .take_while(|filter| filter.starts_with("$share/"))
            .collect();
        for filter in filters {
            if let Some(change) = self.shared.set_online(&filter, key, is_online) {
                self.on_group_change(&filter, change);
            }
        }
    }

    /// Hangs a group into the index or takes it out, and tells the other shards about its members.
    fn on_group_change(&mut self, group: &str, change: GroupChange) {
        self.index_group(group, change);
        if !change.is_announced_anew {
            return;
        }
        let MemberCounts { online, total } = change.local;
        let group: Arc<str> = group.into();
        self.routing.announce(|| ShardItem::Members {
            group: Arc::clone(&group),
            online,
            total,
        });
    }

    fn index_group(&mut self, group: &str, change: GroupChange) {
        let Some((_, filter)) = split_shared(group) else {
            return;
        };
        if change.is_new {
            self.subscriptions.add_group(filter, change.group);
        }
        if change.is_gone {
            self.subscriptions.remove_group(filter, change.group);
        }
    }

    /// Another shard says how many members of a Shared Subscription it has.
    pub(crate) fn on_members(&mut self, from: ShardIndex, group: &str, online: u32, total: u32) {
        let counts = MemberCounts { online, total };
        if let Some(change) = self.shared.set_remote(group, from, counts) {
            self.index_group(group, change);
        }
    }

    fn tell_interest(&mut self, filter: &str, is_wanted: bool) {
        let filter: Arc<str> = filter.into();
        self.routing.announce(|| ShardItem::Interest {
            filter: Arc::clone(&filter),
            is_wanted,
        });
    }
}

/// What a change of one Subscription counts as, in deliveries.
const WORK_PER_FILTER: u64 = 16;

/// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [v3.1.1 MQTT-3.3.1-6]
fn is_replayed(request: &SubscriptionRequest<'_>, existed: bool) -> bool {
    // Section 4.8.2: a Shared Subscription gets no Retained Messages when it is made.
    if split_shared(request.filter).is_some() {
        return false;
    }
    match request.options.retain_handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => !existed,
        RetainHandling::DoNotSend => false,
    }
}

/// [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2] [v3.1.1 MQTT-3.9.3-1] [v3.1.1 MQTT-3.9.3-2]
const fn granted(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
