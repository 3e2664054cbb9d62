//! `[limits]`: what a Server bounds, in its shards and in its engines.
//!
//! Owns: [`ServerBounds`], [`Rates`], [`FlappingLimits`], their defaults, which values fit. Does not own: defaults of the engine (see
//! `engine::Limits`), those of one listener (see `listener_limits`), what each costs and who hears of it (see `limit_table`). Start reading at [`ServerBounds`].
//! Invariant: a rate or a number of 0 is no limit where it says so, and an error everywhere else.

use std::ops::RangeInclusive;
use std::time::Duration;

use engine::{Limits, OverflowPolicy};
use proto::Qos;
use toml::Spanned;

use super::checked::{CONNECTIONS_MAX, Fault, cores, pause, set, size_within, within};
use super::raw::{RawDuration, RawLimits, RawOverflowPolicy, RawSize};

/// Bounds on connections and their buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerBounds {
    /// Connections at once, in all; more are told 0x97. Default: 1,000,000, and never more than the
    /// system's limit on open files has room for.
    pub connections_max: usize,
    /// Time from accepting a socket to its CONNACK. Default: 10 s.
    pub connect_timeout: Duration,
    /// Unsent bytes of one connection above which it is congested, until half of them are sent: QoS 0
    /// messages to it are dropped, others wait in its Session's queue, and nothing is read from it. A
    /// message is never dropped for its own size. A reader loses QoS 0 messages if, and only if, it
    /// falls further behind its publishers than this and what the system's socket buffers hold;
    /// publishers are not slowed down for it. Default: 8 MiB.
    pub congested_bytes: usize,
    /// Unsent bytes of one connection, shared payloads not counted, above which it is closed. Default:
    /// 128 MiB, and where a file raises other limits the mark for congestion and one packet.
    pub unsent_bytes_max: usize,
    /// Threads that verify passwords, each with 19 MiB while it does. Default: one for every two cores.
    pub login_threads: usize,
    /// Logins that wait for such a thread; those of one address wait in turn with those of all others. One
    /// more is told that the Server is busy. Default 4,096.
    pub logins_waiting_max: usize,
    /// Memory of the process for everything that is held for peers, the program included. Near to it the loudest
    /// publishers are read less, then new connections are refused, then less is kept for slow readers, then queues go
    /// to the disk, then the slowest readers are disconnected. Default: three quarters of what the control group
    /// allows, or of what the machine has.
    pub memory_max_bytes: Option<usize>,
    /// Bytes held for all connections together that have not logged in; one that holds more than 4 KiB of them is
    /// closed when there are more. Default: 24 MiB.
    pub unauthenticated_bytes_max: usize,
    /// Connections at once that have not logged in; with one more, the oldest of them is closed. Default: 20,000.
    pub unauthenticated_max: usize,
    /// Connections of one address at once (of IPv6 a /64; of a Unix socket one user); more are told 0x97, but for a
    /// Client that takes its own connection over. Default: 0, no limit but that of all.
    pub connections_per_address_max: u32,
    /// The same of one user; who is anonymous is not counted. Default: 0, no limit.
    pub connections_per_user_max: u32,
    /// Clients that connect in one second, with one second's worth at once; Clients whose Session is there have as
    /// much again. Who is put off is told 0x89, and when to come again. Default: 0, no limit.
    pub connect_rate_max: u32,
    /// The same from one address. Default: 0, no limit.
    pub connect_rate_per_address_max: u32,
    /// The same of one user, once it has logged in. Default: 0, no limit.
    pub connect_rate_per_user_max: u32,
    /// PUBLISH packets a second of one connection, with one second's worth at once; it is not read while it is
    /// ahead. Default: 0, no limit.
    pub publish_rate_max: u32,
    /// Bytes of these a second, likewise. Default: 0, no limit.
    pub publish_bytes_rate_max: usize,
    /// Topic Filters a second that one connection subscribes to or unsubscribes from, likewise. Default: 0, no limit.
    pub subscribe_rate_max: u32,
    /// The same of all connections of one user together, each of which has its share; who is anonymous is not
    /// counted. Default: no limits.
    pub rates_per_user: Rates,
    /// The same of all connections there are. Default: no limits.
    pub rates_total: Rates,
    /// User Properties of one PUBLISH; more end the connection with 0x97. Default 1,024.
    pub user_properties_max: u32,
    /// Bytes of all properties of one PUBLISH; more end the connection with 0x97. Default 256 KiB.
    pub properties_bytes_max: usize,
    /// Who comes and goes too often.
    pub flapping: FlappingLimits,
}

/// What many connections may say in a second together; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// PUBLISH packets.
    pub publishes: u32,
    /// Bytes of these.
    pub publish_bytes: usize,
    /// Topic Filters that are subscribed to or unsubscribed from.
    pub filters: u32,
}

