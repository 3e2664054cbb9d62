//! Which authenticators are asked at which listener.
//!
//! Owns: [`Chains`], the authenticators that a configuration asks for. Does not own: how one decides (see
//! [`Authenticator`]). Start reading at [`Chains::new`]. Invariant: a listener that names links asks no other, and nobody
//! with a User Name that none of them knows is anonymous there.

use std::sync::Arc;

use super::{
    Accounts, Anonymous, Authentication, AuthenticationError, Authenticator, Certificates,
    Challenge, Http, Passwords, Renewal, ScramKeys, ScramSha256, Tokens, Users,
};
use crate::config::{Config, Link};
use crate::outbound::Outbound;

/// One chain for every listener, made of the same authenticators.
#[derive(Clone, Debug)]
pub(crate) struct Chains {
    /// Asked where a listener says nothing.
    all: Authentication,
    /// By the number of the listener.
    listeners: Arc<[Option<Authentication>]>,
}

/// Authenticators, each with the name that it is asked by.
pub(super) type Links = Vec<(Link, Arc<dyn Authenticator>)>;

impl Chains {
    /// What `config` asks for; `file` are the users of its password file, `users` those of the data folder.
    /// # Errors
    /// A file that one of them rests on cannot be used.
    pub(crate) fn new(
        config: &Config,
        file: Option<Arc<Accounts>>,
        users: Option<&Arc<Users>>,
        outbound: &Outbound,
    ) -> Result<Self, AuthenticationError> {
        let wanted = &config.authentication;
        let keys = wanted.scram.then(|| scram_keys(users)).flatten();
        let passwords = Passwords::new(file, users.cloned(), wanted.password_cache);
        let renewed = wanted.password_file.clone();
        let renewal = renewed
            .filter(|_| wanted.password_file_rehash)
            .map(Renewal::new);
        let passwords = Arc::new(passwords.leaving(keys.clone()).renewing(renewal));
        let links = links(config, &passwords, keys, outbound)?;
        let anonymous = |has_names| -> Arc<dyn Authenticator> {
            let passwords = Arc::clone(&passwords);
            Arc::new(Anonymous::beside(wanted.anonymous, passwords, has_names))
        };
        let in_order = links.iter().map(|(_, one)| Arc::clone(one));
        let all = in_order.chain([anonymous(wanted.knows_names())]).collect();
        let of_listener = |named: &[Link]| {
            let named = named.iter().flat_map(|name| {
                let of_name = links.iter().filter(move |(link, _)| link == name);
                of_name.map(|(_, one)| Arc::clone(one))
            });
            // Who is asked is said, so a name means somebody, whether there are users already or not.
            Authentication::new(named.chain([anonymous(true)]).collect())
        };
        let listeners = config.listeners.iter();
        let listeners = listeners.map(|one| one.authentication.as_deref().map(of_listener));
        Ok(Self {
            all: Authentication::new(all),
            listeners: listeners.collect(),
        })
    }

    /// `given` everywhere.
    pub(crate) fn given(given: Authentication) -> Self {
        Self {
            all: given,
            listeners: Arc::default(),
        }
    }

    /// The chain of a listener, by its number.
    pub(crate) fn at(&self, listener: u16) -> &Authentication {
        let own = self.listeners.get(usize::from(listener));
        own.and_then(Option::as_ref).unwrap_or(&self.all)
    }
}

/// The authenticators that `config` asks for, in the order of [`Link`].
fn links(
    config: &Config,
    passwords: &Arc<Passwords>,
    keys: Option<Arc<ScramKeys>>,
    outbound: &Outbound,
) -> Result<Links, AuthenticationError> {
    let wanted = &config.authentication;
    let waiting_max = config.bounds.logins_waiting_max;
    let mut links = Links::new();
    if wanted.test_method {
        links.push((Link::TestMethod, Arc::new(Challenge)));
    }
    if let Some(user) = wanted.certificate_user {
        links.push((Link::Certificate, Arc::new(Certificates::new(user))));
    }
    if let Some(tokens) = &wanted.tokens {
        let [by_password, by_method] = Tokens::read(tokens, waiting_max, outbound)?;
        links.push((Link::Tokens, Arc::new(by_method)));
        links.push((Link::Tokens, Arc::new(by_password)));
    }
    if let Some(keys) = keys {
        let scram = ScramSha256::new(Arc::clone(passwords), keys);
        links.push((Link::Scram, Arc::new(scram)));
    }
    links.push((Link::Passwords, Arc::clone(passwords) as _));
    if let Some(http) = &wanted.http {
        let http = Http::new(http, waiting_max, outbound)?;
        links.push((Link::Http, Arc::new(http)));
    }
    #[cfg(feature = "_directories")]
    links.extend(super::directories::links(wanted, waiting_max, outbound)?);
    Ok(links)
}

/// Where logins leave keys for SCRAM.
fn scram_keys(users: Option<&Arc<Users>>) -> Option<Arc<ScramKeys>> {
    match users.and_then(|users| users.scram()) {
        Some(kept) => Some(Arc::clone(kept)),
        None => ScramKeys::in_memory().map(Arc::new),
    }
}
