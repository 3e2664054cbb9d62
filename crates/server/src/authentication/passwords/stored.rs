//! A password as it is kept: three forms that mosquitto knows, two of other programs, and how each is verified.
//!
//! Owns: [`StoredPassword`], its text form, what a new one costs. Does not own: whose it is, when it is
//! verified (see `super`). Start reading at [`StoredPassword`]. Invariant: neither a password nor its hash
//! prints; how long a verification takes says nothing of how much of it was right.

use std::fmt;
use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{constant_time, digest, pbkdf2, rand};
use data_encoding::{BASE64, BASE64_NOPAD};

/// A password that can be verified, but not read. In a file it is its text form.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StoredPassword {
    form: Form,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `$6$`: SHA-512 of password and salt.
    Sha512,
    /// PBKDF2, in one of three notations.
    Pbkdf2 {
        notation: Notation,
        iterations: NonZeroU32,
    },
    /// `$argon2id$`.
    Argon2id {
        memory_kib: u32,
        passes: u32,
        lanes: u32,
    },
}

/// How PBKDF2 is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notation {
    /// `$7$`: with HMAC-SHA-512, of mosquitto.
    Mosquitto,
    /// `PBKDF2$sha512$`, of mosquitto-go-auth.
    GoAuthSha512,
    /// `PBKDF2$sha256$`, of the same.
    GoAuthSha256,
    /// `pbkdf2_sha256$`, of Django, whose salt is a text.
    Django,
}

/// Why a text is no stored password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredPasswordError {
    /// It begins with none of the known marks.
    #[error(
        "a hash begins with $6$, $7$, $argon2id$, PBKDF2$ or pbkdf2_sha256$; this may be a password in the clear"
    )]
    UnknownForm,
    /// Parts are missing, too many, or no base64.
    #[error("the hash is damaged")]
    Damaged,
    /// It would take too long, or too much memory, to verify it.
    #[error("the hash asks for too much work or memory")]
    TooCostly,
}

impl StoredPassword {
    /// A new one of `password`, as argon2id with a salt of its own. Takes tens of milliseconds.
    /// # Errors
    /// The system has no randomness for us, or no memory.
    pub fn new(password: &[u8]) -> Result<Self, String> {
        let mut salt = vec![0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| "the system has no randomness".to_owned())?;
        let mut stored = Self {
            form: NEW,
            salt,
            digest: vec![0; DIGEST_BYTES],
        };
        let mut digest = vec![0; DIGEST_BYTES];
        if !stored.derive(password, &mut digest) {
            return Err("a password cannot be hashed".to_owned());
        }
        stored.digest = digest;
        Ok(stored)
    }

    /// One that no password fits, and that takes as long to verify as a new one.
    #[must_use]
    pub(crate) fn dummy() -> Self {
        Self {
            form: NEW,
            salt: vec![0; SALT_BYTES],
            digest: vec![0; DIGEST_BYTES],
        }
    }

    /// Whether it is as costly to guess as a new one.
    pub(super) fn is_as_good_as_new(&self) -> bool {
        let cost = |form| match form {
            Form::Argon2id {
                memory_kib, passes, ..
            } => u64::from(memory_kib) * u64::from(passes),
            Form::Sha512 | Form::Pbkdf2 { .. } => 0,
        };
        cost(self.form) >= cost(NEW)
    }

