//! CONNECT: which Session a Client gets, and what it is told in CONNACK.
//!
//! Owns: refusals, take-over, Clean Start, Session Expiry at the start, CONNACK.
//! Does not own: authentication (done before), how a Session ends (see `disconnect`).
//! Start reading at [`Engine::on_connect`]. Invariant: the old connection of a Client Identifier, and
//! its Session if that ends, are gone before the new one begins.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Instant;

use proto::connection::Outgoing;
use proto::packet::{ConnAck, ConnAckProperties, Connect, Disconnect, ReasonCode};
use proto::{Secret, Version};
use store::{Level, Seq};

use crate::connections::Connection;
use crate::keys::SessionKey;
use crate::output::Output;
use crate::pending::{HeldQueue, Wait};
use crate::publish::is_server_topic;
use crate::sessions::{Link, Session};
use crate::subscriptions::PublisherMemo;
use crate::timers::Due;
use crate::{ConnectionKey, Engine, Principal};

/// A Client that has been authenticated and asks for its Session.
#[derive(Debug)]
pub struct ConnectRequest {
    /// The Network Connection it came on.
    pub connection: ConnectionKey,
    /// Its CONNECT; the Client Identifier is already assigned where it was empty.
    pub connect: Box<Connect>,
    /// Whether the Client Identifier was assigned by the Server.
    pub assigned_client_id: bool,
    /// Authentication Data to return in CONNACK, along with the method of CONNECT.
    pub authentication_data: Option<Secret>,
    /// Who it is.
    pub principal: Arc<Principal>,
}

impl Engine {
    /// A Client has connected and been authenticated; answers with CONNACK.
    pub fn on_connect(&mut self, request: ConnectRequest, now: Instant) {
        self.end_run();
        let checked = self.check_connect(&request);
        let reserved = match checked.and_then(|()| self.reserve_session(&request)) {
            Ok(reserved) => reserved,
            Err(reason) => {
                self.counters.refused_sessions += u64::from(reason == ReasonCode::QuotaExceeded);
                self.refuse(request.connection, reason);
                return;
            }
        };
        let expiry_seconds = self.granted_expiry(&request);
        let (key, session_present, ended) = self.session_for(&request, expiry_seconds, now);
        self.settle_reserved(&request, reserved, !session_present);
        let wait = self.attach(key, &request, expiry_seconds).and(ended);
        self.judge_by_listener(key, now);
        let connack = self.connack(&request, session_present, expiry_seconds);
        // [MQTT-3.1.4-5] [MQTT-3.2.0-1] [v3.1.1 MQTT-3.1.4-4] [v3.1.1 MQTT-3.2.0-1]
        self.emit(key, Outgoing::ConnAck(Box::new(connack)), wait);
        self.set_members_online(key, true);
        self.pump(key, now);
    }

    fn refuse(&mut self, connection: ConnectionKey, reason: ReasonCode) {
        let packet = Outgoing::ConnAck(Box::new(ConnAck::refusal(reason)));
        self.outputs.push_back(Output::Send { connection, packet });
        // [MQTT-3.1.4-2] [MQTT-4.13.2-1] [v3.1.1 MQTT-3.2.2-5] Nothing of it is processed afterwards,
        // [v3.1.1 MQTT-3.1.4-5].
        self.outputs.push_back(Output::Close {
            connection,
            reason,
            client_id: None,
        });
    }

