//! The configuration the program sees: checked values with their defaults.
//!
//! Owns: [`Config`], every default, which values fit. Does not own: the form of the file (see `raw`).
//! Start reading at [`Config`]. Invariant: made from a file, every value is in its range.

use std::num::NonZeroU16;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use engine::{Limits, OverflowPolicy, SharedStrategy};
use proto::Qos;
use toml::Spanned;

use super::authorization::AuthorizationConfig;
use super::directories::{self, LdapConfig, RedisConfig, SqlConfig};
use super::http::{self, HttpConfig};
use super::listeners::{self, ListenerConfig};
use super::raw::{
    RawAnonymous, RawAuthentication, RawCertificateUser, RawConfig, RawDuration, RawLimits,
    RawOverflowPolicy, RawSharedStrategy, RawSize, RawStop,
};
use super::storage::StorageConfig;
use super::tokens::{self, TokenConfig};
use crate::authentication::{AnonymousPolicy, BanLimits, CertificateUser};

/// How a Server runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where it listens. Default: `127.0.0.1:1883`. Port 0 takes a free one.
    pub listeners: Vec<ListenerConfig>,
    /// How many shards it has. Default: one for each core, up to 64.
    pub shards: NonZeroU16,
    /// How often `$SYS` topics are published; zero turns them off. Default: 10 s.
    pub sys_interval: Duration,
    /// What Response Information begins with; `None` gives none. Default: `response/`.
    pub response_topic_prefix: Option<String>,
    /// How the member of a Shared Subscription that gets a message is chosen. Default: each in turn.
    pub shared_strategy: SharedStrategy,
    /// What a shard bounds around its engine.
    pub bounds: ServerBounds,
    /// What the engine bounds and announces.
    pub limits: Limits,
    /// Who is let in.
    pub authentication: AuthenticationConfig,
    /// Where state is kept, and how safely.
    pub storage: StorageConfig,
    /// How it stops.
    pub stop: StopConfig,
    /// What Clients may do. Default: everything but to read `$SYS`, which is for administrators, and for
    /// anonymous Clients of this machine.
    pub authorization: Option<AuthorizationConfig>,
}

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
        }
    }
}

/// Who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationConfig {
    /// From where Clients are let in without proof. Default: from this machine only.
    pub anonymous: AnonymousPolicy,
    /// A password file as mosquitto has it, read at the start and at each reload. Default: none.
    pub password_file: Option<PathBuf>,
    /// For so long a password that fitted is not verified again, unless it was changed. Default: 10 minutes;
    /// 0 verifies it at each login.
    pub password_cache: Duration,
    /// What of a Client's certificate is its user's name. Default: nothing, a certificate lets nobody in.
    pub certificate_user: Option<CertificateUser>,
    /// Which JSON Web Tokens let a Client in. Default: none.
    pub tokens: Option<TokenConfig>,
    /// A service that is asked by HTTP about whom none of the users here is. Default: none.
    pub http: Option<HttpConfig>,
    /// Users in PostgreSQL, behind the Cargo feature of that name. Default: none.
    pub postgres: Option<SqlConfig>,
    /// Users in MySQL or MariaDB, behind the Cargo feature `mysql`. Default: none.
    pub mysql: Option<SqlConfig>,
    /// Users in Redis, behind the Cargo feature of that name. Default: none.
    pub redis: Option<RedisConfig>,
    /// Users in an LDAP directory, behind the Cargo feature of that name. Default: none.
    pub ldap: Option<LdapConfig>,
    /// Who is not listened to for a while.
    pub bans: BanLimits,
    /// Whether users with passwords may prove them by the Authentication Method `SCRAM-SHA-256`. Each login by password then
    /// leaves keys for it in the data folder. Default: yes.
    pub scram: bool,
    /// Whether there is the Authentication Method `VENCEJO-TEST`. Default: no.
    pub test_method: bool,
}

impl AuthenticationConfig {
    /// Whether a User Name may stand for a user whom neither a file nor the data folder knows.
    pub(crate) const fn knows_names(&self) -> bool {
        self.tokens.is_some()
            || self.certificate_user.is_some()
            || self.http.is_some()
            || self.postgres.is_some()
            || self.mysql.is_some()
            || self.redis.is_some()
            || self.ldap.is_some()
    }
}

impl Default for AuthenticationConfig {
    fn default() -> Self {
        Self {
            anonymous: AnonymousPolicy::default(),
            password_file: None,
            password_cache: Duration::from_secs(600),
            certificate_user: None,
            tokens: None,
            http: None,
            postgres: None,
            mysql: None,
            redis: None,
            ldap: None,
            bans: BanLimits::default(),
            scram: true,
            test_method: false,
        }
    }
}

/// How a Server stops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopConfig {
    /// Where Clients are to go when this Server stops; they are told 0x9C instead of 0x8B. Default: nowhere.
    pub server_reference: Option<String>,
    /// Whether they are to go there for good: they are told 0x9D instead. Default: no.
    pub server_moved: bool,
}