    /// Reads the text form, as in mosquitto's password file or PHC.
    /// # Errors
    /// It is none, or one that would be too costly to verify.
    pub fn parse(text: &str) -> Result<Self, StoredPasswordError> {
        let mut parts = text.strip_prefix('$').unwrap_or(text).split('$');
        let form = parts.next().unwrap_or_default();
        let parts: Vec<&str> = parts.collect();
        // Marks of mosquitto's stand between two signs, those of others begin the text.
        match (form, parts.as_slice()) {
            ("PBKDF2", ["sha512", iterations, salt, digest]) if !text.starts_with('$') => {
                Self::pbkdf2(Notation::GoAuthSha512, iterations, padded(salt), digest)
            }
            ("PBKDF2", ["sha256", iterations, salt, digest]) if !text.starts_with('$') => {
                Self::pbkdf2(Notation::GoAuthSha256, iterations, padded(salt), digest)
            }
            ("pbkdf2_sha256", [iterations, salt, digest]) if !text.starts_with('$') => {
                let salt = Some(salt.as_bytes().to_vec());
                Self::pbkdf2(Notation::Django, iterations, salt, digest)
            }
            ("PBKDF2" | "pbkdf2_sha256", _) => Err(StoredPasswordError::Damaged),
            _ if !text.starts_with('$') => Err(StoredPasswordError::UnknownForm),
            ("6", [salt, digest]) => Self::with(Form::Sha512, padded(salt), padded(digest)),
            ("7", [iterations, salt, digest]) => {
                Self::pbkdf2(Notation::Mosquitto, iterations, padded(salt), digest)
            }
            ("argon2id", ["v=19", costs, salt, digest]) => {
                Self::with(argon2id(costs)?, unpadded(salt), unpadded(digest))
            }
            ("6" | "7" | "argon2id", _) => Err(StoredPasswordError::Damaged),
            _ => Err(StoredPasswordError::UnknownForm),
        }
    }

    fn pbkdf2(
        notation: Notation,
        iterations: &str,
        salt: Option<Vec<u8>>,
        digest: &str,
    ) -> Result<Self, StoredPasswordError> {
        let iterations = number(iterations)?;
        let iterations = NonZeroU32::new(iterations).ok_or(StoredPasswordError::Damaged)?;
        if iterations.get() > ITERATIONS_MAX {
            return Err(StoredPasswordError::TooCostly);
        }
        let form = Form::Pbkdf2 {
            notation,
            iterations,
        };
        Self::with(form, salt, padded(digest))
    }

    fn with(
        form: Form,
        salt: Option<Vec<u8>>,
        digest: Option<Vec<u8>>,
    ) -> Result<Self, StoredPasswordError> {
        let (Some(salt), Some(digest)) = (salt, digest) else {
            return Err(StoredPasswordError::Damaged);
        };
        let (least, most) = match form {
            Form::Sha512 => (SHA512_BYTES, SHA512_BYTES),
            Form::Pbkdf2 { notation, .. } => notation.digest_bytes(),
            Form::Argon2id { .. } => (16, SHA512_BYTES),
        };
        // A short digest would let other passwords in, too.
        let has_sizes = (least..=most).contains(&digest.len()) && (8..=64).contains(&salt.len());
        if !has_sizes {
            return Err(StoredPasswordError::Damaged);
        }
        Ok(Self { form, salt, digest })
    }

    /// The text form, to be kept as secret as the password.
    #[must_use]
    pub fn expose(&self) -> String {
        let unpadded = |bytes: &[u8]| BASE64_NOPAD.encode(bytes);
        let padded = |bytes: &[u8]| BASE64.encode(bytes);
        let (salt, digest) = (&self.salt, &self.digest);
        match self.form {
            Form::Sha512 => format!("$6${}${}", padded(salt), padded(digest)),
            Form::Pbkdf2 {
                notation,
                iterations,
            } => {
                let mark = notation.mark();
                let salt = match notation {
                    Notation::Django => String::from_utf8_lossy(salt).into_owned(),
                    _ => padded(salt),
                };
                format!("{mark}{iterations}${salt}${}", padded(digest))
            }
            Form::Argon2id {
                memory_kib,
                passes,
                lanes,
            } => format!(
                "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${}",
                unpadded(salt),
                unpadded(digest)
            ),
        }
    }

    /// Whether `password` is the one. Takes as long as the form wants: for the threads that verify.
    #[must_use]
    pub fn is(&self, password: &[u8]) -> bool {
        let mut digest = vec![0; self.digest.len()];
        let is_derived = self.derive(password, &mut digest);
        is_derived && constant_time::verify_slices_are_equal(&digest, &self.digest).is_ok()
    }