    fn check_connect(&self, request: &ConnectRequest) -> Result<(), ReasonCode> {
        let connect = &request.connect;
        let limits = self.limits_for(&request.principal);
        let has_own_id = !request.assigned_client_id && !connect.client_id.is_empty();
        // [v3.1.1 MQTT-3.1.3-7] [v3.1.1 MQTT-3.1.3-8] An empty Client Identifier needs Clean Session.
        let needs_own_id = match connect.version {
            Version::V31 => true,
            Version::V311 => !connect.clean_start,
            Version::V5 => false,
        };
        // [MQTT-3.1.3-8] [v3.1.1 MQTT-3.1.3-9] Any other is a good one, [MQTT-3.1.3-5] [v3.1.1 MQTT-3.1.3-5].
        if (needs_own_id && !has_own_id)
            || connect.client_id.is_empty()
            || connect.client_id.len() > limits.client_id_length_max
        {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        // A Session belongs to the user that made it. One that nobody made can be anybody's, see `session_for`.
        let found = self.sessions.find(&connect.client_id);
        let owner = found.and_then(|key| self.sessions.get(key)?.principal.user.as_ref());
        if owner.is_some() && owner != request.principal.user.as_ref() {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        // Client Identifiers are free to invent, so the Sessions they leave behind have a bound.
        let sessions_max = self
            .limits
            .sessions_max
            .div_ceil(usize::from(self.config.shard_count));
        if self.sessions.len() >= sessions_max && found.is_none() {
            return Err(ReasonCode::QuotaExceeded);
        }
        let Some(will) = &connect.will else {
            return Ok(());
        };
        // [MQTT-3.2.2-12]
        if will.qos > limits.maximum_qos {
            return Err(ReasonCode::QosNotSupported);
        }
        // [MQTT-3.2.2-13]
        if will.retain && !limits.retain_available {
            return Err(ReasonCode::RetainNotSupported);
        }
        if self.limits.exceeds_topic(&will.topic) {
            return Err(ReasonCode::TopicNameInvalid);
        }
        if is_server_topic(&will.topic) {
            return Err(ReasonCode::NotAuthorized);
        }
        Ok(())
    }

    fn granted_expiry(&self, request: &ConnectRequest) -> u32 {
        let connect = &request.connect;
        let limits = self.limits_for(&request.principal);
        let asked = match connect.version {
            Version::V5 => connect
                .properties
                .session_expiry_interval_seconds
                .unwrap_or(0),
            // [v3.1.1 MQTT-3.1.2-6] Clean Session ends with the connection.
            _ if connect.clean_start => 0,
            _ => limits.session_expiry_3x_seconds,
        };
        asked.min(limits.session_expiry_max_seconds)
    }

    /// The Session this CONNECT gets, whether it existed before, and if not, what the end of its forerunner
    /// waits for.
    fn session_for(
        &mut self,
        request: &ConnectRequest,
        expiry_seconds: u32,
        now: Instant,
    ) -> (SessionKey, bool, Wait) {
        let connect = &request.connect;
        // What an anonymous Client has left under this name is not for a user to get, nor in its way; and what was
        // left in another part of the tree is not for this one.
        let is_foreign = |session: &Session| {
            session.principal.user != request.principal.user
                || session.principal.mount_point != request.principal.mount_point
        };
        let found = self.sessions.find(&connect.client_id);
        let found_session = found.and_then(|key| self.sessions.get(key));
        let clean_start = connect.clean_start || found_session.is_some_and(is_foreign);
        // [MQTT-3.1.3-2] [v3.1.1 MQTT-3.1.3-2] The Client Identifier names the Session.
        if let Some(key) = found {
            self.take_over(key, clean_start, now);
        }
        // A Session that ended with its connection is not here any more.
        match self.sessions.find(&connect.client_id) {
            // [MQTT-3.1.4-4] [MQTT-3.1.2-5] [v3.1.1 MQTT-3.1.4-3] [v3.1.1 MQTT-3.1.2-4]
            Some(key) if !clean_start => (key, true, Wait::default()),
            found => {
                // [MQTT-3.1.2-4] [MQTT-3.1.2-6] [v3.1.1 MQTT-3.1.2-6]
                let ended = found.map(|key| self.end_session(key, now));
                let id = self.new_session_id();
                let session = Session::new(id, connect.client_id.as_str().into(), expiry_seconds);
                self.counters.sessions += 1;
                let key = self.sessions.insert(session);
                (key, false, ended.unwrap_or_default())
            }
        }
    }

    /// The Session's Client connects again: its old connection, if it still has one, closes.
    fn take_over(&mut self, key: SessionKey, clean_start: bool, now: Instant) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let expiry_seconds = session.expiry_seconds;
        let has_delay = session
            .will
            .as_ref()
            .is_some_and(|will| will.properties.delay_interval_seconds > 0);
        let Some(link) = &session.link else {
            // [MQTT-3.1.3-9] A new connection before the Will Delay Interval has passed cancels the Will;
            // with Clean Start the Session ends instead, and that publishes it.
            if !clean_start {
                self.discard_will(key);
            }
            return;
        };
        let connection = link.connection;
        // A Session continues only if it would have outlived its connection.
        if has_delay && !clean_start && expiry_seconds > 0 {
            self.discard_will(key);
        }
        // [MQTT-3.1.4-3] [v3.1.1 MQTT-3.1.4-2]
        self.close(connection, ReasonCode::SessionTakenOver, now);
    }

    fn attach(&mut self, key: SessionKey, request: &ConnectRequest, expiry_seconds: u32) -> Wait {
        let connect = &request.connect;
        let properties = &connect.properties;
        let window = properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get);
        let told = Arc::clone(self.limits_for(&request.principal));
        let window = window.min(told.maximum_inflight_messages).max(1);
        self.set_principal(key, &request.principal);
        let Some(session) = self.sessions.get_mut(key) else {
            return Wait::default();
        };
        session.expiry_seconds = expiry_seconds;
        session.link = Some(Link {
            connection: request.connection,
            version: connect.version,
            maximum_packet_size_bytes: properties.maximum_packet_size_bytes,
            hidden_topic_bytes: request.principal.hidden_topic_bytes(),
            is_congested: false,
            dropped_in: Seq(0),
            dropped_at: Level::Memory,
            burst_began: 0,
            burst_bytes: 0,
            held: HeldQueue::default(),
        });
        session.outbound.on_connected(window);
        // [MQTT-3.1.2-7] [v3.1.1 MQTT-3.1.2-12]
        session.will = connect.will.clone().map(Box::new);
        if let Some(asked) = session.asked_mut() {
            asked.forget_will();
        }
        let expiry = session.expiry_deadline.take();
        session.is_stored |= session.is_durable() && self.config.levels.default > Level::Memory;
        let stored = session.is_stored;
        if let Some(deadline) = expiry {
            self.timers.clear(Due::SessionExpiry(key), deadline);
        }
        self.connections.insert(Connection {
            key: request.connection,
            session: key,
            version: connect.version,
            connected_with_expiry_zero: properties.session_expiry_interval_seconds.unwrap_or(0)
                == 0,
            told,
            memo: PublisherMemo::default(),
            grant: None,
            is_slicing: false,
        });
        self.touch(key);
        self.counters.connections += 1;
        self.counters.clients_connected = self.connections.len() as u64;
        self.counters.clients_maximum = self
            .counters
            .clients_maximum
            .max(self.counters.clients_connected);
        if stored {
            let wait = self.record_session(key, None);
            self.record_will(key).unwrap_or(wait)
        } else {
            Wait::default()
        }
    }