impl Default for Config {
    fn default() -> Self {
        let shards = u16::try_from(cores()).unwrap_or(SHARDS_MAX).min(SHARDS_MAX);
        Self {
            listeners: vec![([127, 0, 0, 1], 1883).into()],
            shards: NonZeroU16::new(shards).unwrap_or(NonZeroU16::MIN),
            sys_interval: Duration::from_secs(10),
            response_topic_prefix: Some("response/".to_owned()),
            shared_strategy: SharedStrategy::default(),
            bounds: ServerBounds::default(),
            limits: Limits::default(),
            authentication: AuthenticationConfig::default(),
            storage: StorageConfig::default(),
            stop: StopConfig::default(),
            authorization: None,
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A value that does not fit, and where it stands.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) span: Option<Range<usize>>,
    pub(super) message: String,
}

impl Config {
    /// Judges what was written.
    pub(super) fn check(raw: RawConfig) -> Result<Self, Fault> {
        let mut config = Self::default();
        if let Some(listeners) = raw.listeners {
            config.listeners = listeners::check(listeners)?;
        }
        if let Some(shards) = raw.shards {
            let shards = within("shards", &shards, 1..=SHARDS_MAX)?;
            config.shards = NonZeroU16::new(shards).unwrap_or(NonZeroU16::MIN);
        }
        set(
            &mut config.sys_interval,
            raw.sys_interval.map(|RawDuration(value)| value),
        );
        if let Some(prefix) = raw.response_topic_prefix {
            config.response_topic_prefix = check_prefix(prefix)?;
        }
        set(
            &mut config.shared_strategy,
            raw.shared_strategy.map(shared_strategy),
        );
        config.bounds = check_bounds(&raw.limits)?;
        config.limits = check_limits(&raw.limits)?;
        config.authentication = check_authentication(raw.authentication)?;
        config.storage = StorageConfig::check(raw.storage)?;
        config.stop = check_stop(raw.stop)?;
        if let Some(authorization) = raw.authorization {
            let authorization = AuthorizationConfig::check(authorization, &config.listeners)?;
            config.authorization = Some(authorization);
        }
        Ok(config)
    }
}

fn check_authentication(raw: RawAuthentication) -> Result<AuthenticationConfig, Fault> {
    let mut authentication = AuthenticationConfig {
        test_method: raw.test_method,
        ..AuthenticationConfig::default()
    };
    let anonymous = raw.anonymous.map(anonymous_policy);
    set(&mut authentication.anonymous, anonymous);
    if let Some(file) = raw.password_file {
        if file.get_ref().is_empty() {
            return Err(Fault {
                span: Some(file.span()),
                message: "password_file must name a file, or be left out".to_owned(),
            });
        }
        authentication.password_file = Some(file.into_inner().into());
    }
    let lifetime = raw.password_cache.map(|RawDuration(value)| value);
    set(&mut authentication.password_cache, lifetime);
    authentication.certificate_user = raw.certificate_user.map(|user| match user {
        RawCertificateUser::CommonName => CertificateUser::CommonName,
        RawCertificateUser::Subject => CertificateUser::Subject,
        RawCertificateUser::Dns => CertificateUser::Dns,
        RawCertificateUser::Email => CertificateUser::Email,
        RawCertificateUser::Uri => CertificateUser::Uri,
    });
    set(&mut authentication.scram, raw.scram);
    authentication.tokens = raw.tokens.map(tokens::check).transpose()?;
    authentication.http = raw.http.map(http::check).transpose()?;
    authentication.postgres = raw.postgres.map(directories::check_postgres).transpose()?;
    authentication.mysql = raw.mysql.map(directories::check_mysql).transpose()?;
    authentication.redis = raw.redis.map(directories::check_redis).transpose()?;
    authentication.ldap = raw.ldap.map(directories::check_ldap).transpose()?;
    let bans = &mut authentication.bans;
    set(&mut bans.failures_max, raw.failures_max);
    set(
        &mut bans.failures_per_address_max,
        raw.failures_per_address_max,
    );
    if let Some(window) = &raw.failures_window {
        bans.window = pause("failures_window", window)?;
    }
    if let Some(lasts) = &raw.ban {
        bans.lasts = pause("ban", lasts)?;
    }
    Ok(authentication)
}

/// A time in which one can fail, or be kept out.
fn pause(name: &str, value: &Spanned<RawDuration>) -> Result<Duration, Fault> {
    let RawDuration(duration) = *value.get_ref();
    if (PAUSE_MIN..=PAUSE_MAX).contains(&duration) {
        return Ok(duration);
    }
    Err(Fault {
        span: Some(value.span()),
        message: format!("{name} must be from 1s to 30d"),
    })
}

fn check_stop(raw: RawStop) -> Result<StopConfig, Fault> {
    let mut stop = StopConfig {
        server_reference: raw.server_reference.map(check_reference).transpose()?,
        ..StopConfig::default()
    };
    if let Some(moved) = raw.server_moved {
        stop.server_moved = *moved.get_ref();
        if stop.server_moved && stop.server_reference.is_none() {
            return Err(Fault {
                span: Some(moved.span()),
                message: "server_moved needs a server_reference: where to".to_owned(),
            });
        }
    }
    Ok(stop)
}

pub(super) const fn anonymous_policy(raw: RawAnonymous) -> AnonymousPolicy {
    match raw {
        RawAnonymous::Never => AnonymousPolicy::Never,
        RawAnonymous::Loopback => AnonymousPolicy::Loopback,
        RawAnonymous::Always => AnonymousPolicy::Always,
    }
}

/// An empty prefix turns Response Information off.
fn check_prefix(prefix: Spanned<String>) -> Result<Option<String>, Fault> {
    let span = prefix.span();
    let prefix = prefix.into_inner();
    if prefix.is_empty() {
        return Ok(None);
    }
    match proto::topic::check_name(&prefix) {
        Ok(()) => Ok(Some(prefix)),
        Err(malformed) => Err(Fault {
            span: Some(span),
            message: format!("response_topic_prefix: {malformed}"),
        }),
    }
}

/// Clients are told to go there, so it has to say something.
fn check_reference(reference: Spanned<String>) -> Result<String, Fault> {
    if !reference.get_ref().is_empty() {
        return Ok(reference.into_inner());
    }
    Err(Fault {
        span: Some(reference.span()),
        message: "server_reference must name another Server, or be left out".to_owned(),
    })
}

fn check_bounds(raw: &RawLimits) -> Result<ServerBounds, Fault> {
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
    Ok(bounds)
}

fn check_limits(raw: &RawLimits) -> Result<Limits, Fault> {
    let mut limits = Limits::default();
    if let Some(value) = &raw.maximum_packet_size_bytes {
        let size = size_within("maximum_packet_size_bytes", value, 128..=PACKET_SIZE_MAX)?;
        limits.maximum_packet_size_bytes = u32::try_from(size).unwrap_or(u32::MAX);
    }
    if let Some(value) = &raw.receive_maximum {
        limits.receive_maximum = within("receive_maximum", value, 1..=u16::MAX)?;
    }
    if let Some(value) = &raw.maximum_inflight_messages {
        limits.maximum_inflight_messages =
            within("maximum_inflight_messages", value, 1..=u16::MAX)?;
    }
    if let Some(value) = &raw.topic_levels_max {
        limits.topic_levels_max = within("topic_levels_max", value, 1..=TOPIC_LEVELS_MAX)?;
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
    set(&mut limits.retained_messages_max, raw.retained_messages_max);
    set(&mut limits.retained_bytes_max, size(raw.retained_bytes_max));
    set(&mut limits.sessions_max, raw.sessions_max);
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
        RawOverflowPolicy::DropNewest => OverflowPolicy::DropNewest,
        RawOverflowPolicy::DropOldest => OverflowPolicy::DropOldest,
        RawOverflowPolicy::Disconnect => OverflowPolicy::Disconnect,
    });
    set(&mut limits.overflow_policy, overflow_policy);
}

