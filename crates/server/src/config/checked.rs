//! The configuration the program sees: checked values with their defaults.
//!
//! Owns: [`Config`], every default, which values fit. Does not own: the form of the file (see `raw`).
//! Start reading at [`Config`]. Invariant: made from a file, every value is in its range.

use std::num::NonZeroU16;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use engine::{Limits, SharedStrategy};
use toml::Spanned;

use super::authorization::{AuthorizationConfig, check_client_ids};
use super::directories::{self, LdapConfig, RedisConfig, SqlConfig};
use super::http::{self, HttpConfig};
use super::limits::{self, ServerBounds};
use super::listeners::{self, ListenerConfig};
use super::raw::{
    RawAnonymous, RawAuthentication, RawCertificateUser, RawConfig, RawDuration, RawSharedStrategy,
    RawSize, RawStop,
};
use super::storage::StorageConfig;
use super::tokens::{self, TokenConfig};
use crate::authentication::{AnonymousPolicy, BanLimits, CertificateUser, ClientIds};

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

/// Who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationConfig {
    /// From where Clients are let in without proof. Default: from this machine only.
    pub anonymous: AnonymousPolicy,
    /// A password file as mosquitto has it, read at the start and at each reload. Default: none.
    pub password_file: Option<PathBuf>,
    /// Whether a login puts a new hash in the place of an old one there (`$6$`, `$7$`, PBKDF2, a cheap argon2id). Default: yes.
    pub password_file_rehash: bool,
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
    /// Which Client Identifiers who may use. Default: any.
    pub client_ids: ClientIds,
    /// Whether there is the Authentication Method `VENCEJO-TEST`. Default: no.
    pub test_method: bool,
}

impl AuthenticationConfig {
    /// Whether there are users, whatever the data folder has.
    #[must_use]
    pub const fn knows_users(&self) -> bool {
        self.password_file.is_some() || self.knows_names()
    }

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
            password_file_rehash: true,
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
            client_ids: ClientIds::default(),
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

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A value that does not fit, and where it stands.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) span: Option<Range<usize>>,
    pub(super) message: String,
}

impl Config {
    /// Questions to other machines that may be under way at once, each with a socket of its own.
    pub(crate) fn questions_max(&self) -> usize {
        let AuthenticationConfig {
            http,
            postgres,
            mysql,
            redis,
            ldap,
            ..
        } = &self.authentication;
        let rights = self.authorization.as_ref().and_then(|of| of.http.as_ref());
        let asked = [
            http.as_ref().map(|http| &http.asks),
            rights.map(|http| &http.asks),
            postgres.as_ref().map(|of| &of.server.ask),
            mysql.as_ref().map(|of| &of.server.ask),
            redis.as_ref().map(|of| &of.server.ask),
            ldap.as_ref().map(|of| &of.server.ask),
        ];
        let at_once = asked.into_iter().flatten().map(|ask| ask.at_once);
        at_once.fold(0, usize::saturating_add)
    }

    /// Judges what was written.
    pub(super) fn check(raw: RawConfig) -> Result<Self, Fault> {
        let mut config = Self::default();
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
        config.bounds = limits::check_bounds(&raw.limits)?;
        config.limits = limits::check_limits(&raw.limits)?;
        let mut authentication = raw.authentication;
        let client_ids = std::mem::take(&mut authentication.client_ids);
        config.authentication = check_authentication(authentication)?;
        if let Some(listeners) = raw.listeners {
            config.listeners = listeners::check(listeners, &config.authentication)?;
        }
        config.authentication.client_ids = check_client_ids(client_ids, &config.listeners)?;
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
    set(
        &mut authentication.password_file_rehash,
        raw.password_file_rehash,
    );
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
pub(super) fn pause(name: &str, value: &Spanned<RawDuration>) -> Result<Duration, Fault> {
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

/// Most shards; the engine's summaries are sets of so many bits.
const SHARDS_MAX: u16 = 64;
pub(super) const CONNECTIONS_MAX: usize = 100_000_000;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
