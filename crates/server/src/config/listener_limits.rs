//! What a listener limits in place of `[limits]`, for those who connect by it.
//!
//! Owns: [`ListenerLimits`], how they stand over the limits of all. Does not own: which values fit (see `limits`, which
//! judges the same keys of all), when they count (see `engine::LimitsByListener`). Start reading at [`ListenerLimits`].
//! Invariant: only what is about one connection or one Session can be another limit by listener.

use engine::Limits;
use proto::Qos;

use super::checked::{Fault, set};
use super::limits::{check_bounds, check_limits};
use super::raw::{RawLimits, RawListener};

/// What one listener limits for itself; `None` is as `[limits]` has it for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Clients that connect here in one second, beside what all listeners together may; more are told 0x89.
    pub connect_rate_max: Option<u32>,
    /// PUBLISH packets a second of one connection here.
    pub publish_rate_max: Option<u32>,
    /// Bytes of these a second.
    pub publish_bytes_rate_max: Option<usize>,
    /// Topic Filters a second of one connection here.
    pub subscribe_rate_max: Option<u32>,
    /// See [`Limits::maximum_packet_size_bytes`], and so on.
    pub maximum_packet_size_bytes: Option<u32>,
    /// Announced.
    pub receive_maximum: Option<u16>,
    /// Not announced.
    pub maximum_inflight_messages: Option<u16>,
    /// Announced.
    pub topic_alias_maximum: Option<u16>,
    /// Not announced.
    pub topic_alias_maximum_out: Option<u16>,
    /// In seconds, announced.
    pub server_keep_alive_max_seconds: Option<u16>,
    /// In seconds, announced.
    pub session_expiry_max_seconds: Option<u32>,
    /// In seconds, for 3.x.
    pub session_expiry_3x_seconds: Option<u32>,
    /// In bytes.
    pub client_id_length_max: Option<usize>,
    /// Messages of one Session.
    pub queued_messages_max: Option<usize>,
    /// Bytes of one Session, in memory or on disk.
    pub queued_bytes_max: Option<usize>,
    /// Of these, bytes in memory.
    pub queued_bytes_memory_max: Option<usize>,
    /// Of one Session.
    pub subscriptions_per_session_max: Option<usize>,
    /// Announced.
    pub maximum_qos: Option<Qos>,
    /// Announced.
    pub retain_available: Option<bool>,
    /// Announced.
    pub wildcard_subscription_available: Option<bool>,
    /// Announced.
    pub subscription_identifiers_available: Option<bool>,
    /// Announced.
    pub shared_subscription_available: Option<bool>,
}

impl ListenerLimits {
    /// What counts for one connection by the listener, or one Session, where `all` counts for others.
    #[must_use]
    pub fn over(&self, all: &Limits) -> Limits {
        let mut limits = all.clone();
        let to = &mut limits;
        set(
            &mut to.maximum_packet_size_bytes,
            self.maximum_packet_size_bytes,
        );
        set(&mut to.receive_maximum, self.receive_maximum);
        set(
            &mut to.maximum_inflight_messages,
            self.maximum_inflight_messages,
        );
        set(&mut to.topic_alias_maximum, self.topic_alias_maximum);
        set(
            &mut to.topic_alias_maximum_out,
            self.topic_alias_maximum_out,
        );
        let keep_alive = self.server_keep_alive_max_seconds;
        to.server_keep_alive_max_seconds = keep_alive.or(to.server_keep_alive_max_seconds);
        set(
            &mut to.session_expiry_max_seconds,
            self.session_expiry_max_seconds,
        );
        set(
            &mut to.session_expiry_3x_seconds,
            self.session_expiry_3x_seconds,
        );
        set(&mut to.client_id_length_max, self.client_id_length_max);
        set(&mut to.queued_messages_max, self.queued_messages_max);
        set(&mut to.queued_bytes_max, self.queued_bytes_max);
        set(
            &mut to.queued_bytes_memory_max,
            self.queued_bytes_memory_max,
        );
        set(
            &mut to.subscriptions_per_session_max,
            self.subscriptions_per_session_max,
        );
        set(&mut to.maximum_qos, self.maximum_qos);
        set(&mut to.retain_available, self.retain_available);
        set(
            &mut to.wildcard_subscription_available,
            self.wildcard_subscription_available,
        );
        set(
            &mut to.subscription_identifiers_available,
            self.subscription_identifiers_available,
        );
        set(
            &mut to.shared_subscription_available,
            self.shared_subscription_available,
        );
        limits
    }