/// How often is too often to connect; this machine is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlappingLimits {
    /// Connects of one Client Identifier from one address within the window; one more is told 0x8A, and so are all
    /// until the ban ends. Default 15; 0 bans nobody.
    pub connects_max: u32,
    /// The same of one address, whatever the Client Identifier. Default: 0, for many may share an address.
    pub connects_per_address_max: u32,
    /// The window, from the first connect. Default: a minute.
    pub window: Duration,
    /// How long a ban lasts. Default: 5 minutes.
    pub lasts: Duration,
}

impl Default for FlappingLimits {
    fn default() -> Self {
        Self {
            connects_max: 15,
            connects_per_address_max: 0,
            window: Duration::from_secs(60),
            lasts: Duration::from_secs(300),
        }
    }
}

impl Default for ServerBounds {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            connect_timeout: Duration::from_secs(10),
            congested_bytes: 8 * 1024 * 1024,
            unsent_bytes_max: 128 * 1024 * 1024,
            login_threads: cores().div_ceil(2).min(LOGIN_THREADS_MAX),
            logins_waiting_max: 4096,
            memory_max_bytes: None,
            unauthenticated_bytes_max: 24 * 1024 * 1024,
            unauthenticated_max: 20_000,
            connections_per_address_max: 0,
            connections_per_user_max: 0,
            connect_rate_max: 0,
            connect_rate_per_address_max: 0,
            connect_rate_per_user_max: 0,
            publish_rate_max: 0,
            publish_bytes_rate_max: 0,
            subscribe_rate_max: 0,
            rates_per_user: Rates::default(),
            rates_total: Rates::default(),
            user_properties_max: 1024,
            properties_bytes_max: 256 * 1024,
            flapping: FlappingLimits::default(),
        }
    }
}

/// Judges what was written of the bounds of shards.
pub(super) fn check_bounds(raw: &RawLimits) -> Result<ServerBounds, Fault> {
    let mut bounds = ServerBounds::default();
    if let Some(value) = &raw.connections_max {
        bounds.connections_max = within("connections_max", value, 1..=CONNECTIONS_MAX)?;
    }
    if let Some(value) = &raw.connect_timeout {
        bounds.connect_timeout = value.get_ref().0;
        if !(CONNECT_TIMEOUT_MIN..=CONNECT_TIMEOUT_MAX).contains(&bounds.connect_timeout) {
            let message = "connect_timeout must be from 100ms to 1h".to_owned();
            return Err(Fault {
                span: Some(value.span()),
                message,
            });
        }
    }
    if let Some(value) = &raw.congested_bytes {
        bounds.congested_bytes = size_within("congested_bytes", value, 1024..=SIZE_MAX)?;
    }
    if let Some(value) = &raw.unsent_bytes_max {
        let least = bounds.congested_bytes + 1;
        bounds.unsent_bytes_max = size_within("unsent_bytes_max", value, least..=SIZE_MAX)?;
    } else {
        // One packet more than the mark has to fit.
        let packet = raw.maximum_packet_size_bytes.as_ref();
        let packet = packet.map_or(0, |size| size.get_ref().0.min(PACKET_SIZE_MAX));
        let least = bounds.congested_bytes + packet.max(bounds.congested_bytes);
        bounds.unsent_bytes_max = bounds.unsent_bytes_max.max(least);
    }
    if let Some(value) = &raw.login_threads {
        bounds.login_threads = within("login_threads", value, 1..=LOGIN_THREADS_MAX)?;
    }
    if let Some(value) = &raw.logins_waiting_max {
        bounds.logins_waiting_max = within("logins_waiting_max", value, 1..=LOGINS_WAITING_MAX)?;
    }
    check_memory(&mut bounds, raw)?;
    check_crowds(&mut bounds, raw)?;
    Ok(bounds)
}

fn check_memory(bounds: &mut ServerBounds, raw: &RawLimits) -> Result<(), Fault> {
    if let Some(value) = &raw.memory_max_bytes {
        let bytes = size_within("memory_max_bytes", value, MEMORY_MIN..=MEMORY_MAX)?;
        bounds.memory_max_bytes = Some(bytes);
    }
    if let Some(value) = &raw.unauthenticated_bytes_max {
        bounds.unauthenticated_bytes_max =
            size_within("unauthenticated_bytes_max", value, 65_536..=SIZE_MAX)?;
    }
    if let Some(value) = &raw.unauthenticated_max {
        bounds.unauthenticated_max = within("unauthenticated_max", value, 1..=CONNECTIONS_MAX)?;
    }
    Ok(())
}