    /// Fills `digest`; whether it could.
    fn derive(&self, password: &[u8], digest: &mut [u8]) -> bool {
        match self.form {
            Form::Sha512 => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(&self.salt);
                digest.copy_from_slice(context.finish().as_ref());
                true
            }
            Form::Pbkdf2 {
                notation,
                iterations,
            } => {
                let algorithm = notation.algorithm();
                pbkdf2::derive(algorithm, iterations, &self.salt, password, digest);
                true
            }
            Form::Argon2id {
                memory_kib,
                passes,
                lanes,
            } => Params::new(memory_kib, passes, lanes, Some(digest.len())).is_ok_and(|params| {
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(password, &self.salt, digest)
                    .is_ok()
            }),
        }
    }
}

impl Notation {
    /// What stands before the number of iterations.
    const fn mark(self) -> &'static str {
        match self {
            Self::Mosquitto => "$7$",
            Self::GoAuthSha512 => "PBKDF2$sha512$",
            Self::GoAuthSha256 => "PBKDF2$sha256$",
            Self::Django => "pbkdf2_sha256$",
        }
    }

    fn algorithm(self) -> pbkdf2::Algorithm {
        match self {
            Self::Mosquitto | Self::GoAuthSha512 => pbkdf2::PBKDF2_HMAC_SHA512,
            Self::GoAuthSha256 | Self::Django => pbkdf2::PBKDF2_HMAC_SHA256,
        }
    }

    /// How long a digest is; mosquitto-go-auth can be told.
    const fn digest_bytes(self) -> (usize, usize) {
        match self {
            Self::Mosquitto => (SHA512_BYTES, SHA512_BYTES),
            Self::GoAuthSha512 | Self::GoAuthSha256 => (16, SHA512_BYTES),
            Self::Django => (32, 32),
        }
    }
}

impl From<StoredPassword> for String {
    fn from(stored: StoredPassword) -> Self {
        stored.expose()
    }
}

impl TryFrom<String> for StoredPassword {
    type Error = StoredPasswordError;

    fn try_from(text: String) -> Result<Self, StoredPasswordError> {
        Self::parse(&text)
    }
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredPassword({:?})", self.form)
    }
}

/// `m=19456,t=2,p=1`.
fn argon2id(costs: &str) -> Result<Form, StoredPasswordError> {
    let mut parts = costs.split(',');
    let mut cost = |name| {
        let part = parts.next().and_then(|part| part.strip_prefix(name));
        number(part.ok_or(StoredPasswordError::Damaged)?)
    };
    let (memory_kib, passes, lanes) = (cost("m=")?, cost("t=")?, cost("p=")?);
    if parts.next().is_some() || Params::new(memory_kib, passes, lanes, None).is_err() {
        return Err(StoredPasswordError::Damaged);
    }
    if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
        return Err(StoredPasswordError::TooCostly);
    }
    Ok(Form::Argon2id {
        memory_kib,
        passes,
        lanes,
    })
}

fn number(text: &str) -> Result<u32, StoredPasswordError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.ok_or(StoredPasswordError::Damaged)
}

fn padded(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).ok()
}

fn unpadded(text: &str) -> Option<Vec<u8>> {
    BASE64_NOPAD.decode(text.as_bytes()).ok()
}

