//! A configuration taken over while the Server runs.
//!
//! Owns: [`Policy`] (what can change), [`Reloader`], what is said of what cannot. Does not own: the file
//! (see `config`), when it is read again (whoever calls). Start reading at [`Reloader::reload`].
//! Invariant: a configuration is taken over by every shard or by none; refused, the old one stays.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use engine::Rules;
use proto::connection::ServerLimits;
use rustls::ServerConfig;

use crate::authentication::{
    Accounts, AnonymousPolicy, Authentication, AuthenticationError, BanLimits, Chains, ClientIds,
    Known, Users, read_password_file,
};
use crate::authorization::{self, AuthorizationError, HttpRights};
use crate::bounds::{Bounds, server_limits};
use crate::config::{
    Address, Config, FileAccess, ListenerConfig, ListenerLimits, Proxies, ServerBounds, StopConfig,
    Transport, Versions,
};
use crate::outbound::Outbound;
use crate::peer::Peer;
use crate::shard::{Command, Shared};
use crate::standing::Condition;
use crate::tls::{self, TlsError};

/// What of a configuration can change while a Server runs, as the shards need it.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) authentication: Chains,
    /// The users of the password file.
    pub(crate) file: Option<Arc<Accounts>>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) client_ids: Arc<ClientIds>,
    /// Who is asked where they say nothing.
    pub(crate) asked: Option<Arc<HttpRights>>,
    /// Those that take their place when the first user comes; `None` once there are users.
    pub(crate) rules_with_users: Option<Arc<Rules>>,
    pub(crate) ban_limits: BanLimits,
    pub(crate) bounds: Bounds,
    pub(crate) stop: StopConfig,
    pub(crate) listeners: Arc<[ListenerPolicy]>,
}

/// The same of one listener.
#[derive(Debug)]
pub(crate) struct ListenerPolicy {
    pub(crate) name: Arc<str>,
    /// What TLS handshakes over TCP are made with; `None` for plain TCP.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// What connections over QUIC are made with.
    #[cfg(feature = "quic")]
    pub(crate) quic: Option<crate::quic::Terms>,
    pub(crate) transport: Transport,
    /// Whether the first bytes say what carries packets.
    pub(crate) sniffs: bool,
    /// What stands before all topics of its Clients.
    pub(crate) mount_point: Option<Arc<str>>,
    /// Whether Clients are called as their users.
    pub(crate) client_id_from_user: bool,
    /// From where Clients are let in without proof, if not as the Server says.
    pub(crate) anonymous: Option<AnonymousPolicy>,
    pub(crate) versions: Versions,
    pub(crate) connections_max: usize,
    pub(crate) limits: ListenerLimits,
    /// What its connections are held to.
    pub(crate) server_limits: Arc<ServerLimits>,
    /// From where connections are taken, each with a header of the PROXY protocol; `None` takes all, without one.
    pub(crate) proxies: Option<Proxies>,
}

/// What a configuration names cannot be used.
#[derive(Debug)]
pub(crate) enum PolicyError {
    Authentication(AuthenticationError),
    Authorization(AuthorizationError),
    Tls { listener: String, source: TlsError },
}

impl From<AuthenticationError> for PolicyError {
    fn from(error: AuthenticationError) -> Self {
        Self::Authentication(error)
    }
}

impl Policy {
    /// What `config` says; `given` takes the place of the authenticators it asks for, and `users` are those of
    /// the data folder.
    /// # Errors
    /// A file that it rests on cannot be used.
    pub(crate) fn new(
        config: &Config,
        given: Option<&Authentication>,
        users: Option<&Arc<Users>>,
        outbound: &Outbound,
    ) -> Result<Self, PolicyError> {
        let file = config.authentication.password_file.as_deref();
        let file = file.filter(|_| given.is_none());
        let file = file.map(read_password_file).transpose()?.map(Arc::new);
        let authentication = match given {
            Some(given) => Chains::given(given.clone()),
            None => Chains::new(config, file.clone(), users, outbound)?,
        };
        let has_users =
            config.authentication.knows_users() || users.is_some_and(|users| users.has_file());
        let rules = |has_users| {
            let rules = authorization::rules(config, has_users);
            rules.map(Arc::new).map_err(PolicyError::Authorization)
        };
        let asked = config
            .authorization
            .as_ref()
            .and_then(|of| of.http.as_ref());
        let waiting_max = config.bounds.logins_waiting_max;
        let asked = asked.map(|http| HttpRights::new(http, waiting_max, outbound));
        let asked = asked.transpose().map_err(AuthorizationError::from);
        let policy = Self {
            authentication,
            file,
            client_ids: Arc::new(config.authentication.client_ids.clone()),
            asked: asked.map_err(PolicyError::Authorization)?.map(Arc::new),
            rules: rules(has_users)?,
            rules_with_users: (!has_users).then(|| rules(true)).transpose()?,
            ban_limits: config.authentication.bans,
            bounds: config.into(),
            stop: config.stop.clone(),
            listeners: Self::listeners(config)?,
        };
        // Last, for it counts at once.
        if let Some(users) = users {
            users.read_again()?;
        }
        Ok(policy)
    }