    /// Whether there is one that an engine goes by, which knows listeners by their names.
    pub(super) fn is_by_name(&self) -> bool {
        let other = Self {
            connect_rate_max: self.connect_rate_max,
            publish_rate_max: self.publish_rate_max,
            publish_bytes_rate_max: self.publish_bytes_rate_max,
            subscribe_rate_max: self.subscribe_rate_max,
            ..Self::default()
        };
        *self != other
    }
}

/// Judges what was written of the limits of a listener, as the same keys of all are judged.
pub(super) fn check(raw: &RawListener) -> Result<ListenerLimits, Fault> {
    let written = written(raw);
    let (bounds, limits) = (check_bounds(&written)?, check_limits(&written)?);
    /// What was judged, if it was written.
    fn judged<R, T>(written: &Option<R>, judged: T) -> Option<T> {
        written.is_some().then_some(judged)
    }
    let of = &written;
    Ok(ListenerLimits {
        connect_rate_max: judged(&of.connect_rate_max, bounds.connect_rate_max),
        publish_rate_max: judged(&of.publish_rate_max, bounds.publish_rate_max),
        publish_bytes_rate_max: judged(&of.publish_bytes_rate_max, bounds.publish_bytes_rate_max),
        subscribe_rate_max: judged(&of.subscribe_rate_max, bounds.subscribe_rate_max),
        maximum_packet_size_bytes: judged(
            &of.maximum_packet_size_bytes,
            limits.maximum_packet_size_bytes,
        ),
        receive_maximum: judged(&of.receive_maximum, limits.receive_maximum),
        maximum_inflight_messages: judged(
            &of.maximum_inflight_messages,
            limits.maximum_inflight_messages,
        ),
        topic_alias_maximum: of.topic_alias_maximum,
        topic_alias_maximum_out: of.topic_alias_maximum_out,
        server_keep_alive_max_seconds: limits.server_keep_alive_max_seconds,
        session_expiry_max_seconds: judged(
            &of.session_expiry_max_seconds,
            limits.session_expiry_max_seconds,
        ),
        session_expiry_3x_seconds: judged(
            &of.session_expiry_3x_seconds,
            limits.session_expiry_3x_seconds,
        ),
        client_id_length_max: of.client_id_length_max,
        queued_messages_max: of.queued_messages_max,
        queued_bytes_max: judged(&of.queued_bytes_max, limits.queued_bytes_max),
        queued_bytes_memory_max: judged(
            &of.queued_bytes_memory_max,
            limits.queued_bytes_memory_max,
        ),
        subscriptions_per_session_max: of.subscriptions_per_session_max,
        maximum_qos: judged(&of.maximum_qos, limits.maximum_qos),
        retain_available: of.retain_available,
        wildcard_subscription_available: of.wildcard_subscription_available,
        subscription_identifiers_available: of.subscription_identifiers_available,
        shared_subscription_available: of.shared_subscription_available,
    })
}