/// What a new one costs: OWASP's smallest recommendation for argon2id.
const NEW: Form = Form::Argon2id {
    memory_kib: 19_456,
    passes: 2,
    lanes: 1,
};
const SALT_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;
const SHA512_BYTES: usize = 64;
/// A file that asks for more was not made to be verified with each login.
const ITERATIONS_MAX: u32 = 10_000_000;
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 100;
const LANES_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by mosquitto_passwd 2.0.11 (`-H sha512`, and its default) and by the argon2 program of Debian.
    const MADE_BY_OTHERS: [&str; 3] = [
        "$6$HKOeX+qQWTBForBy$PfJnGHkORi6tVwcMZYwsFLg3IUsLCg9MX6rgNYyc1xuQ04xGUwfSoEP0SYKuComivN8GUmMbM/sPvsuhhRhLAg==",
        "$7$101$ga50u/ymOANPKoXr$vx730TtoKGgWJOud1wY678BEmEn4PcaB/4/ctHSDwpFTwkHXKB+w46zLDr8htvV9ME+QCzZggGfnK6WC330fIg==",
        "$argon2id$v=19$m=8192,t=2,p=1$c29tZXNhbHQxNmJ5dGVzIQ$PW8VycJoqU+gGnp+b6ucL4xRrMFi2fQhszRFYmnX5jw",
    ];

    /// In the notations of mosquitto-go-auth and of Django, made by hashlib of Python.
    const MADE_BY_HASHLIB: [&str; 3] = [
        "PBKDF2$sha512$1000$AAECAwQFBgcICQoLDA0ODw==$Ls9u0ODU4tQ2b5GUZFaQQZVtKUQ4bTxGjeq9TGF5G/MmkLDtFxTENm7Wz7y7HEFey0VNgvDsRn0t8U0PJ7POOg==",
        "PBKDF2$sha256$1000$AAECAwQFBgcICQoLDA0ODw==$jWrit9qQ1Mwmc9D2kgJhqlIUFMJ6tAawGW6OpcHKJuk=",
        "pbkdf2_sha256$1000$Tn5aSaltOfDjango$3zySMgMRkoQpgD1pmOwXdW4e8Vq8He4zMkT7msDOwRE=",
    ];

    #[test]
    fn hashes_of_other_programs_are_verified() {
        for text in MADE_BY_OTHERS.into_iter().chain(MADE_BY_HASHLIB) {
            let stored = StoredPassword::parse(text).expect("is a hash");
            assert_eq!(stored.expose(), text);
            assert!(stored.is(b"secret word"), "{stored:?}");
            for wrong in [&b""[..], b"secret", b"secret word ", b"Secret word"] {
                assert!(!stored.is(wrong), "{stored:?}");
            }
        }
    }

    #[test]
    fn new_hash_verifies_its_password_has_a_salt_of_its_own_and_does_not_print() {
        let stored = StoredPassword::new(b"a word").expect("is hashed");
        assert!(stored.is(b"a word") && !stored.is(b"a ward"));
        let again = StoredPassword::parse(&stored.expose()).expect("is a hash");
        assert_eq!(again, stored);
        let other = StoredPassword::new(b"a word").expect("is hashed");
        assert_ne!(other.expose(), stored.expose());
        assert!(!StoredPassword::dummy().is(b""));
        let printed = format!("{stored:?}");
        let secret = stored.expose();
        let digest = secret.rsplit('$').next().expect("the last part");
        assert!(!printed.contains(digest), "{printed}");
    }

    #[test]
    fn damaged_and_costly_hashes_are_refused() {
        let [sha512, pbkdf2, argon2] = MADE_BY_OTHERS;
        let damaged = |text: &str| StoredPassword::parse(text).expect_err(text);
        for text in MADE_BY_OTHERS.into_iter().chain(MADE_BY_HASHLIB) {
            assert!(StoredPassword::parse(text).is_ok());
            for cut in ["$", "$x", "=", " "] {
                let text = format!("{text}{cut}");
                assert_eq!(damaged(&text), StoredPasswordError::Damaged, "{text}");
            }
            let half = &text[..text.len() / 2];
            assert_eq!(damaged(half), StoredPasswordError::Damaged, "{half}");
        }
        for text in [
            "",
            "secret",
            "$",
            "$1$abc$def",
            "6$",
            "7$101$a$b",
            "$argon2i$v=19$",
        ] {
            assert_eq!(damaged(text), StoredPasswordError::UnknownForm, "{text}");
        }
        let zero = pbkdf2.replace("$101$", "$0$");
        assert_eq!(damaged(&zero), StoredPasswordError::Damaged);
        let costly = pbkdf2.replace("$101$", "$4000000000$");
        assert_eq!(damaged(&costly), StoredPasswordError::TooCostly);
        let costly = argon2.replace("t=2", "t=4000000");
        assert_eq!(damaged(&costly), StoredPasswordError::TooCostly);
        let signed = argon2.replace("t=2", "t=+2");
        assert_eq!(damaged(&signed), StoredPasswordError::Damaged);
        let salt = sha512.split('$').nth(2).expect("a salt");
        let empty = sha512.replace(salt, "");
        assert_eq!(damaged(&empty), StoredPasswordError::Damaged);
    }
}
