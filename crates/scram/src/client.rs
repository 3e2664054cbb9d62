//! The side that knows the password.
//!
//! Owns: [`ClientExchange`]. Does not own: randomness, the packets around it. Start reading at
//! [`ClientExchange::begin`]. Invariant: nobody is taken for the server who has not shown that it has the keys.

use std::fmt;

use crate::keys::{Digest, PasswordError, Salted, are_equal, mac, sha256, xor};
use crate::message::{
    ClientFinal, ClientFirst, Malformed, ServerFirst, server_signature, signed, text,
};

/// A client in the middle of an exchange.
pub struct ClientExchange {
    pub(crate) client_first: ClientFirst,
    password: String,
    /// What the server has to show in the end; `None` until it has said its first message.
    expected: Option<Digest>,
}

/// Why this server is not to be trusted, or cannot be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FalseServer {
    /// Its message cannot be read.
    #[error("the server: {0}")]
    Malformed(#[from] Malformed),
    /// It answers somebody else.
    #[error("the server answers another exchange")]
    OtherExchange,
    /// It does not know what a server of this user knows.
    #[error("the server has not proven that it knows the user")]
    Signature,
    /// It has nothing to prove yet, or no more.
    #[error("the server speaks out of turn")]
    OutOfTurn,
    /// The password is none for SCRAM.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

impl ClientExchange {
    /// Begins to log `user` in; `nonce` was never used before. Returns the first message.
    #[must_use]
    pub fn begin(user: &str, password: &str, nonce: &str) -> (Self, Vec<u8>) {
        let client_first = ClientFirst::new(user, nonce);
        let said = format!("{}{}", client_first.gs2_header, client_first.bare);
        let exchange = Self {
            client_first,
            password: password.to_owned(),
            expected: None,
        };
        (exchange, said.into_bytes())
    }

    /// Answers the first message of the server. Takes as long as the iterations that it asks for, milliseconds to
    /// seconds.
    /// # Errors
    /// The server asks for too little or too much, or answers somebody else.
    pub fn on_server_first(&mut self, message: &[u8]) -> Result<Vec<u8>, FalseServer> {
        if self.expected.is_some() {
            return Err(FalseServer::OutOfTurn);
        }
        let server_first = text(message)?;
        let said = ServerFirst::parse(server_first)?;
        let own = &self.client_first.nonce;
        if !said.nonce.starts_with(own.as_str()) || said.nonce.len() <= own.len() {
            return Err(FalseServer::OtherExchange);
        }
        let salted = Salted::derive(&self.password, &said.salt, said.iterations)?;
        let without_proof = ClientFinal::without_proof(&self.client_first.gs2_header, said.nonce);
        let signed = signed(&self.client_first, server_first, &without_proof);
        let client_key = salted.client_key();
        let proof = xor(&client_key, &mac(&sha256(&client_key), &signed));
        self.expected = Some(mac(&salted.server_key(), &signed));
        Ok(ClientFinal::write(&without_proof, &proof))
    }

    /// Judges the last message of the server.
    /// # Errors
    /// It does not know what a server of this user knows.
    pub fn on_server_final(self, message: &[u8]) -> Result<(), FalseServer> {
        let expected = self.expected.ok_or(FalseServer::OutOfTurn)?;
        if are_equal(&server_signature(text(message)?)?, &expected) {
            Ok(())
        } else {
            Err(FalseServer::Signature)
        }
    }
}

impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientExchange")
    }
}
