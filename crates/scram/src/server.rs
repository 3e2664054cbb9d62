//! The side that has keys and does not know the password.
//!
//! Owns: [`ServerExchange`]. Does not own: whose keys they are, randomness. Start reading at [`ServerExchange::begin`].
//! Invariant: an exchange ends with its second message, whatever that says.

use std::fmt;

use crate::keys::{Keys, are_equal, mac, sha256, xor};
use crate::message::{
    ClientFinal, ClientFirst, Malformed, ServerFirst, signed, text, write_server_final,
};

/// A server that has answered the first message and waits for the last.
#[derive(Clone)]
pub struct ServerExchange {
    client_first: ClientFirst,
    server_first: String,
    nonce: String,
    keys: Keys,
}

/// Why a client is not who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongProof {
    /// Its message cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It has confirmed something else than was said before.
    #[error("the SCRAM message belongs to another exchange")]
    OtherExchange,
    /// It does not know the password.
    #[error("unknown user, or wrong password")]
    Password,
}

impl ServerExchange {
    /// Answers `client_first` by the `keys` of its user; `nonce` was never used before. Costs no hash.
    #[must_use]
    pub fn begin(client_first: ClientFirst, keys: Keys, nonce: &str) -> (Self, Vec<u8>) {
        let nonce = format!("{}{nonce}", client_first.nonce);
        let server_first = ServerFirst {
            nonce: &nonce,
            salt: keys.salt.clone(),
            iterations: keys.iterations,
        }
        .write();
        let said = server_first.clone().into_bytes();
        let exchange = Self {
            client_first,
            server_first,
            nonce,
            keys,
        };
        (exchange, said)
    }

    /// Judges the last message of the client; returns what proves to it that this is its server. Costs three hashes of
    /// what was said, whoever it is.
    /// # Errors
    /// The client is not who it says.
    pub fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, WrongProof> {
        let said = ClientFinal::parse(text(client_final)?)?;
        let is_the_same =
            said.nonce == self.nonce && said.gs2_header == self.client_first.gs2_header.as_bytes();
        if !is_the_same {
            return Err(WrongProof::OtherExchange);
        }
        let signed = signed(&self.client_first, &self.server_first, said.without_proof);
        let client_key = xor(&mac(&self.keys.stored_key, &signed), &said.proof);
        let signature = mac(&self.keys.server_key, &signed);
        if !are_equal(&sha256(&client_key), &self.keys.stored_key) {
            return Err(WrongProof::Password);
        }
        Ok(write_server_final(&signature))
    }

    /// Who the client says it is.
    #[must_use]
    pub fn user(&self) -> &str {
        self.client_first.user()
    }

    /// By which keys it is judged.
    #[must_use]
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }
}

impl fmt::Debug for ServerExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerExchange")
    }
}
