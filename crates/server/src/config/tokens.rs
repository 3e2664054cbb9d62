//! `[authentication.tokens]`: which JSON Web Tokens let a Client in.
//!
//! Owns: [`TokenConfig`], its defaults, which values fit. Does not own: the keys, which are read when a
//! policy is made (see `crate::authentication`). Start reading at [`TokenConfig`].
//! Invariant: there is one place for keys, and at least one algorithm.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use toml::Spanned;

use super::checked::Fault;
use super::raw::{RawDuration, RawTokens};

/// Which JSON Web Tokens let a Client in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// Where the keys are.
    pub keys: TokenKeys,
    /// The algorithms a token may be signed with, all of one family; whatever else a key would allow.
    pub algorithms: Vec<Algorithm>,
    /// What `iss` has to be. Default: anything.
    pub issuer: Option<String>,
    /// What `aud` has to be, or to hold. Default: a token that is meant for somebody is refused.
    pub audience: Option<String>,
    /// The claim that is the user's name. Default: `sub`.
    pub user_claim: String,
    /// The claim that is a list of groups, or one. Default: `groups`.
    pub groups_claim: String,
    /// Claims that become attributes of the user, for rules to ask. Default: none.
    pub attributes: Vec<String>,
    /// The claim that says what the user may do, see [`crate::authorization::OwnRules`]; a token without it then allows
    /// nothing by itself. Default: tokens say nothing of it.
    pub rights_claim: Option<String>,
    /// How far the clock of who signs may be away. Default: 0.
    pub leeway: Duration,
}

/// Where the keys of tokens are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKeys {
    /// One key: PEM, or a secret of 32 bytes at least for the HS algorithms.
    Key(PathBuf),
    /// A JSON Web Key Set.
    Jwks(PathBuf),
}

pub(super) fn check(raw: Spanned<RawTokens>) -> Result<TokenConfig, Fault> {
    let span = raw.span();
    let fault = |message: &str| Fault {
        span: Some(span.clone()),
        message: message.to_owned(),
    };
    let raw = raw.into_inner();
    let keys = match (raw.key, raw.jwks) {
        (Some(path), None) if !path.is_empty() => TokenKeys::Key(path.into()),
        (None, Some(path)) if !path.is_empty() => TokenKeys::Jwks(path.into()),
        _ => return Err(fault("tokens need a key or a jwks: a file, one of the two")),
    };
    let algorithms_span = raw.algorithms.span();
    let algorithms = raw.algorithms.into_inner();
    let wrong = |message: &str| Fault {
        span: Some(algorithms_span.clone()),
        message: message.to_owned(),
    };
    let parsed: Result<Vec<Algorithm>, _> = algorithms.iter().map(|name| name.parse()).collect();
    let algorithms = parsed.map_err(|_| {
        wrong("algorithms are of HS256, HS384, HS512, ES256, ES384, RS256, RS384, RS512, PS256, PS384, PS512, EdDSA")
    })?;
    let Some(first) = algorithms.first() else {
        return Err(wrong("algorithms must name one at least"));
    };
    // A key that verifies signatures must never be taken for a secret.
    if algorithms.iter().any(|one| one.family() != first.family()) {
        return Err(wrong(
            "algorithms must be of one family: HS, ES, RS with PS, or EdDSA",
        ));
    }
    let rights_claim = match raw.rights_claim {
        Some(claim) if claim.get_ref().is_empty() => {
            return Err(Fault {
                span: Some(claim.span()),
                message: "rights_claim must name a claim, or be left out".to_owned(),
            });
        }
        claim => claim.map(Spanned::into_inner),
    };
    let RawDuration(leeway) = raw.leeway.unwrap_or(RawDuration(Duration::ZERO));
    Ok(TokenConfig {
        keys,
        algorithms,
        issuer: raw.issuer,
        audience: raw.audience,
        user_claim: raw.user_claim.unwrap_or_else(|| "sub".to_owned()),
        groups_claim: raw.groups_claim.unwrap_or_else(|| "groups".to_owned()),
        attributes: raw.attributes,
        rights_claim,
        leeway,
    })
}
