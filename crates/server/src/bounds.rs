//! What of `[limits]` the shards go by, and how it is replaced while they run.
//!
//! Owns: [`Bounds`], the limits of one connection by its listener. Does not own: the file (see `config`), limits that all
//! shards share (see `shard::Shared::take_over`). Start reading at [`Bounds`]. Invariant: what a Client was told is not
//! taken back: see [`server_limits`].

use std::sync::Arc;

use engine::{Limits, LimitsByListener};
use proto::connection::ServerLimits;

use crate::authentication::BanLimits;
use crate::config::{Config, FlappingLimits, ListenerConfig};
use crate::shard::PacesLimits;
use crate::turnstile::CrowdLimits;

/// What a shard bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// What its engine bounds.
    pub(crate) engine: Arc<Limits>,
    /// The same where a listener has limits of its own.
    pub(crate) by_listener: LimitsByListener,
    /// Unsent bytes of one connection above which the engine is told that it is congested.
    pub(crate) congested_bytes: usize,
    /// Unsent bytes of one connection above which it is closed.
    pub(crate) unsent_bytes_max: usize,
    /// Bytes of input that may be held for connections that have shown nothing yet.
    pub(crate) unproven_bytes_max: usize,
    /// How many of these there may be.
    pub(crate) unproven_max: usize,
    /// How many at once, and how fast.
    crowds: CrowdLimits,
    /// How often is too often to connect.
    pub(crate) flapping: BanLimits,
    /// How fast one connection may be, where its listener does not say, and how fast many together.
    pub(crate) paces: PacesLimits,
}

impl From<&Config> for Bounds {
    fn from(config: &Config) -> Self {
        let bounds = &config.bounds;
        Self {
            engine: Arc::new(config.limits.clone()),
            by_listener: by_listener(config),
            congested_bytes: bounds.congested_bytes,
            unsent_bytes_max: bounds.unsent_bytes_max,
            unproven_bytes_max: bounds.unauthenticated_bytes_max,
            unproven_max: bounds.unauthenticated_max,
            crowds: bounds.into(),
            flapping: flapping(&bounds.flapping),
            paces: bounds.into(),
        }
    }
}

/// The limits of each listener that has other ones than all.
fn by_listener(config: &Config) -> LimitsByListener {
    let listeners = config.listeners.iter();
    let own = listeners.map(|one| (one.name.as_str().into(), one.limits.over(&config.limits)));
    let own = own.filter(|(_, limits)| *limits != config.limits);
    own.map(|(name, limits)| (name, Arc::new(limits))).collect()
}

/// What a connection by `listener` is held to from its beginning on, or, where CONNACK announces it, from there on.
pub(crate) fn server_limits(config: &Config, listener: &ListenerConfig) -> Arc<ServerLimits> {
    let (limits, bounds) = (listener.limits.over(&config.limits), &config.bounds);
    Arc::new(ServerLimits {
        maximum_packet_size_bytes: limits.maximum_packet_size_bytes,
        receive_maximum: limits.receive_maximum,
        topic_alias_maximum: limits.topic_alias_maximum,
        topic_alias_maximum_out: limits.topic_alias_maximum_out,
        user_properties_max: bounds.user_properties_max,
        properties_bytes_max: bounds.properties_bytes_max,
        connect_timeout: bounds.connect_timeout,
    })
}

/// The limits on coming and going, in the terms of bans: one more than is allowed begins one.
fn flapping(limits: &FlappingLimits) -> BanLimits {
    let one_more = |max: u32| if max == 0 { 0 } else { max.saturating_add(1) };
    BanLimits {
        failures_max: one_more(limits.connects_max),
        failures_per_address_max: one_more(limits.connects_per_address_max),
        window: limits.window,
        lasts: limits.lasts,
    }
}