    /// What `config` says of each listener.
    fn listeners(config: &Config) -> Result<Arc<[ListenerPolicy]>, PolicyError> {
        let listeners = config.listeners.iter();
        let policies = listeners.map(|listener| ListenerPolicy::new(config, listener));
        policies.collect()
    }

    /// The name of a listener, by its number.
    pub(crate) fn listener_name(&self, number: u16) -> &str {
        self.listener(number).map_or("", |listener| &listener.name)
    }

    /// From where Clients are let in without proof at a listener, if not as the Server says.
    pub(crate) fn anonymous(&self, number: u16) -> Option<AnonymousPolicy> {
        self.listener(number)?.anonymous
    }

    /// What stands before all topics of the Clients of a listener.
    pub(crate) fn mount_point(&self, number: u16) -> Option<Arc<str>> {
        self.listener(number)?.mount_point.clone()
    }

    /// That of a listener, by its number.
    pub(crate) fn listener(&self, number: u16) -> Option<&ListenerPolicy> {
        self.listeners.get(usize::from(number))
    }
}

impl ListenerPolicy {
    fn new(all: &Config, config: &ListenerConfig) -> Result<Self, PolicyError> {
        let failed = |source| PolicyError::Tls {
            listener: config.name.clone(),
            source,
        };
        let tls = config.tls.as_ref();
        let (transport, sniffs) = (config.transport, config.sniff);
        let tls = tls.map(|tls| tls::load(tls, transport, sniffs)).transpose();
        let tls = tls.map_err(failed)?;
        #[cfg(feature = "quic")]
        let (tls, quic) = match tls {
            Some(tls) if transport == Transport::Quic => {
                let terms = crate::quic::Terms::new(tls, config.quic);
                (None, Some(terms.map_err(failed)?))
            }
            tls => (tls, None),
        };
        Ok(Self {
            name: config.name.as_str().into(),
            tls: tls.map(Arc::new),
            #[cfg(feature = "quic")]
            quic,
            transport: config.transport,
            sniffs: config.sniff,
            mount_point: config.mount_point.as_deref().map(Arc::from),
            client_id_from_user: config.client_id_from_user,
            anonymous: config.anonymous,
            versions: config.versions,
            connections_max: config.connections_max.unwrap_or(usize::MAX),
            limits: config.limits,
            server_limits: server_limits(all, config),
            proxies: config.proxy.clone(),
        })
    }

    /// Whether a connection of `peer` is taken.
    pub(crate) fn takes_from(&self, peer: &Peer) -> bool {
        let proxies = self.proxies.as_ref();
        proxies.is_none_or(|proxies| proxies.contains(peer))
    }
}

/// What a reload has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Parts of the configuration that have changed, but count from the next start only.
    pub left: Vec<&'static str>,
}

/// Why a configuration was not taken over; the old one stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Who Clients are cannot be read.
    #[error(transparent)]
    Authentication(AuthenticationError),
    /// What Clients may do cannot be read.
    #[error(transparent)]
    Authorization(AuthorizationError),
    /// A listener cannot be secured.
    #[error("listener {listener}: {source}")]
    Tls {
        /// Which.
        listener: String,
        /// Why.
        source: TlsError,
    },
    /// There is nothing to take it over.
    #[error("the Server has stopped or is about to")]
    Stopped,
}

impl From<PolicyError> for ReloadError {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Authentication(error) => Self::Authentication(error),
            PolicyError::Authorization(error) => Self::Authorization(error),
            PolicyError::Tls { listener, source } => Self::Tls { listener, source },
        }
    }
}

/// Reloads a [`crate::Server`].
#[derive(Clone, Debug)]
pub struct Reloader {
    shared: Arc<Shared>,
    commands: Vec<mpsc::Sender<Command>>,
    running: Arc<Mutex<Config>>,
    given: Option<Authentication>,
}

impl Reloader {
    pub(crate) const fn new(
        shared: Arc<Shared>,
        commands: Vec<mpsc::Sender<Command>>,
        running: Arc<Mutex<Config>>,
        given: Option<Authentication>,
    ) -> Self {
        Self {
            shared,
            commands,
            running,
            given,
        }
    }