/// What a listener has of the keys of `[limits]`, as if it stood there.
fn written(raw: &RawListener) -> RawLimits {
    RawLimits {
        connect_rate_max: raw.connect_rate_max.clone(),
        publish_rate_max: raw.publish_rate_max.clone(),
        publish_bytes_rate_max: raw.publish_bytes_rate_max.clone(),
        subscribe_rate_max: raw.subscribe_rate_max.clone(),
        maximum_packet_size_bytes: raw.maximum_packet_size_bytes.clone(),
        receive_maximum: raw.receive_maximum.clone(),
        maximum_inflight_messages: raw.maximum_inflight_messages.clone(),
        topic_alias_maximum: raw.topic_alias_maximum,
        topic_alias_maximum_out: raw.topic_alias_maximum_out,
        server_keep_alive_max_seconds: raw.server_keep_alive_max_seconds.clone(),
        session_expiry_max_seconds: raw.session_expiry_max_seconds.clone(),
        session_expiry_3x_seconds: raw.session_expiry_3x_seconds.clone(),
        client_id_length_max: raw.client_id_length_max,
        queued_messages_max: raw.queued_messages_max,
        queued_bytes_max: raw.queued_bytes_max,
        queued_bytes_memory_max: raw.queued_bytes_memory_max,
        subscriptions_per_session_max: raw.subscriptions_per_session_max,
        maximum_qos: raw.maximum_qos.clone(),
        retain_available: raw.retain_available,
        wildcard_subscription_available: raw.wildcard_subscription_available,
        subscription_identifiers_available: raw.subscription_identifiers_available,
        shared_subscription_available: raw.shared_subscription_available,
        ..RawLimits::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Config, parse};
    fn config(text: &str) -> Config {
        parse(text, "a.toml".as_ref()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Every key that a listener and `[limits]` both have counts for whoever connects by that listener, as it would count
    /// for all; but rates, which the shards know by listener themselves, and the connections of all.
    #[test]
    fn each_limit_of_a_listener_is_that_of_all_for_those_who_connect_by_it() {
        let file: toml::Table =
            toml::from_str(include_str!("every_key.toml")).expect("is valid TOML");
        let of_all = file["limits"].as_table().expect("a table");
        let rates = [
            "connections_max",
            "connect_rate_max",
            "publish_rate_max",
            "publish_bytes_rate_max",
            "subscribe_rate_max",
        ];
        let mut seen = BTreeSet::new();
        for listener in file["listeners"].as_array().expect("a list") {
            for (key, value) in listener.as_table().expect("a table") {
                if !of_all.contains_key(key) || rates.contains(&key.as_str()) {
                    continue;
                }
                let line = format!("{key} = {value}\n");
                let base = "[[listeners]]\naddress = \"127.0.0.1:1\"\n";
                let own = config(&format!("{base}{line}"));
                let all = config(&format!("{base}[limits]\n{line}"));
                let limits = &own.listeners[0].limits;
                assert_eq!(limits.over(&own.limits), all.limits, "{key}");
                assert_ne!(all.limits, own.limits, "{key}");
                assert!(limits.is_by_name(), "{key}");
                // Over another one of all it is the same.
                assert_eq!(limits.over(&all.limits), all.limits, "{key}");
                seen.insert(key.clone());
            }
        }
        assert_eq!(seen.len(), 18, "{seen:?}");
    }

    #[test]
    fn what_a_listener_does_not_say_is_as_for_all() {
        let config =
            config("[[listeners]]\naddress = \"127.0.0.1:1\"\n[limits]\nreceive_maximum = 9");
        let limits = config.listeners[0].limits.over(&config.limits);
        assert_eq!(limits, config.limits);
        assert_eq!(limits.receive_maximum, 9);
    }

    /// Both would be "127.0.0.1:0" to the engine.
    #[test]
    fn listeners_at_free_ports_with_limits_of_their_own_need_names() {
        let two = |first: &str, second: &str| {
            let text = format!(
                "[[listeners]]\naddress = \"127.0.0.1:0\"\n{first}\n\
                 [[listeners]]\naddress = \"127.0.0.1:0\"\n{second}\n"
            );
            parse(&text, "a.toml".as_ref()).map_err(|error| error.to_string())
        };
        assert!(two("", "publish_rate_max = 9").is_ok());
        for (first, second) in [("", "maximum_qos = 1"), ("maximum_qos = 1", "")] {
            let said = two(first, second).expect_err("is not known by its name");
            assert!(said.contains("need names"), "{said}");
        }
        assert!(two("maximum_qos = 1", "name = \"other\"").is_ok());
    }
}
