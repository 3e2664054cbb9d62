//! SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides: messages in, messages out.
//!
//! Owns: the messages, the keys a server keeps, what each side verifies. Does not own: packets that carry the messages,
//! where keys are kept, who a user is (see `server::authentication` and `client`). Start reading at [`ServerExchange`],
//! then [`ClientExchange`]. Invariants: no input panics; nothing secret prints; what is compared with a key is compared
//! in constant time. Channel binding is not offered, and one that is asked for is refused.

mod client;
mod keys;
mod message;
mod server;

pub use client::{ClientExchange, FalseServer};
pub use keys::{Iterations, Keys, KeysError, PasswordError};
pub use message::{ClientFirst, Malformed};
pub use server::{ServerExchange, WrongProof};

/// The name of the mechanism, and of the Authentication Method.
pub const METHOD: &str = "SCRAM-SHA-256";

/// Something that has never been said before: 24 printable characters, 144 bits.
/// # Errors
/// The system has no randomness.
pub fn nonce() -> Result<String, NoRandomness> {
    let mut bytes = [0; 18];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(data_encoding::BASE64.encode(&bytes))
}

/// The system has no randomness for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no randomness")]
pub struct NoRandomness;

#[cfg(test)]
mod tests;
