//! Users in Redis, each a hash with fields.
//!
//! Owns: [`Redis`]: its connection, the key, the fields. Does not own: what they mean (see `row`). Start reading
//! at [`Redis::fields`]. Invariant: one command, `HMGET`, on one key, which is that of the User Name and of
//! nothing below it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError, TlsCertificates};
use tokio::sync::Mutex;

use super::row::{Row, groups_of, is_yes};
use super::{Directory, Found, Question, server_ca, server_password, told};
use crate::authentication::AuthenticationError;
use crate::authorization::{OwnRules, OwnRulesError};
use crate::config::{Placeholder, RedisConfig};
use crate::outbound::AskError;

/// A database that has a hash for each user.
pub(super) struct Redis {
    client: Client,
    config: RedisConfig,
    /// The one connection, which all questions share.
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    /// # Errors
    /// A file that it rests on cannot be used.
    pub(super) fn new(config: &RedisConfig) -> Result<Self, AuthenticationError> {
        let wrong = |error: RedisError| AuthenticationError::Server {
            name: "redis",
            problem: told(&error).0,
        };
        let server = &config.server;
        let info = server.url.expose().into_connection_info().map_err(wrong)?;
        // So that the right to `HMGET` is all that it takes.
        let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(password) = server_password(server)? {
            settings = settings.set_password(password);
        }
        let info = info.set_redis_settings(settings);
        let client = match server_ca(server)? {
            Some(ca) => Client::build_with_tls(
                info,
                TlsCertificates {
                    client_tls: None,
                    root_cert: Some(ca),
                },
            ),
            None => Client::open(info),
        };
        Ok(Self {
            client: client.map_err(wrong)?,
            config: config.clone(),
            connection: Mutex::new(None),
        })
    }

    /// The connection, and whether it was there already.
    async fn connection(&self) -> Result<(MultiplexedConnection, bool), AskError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref() {
            return Ok((connection.clone(), true));
        }
        // Before the question is given up: else a connection that is dead would be kept.
        let timeout = Some(self.config.server.ask.timeout / 2);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(timeout)
            .set_response_timeout(timeout);
        let opened = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let connection = opened.await.map_err(|error| told(&error))?;
        *kept = Some(connection.clone());
        Ok((connection, false))
    }

    /// What is kept under `key`, in the order of [`Self::names`]; nothing under a key of another kind.
    async fn fields(&self, key: &str) -> Result<Vec<Option<Vec<u8>>>, AskError> {
        loop {
            let (mut connection, was_there) = self.connection().await?;
            let mut command = redis::cmd("HMGET");
            command.arg(key);
            for name in self.names() {
                command.arg(name);
            }
            match command.query_async(&mut connection).await {
                Ok(fields) => return Ok(fields),
                // Not a hash, so no user.
                Err(error) if error.code() == Some("WRONGTYPE") => return Ok(Vec::new()),
                Err(error) => {
                    let is_lost = error.is_unrecoverable_error() || error.is_connection_dropped();
                    if is_lost || error.is_timeout() {
                        *self.connection.lock().await = None;
                    }
                    // It may have ended while nobody asked: one more try, on a new one.
                    if !(is_lost && was_there) {
                        return Err(told(&error));
                    }
                }
            }
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let config = &self.config;
        let first = [
            &config.password_field,
            &config.administrator_field,
            &config.groups_field,
        ];
        let all = first.into_iter().chain(&config.rights_field);
        let all = all.chain(&config.attributes);
        all.map(String::as_str)
    }

    fn row(&self, fields: Vec<Option<Vec<u8>>>) -> Option<Row> {
        if fields.iter().all(Option::is_none) {
            return None;
        }
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_default();
        let mut fields = fields.into_iter().map(|field| field.map(text));
        let mut next = || fields.next().flatten();
        let (password, administrator, groups) = (next(), next(), next());
        // Where the field is not there, it has no rights: it is not known which were forgotten.
        let rights = self.config.rights_field.as_ref().map(|_| match next() {
            Some(text) => serde_json::from_str(&text)
                .map_err(|_| OwnRulesError::Form)
                .and_then(|rights| OwnRules::from_json("redis", &rights)),
            None => Ok(OwnRules::default()),
        });
        let attributes: BTreeMap<String, String> = self
            .config
            .attributes
            .iter()
            .filter_map(|name| Some((name.clone(), next()?)))
            .collect();
        Some(Row {
            user_name: None,
            password,
            is_administrator: administrator.is_some_and(|text| is_yes(&text)),
            groups: groups.map(|text| groups_of(&text)).unwrap_or_default(),
            attributes,
            rights,
        })
    }
}

impl Directory for Redis {
    fn asks_for(&self, placeholder: Placeholder) -> bool {
        self.config.key.has(placeholder)
    }

    async fn find(self: Arc<Self>, question: Question) -> Result<Option<Found>, AskError> {
        // What stands below the key of a user is not a user.
        if question.user_name.contains(KEY_SEPARATOR) {
            return Ok(None);
        }
        let key = &self.config.key;
        let key = key.fill(|placeholder| question.value(placeholder).into_owned());
        let fields = self.fields(&key).await?;
        let row = self.row(fields);
        Ok(row.and_then(|row| row.user(&question.user_name, "redis")))
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({:?})", self.config.server.url)
    }
}

/// What parts of a key are separated by, everywhere.
const KEY_SEPARATOR: char = ':';
