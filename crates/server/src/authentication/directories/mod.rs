//! Users in other people's databases: the links of the chain that ask them.
//!
//! Owns: [`Directory`], [`Keeper`], what both mean by a user. Does not own: time-out, breaker and cache around a
//! question (see `crate::outbound`), the databases (see `postgres`, `mysql`, `redis`, `ldap`). Start reading at
//! [`Keeper::authenticate`]. Invariants: what a Client says reaches a database as a value, never as a part of
//! what is asked; a shard neither asks nor hashes; an unknown user costs what a wrong password costs.

mod decoys;
#[cfg(feature = "ldap")]
mod ldap;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "redis"))]
mod row;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod sql;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::Secret;

use super::chains::Links;
use super::passwords::{StoredPassword, VerifiedPasswords, is_user_name, wrong};
use super::{Attempt, AuthenticationError, Authenticator, Decision, Exchange, Identity, Work};
use crate::config::{AuthenticationConfig, DirectoryServer, Link, Placeholder};
use crate::outbound::{Answer, AskError, BackEnd, Kept, Outbound};
use decoys::Decoys;

/// A database that keeps passwords as this Server does, hashed.
trait Directory: Send + Sync + fmt::Debug + 'static {
    /// Whether what it is asked depends on `placeholder`.
    fn asks_for(&self, placeholder: Placeholder) -> bool;

    /// The user that `question` is about; `None` if it has none.
    fn find(
        self: Arc<Self>,
        question: Question,
    ) -> impl Future<Output = Result<Option<Found>, AskError>> + Send;
}

/// What a login asks a database.
#[derive(Clone, Debug)]
struct Question {
    user_name: String,
    client_id: String,
    /// `None` for a process of this machine, by a Unix socket.
    address: Option<IpAddr>,
}

impl Question {
    fn of(attempt: &Attempt<'_>, user_name: &str) -> Self {
        Self {
            user_name: user_name.to_owned(),
            client_id: attempt.client_id.to_owned(),
            address: attempt.peer.ip().map(|address| address.to_canonical()),
        }
    }

    /// What stands for `placeholder`; nothing for what only the database knows.
    fn value(&self, placeholder: Placeholder) -> Cow<'_, str> {
        match placeholder {
            Placeholder::UserName => Cow::Borrowed(&self.user_name),
            Placeholder::ClientId => Cow::Borrowed(&self.client_id),
            Placeholder::Address => {
                let address = self.address.map(|address| address.to_string());
                Cow::Owned(address.unwrap_or_default())
            }
            Placeholder::Dn => Cow::Borrowed(""),
        }
    }
}

/// A user as a database knows it.
#[derive(Debug)]
struct Found {
    identity: Identity,
    /// `None` if no password lets it in.
    password: Option<StoredPassword>,
}

/// Lets in whom a database knows, with the password that it keeps.
struct Keeper<D> {
    directory: Arc<D>,
    back_end: BackEnd<Option<Arc<Found>>>,
    judge: Judge,
}

/// Compares passwords with what was found.
#[derive(Clone)]
struct Judge {
    verified: Arc<VerifiedPasswords>,
    decoys: Arc<Decoys>,
}

impl<D: Directory> Keeper<D> {
    fn new(directory: D, back_end: BackEnd<Option<Arc<Found>>>, lifetime: Duration) -> Self {
        Self {
            directory: Arc::new(directory),
            back_end,
            judge: Judge {
                verified: Arc::new(VerifiedPasswords::new(lifetime)),
                decoys: Arc::new(Decoys::default()),
            },
        }
    }
}

impl<D: Directory> Authenticator for Keeper<D> {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Option<Decision> {
        let (name, password) = credentials(attempt)?;
        let question = Question::of(attempt, name);
        let part = |placeholder| {
            let is_asked = self.directory.asks_for(placeholder);
            is_asked.then(|| question.value(placeholder).into_owned())
        };
        let (client_id, address) = (part(Placeholder::ClientId), part(Placeholder::Address));
        let key = self.back_end.key(&[
            Some(name.as_bytes()),
            client_id.as_deref().map(str::as_bytes),
            address.as_deref().map(str::as_bytes),
        ]);
        if let Some(found) = self.back_end.known(key) {
            return self.judge.decide(name, password, found);
        }
        let (directory, judge) = (Arc::clone(&self.directory), self.judge.clone());
        let (name, password) = (name.to_owned(), password.clone());
        let asked = async move {
            let found = directory.find(question).await?;
            Ok(Answer {
                kept: if found.is_some() {
                    Kept::AsYes
                } else {
                    Kept::AsNo
                },
                value: found.map(Arc::new),
            })
        };
        let decide = move |found| judge.decide(&name, &password, found);
        Some(Decision::Wait(
            self.back_end.ask(exchange, key, asked, decide),
        ))
    }
}

impl<D: Directory> fmt::Debug for Keeper<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keeper").field(&self.directory).finish()
    }
}