    /// Everything that is announced, truthfully; absent is the standard's default.
    fn connack(
        &self,
        request: &ConnectRequest,
        session_present: bool,
        expiry_seconds: u32,
    ) -> ConnAck {
        // [MQTT-3.2.2-2] [MQTT-3.2.2-3] [v3.1.1 MQTT-3.2.2-1] [v3.1.1 MQTT-3.2.2-2] [v3.1.1 MQTT-3.2.2-3]
        let mut connack = ConnAck {
            session_present,
            reason: ReasonCode::Success,
            properties: ConnAckProperties::default(),
        };
        let connect = &request.connect;
        if connect.version != Version::V5 {
            return connack;
        }
        let limits = self.limits_for(&request.principal);
        let unavailable = |is_available: bool| (!is_available).then_some(false);
        let asked = connect
            .properties
            .session_expiry_interval_seconds
            .unwrap_or(0);
        connack.properties = ConnAckProperties {
            session_expiry_interval_seconds: (asked != expiry_seconds).then_some(expiry_seconds),
            receive_maximum: NonZeroU16::new(limits.receive_maximum),
            // [MQTT-3.2.2-9] Not written where it is 2.
            maximum_qos: Some(limits.maximum_qos),
            retain_available: unavailable(limits.retain_available),
            maximum_packet_size_bytes: NonZeroU32::new(limits.maximum_packet_size_bytes),
            // [MQTT-3.1.3-7] [MQTT-3.2.2-16]
            assigned_client_id: request
                .assigned_client_id
                .then(|| connect.client_id.clone()),
            topic_alias_maximum: Some(limits.topic_alias_maximum),
            wildcard_subscription_available: unavailable(limits.wildcard_subscription_available),
            subscription_identifier_available: unavailable(
                limits.subscription_identifiers_available,
            ),
            shared_subscription_available: unavailable(limits.shared_subscription_available),
            server_keep_alive_seconds: limits.server_keep_alive_max_seconds.filter(|maximum| {
                connect.keep_alive_seconds == 0 || connect.keep_alive_seconds > *maximum
            }),
            response_information: self.response_information(connect),
            authentication_method: connect.properties.authentication_method.clone(),
            authentication_data: request.authentication_data.clone(),
            ..ConnAckProperties::default()
        };
        connack
    }