    /// What [`crate::Server::reload`] does.
    /// # Errors
    /// `config` cannot be used, or the Server stops. The old configuration stays.
    pub fn reload(&self, config: Config) -> Result<Reloaded, ReloadError> {
        // One after the other, so that all shards end with the same.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let left = fixed_parts(&running, &config);
        let config = Config {
            listeners: as_opened(&running.listeners, &config.listeners),
            authentication: config.authentication,
            authorization: config.authorization,
            stop: config.stop,
            limits: config.limits,
            bounds: ServerBounds {
                login_threads: running.bounds.login_threads,
                ..config.bounds
            },
            ..running.clone()
        };
        let before = self.shared.known();
        let policy = Policy::new(
            &config,
            self.given.as_ref(),
            self.shared.users.as_ref(),
            &self.shared.outbound,
        );
        let policy = Arc::new(policy.map_err(|error| self.refused(error))?);
        self.shared.take_over(&running.bounds, &config.bounds);
        self.tell_all(|done| Command::Reload {
            policy: Arc::clone(&policy),
            done,
        })?;
        self.tell_users(before, &policy)?;
        self.tell_endpoints(&policy.listeners);
        let standing = &self.shared.standing;
        standing.set(Condition::Reload, None);
        standing.set(Condition::Tls, None);
        standing.judge(&config);
        *running = config;
        tracing::info!("configuration reloaded");
        if !left.is_empty() {
            let reason = left.join(", ");
            tracing::warn!(reason, "these settings change at the next start only");
        }
        Ok(Reloaded { left })
    }

    /// Has what is known of users count at once, if it is not what was known before.
    fn tell_users(&self, before: Known, policy: &Policy) -> Result<(), ReloadError> {
        self.shared.remember(policy);
        let now = self.shared.known();
        if before == now {
            return Ok(());
        }
        // Who was let in by what was before, and is on its way to another shard, comes too late.
        self.shared.users_changed();
        self.tell_all(|done| Command::UsersRead {
            before: before.clone(),
            now: now.clone(),
            done,
        })
    }

    /// The files that the running configuration names, see [`Config::files`].
    #[must_use]
    pub fn files(&self) -> Vec<std::path::PathBuf> {
        self.running().files()
    }

    /// What the Server runs on.
    pub(crate) fn running(&self) -> Config {
        let running = self.running.lock();
        running.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads again the files that TLS rests on, and nothing else.
    pub(crate) fn read_tls_again(&self) -> Result<(), ReloadError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners = match Policy::listeners(&running) {
            Ok(listeners) => listeners,
            Err(error) => {
                let error = ReloadError::from(error);
                tracing::error!(%error, "changed files of TLS are not taken over: what was read before stays");
                let alarm = format!("changed files of TLS are not taken over: {error}");
                self.shared.standing.set(Condition::Tls, Some(alarm));
                return Err(error);
            }
        };
        self.tell_all(|done| Command::Listeners {
            listeners: Arc::clone(&listeners),
            done,
        })?;
        self.tell_endpoints(&listeners);
        self.shared.standing.set(Condition::Tls, None);
        tracing::info!("changed files of TLS are taken over");
        Ok(())
    }

    /// Gives every shard the command that `command` makes, and waits until all of them have done it.
    fn tell_all(&self, command: impl Fn(mpsc::Sender<()>) -> Command) -> Result<(), ReloadError> {
        let (done, all_done) = mpsc::channel();
        for (shard, mailbox) in self.commands.iter().zip(self.shared.mailboxes.iter()) {
            if shard.send(command(done.clone())).is_err() {
                return Err(ReloadError::Stopped);
            }
            mailbox.wake();
        }
        drop(done);
        if all_done.iter().count() < self.commands.len() {
            return Err(ReloadError::Stopped);
        }
        Ok(())
    }

    #[cfg(feature = "quic")]
    fn tell_endpoints(&self, listeners: &Arc<[ListenerPolicy]>) {
        if let Some(quic) = self.shared.quic.get() {
            quic.take_over(listeners);
        }
    }

    #[cfg(not(feature = "quic"))]
    #[expect(clippy::unused_self, reason = "there are none")]
    fn tell_endpoints(&self, _: &Arc<[ListenerPolicy]>) {}

    /// Says that a configuration was not even read, in the log and as an alarm in `$SYS` until one is: the
    /// old one stays.
    pub fn refuse(&self, error: &impl fmt::Display) {
        // The log has one line for it; the caret below is for whoever checks the file.
        let text = error.to_string();
        let error = text.lines().next().unwrap_or_default();
        tracing::error!(error, "configuration not reloaded: the old one stays");
        let alarm = format!("configuration not reloaded: {error}");
        self.shared.standing.set(Condition::Reload, Some(alarm));
    }