impl Judge {
    /// What becomes of a Client that says it is `name`, whom the database has as `found`.
    fn decide(&self, name: &str, password: &Secret, found: Option<Arc<Found>>) -> Option<Decision> {
        let password = password.clone();
        let Some(found) = found else {
            let decoy = self.decoys.of(name);
            return Some(Decision::Wait(Work::new(move || {
                // Whether it fits by accident or not: this user is unknown.
                let _fits = decoy.is(password.expose());
                None
            })));
        };
        let Some(stored) = &found.password else {
            let decoy = self.decoys.of(name);
            return Some(Decision::Wait(Work::new(move || {
                let _fits = decoy.is(password.expose());
                Some(wrong())
            })));
        };
        self.decoys.saw(name, stored);
        let mark = self.verified.mark(name, password.expose(), stored);
        if mark.is_some_and(|mark| self.verified.knows(&mark, Instant::now())) {
            return Some(allow(&found.identity));
        }
        let verified = Arc::clone(&self.verified);
        Some(Decision::Wait(Work::new(move || {
            let stored = found.password.as_ref();
            if !stored.is_some_and(|stored| stored.is(password.expose())) {
                return Some(wrong());
            }
            if let Some(mark) = mark {
                verified.remember(mark, Instant::now());
            }
            Some(allow(&found.identity))
        })))
    }
}

fn allow(identity: &Identity) -> Decision {
    Decision::Allow {
        identity: identity.clone(),
        data: None,
    }
}

/// Name and password, if some database may know them: what holds neither, or an empty password, proves nothing
/// to any of them.
fn credentials<'a>(attempt: &Attempt<'a>) -> Option<(&'a str, &'a Secret)> {
    let name = attempt.user_name.filter(|name| is_user_name(name))?;
    let password = attempt.password?;
    (!password.expose().is_empty()).then_some((name, password))
}

/// The links that `config` asks for, in the order in which they are asked.
/// # Errors
/// A file that one of them rests on cannot be used.
pub(crate) fn links(
    config: &AuthenticationConfig,
    waiting_max: usize,
    outbound: &Outbound,
) -> Result<Links, AuthenticationError> {
    let mut links = Links::new();
    let lifetime = config.password_cache;
    #[cfg(feature = "postgres")]
    if let Some(config) = &config.postgres {
        let back_end = back_end("postgres", &config.server, waiting_max, outbound);
        let directory = postgres::new(config)?;
        let keeper = Keeper::new(directory, back_end, lifetime);
        links.push((Link::Postgres, Arc::new(keeper)));
    }
    #[cfg(feature = "mysql")]
    if let Some(config) = &config.mysql {
        let back_end = back_end("mysql", &config.server, waiting_max, outbound);
        let directory = mysql::new(config)?;
        let keeper = Keeper::new(directory, back_end, lifetime);
        links.push((Link::MySql, Arc::new(keeper)));
    }
    #[cfg(feature = "redis")]
    if let Some(config) = &config.redis {
        let back_end = back_end("redis", &config.server, waiting_max, outbound);
        let directory = redis::Redis::new(config)?;
        let keeper = Keeper::new(directory, back_end, lifetime);
        links.push((Link::Redis, Arc::new(keeper)));
    }
    #[cfg(feature = "ldap")]
    if let Some(config) = &config.ldap {
        let back_end = back_end("ldap", &config.server, waiting_max, outbound);
        let ldap = ldap::Ldap::new(config, back_end)?;
        links.push((Link::Ldap, Arc::new(ldap)));
    }
    Ok(links)
}

fn back_end<T: Clone + Send + 'static>(
    name: &'static str,
    server: &DirectoryServer,
    waiting_max: usize,
    outbound: &Outbound,
) -> BackEnd<T> {
    BackEnd::new(
        name,
        server.url.expose(),
        &server.ask,
        waiting_max,
        outbound,
    )
}

/// The password that this Server logs in with, if a file has it.
fn server_password(server: &DirectoryServer) -> Result<Option<String>, AuthenticationError> {
    let Some(path) = &server.password_file else {
        return Ok(None);
    };
    let text = AuthenticationError::read(path)?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(AuthenticationError::wrong(
            path,
            1,
            "there is no password in it",
        ));
    }
    Ok(Some(password.to_owned()))
}

/// The file with certificates that may have signed that of the server: read now, so that a wrong one is told.
fn server_ca(server: &DirectoryServer) -> Result<Option<Vec<u8>>, AuthenticationError> {
    let Some(path) = &server.ca else {
        return Ok(None);
    };
    let text = AuthenticationError::read(path)?;
    roots_of(path, text.as_bytes())?;
    Ok(Some(text.into_bytes()))
}

/// The certificates in `pem`, one at least.
fn roots_of(path: &Path, pem: &[u8]) -> Result<rustls::RootCertStore, AuthenticationError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| AuthenticationError::wrong(path, 1, error))?;
        let added = roots.add(certificate);
        added.map_err(|error| AuthenticationError::wrong(path, 1, error))?;
    }
    if roots.is_empty() {
        return Err(AuthenticationError::wrong(
            path,
            1,
            "there is no certificate in it",
        ));
    }
    Ok(roots)
}

/// What a database says of an error, fit for one line of the log.
fn told(error: &impl fmt::Display) -> AskError {
    let text = error.to_string();
    let short: String = text.chars().take(ERROR_CHARS_MAX).collect();
    AskError(short.escape_debug().to_string())
}

/// So much of what a database says about an error is told.
const ERROR_CHARS_MAX: usize = 300;
