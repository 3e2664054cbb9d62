//! A configuration taken over while the Server runs.
//!
//! Owns: [`Policy`] (what can change), [`Reloader`], what is said of what cannot. Does not own: the file
//! (see `config`), when it is read again (whoever calls). Start reading at [`Reloader::reload`].
//! Invariant: a configuration is taken over by every shard or by none; refused, the old one stays.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use engine::Rules;

use crate::authentication::{Anonymous, Authentication, Authenticator, Challenge};
use crate::authorization::{self, AuthorizationError};
use crate::config::{Config, StopConfig};
use crate::shard::{Command, Shared};

/// What of a configuration can change while a Server runs, as the shards need it.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) authentication: Authentication,
    pub(crate) rules: Arc<Rules>,
    pub(crate) stop: StopConfig,
}

impl Policy {
    /// What `config` says; `given` takes the place of the authenticators it asks for.
    /// # Errors
    /// A file that it names cannot be used.
    pub(crate) fn new(
        config: &Config,
        given: Option<&Authentication>,
    ) -> Result<Self, AuthorizationError> {
        let authentication = given.cloned();
        Ok(Self {
            authentication: authentication.unwrap_or_else(|| authenticators(config)),
            rules: Arc::new(authorization::rules(config)?),
            stop: config.stop.clone(),
        })
    }
}

/// The authenticators a configuration asks for.
fn authenticators(config: &Config) -> Authentication {
    let mut authenticators: Vec<Arc<dyn Authenticator>> = Vec::new();
    if config.authentication.test_method {
        authenticators.push(Arc::new(Challenge));
    }
    let anonymous = Anonymous::new(config.authentication.anonymous);
    authenticators.push(Arc::new(anonymous));
    Authentication::new(authenticators)
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
    /// What Clients may do cannot be read.
    #[error(transparent)]
    Authorization(#[from] AuthorizationError),
    /// There is nothing to take it over.
    #[error("the Server has stopped or is about to")]
    Stopped,
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
        let policy = Policy::new(&config, self.given.as_ref());
        let policy = Arc::new(policy.inspect_err(|error| self.refuse(error))?);
        let (done, all_done) = mpsc::channel();
        for (shard, mailbox) in self.commands.iter().zip(self.shared.mailboxes.iter()) {
            let policy = Arc::clone(&policy);
            let done = done.clone();
            if shard.send(Command::Reload { policy, done }).is_err() {
                return Err(ReloadError::Stopped);
            }
            mailbox.wake();
        }
        drop(done);
        if all_done.iter().count() < self.commands.len() {
            return Err(ReloadError::Stopped);
        }
        self.set_alarm(None);
        let left = fixed_parts(&running, &config);
        *running = Config {
            authentication: config.authentication,
            authorization: config.authorization,
            stop: config.stop,
            ..running.clone()
        };
        tracing::info!("configuration reloaded");
        if !left.is_empty() {
            let reason = left.join(", ");
            tracing::warn!(reason, "these settings change at the next start only");
        }
        Ok(Reloaded { left })
    }

    /// Says that a configuration was not even read, in the log and as an alarm in `$SYS` until one is: the
    /// old one stays.
    pub fn refuse(&self, error: &impl fmt::Display) {
        // The log has one line for it; the caret below is for whoever checks the file.
        let text = error.to_string();
        let error = text.lines().next().unwrap_or_default();
        tracing::error!(error, "configuration not reloaded: the old one stays");
        self.set_alarm(Some(format!("configuration not reloaded: {error}")));
    }

    fn set_alarm(&self, alarm: Option<String>) {
        let refused = self.shared.reload_refused.lock();
        *refused.unwrap_or_else(PoisonError::into_inner) = alarm;
    }
}

/// The parts that differ and cannot change while the Server runs, by their names in the file.
fn fixed_parts(running: &Config, new: &Config) -> Vec<&'static str> {
    let differs = [
        ("listeners", running.listeners != new.listeners),
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
            "limits",
            running.limits != new.limits || running.bounds != new.bounds,
        ),
        ("storage", running.storage != new.storage),
    ];
    let names = differs.into_iter().filter(|(_, differs)| *differs);
    names.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_that_stays_as_it_is_is_named() {
        let running = Config::default();
        assert_eq!(fixed_parts(&running, &running), [""; 0]);
        let text = include_str!("config/every_key.toml");
        let other = crate::config::parse(text, "every_key.toml".as_ref()).expect("is valid");
        let names = fixed_parts(&running, &other);
        // What a reload takes over is all the rest of the file.
        let file: toml::Table = toml::from_str(text).expect("is TOML");
        let mut expected: Vec<&str> = file.keys().map(String::as_str).collect();
        expected.retain(|name| !["authentication", "authorization", "stop"].contains(name));
        let mut named = names.clone();
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected);
    }
}
