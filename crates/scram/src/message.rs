//! The four messages, as RFC 5802, section 7, writes them.
//!
//! Owns: how they are taken apart and put together. Does not own: whether what they say is true (see `server`,
//! `client`). Start reading at [`ClientFirst::parse`]. Invariants: no input panics; what was said is kept as it was
//! said, for both sides sign these very bytes.

use data_encoding::BASE64;

use crate::keys::{Digest, Iterations, parse_iterations};

/// A message that is none, or one of those that are not understood here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is longer than anybody has to say.
    #[error("the SCRAM message is too long")]
    TooLong,
    /// It does not follow the grammar.
    #[error("the SCRAM message is malformed")]
    Grammar,
    /// It wants channel binding.
    #[error("channel binding is not supported")]
    ChannelBinding,
    /// It needs an extension to be understood.
    #[error("the SCRAM message needs an extension that is not known")]
    Extension,
    /// It wants to act for somebody else.
    #[error("nobody logs in for another user")]
    OtherUser,
    /// It asks for too few iterations, or too many.
    #[error("the number of iterations is out of bounds")]
    Iterations,
}

/// The first message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFirst {
    /// What goes before it, and is confirmed in the last message.
    pub(crate) gs2_header: String,
    /// The rest, as it was said.
    pub(crate) bare: String,
    pub(crate) nonce: String,
    user: String,
}

impl ClientFirst {
    /// Reads `n,,n=user,r=nonce`.
    /// # Errors
    /// It is no such message, or asks for what is not done here.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let message = text(message)?;
        let mut parts = message.splitn(3, ',');
        let (Some(flag), Some(other), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed::Grammar);
        };
        match flag {
            // `y`: it could, and thinks that we cannot, which is so.
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(Malformed::ChannelBinding),
            _ => return Err(Malformed::Grammar),
        }
        let mut attributes = bare.split(',');
        let user = match attributes.next() {
            Some(first) if first.starts_with("m=") => return Err(Malformed::Extension),
            first => value(first, "n=")?,
        };
        let user = unescaped(user)?;
        let nonce = nonce(value(attributes.next(), "r=")?)?.to_owned();
        if !other.is_empty() && unescaped(value(Some(other), "a=")?)? != user {
            return Err(Malformed::OtherUser);
        }
        Ok(Self {
            gs2_header: format!("{flag},{other},"),
            bare: bare.to_owned(),
            nonce,
            user,
        })
    }

    pub(crate) fn new(user: &str, nonce: &str) -> Self {
        Self {
            gs2_header: "n,,".to_owned(),
            bare: format!("n={},r={nonce}", escaped(user)),
            nonce: nonce.to_owned(),
            user: user.to_owned(),
        }
    }

    /// Who it says it is.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// The answer of a server: `r=nonce,s=salt,i=iterations`.
pub(crate) struct ServerFirst<'a> {
    pub(crate) nonce: &'a str,
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: Iterations,
}

impl<'a> ServerFirst<'a> {
    pub(crate) fn parse(message: &'a str) -> Result<Self, Malformed> {
        let mut attributes = message.split(',');
        let nonce = match attributes.next() {
            Some(first) if first.starts_with("m=") => return Err(Malformed::Extension),
            first => nonce(value(first, "r=")?)?,
        };
        let salt = base64(value(attributes.next(), "s=")?)?;
        let iterations = value(attributes.next(), "i=")?;
        let iterations = parse_iterations(iterations).ok_or(Malformed::Iterations)?;
        Ok(Self {
            nonce,
            salt,
            iterations,
        })
    }

    pub(crate) fn write(&self) -> String {
        let salt = BASE64.encode(&self.salt);
        format!("r={},s={salt},i={}", self.nonce, self.iterations)
    }
}

/// The last message of a client: `c=header,r=nonce,p=proof`.
pub(crate) struct ClientFinal<'a> {
    /// All of it but the proof, as it was said.
    pub(crate) without_proof: &'a str,
    pub(crate) gs2_header: Vec<u8>,
    pub(crate) nonce: &'a str,
    pub(crate) proof: Digest,
}

impl<'a> ClientFinal<'a> {
    pub(crate) fn parse(message: &'a str) -> Result<Self, Malformed> {
        let (without_proof, proof) = message.rsplit_once(',').ok_or(Malformed::Grammar)?;
        let mut attributes = without_proof.split(',');
        let gs2_header = base64(value(attributes.next(), "c=")?)?;
        let nonce = nonce(value(attributes.next(), "r=")?)?;
        let proof = digest(value(Some(proof), "p=")?)?;
        Ok(Self {
            without_proof,
            gs2_header,
            nonce,
            proof,
        })
    }

    pub(crate) fn without_proof(gs2_header: &str, nonce: &str) -> String {
        format!("c={},r={nonce}", BASE64.encode(gs2_header.as_bytes()))
    }

    pub(crate) fn write(without_proof: &str, proof: &Digest) -> Vec<u8> {
        format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes()
    }
}

/// The signature in the last message of a server: `v=signature`. One that says `e=` has none.
pub(crate) fn server_signature(message: &str) -> Result<Digest, Malformed> {
    digest(value(message.split(',').next(), "v=")?)
}

pub(crate) fn write_server_final(signature: &Digest) -> Vec<u8> {
    format!("v={}", BASE64.encode(signature)).into_bytes()
}

/// What both sides sign.
pub(crate) fn signed(
    client_first: &ClientFirst,
    server_first: &str,
    without_proof: &str,
) -> String {
    format!("{},{server_first},{without_proof}", client_first.bare)
}

/// UTF-8 of a bounded length without U+0000.
pub(crate) fn text(message: &[u8]) -> Result<&str, Malformed> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let text = std::str::from_utf8(message).map_err(|_| Malformed::Grammar)?;
    if text.contains('\0') {
        return Err(Malformed::Grammar);
    }
    Ok(text)
}

fn value<'a>(attribute: Option<&'a str>, name: &str) -> Result<&'a str, Malformed> {
    let value = attribute.and_then(|attribute| attribute.strip_prefix(name));
    value
        .filter(|value| !value.is_empty())
        .ok_or(Malformed::Grammar)
}

/// Printable characters of ASCII; a comma ends it anyway.
fn nonce(text: &str) -> Result<&str, Malformed> {
    let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_printable {
        Ok(text)
    } else {
        Err(Malformed::Grammar)
    }
}

fn base64(text: &str) -> Result<Vec<u8>, Malformed> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|_| Malformed::Grammar)
}

fn digest(text: &str) -> Result<Digest, Malformed> {
    base64(text)?.try_into().map_err(|_| Malformed::Grammar)
}

fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn unescaped(text: &str) -> Result<String, Malformed> {
    let mut parts = text.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(Malformed::Grammar),
        };
        name.push(sign);
        name.push_str(rest);
    }
    Ok(name)
}

/// A user name has its place in it, and what is kept between two messages is bounded.
const MESSAGE_BYTES_MAX: usize = 4096;