const fn shared_strategy(raw: RawSharedStrategy) -> SharedStrategy {
    match raw {
        RawSharedStrategy::RoundRobin => SharedStrategy::RoundRobin,
        RawSharedStrategy::LeastInFlight => SharedStrategy::LeastInFlight,
        RawSharedStrategy::Sticky => SharedStrategy::Sticky,
        RawSharedStrategy::HashTopic => SharedStrategy::HashTopic,
        RawSharedStrategy::HashClientId => SharedStrategy::HashClientId,
    }
}

pub(super) fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

pub(super) fn within<T: Copy + PartialOrd + std::fmt::Display>(
    name: &str,
    value: &Spanned<T>,
    range: RangeInclusive<T>,
) -> Result<T, Fault> {
    if range.contains(value.get_ref()) {
        return Ok(*value.get_ref());
    }
    let message = format!("{name} must be from {} to {}", range.start(), range.end());
    Err(Fault {
        span: Some(value.span()),
        message,
    })
}

pub(super) fn size_within(
    name: &str,
    value: &Spanned<RawSize>,
    range: RangeInclusive<usize>,
) -> Result<usize, Fault> {
    within(name, &Spanned::new(value.span(), value.get_ref().0), range)
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

/// Most shards; the engine's summaries are sets of so many bits.
const SHARDS_MAX: u16 = 64;
pub(super) const CONNECTIONS_MAX: usize = 100_000_000;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const LOGIN_THREADS_MAX: usize = 64;
const LOGINS_WAITING_MAX: usize = 1_000_000;
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Largest packet MQTT can say, section 2.1.4: five bytes and 268,435,455 more.
const PACKET_SIZE_MAX: usize = 268_435_460;
const TOPIC_LEVELS_MAX: usize = 65_535;
/// Largest size of a buffer.
const SIZE_MAX: usize = 1 << 31;
