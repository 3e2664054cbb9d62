//! Who a Client is: the question every CONNECT and AUTH is put to before the engine hears of it.
//!
//! Owns: [`Authenticator`] and what goes in and out of it, [`Authentication`] which asks them in order.
//! Does not own: the frame of the exchange (see `proto::connection`), what a Client may do (see
//! `crate::authorization`). Start reading at [`Authentication::authenticate`].
//! Invariant: without an authenticator that allows it, nobody gets in.

mod anonymous;
mod bans;
mod certificate;
mod certificates;
mod chains;
mod challenge;
mod client_ids;
#[cfg(feature = "_directories")]
pub(crate) mod directories;
mod error;
mod fair_queue;
mod fetched_keys;
mod http;
mod identity;
mod passwords;
mod scram_sha_256;
mod ticket;
mod tokens;
mod verifiers;
mod work;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proto::packet::ReasonCode;
use proto::{Secret, Version};

use crate::config::OnError;
use crate::outbound::without_answer;

pub use anonymous::{Anonymous, AnonymousPolicy};
pub use bans::{Ban, BanLimits};
pub use certificate::{AlternativeName, ClientCertificate};
pub use certificates::{CertificateUser, Certificates};
pub use challenge::Challenge;
pub use client_ids::{ClientIdPattern, ClientIdPatternError, ClientIdRule, ClientIds};
pub use error::AuthenticationError;
pub use identity::Identity;
pub use passwords::{
    Account, Accounts, BoundKeys, BoundKeysError, NewUser, PasswordFile, PasswordFileError,
    Passwords, ScramKeys, StoredPassword, StoredPasswordError, UserChange, UserError, Users,
    read_password_file, user_of,
};
pub use scram_sha_256::ScramSha256;
pub use tokens::Tokens;
pub use work::Work;

use crate::peer::Peer;

pub(crate) use bans::Bans;
pub(crate) use chains::Chains;
pub(crate) use fair_queue::FairQueue;
pub(crate) use fetched_keys::FetchedKeys;
pub(crate) use http::Http;
pub(crate) use passwords::{Known, Renewal, SCRAM_FILE, USERS_FILE};
pub(crate) use ticket::{Stub, Ticket};
pub(crate) use verifiers::{Job, Verifiers};
pub(crate) use work::{Kind, Verified};

/// Decides on Clients of one Authentication Method, or on those that name none.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// The Authentication Method it answers for; `None` for a CONNECT without one.
    fn method(&self) -> Option<&str>;

    /// Decides on a CONNECT, an AUTH that goes on with it, or a re-authentication. It is called on the
    /// shard's thread and must not wait; what takes long is [`Decision::Wait`]. `exchange` is kept from one step
    /// to the next. `None` if it does not know the Client: then the next one is asked.
    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Option<Decision>;
}

/// What is known about a Client that wants in.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Its Client Identifier; empty if the Server will assign one.
    pub client_id: &'a str,
    /// User Name, if there is one.
    pub user_name: Option<&'a str>,
    /// Password, if there is one.
    pub password: Option<&'a Secret>,
    /// Authentication Data of this step.
    pub data: Option<&'a Secret>,
    /// Where it comes from.
    pub peer: Peer,
    /// The name of the listener it came by.
    pub listener: &'a str,
    /// From where Clients are let in without proof there, if not as the Server says.
    pub anonymous: Option<AnonymousPolicy>,
    /// The certificate it has shown, if the listener asks for those of Clients and has found it good.
    pub certificate: Option<&'a ClientCertificate>,
    /// Whether it may speak for somebody who is not of this machine, wherever it comes from: a browser for a page, or a
    /// proxy that does not say for whom.
    pub is_for_others: bool,
    /// What it speaks.
    pub version: Version,
}

/// What an authenticator remembers between the steps of one exchange.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// Which authenticator of those of its method is at it.
    pub(crate) link: usize,
    /// Whether the Client is served already, and proves itself again.
    pub(crate) is_again: bool,
    /// How often the Client was asked to go on.
    pub step: u32,
    /// The authenticator's own notes.
    pub notes: Vec<u8>,
    /// Who the Client says it is, where that is not said by User Name.
    pub claimed_user: Option<Arc<str>>,
    /// Where SCRAM stands.
    pub(crate) scram: Option<Box<scram::ServerExchange>>,
    /// Shared with the questions of it: whether another machine has left one of them without an answer.
    unanswered: Option<Arc<AtomicBool>>,
}

impl Exchange {
    /// Set once another machine has not answered.
    pub(crate) fn unanswered(&mut self) -> Arc<AtomicBool> {
        Arc::clone(self.unanswered.get_or_insert_default())
    }

    /// Whom nobody knows while somebody did not answer is not unknown: this says nothing of the Client.
    pub(crate) fn without_answer(&self) -> Option<Decision> {
        let unanswered = self.unanswered.as_ref()?;
        unanswered
            .load(Ordering::Acquire)
            .then(|| without_answer(OnError::Deny))?
    }
}

