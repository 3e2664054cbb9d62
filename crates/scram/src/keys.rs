//! What a server keeps of a password, and how both sides come to it.
//!
//! Owns: [`Keys`], their text form, [`Iterations`], how a password is prepared. Does not own: what is proven with them
//! (see `server`, `client`). Start reading at [`Keys::derive`].
//! Invariant: neither a password nor a key prints.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use data_encoding::BASE64;

use crate::METHOD;

/// How often a password is hashed for its keys: the work of a login is the client's, and this is what a guess costs
/// whoever has stolen the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iterations(NonZeroU32);

impl Iterations {
    /// RFC 7677, section 4: at least so many.
    pub const MIN: u32 = 4096;
    /// More than anybody waits for; a server that asks for more wants to keep its clients busy.
    pub const MAX: u32 = 10_000_000;
    /// Twice what RFC 7677 began with, and four times; 5 ms on a computer, a second on a small device.
    pub const DEFAULT: Self = Self(NonZeroU32::new(16_384).expect("invariant: not zero"));

    /// `None` outside of [`Self::MIN`] and [`Self::MAX`].
    #[must_use]
    pub fn new(count: u32) -> Option<Self> {
        let is_fit = (Self::MIN..=Self::MAX).contains(&count);
        NonZeroU32::new(count).filter(|_| is_fit).map(Self)
    }
}

impl fmt::Display for Iterations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a server keeps: enough to verify a client and to prove itself, and not enough to log in with.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub(crate) iterations: Iterations,
    pub(crate) salt: Vec<u8>,
    pub(crate) stored_key: Digest,
    pub(crate) server_key: Digest,
}

/// An output of SHA-256.
pub(crate) type Digest = [u8; 32];

/// A password that SCRAM cannot be done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// RFC 4013 forbids a character in it.
    #[error("the password has a character that SASLprep (RFC 4013) forbids")]
    Forbidden,
    /// There is nothing left of it.
    #[error("the password is empty")]
    Empty,
}

/// A text that is no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "wanted keys like SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER, with 4096 iterations at least"
)]
pub struct KeysError;

impl Keys {
    /// Those of `password`. Takes milliseconds to seconds, by `iterations`.
    /// # Errors
    /// SCRAM cannot be done with this password.
    pub fn derive(
        password: &str,
        salt: &[u8],
        iterations: Iterations,
    ) -> Result<Self, PasswordError> {
        let salted = Salted::derive(password, salt, iterations)?;
        Ok(Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: sha256(&salted.client_key()),
            server_key: salted.server_key(),
        })
    }

    /// Those of nobody, which look like any; nobody knows a proof that fits, as `stored_key` is the hash of nothing.
    #[must_use]
    pub fn of_nobody(salt: &[u8], iterations: Iterations, stored_key: [u8; 32]) -> Self {
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key,
            server_key: stored_key,
        }
    }

    /// How often the password was hashed.
    #[must_use]
    pub const fn iterations(&self) -> Iterations {
        self.iterations
    }

    /// The text form, which PostgreSQL has, too. To be kept as secret as a hash of the password.
    #[must_use]
    pub fn expose(&self) -> String {
        let text = |bytes: &[u8]| BASE64.encode(bytes);
        let (iterations, salt) = (self.iterations, text(&self.salt));
        let (stored, server) = (text(&self.stored_key), text(&self.server_key));
        format!("{METHOD}${iterations}:{salt}${stored}:{server}")
    }

    /// Reads the text form.
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        Self::try_parse(text).ok_or(KeysError)
    }

    fn try_parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(METHOD)?.strip_prefix('$')?;
        let (head, keys) = text.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let bytes = |text: &str| BASE64.decode(text.as_bytes()).ok();
        Some(Self {
            iterations: parse_iterations(iterations)?,
            salt: bytes(salt).filter(|salt| (8..=64).contains(&salt.len()))?,
            stored_key: bytes(stored)?.try_into().ok()?,
            server_key: bytes(server)?.try_into().ok()?,
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} iterations)", self.iterations)
    }
}

/// Digits, and no more.
pub(crate) fn parse_iterations(text: &str) -> Option<Iterations> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| is_number)
        .and_then(Iterations::new)
}

/// A password, hashed.
pub(crate) struct Salted(hmac::Key);

impl Salted {
    pub(crate) fn derive(
        password: &str,
        salt: &[u8],
        iterations: Iterations,
    ) -> Result<Self, PasswordError> {
        let password = stringprep::saslprep(password).map_err(|_| PasswordError::Forbidden)?;
        if password.is_empty() {
            return Err(PasswordError::Empty);
        }
        let mut salted = Digest::default();
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(
            algorithm,
            iterations.0,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &salted)))
    }

    pub(crate) fn client_key(&self) -> Digest {
        digest_of(hmac::sign(&self.0, b"Client Key").as_ref())
    }

    pub(crate) fn server_key(&self) -> Digest {
        digest_of(hmac::sign(&self.0, b"Server Key").as_ref())
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    digest_of(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// HMAC(`key`, `text`).
pub(crate) fn mac(key: &Digest, text: &str) -> Digest {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    digest_of(hmac::sign(&key, text.as_bytes()).as_ref())
}

pub(crate) fn xor(one: &Digest, other: &Digest) -> Digest {
    let mut both = *one;
    for (byte, other) in both.iter_mut().zip(other) {
        *byte ^= other;
    }
    both
}

pub(crate) fn are_equal(one: &Digest, other: &Digest) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

fn digest_of(bytes: &[u8]) -> Digest {
    bytes.try_into().expect("invariant: SHA-256 makes 32 bytes")
}