/// Limits on how many come, and how fast.
fn check_crowds(bounds: &mut ServerBounds, raw: &RawLimits) -> Result<(), Fault> {
    set(
        &mut bounds.connections_per_address_max,
        raw.connections_per_address_max,
    );
    set(
        &mut bounds.connections_per_user_max,
        raw.connections_per_user_max,
    );
    if let Some(value) = &raw.connect_rate_max {
        bounds.connect_rate_max = within("connect_rate_max", value, RATES)?;
    }
    if let Some(value) = &raw.connect_rate_per_address_max {
        bounds.connect_rate_per_address_max = within("connect_rate_per_address_max", value, RATES)?;
    }
    if let Some(value) = &raw.connect_rate_per_user_max {
        bounds.connect_rate_per_user_max = within("connect_rate_per_user_max", value, RATES)?;
    }
    check_rates(bounds, raw)?;
    set(&mut bounds.user_properties_max, raw.user_properties_max);
    let properties_bytes = raw.properties_bytes_max.map(|RawSize(bytes)| bytes);
    set(&mut bounds.properties_bytes_max, properties_bytes);
    let flapping = &mut bounds.flapping;
    set(&mut flapping.connects_max, raw.flapping_max);
    set(
        &mut flapping.connects_per_address_max,
        raw.flapping_per_address_max,
    );
    if let Some(window) = &raw.flapping_window {
        flapping.window = pause("flapping_window", window)?;
    }
    if let Some(lasts) = &raw.flapping_ban {
        flapping.lasts = pause("flapping_ban", lasts)?;
    }
    Ok(())
}

/// Limits on how fast those are who are connected.
fn check_rates(bounds: &mut ServerBounds, raw: &RawLimits) -> Result<(), Fault> {
    if let Some(value) = &raw.publish_rate_max {
        bounds.publish_rate_max = within("publish_rate_max", value, RATES)?;
    }
    if let Some(value) = &raw.publish_bytes_rate_max {
        bounds.publish_bytes_rate_max = size_within("publish_bytes_rate_max", value, BYTE_RATES)?;
    }
    if let Some(value) = &raw.subscribe_rate_max {
        bounds.subscribe_rate_max = within("subscribe_rate_max", value, RATES)?;
    }
    let of_user = &mut bounds.rates_per_user;
    if let Some(value) = &raw.publish_rate_per_user_max {
        of_user.publishes = within("publish_rate_per_user_max", value, RATES)?;
    }
    if let Some(value) = &raw.publish_bytes_rate_per_user_max {
        let name = "publish_bytes_rate_per_user_max";
        of_user.publish_bytes = size_within(name, value, BYTE_RATES)?;
    }
    if let Some(value) = &raw.subscribe_rate_per_user_max {
        of_user.filters = within("subscribe_rate_per_user_max", value, RATES)?;
    }
    let of_all = &mut bounds.rates_total;
    if let Some(value) = &raw.publish_rate_total_max {
        of_all.publishes = within("publish_rate_total_max", value, RATES)?;
    }
    if let Some(value) = &raw.publish_bytes_rate_total_max {
        of_all.publish_bytes = size_within("publish_bytes_rate_total_max", value, BYTE_RATES)?;
    }
    if let Some(value) = &raw.subscribe_rate_total_max {
        of_all.filters = within("subscribe_rate_total_max", value, RATES)?;
    }
    Ok(())
}

/// A packet's size as `maximum_packet_size_bytes` may have it.
fn packet_size(value: &Spanned<RawSize>) -> Result<u32, Fault> {
    let size = size_within("maximum_packet_size_bytes", value, 128..=PACKET_SIZE_MAX)?;
    Ok(u32::try_from(size).unwrap_or(u32::MAX))
}

/// Judges what was written of the limits of engines.
pub(super) fn check_limits(raw: &RawLimits) -> Result<Limits, Fault> {
    let mut limits = Limits::default();
    if let Some(value) = &raw.maximum_packet_size_bytes {
        limits.maximum_packet_size_bytes = packet_size(value)?;
    }
    if let Some(value) = &raw.receive_maximum {
        limits.receive_maximum = within("receive_maximum", value, 1..=u16::MAX)?;
    }
    if let Some(value) = &raw.maximum_inflight_messages {
        limits.maximum_inflight_messages =
            within("maximum_inflight_messages", value, 1..=u16::MAX)?;
    }
    if let Some(value) = &raw.topic_levels_max {
        limits.topic_levels_max = within("topic_levels_max", value, 1..=TOPIC_LENGTH_MAX)?;
    }
    if let Some(value) = &raw.overflow_patience {
        limits.overflow_patience = pause("overflow_patience", value)?;
    }
    if let Some(value) = &raw.topic_length_max {
        limits.topic_length_max = within("topic_length_max", value, 1..=TOPIC_LENGTH_MAX)?;
    }
    if let Some(value) = &raw.retained_replay_per_turn {
        limits.retained_replay_per_turn =
            within("retained_replay_per_turn", value, 1..=usize::from(u16::MAX))?;
    }
    if let Some(value) = &raw.maximum_qos {
        let level = within("maximum_qos", value, 0..=2)?;
        limits.maximum_qos = Qos::from_level(level).unwrap_or_default();
    }
    if let Some(value) = &raw.session_expiry_max_seconds {
        limits.session_expiry_max_seconds = seconds("session_expiry_max_seconds", value)?;
    }
    if let Some(value) = &raw.session_expiry_3x_seconds {
        limits.session_expiry_3x_seconds = seconds("session_expiry_3x_seconds", value)?;
    }
    if let Some(value) = &raw.retained_age_max {
        limits.retained_age_max_seconds = Some(seconds("retained_age_max", value)?);
    }
    if let Some(value) = &raw.server_keep_alive_max_seconds {
        limits.server_keep_alive_max_seconds =
            Some(seconds("server_keep_alive_max_seconds", value)?);
    }
    set_unranged(&mut limits, raw);
    Ok(limits)
}

