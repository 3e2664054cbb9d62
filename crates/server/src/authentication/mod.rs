//! Who a Client is: the question every CONNECT and AUTH is put to before the engine hears of it.
//!
//! Owns: [`Authenticator`] and what goes in and out of it, [`Authentication`] which finds the one to
//! ask. Does not own: the frame of the exchange (see `proto::connection`), what a Client may do with its
//! permissions (see `engine`). Start reading at [`Authentication::authenticate`].
//! Invariant: without an authenticator that allows it, nobody gets in.

mod anonymous;
mod challenge;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use engine::Permissions;
use proto::packet::ReasonCode;
use proto::{Secret, Version};

pub use anonymous::{Anonymous, AnonymousPolicy};
pub use challenge::Challenge;

/// Decides on Clients of one Authentication Method, or on those that name none.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// The Authentication Method it answers for; `None` for a CONNECT without one.
    fn method(&self) -> Option<&str>;

    /// Decides on a CONNECT, an AUTH that goes on with it, or a re-authentication. It is called on the
    /// shard's thread and must not wait. `exchange` is kept from one step to the next.
    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Decision;
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
    pub peer: SocketAddr,
    /// What it speaks.
    pub version: Version,
}

/// What an authenticator remembers between the steps of one exchange.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// How often the Client was asked to go on.
    pub step: u32,
    /// The authenticator's own notes.
    pub notes: Vec<u8>,
}

/// What an authenticator has decided.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The Client is who it says.
    Allow {
        /// What it may do.
        permissions: Arc<Permissions>,
        /// Authentication Data to end the exchange with.
        data: Option<Secret>,
    },
    /// The Client is to answer this Authentication Data, Reason Code 0x18.
    Continue(Option<Secret>),
    /// The Client is refused, with the Reason Code and Reason String it is told.
    Deny(ReasonCode, String),
}

/// All authenticators of a Server.
#[derive(Clone, Debug)]
pub struct Authentication {
    authenticators: Vec<Arc<dyn Authenticator>>,
}

impl Authentication {
    /// Asks `authenticators`; of several for one method the first is asked.
    #[must_use]
    pub fn new(authenticators: Vec<Arc<dyn Authenticator>>) -> Self {
        Self { authenticators }
    }

    /// Puts `attempt` to the authenticator of `method`.
    pub fn authenticate(
        &self,
        method: Option<&str>,
        attempt: &Attempt<'_>,
        exchange: &mut Exchange,
    ) -> Decision {
        let authenticator = self
            .authenticators
            .iter()
            .find(|one| one.method() == method);
        match (authenticator, method) {
            (Some(authenticator), _) => authenticator.authenticate(attempt, exchange),
            // [MQTT-4.12.0-1]
            (None, Some(_)) => Decision::Deny(
                ReasonCode::BadAuthenticationMethod,
                "this Authentication Method is not supported".to_owned(),
            ),
            (None, None) => Decision::Deny(
                ReasonCode::NotAuthorized,
                "this Server requires an Authentication Method".to_owned(),
            ),
        }
    }
}