/// What an authenticator has decided.
#[derive(Debug)]
pub enum Decision {
    /// The Client is who it says.
    Allow {
        /// Who.
        identity: Identity,
        /// Authentication Data to end the exchange with.
        data: Option<Secret>,
    },
    /// The Client is to answer this Authentication Data, Reason Code 0x18.
    Continue(Option<Secret>),
    /// The Client is refused, with the Reason Code and Reason String it is told.
    Deny(ReasonCode, String),
    /// It takes long to decide: `Work` does it on another thread, and the Client waits. Only in answer to a
    /// CONNECT or what goes on with it; a re-authentication that would have to wait is refused.
    Wait(Work),
}

/// Authenticators, in order.
#[derive(Clone, Debug)]
pub struct Authentication {
    authenticators: Vec<Arc<dyn Authenticator>>,
}

impl Authentication {
    /// Asks `authenticators` in this order; the first that allows or denies has decided.
    #[must_use]
    pub fn new(authenticators: Vec<Arc<dyn Authenticator>>) -> Self {
        Self { authenticators }
    }

    /// Puts `attempt` to the authenticators of `method`; whom none of them knows is refused.
    pub fn authenticate(
        &self,
        method: Option<&str>,
        attempt: &Attempt<'_>,
        exchange: &mut Exchange,
    ) -> Decision {
        if self.authenticators.iter().all(|one| one.method() != method) {
            return unsupported(method);
        }
        let of_method = self.authenticators.iter();
        let of_method = of_method.filter(|one| one.method() == method);
        for (link, authenticator) in of_method.enumerate().skip(exchange.link) {
            // Who has asked the Client something is asked about its answer.
            exchange.link = link;
            if let Some(decision) = authenticator.authenticate(attempt, exchange) {
                return decision;
            }
        }
        // [MQTT-3.1.4-2] [v3.1.1 MQTT-3.1.4-2]
        exchange
            .without_answer()
            .unwrap_or_else(|| Decision::Deny(ReasonCode::NotAuthorized, UNKNOWN.to_owned()))
    }
}

/// Why nobody is there to ask.
fn unsupported(method: Option<&str>) -> Decision {
    match method {
        // [MQTT-4.12.0-1]
        Some(_) => Decision::Deny(
            ReasonCode::BadAuthenticationMethod,
            "this Authentication Method is not supported".to_owned(),
        ),
        None => Decision::Deny(
            ReasonCode::NotAuthorized,
            "this Server requires an Authentication Method".to_owned(),
        ),
    }
}

/// Why nobody that was asked lets a Client in.
const UNKNOWN: &str = "nothing that this Client has shown lets it in";

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows one user, and one that it does not want.
    #[derive(Debug)]
    struct Knows {
        user: &'static str,
        enemy: &'static str,
    }

    impl Authenticator for Knows {
        fn method(&self) -> Option<&str> {
            None
        }

        fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
            let name = attempt.user_name?;
            if name == self.enemy {
                return Some(Decision::Deny(ReasonCode::Banned, "an enemy".to_owned()));
            }
            (name == self.user).then(|| Decision::Allow {
                identity: Identity::of_user(name),
                data: None,
            })
        }
    }

    fn ask(chain: &Authentication, user_name: &str) -> Result<Identity, ReasonCode> {
        let attempt = Attempt {
            client_id: "a",
            user_name: Some(user_name),
            password: None,
            data: None,
            peer: ([127, 0, 0, 1], 9).into(),
            listener: "test",
            anonymous: None,
            is_for_others: false,
            certificate: None,
            version: Version::V5,
        };
        match chain.authenticate(None, &attempt, &mut Exchange::default()) {
            Decision::Allow { identity, .. } => Ok(identity),
            Decision::Deny(reason, _) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    /// Verifies [MQTT-3.1.4-2]: whom nobody knows is not let in.
    #[test]
    fn first_link_that_knows_a_client_decides_and_nobody_is_let_in_unknown() {
        let link = |user, enemy| -> Arc<dyn Authenticator> { Arc::new(Knows { user, enemy }) };
        let chain = Authentication::new(vec![
            Arc::new(Challenge),
            link("anna", "otto"),
            link("otto", "anna"),
            link("emil", "none"),
        ]);
        assert_eq!(ask(&chain, "anna"), Ok(Identity::of_user("anna")));
        assert_eq!(ask(&chain, "emil"), Ok(Identity::of_user("emil")));
        assert_eq!(ask(&chain, "otto"), Err(ReasonCode::Banned));
        assert_eq!(ask(&chain, "nobody"), Err(ReasonCode::NotAuthorized));
        let empty = Authentication::new(Vec::new());
        assert_eq!(ask(&empty, "anna"), Err(ReasonCode::NotAuthorized));
    }
}