/// Limits of which every value makes sense.
fn set_unranged(limits: &mut Limits, raw: &RawLimits) {
    let size = |value: Option<RawSize>| value.map(|RawSize(bytes)| bytes);
    set(&mut limits.topic_alias_maximum, raw.topic_alias_maximum);
    set(
        &mut limits.topic_alias_maximum_out,
        raw.topic_alias_maximum_out,
    );
    set(&mut limits.queued_messages_max, raw.queued_messages_max);
    set(&mut limits.queued_bytes_max, size(raw.queued_bytes_max));
    set(
        &mut limits.queued_bytes_total_max,
        size(raw.queued_bytes_total_max),
    );
    set(
        &mut limits.queued_bytes_memory_max,
        size(raw.queued_bytes_memory_max),
    );
    set(&mut limits.window_messages_max, raw.window_messages_max);
    set(&mut limits.window_bytes_max, size(raw.window_bytes_max));
    set(
        &mut limits.subscriptions_per_session_max,
        raw.subscriptions_per_session_max,
    );
    set(&mut limits.subscriptions_max, raw.subscriptions_max);
    set(&mut limits.retained_messages_max, raw.retained_messages_max);
    set(&mut limits.retained_bytes_max, size(raw.retained_bytes_max));
    set(&mut limits.sessions_max, raw.sessions_max);
    let or_none = |max: Option<usize>| max.filter(|max| *max > 0);
    limits.sessions_per_user_max = or_none(raw.sessions_per_user_max);
    limits.subscriptions_per_user_max = or_none(raw.subscriptions_per_user_max);
    set(&mut limits.client_id_length_max, raw.client_id_length_max);
    set(&mut limits.retain_available, raw.retain_available);
    set(
        &mut limits.wildcard_subscription_available,
        raw.wildcard_subscription_available,
    );
    set(
        &mut limits.subscription_identifiers_available,
        raw.subscription_identifiers_available,
    );
    set(
        &mut limits.shared_subscription_available,
        raw.shared_subscription_available,
    );
    let overflow_policy = raw.overflow_policy.map(|policy| match policy {
        RawOverflowPolicy::Refuse => OverflowPolicy::Refuse,
        RawOverflowPolicy::DropNewest => OverflowPolicy::DropNewest,
        RawOverflowPolicy::DropOldest => OverflowPolicy::DropOldest,
        RawOverflowPolicy::Disconnect => OverflowPolicy::Disconnect,
    });
    set(&mut limits.overflow_policy, overflow_policy);
}

/// A duration as whole seconds of the type the limit has.
fn seconds<T: TryFrom<u64>>(name: &str, value: &Spanned<RawDuration>) -> Result<T, Fault> {
    let RawDuration(duration) = *value.get_ref();
    let whole = (duration.subsec_nanos() == 0).then_some(duration.as_secs());
    whole
        .and_then(|whole| T::try_from(whole).ok())
        .ok_or_else(|| Fault {
            span: Some(value.span()),
            message: format!("{name} must be a number of whole seconds that MQTT can carry"),
        })
}

/// What a number in one second may be; 0 is none.
const RATES: RangeInclusive<u32> = 0..=1_000_000_000;
/// The same of bytes.
const BYTE_RATES: RangeInclusive<usize> = 0..=1 << 40;
const LOGIN_THREADS_MAX: usize = 64;
/// Less than this the program itself takes.
const MEMORY_MIN: usize = 32 * 1024 * 1024;
const MEMORY_MAX: usize = 1 << 50;
const LOGINS_WAITING_MAX: usize = 1_000_000;
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Largest packet MQTT can say, section 2.1.4: five bytes and 268,435,455 more.
const PACKET_SIZE_MAX: usize = 268_435_460;
/// Longest text MQTT can say.
const TOPIC_LENGTH_MAX: usize = 65_535;
/// Largest size of a buffer.
const SIZE_MAX: usize = 1 << 31;