    /// [MQTT-3.1.2-28] Only on request; and only where the Client Identifier can be part of a topic.
    fn response_information(&self, connect: &Connect) -> Option<String> {
        let prefix = self.config.response_topic_prefix.as_deref()?;
        let is_usable = !connect.client_id.contains(['+', '#', '/']);
        (connect.properties.request_response_information && is_usable)
            .then(|| format!("{prefix}{}", connect.client_id))
    }

    /// Says DISCONNECT, where the version has it, and closes; the connection is gone afterwards.
    pub(crate) fn close(&mut self, connection: ConnectionKey, reason: ReasonCode, now: Instant) {
        self.say_goodbye(connection, reason, None);
        if !matches!(
            reason,
            ReasonCode::SessionTakenOver
                | ReasonCode::ServerShuttingDown
                | ReasonCode::AdministrativeAction
        ) {
            self.counters.protocol_errors += 1;
        }
        self.on_closed(connection, now);
    }

    pub(crate) fn say_goodbye(
        &mut self,
        connection: ConnectionKey,
        reason: ReasonCode,
        server_reference: Option<&str>,
    ) {
        // [MQTT-3.14.0-1] [MQTT-3.2.0-1] [v3.1.1 MQTT-3.2.0-1] Nothing is sent before the CONNACK.
        if self.version_of(connection) == Version::V5 && !self.owes_connack(connection) {
            let mut disconnect = Box::new(Disconnect::new(reason));
            disconnect.server_reference = server_reference.map(str::to_owned);
            let packet = Outgoing::Disconnect(disconnect);
            self.outputs.push_back(Output::Send { connection, packet });
        }
        let session = self.connections.get(connection).map(|found| found.session);
        let client_id = session
            .and_then(|key| self.sessions.get(key))
            .map(|session| Arc::clone(&session.client_id));
        // [MQTT-3.14.4-1] [MQTT-3.14.4-2]
        self.outputs.push_back(Output::Close {
            connection,
            reason,
            client_id,
        });
    }

    /// Whether its CONNACK waits. It does not leave because the connection ends: what it says could be lost in a
    /// crash.
    fn owes_connack(&self, connection: ConnectionKey) -> bool {
        let session = self.connections.get(connection).map(|found| found.session);
        let link = session.and_then(|key| self.sessions.link(key));
        let first = link.and_then(|link| link.held.front());
        first.is_some_and(|held| matches!(held.packet, Outgoing::ConnAck(_)))
    }
}
