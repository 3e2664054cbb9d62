//! `[authentication.tokens]`: which JSON Web Tokens let a Client in.
//!
//! Owns: [`TokenConfig`], its defaults, which values fit. Does not own: the keys, which are read when a
//! policy is made (see `crate::authentication`). Start reading at [`TokenConfig`].
//! Invariant: there is one place for keys, and at least one algorithm.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use toml::Spanned;

use super::asking::{self, RawAsks, between};
use super::checked::Fault;
use super::http::{HttpConfig, check_url};
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
    /// The same, fetched from where it is published.
    Fetched(Box<FetchConfig>),
}

/// How a JSON Web Key Set is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchConfig {
    /// From where, and how.
    pub http: HttpConfig,
    /// How often. Default: every 10 minutes.
    pub refresh: Duration,
    /// How often at most, where a token names a key that is not there. Default: every 10 s.
    pub refresh_min: Duration,
    /// For so long the last keys count while none can be fetched. Default: 1 day.
    pub stale_max: Duration,
}

pub(super) fn check(raw: Spanned<RawTokens>) -> Result<TokenConfig, Fault> {
    let span = raw.span();
    let fault = |message: &str| Fault {
        span: Some(span.clone()),
        message: message.to_owned(),
    };
    let raw = raw.into_inner();
    let keys = check_keys(&raw).map_err(|found| match found {
        Ok(found) => found,
        Err(message) => fault(message),
    })?;
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
    if matches!(keys, TokenKeys::Fetched(_)) && first.family() == AlgorithmFamily::Hmac {
        return Err(wrong(
            "what is published is no secret: HS algorithms need a file",
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

/// Where keys are, if that is said once; what is wrong, in its place or in the whole.
fn check_keys(raw: &RawTokens) -> Result<TokenKeys, Result<Fault, &'static str>> {
    let url = raw
        .jwks
        .as_ref()
        .filter(|jwks| jwks.get_ref().contains("://"));
    let fetched = url
        .map(|url| check_fetch(url, raw))
        .transpose()
        .map_err(Ok)?;
    if fetched.is_none() && raw.says_how_to_fetch() {
        return Err(Err(
            "ca, insecure, timeout, refresh, refresh_min and stale_max are for a jwks that is a URL",
        ));
    }
    let jwks = raw.jwks.as_ref().map(Spanned::get_ref);
    match (&raw.key, jwks, fetched) {
        (None, Some(_), Some(fetched)) => Ok(TokenKeys::Fetched(Box::new(fetched))),
        (Some(path), None, None) if !path.is_empty() => Ok(TokenKeys::Key(path.into())),
        (None, Some(path), None) if !path.is_empty() => Ok(TokenKeys::Jwks(path.into())),
        _ => Err(Err(
            "tokens need a key or a jwks: a file, one of the two; or a URL as jwks",
        )),
    }
}

impl RawTokens {
    const fn says_how_to_fetch(&self) -> bool {
        self.ca.is_some()
            || self.insecure
            || self.timeout.is_some()
            || self.refresh.is_some()
            || self.refresh_min.is_some()
            || self.stale_max.is_some()
    }
}

fn check_fetch(url: &Spanned<String>, raw: &RawTokens) -> Result<FetchConfig, Fault> {
    let asks = RawAsks {
        timeout: raw.timeout.clone(),
        ..RawAsks::default()
    };
    let mut config = FetchConfig {
        http: HttpConfig {
            url: check_url(url, raw.insecure)?,
            headers: Vec::new(),
            bearer_file: None,
            ca: raw.ca.clone(),
            certificate: None,
            insecure: raw.insecure,
            asks: asking::check(asks)?,
        },
        refresh: Duration::from_secs(600),
        refresh_min: Duration::from_secs(10),
        stale_max: Duration::from_secs(24 * 3600),
    };
    for (name, value, set) in [
        ("refresh", &raw.refresh, &mut config.refresh),
        ("refresh_min", &raw.refresh_min, &mut config.refresh_min),
        ("stale_max", &raw.stale_max, &mut config.stale_max),
    ] {
        if let Some(value) = value {
            *set = between(name, value, FETCH_MIN..=FETCH_MAX)?;
        }
    }
    Ok(config)
}

const FETCH_MIN: Duration = Duration::from_millis(100);
const FETCH_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