    fn refused(&self, error: PolicyError) -> ReloadError {
        let error = ReloadError::from(error);
        self.refuse(&error);
        error
    }
}

/// The listeners that are open, each as `new` has it now.
fn as_opened(running: &[ListenerConfig], new: &[ListenerConfig]) -> Vec<ListenerConfig> {
    let now = |(place, old): (usize, &ListenerConfig)| {
        let is_quic = old.transport == Transport::Quic;
        let is_same = |one: &&ListenerConfig| one.is_at(&old.address, is_quic);
        // Several may have asked for a free port.
        let same = new.get(place).filter(is_same);
        let now = same.or_else(|| new.iter().find(is_same)).unwrap_or(old);
        ListenerConfig {
            file: old.file.clone(),
            ..now.clone()
        }
    };
    running.iter().enumerate().map(now).collect()
}

/// The parts that differ and cannot change while the Server runs, by their names in the file.
fn fixed_parts(running: &Config, new: &Config) -> Vec<&'static str> {
    let differs = [
        (
            "listeners",
            addresses(&running.listeners) != addresses(&new.listeners),
        ),
        ("shards", running.shards != new.shards),
        ("sys_interval", running.sys_interval != new.sys_interval),
        (
            "response_topic_prefix",
            running.response_topic_prefix != new.response_topic_prefix,
        ),
        (
            "shared_strategy",
            running.shared_strategy != new.shared_strategy,
        ),
        (
            "limits.login_threads",
            running.bounds.login_threads != new.bounds.login_threads,
        ),
        ("storage", running.storage != new.storage),
    ];
    let names = differs.into_iter().filter(|(_, differs)| *differs);
    names.map(|(name, _)| name).collect()
}

fn addresses(listeners: &[ListenerConfig]) -> Vec<(&Address, &FileAccess, bool)> {
    let is_quic = |one: &ListenerConfig| one.transport == Transport::Quic;
    let places = listeners.iter();
    places
        .map(|one| (&one.address, &one.file, is_quic(one)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_of_a_listener_stays_as_it_is_is_its_socket() {
        let file = "[[listeners]]\naddress = \"unix:/run/a\"\nmode = \"0600\"\n";
        let parse = |text: &str| crate::config::parse(text, "a.toml".as_ref()).expect("is valid");
        for (key, line) in [
            ("address", "address = \"unix:/run/b\""),
            ("mode", "mode = \"0660\""),
            ("owner", "owner = 0"),
            ("group", "group = 0"),
            ("anonymous", "anonymous = \"never\""),
            ("mount_point", "mount_point = \"a/\""),
            ("connections_max", "connections_max = 9"),
        ] {
            let is_same = |old: &&str| !old.starts_with(&format!("{key} ="));
            let kept: Vec<&str> = file.lines().filter(is_same).collect();
            let changed = format!("{}\n{line}\n", kept.join("\n"));
            let is_fixed = !fixed_parts(&parse(file), &parse(&changed)).is_empty();
            let row = crate::config::keys::find(&format!("listeners.{key}")).expect("has a row");
            assert_ne!(row.is_reloaded(), is_fixed, "{key}");
        }
    }

    #[test]
    fn every_part_that_stays_as_it_is_is_named() {
        let running = Config::default();
        assert_eq!(fixed_parts(&running, &running), [""; 0]);
        let text = include_str!("config/every_key.toml");
        let other = crate::config::parse(text, "every_key.toml".as_ref()).expect("is valid");
        let names = fixed_parts(&running, &other);
        // What a reload takes over is all the rest of the file, and all limits but this one.
        let file: toml::Table = toml::from_str(text).expect("is TOML");
        let mut expected: Vec<&str> = file.keys().map(String::as_str).collect();
        let taken_over = ["authentication", "authorization", "stop", "limits"];
        expected.retain(|name| !taken_over.contains(name));
        expected.push("limits.login_threads");
        let mut named = names.clone();
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected);
        for name in file["limits"].as_table().expect("a table").keys() {
            let is_fixed = name == "login_threads";
            let key = crate::config::keys::find(&format!("limits.{name}")).expect("has a row");
            assert_ne!(key.is_reloaded(), is_fixed, "{name}");
        }
        for name in file.keys().filter(|name| *name != "listeners") {
            let key = crate::config::keys::find(name).expect("has a row");
            assert_ne!(key.is_reloaded(), named.contains(&name.as_str()), "{name}");
        }
    }
}
