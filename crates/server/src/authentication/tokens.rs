//! JSON Web Tokens: a signature says who a Client is, and until when.
//!
//! Owns: [`Tokens`], how keys are read and chosen. Does not own: signatures and claims of the standard (see the
//! crate `jsonwebtoken`), the end of a connection whose token has expired (see `shard`). Start reading at
//! [`Tokens::authenticate`]. Invariants: the algorithm is one that was configured, and never chosen by the
//! token; a token without an end lets nobody in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use proto::Secret;
use proto::packet::ReasonCode;
use serde_json::{Map, Value};

use super::fetched_keys::{FetchedKeys, KeySet, keys_of};
use super::passwords::is_user_name;
use super::{Attempt, AuthenticationError, Authenticator, Decision, Exchange, Identity, Work};
use crate::authorization::{OwnRules, OwnRulesError, Rules};
use crate::config::{TokenConfig, TokenKeys};
use crate::outbound::Outbound;

/// Lets Clients in by a token: in Password, or as Authentication Data.
#[derive(Debug)]
pub struct Tokens {
    method: Option<&'static str>,
    verifier: Arc<Verifier>,
}

/// What tokens are verified with.
struct Verifier {
    keys: Keys,
    validation: Validation,
    config: TokenConfig,
}

enum Keys {
    One(DecodingKey),
    Set(KeySet),
    Fetched(Arc<FetchedKeys>),
}

/// Why a token says nothing.
enum Unread {
    /// There are no keys at all.
    NoKeys,
    /// It is signed with a key that is not among them.
    UnknownKey,
    /// It is not good.
    Bad(ErrorKind),
}

impl From<jsonwebtoken::errors::Error> for Unread {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        Self::Bad(error.into_kind())
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

impl Tokens {
    /// The Authentication Method of a token as Authentication Data.
    pub const METHOD: &'static str = "JWT";

    /// Reads the keys that `config` names, or begins to fetch them, for which at most `waiting_max` logins
    /// wait; returns who asks for a token in Password, and who for one by AUTH.
    /// # Errors
    /// There is no key there that fits the algorithms.
    pub fn read(
        config: &TokenConfig,
        waiting_max: usize,
        outbound: &Outbound,
    ) -> Result<[Self; 2], AuthenticationError> {
        let verifier = Arc::new(Verifier {
            keys: read_keys(config, waiting_max, outbound)?,
            validation: validation(config),
            config: config.clone(),
        });
        Ok([None, Some(Self::METHOD)].map(|method| Self {
            method,
            verifier: Arc::clone(&verifier),
        }))
    }

    /// Whom `token` names. Takes as long as its signature, here and now; where its key may still be fetched, as long as
    /// that, too.
    /// # Errors
    /// It is not good, in words that hold nothing of it.
    /// # Panics
    /// It is called on a runtime of tokio, and has to wait.
    pub fn identity_of(&self, token: &[u8]) -> Result<Identity, String> {
        let (mut decision, missing) = self.verifier.decide(token, None);
        if let Some(keys) = missing {
            let rounds = keys.rounds();
            if keys.want() {
                keys.wait(rounds);
            }
            decision = self.verifier.decide(token, None).0;
        }
        match decision {
            Decision::Allow { identity, .. } => Ok(identity),
            Decision::Deny(_, why) => Err(why),
            _ => Err("the token cannot be verified".to_owned()),
        }
    }
}

impl Authenticator for Tokens {
    fn method(&self) -> Option<&str> {
        self.method
    }

    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Option<Decision> {
        let is_by_method = self.method.is_some();
        let token = if is_by_method {
            attempt.data
        } else {
            // Passwords are others' to judge.
            attempt
                .password
                .filter(|password| is_token(password.expose()))
        };
        if token.is_none() && !is_by_method {
            return None;
        }
        let token = token.cloned().unwrap_or_else(|| Secret::new(Vec::new()));
        let user_name = attempt.user_name.map(str::to_owned);
        let verifier = Arc::clone(&self.verifier);
        // A Client that is served cannot wait; a signature costs less than a handshake.
        if exchange.is_again {
            let (decision, missing) = verifier.decide(token.expose(), user_name.as_deref());
            if let Some(keys) = missing {
                keys.want();
            }
            return Some(decision);
        }
        Some(Decision::Wait(Work::new(move || {
            Some(verifier.decide_patiently(token, user_name))
        })))
    }
}

impl Verifier {
    /// The same, and where a key is missing that may be there soon, once it was looked for.
    fn decide_patiently(self: Arc<Self>, token: Secret, user_name: Option<String>) -> Decision {
        let (decision, missing) = self.decide(token.expose(), user_name.as_deref());
        let Some(keys) = missing else {
            return decision;
        };
        // Before it is asked for, so that its end is not missed.
        let mut rounds = keys.rounds();
        if !keys.want() {
            return decision;
        }
        let lane = keys.lane();
        Decision::Wait(Work::asking(lane, async move {
            // It ends: a fetch has its time.
            rounds.changed().await.ok();
            let again = move || Some(self.decide(token.expose(), user_name.as_deref()).0);
            Some(Decision::Wait(Work::new(again)))
        }))
    }

    /// Whom `token` names; and if its key is not there, where that might come from.
    fn decide(
        &self,
        token: &[u8],
        user_name: Option<&str>,
    ) -> (Decision, Option<&Arc<FetchedKeys>>) {
        let deny = |text: &str| Decision::Deny(ReasonCode::NotAuthorized, text.to_owned());
        if token.len() > TOKEN_BYTES_MAX {
            return (deny("the token is too long"), None);
        }
        let fetched = match &self.keys {
            Keys::Fetched(keys) => Some(keys),
            _ => None,
        };
        match self.claims(token) {
            Ok(claims) => (self.judge(&claims, user_name), None),
            Err(Unread::Bad(kind)) => (deny(reason(&kind)), None),
            Err(Unread::UnknownKey) => (deny(reason(&ErrorKind::InvalidKeyFormat)), fetched),
            Err(Unread::NoKeys) => {
                let text = "the keys of tokens are not there".to_owned();
                let decision = Decision::Deny(ReasonCode::ServerUnavailable, text);
                (decision, fetched)
            }
        }
    }

    fn judge(&self, claims: &Map<String, Value>, user_name: Option<&str>) -> Decision {
        let deny = |text: &str| Decision::Deny(ReasonCode::NotAuthorized, text.to_owned());
        let Some(mut identity) = self.identity(claims) else {
            return deny("the token names no user, or no end");
        };
        match self.own_rules(claims) {
            Ok(rules) => identity.own_rules = rules,
            Err(error) => return deny(&format!("the token: {error}")),
        }
        if user_name.is_some() && user_name != identity.user.as_deref() {
            return deny("the token is of another user");
        }
        Decision::Allow {
            identity,
            data: None,
        }
    }

    fn claims(&self, token: &[u8]) -> Result<Map<String, Value>, Unread> {
        let current;
        let keys = match &self.keys {
            Keys::One(key) => return Ok(decode(token, key, &self.validation)?.claims),
            Keys::Set(keys) => keys,
            Keys::Fetched(keys) => {
                // What is no token is no reason to wait for keys.
                decode_header(token)?;
                current = keys.current().ok_or(Unread::NoKeys)?;
                &current
            }
        };
        let key = match decode_header(token)?.kid {
            Some(kid) => keys.get(&kid),
            None if keys.len() == 1 => keys.values().next(),
            None => None,
        };
        let key = key.ok_or(Unread::UnknownKey)?;
        Ok(decode(token, key, &self.validation)?.claims)
    }

    /// What the token says of what its user may do; that is nothing where it should say it and does not.
    fn own_rules(&self, claims: &Map<String, Value>) -> Result<Option<Arc<Rules>>, OwnRulesError> {
        let Some(claim) = &self.config.rights_claim else {
            return Ok(None);
        };
        let rules = match claims.get(claim) {
            Some(claim) => OwnRules::from_json("token", claim)?,
            None => OwnRules::default(),
        };
        Ok(Some(rules.into_rules()))
    }

    fn identity(&self, claims: &Map<String, Value>) -> Option<Identity> {
        let user = claims.get(&self.config.user_claim)?.as_str()?;
        let expires_at = claims.get("exp")?.as_f64()?;
        let expires_at = Duration::try_from_secs_f64(expires_at).ok()?;
        let expires_at = expires_at.checked_add(self.config.leeway)?;
        let groups = match claims.get(&self.config.groups_claim) {
            Some(Value::String(group)) => vec![Arc::from(group.as_str())],
            Some(Value::Array(groups)) => {
                let groups = groups.iter().filter_map(Value::as_str);
                groups.map(Arc::from).collect()
            }
            _ => Vec::new(),
        };
        let attributes = self.config.attributes.iter().filter_map(|name| {
            let value = claims.get(name)?.as_str()?;
            Some((Arc::from(name.as_str()), Arc::from(value)))
        });
        is_user_name(user).then(|| Identity {
            groups: groups.into_iter().collect(),
            attributes: attributes.collect(),
            expires_at: SystemTime::UNIX_EPOCH.checked_add(expires_at),
            ..Identity::of_user(user)
        })
    }
}

/// Why a token is not good, in words that hold nothing of it.
const fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token was issued by another one",
        ErrorKind::InvalidAudience => "the token is meant for another one",
        ErrorKind::InvalidAlgorithm => "the token is signed in a way that is not configured",
        ErrorKind::InvalidKeyFormat => "the token is signed with a key that is not known",
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::MissingRequiredClaim(_) => "the token does not say all that is wanted",
        _ => "the token cannot be read",
    }
}

/// Whether this looks like a token, and so is none of the passwords.
fn is_token(password: &[u8]) -> bool {
    let is_of_three = password.iter().filter(|byte| **byte == b'.').count() == 2;
    // `{"` in base64.
    is_of_three && password.starts_with(b"eyJ")
}

fn validation(config: &TokenConfig) -> Validation {
    let mut validation = Validation::default();
    validation.algorithms.clone_from(&config.algorithms);
    validation.leeway = config.leeway.as_secs();
    validation.validate_nbf = true;
    let mut required = vec!["exp"];
    if let Some(issuer) = &config.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    if let Some(audience) = &config.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn read_keys(
    config: &TokenConfig,
    waiting_max: usize,
    outbound: &Outbound,
) -> Result<Keys, AuthenticationError> {
    let first = config.algorithms.first();
    let family = first.map_or(AlgorithmFamily::Hmac, |algorithm| algorithm.family());
    match &config.keys {
        TokenKeys::Key(path) => {
            let text = AuthenticationError::read(path)?;
            let key = match family {
                AlgorithmFamily::Hmac => secret(&text),
                AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(text.as_bytes()).ok(),
                AlgorithmFamily::Ec => DecodingKey::from_ec_pem(text.as_bytes()).ok(),
                AlgorithmFamily::Ed => DecodingKey::from_ed_pem(text.as_bytes()).ok(),
            };
            let problem =
                "no public key (PEM) of the family of the algorithms, or no secret of 32 bytes";
            let key = key.ok_or_else(|| AuthenticationError::wrong(path, 1, problem))?;
            Ok(Keys::One(key))
        }
        TokenKeys::Jwks(path) => {
            let text = AuthenticationError::read(path)?;
            let wrong = |line, problem: &str| AuthenticationError::wrong(path, line, problem);
            let set: JwkSet = serde_json::from_str(&text)
                .map_err(|error| wrong(error.line().max(1), "no JSON Web Key Set"))?;
            let keys = keys_of(&set, family).map_err(|problem| wrong(1, problem))?;
            if keys.is_empty() {
                return Err(wrong(1, "no key of the family of the algorithms"));
            }
            Ok(Keys::Set(keys))
        }
        TokenKeys::Fetched(config) => {
            let keys = FetchedKeys::start(config, family, waiting_max, outbound)?;
            Ok(Keys::Fetched(keys))
        }
    }
}

fn secret(text: &str) -> Option<DecodingKey> {
    let secret = text.trim_end_matches(['\r', '\n']);
    let is_public_key = secret.contains("-----BEGIN");
    (secret.len() >= SECRET_BYTES_MIN && !is_public_key)
        .then(|| DecodingKey::from_secret(secret.as_bytes()))
}

const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// RFC 7518, section 3.2: a secret is not shorter than what it makes.
pub(super) const SECRET_BYTES_MIN: usize = 32;

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
    use serde_json::json;

    use super::*;
    use crate::testing::TempFolder;

    const SECRET: &str = "a secret that is long enough to be one";

    /// Who signs, and a Server that believes it.
    struct Issuer {
        temp: TempFolder,
        algorithm: Algorithm,
        key: EncodingKey,
        config: TokenConfig,
    }

    impl Issuer {
        fn new(algorithm: Algorithm) -> Self {
            let temp = TempFolder::new();
            let file = temp.path().join("key");
            let (key, public) = match algorithm.family() {
                AlgorithmFamily::Ec => {
                    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
                    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes());
                    (key.expect("a key"), pair.public_key_pem())
                }
                AlgorithmFamily::Rsa => {
                    let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
                    let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes());
                    (key.expect("a key"), pair.public_key_pem())
                }
                AlgorithmFamily::Ed => {
                    let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
                    let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes());
                    (key.expect("a key"), pair.public_key_pem())
                }
                AlgorithmFamily::Hmac => {
                    let key = EncodingKey::from_secret(SECRET.as_bytes());
                    (key, format!("{SECRET}\n"))
                }
            };
            std::fs::write(&file, public).expect("is written");
            let config = TokenConfig {
                keys: TokenKeys::Key(file),
                algorithms: vec![algorithm],
                issuer: None,
                audience: None,
                user_claim: "sub".to_owned(),
                groups_claim: "groups".to_owned(),
                attributes: vec!["site".to_owned()],
                rights_claim: None,
                leeway: Duration::ZERO,
            };
            Self {
                temp,
                algorithm,
                key,
                config,
            }
        }

        fn sign(&self, claims: &Value) -> String {
            encode(&Header::new(self.algorithm), claims, &self.key).expect("is signed")
        }

        fn judge(&self, token: &str, user_name: Option<&str>) -> Result<Identity, String> {
            let [tokens, _] =
                Tokens::read(&self.config, 1, &Outbound::default()).expect("there is a key");
            match tokens.verifier.decide(token.as_bytes(), user_name).0 {
                Decision::Allow { identity, .. } => Ok(identity),
                Decision::Deny(ReasonCode::NotAuthorized, text) => Err(text),
                other => panic!("{other:?}"),
            }
        }
    }

    fn in_an_hour() -> u64 {
        jsonwebtoken::get_current_timestamp() + 3600
    }

    #[test]
    fn good_token_names_a_user_its_groups_and_its_end() {
        for algorithm in [
            Algorithm::HS256,
            Algorithm::ES256,
            Algorithm::EdDSA,
            Algorithm::RS256,
            Algorithm::PS512,
        ] {
            let issuer = Issuer::new(algorithm);
            let exp = in_an_hour();
            let claims =
                json!({ "sub": "anna", "exp": exp, "groups": ["ops", 7], "site": "north" });
            let token = issuer.sign(&claims);
            let identity = issuer.judge(&token, None).expect("is good");
            assert_eq!(identity.user.as_deref(), Some("anna"));
            assert_eq!(identity.groups, [Arc::from("ops")].into());
            assert_eq!(
                identity.attributes.get("site").map(AsRef::as_ref),
                Some("north")
            );
            let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(exp);
            assert_eq!(identity.expires_at, Some(ends));
            assert!(!identity.is_administrator);
            assert!(issuer.judge(&token, Some("anna")).is_ok());
            let other = issuer.judge(&token, Some("otto")).expect_err("is refused");
            assert_eq!(other, "the token is of another user");
            let again = Issuer::new(algorithm);
            if algorithm != Algorithm::HS256 {
                assert!(again.judge(&token, None).is_err(), "the key of another one");
            }
        }
    }

    #[test]
    fn token_that_is_not_good_in_one_way_lets_nobody_in() {
        let mut issuer = Issuer::new(Algorithm::HS256);
        issuer.config.issuer = Some("me".to_owned());
        issuer.config.audience = Some("mqtt".to_owned());
        let exp = in_an_hour();
        let good = json!({ "sub": "anna", "exp": exp, "iss": "me", "aud": ["web", "mqtt"] });
        assert!(issuer.judge(&issuer.sign(&good), None).is_ok());
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        let cases = [
            (with("exp", json!(1_000_000_000)), "has expired"),
            (with("exp", Value::Null), ""),
            (with("exp", json!("tomorrow")), ""),
            (with("nbf", json!(exp)), "not valid yet"),
            (with("iss", json!("you")), "issued by another"),
            (with("aud", json!("web")), "meant for another"),
            (with("sub", Value::Null), ""),
            (with("sub", json!("")), "names no user"),
            (with("sub", json!("an\nna")), "names no user"),
            (with("sub", json!(["anna"])), ""),
            (
                json!({ "sub": "anna", "iss": "me", "aud": "mqtt" }),
                "all that is wanted",
            ),
            (
                json!({ "sub": "anna", "exp": exp, "aud": "mqtt" }),
                "all that is wanted",
            ),
            (
                json!({ "sub": "anna", "exp": exp, "iss": "me" }),
                "all that is wanted",
            ),
            (with("pad", json!("x".repeat(TOKEN_BYTES_MAX))), "too long"),
        ];
        for (claims, expected) in cases {
            let said = issuer
                .judge(&issuer.sign(&claims), None)
                .expect_err("is refused");
            assert!(said.contains(expected), "{said}");
            assert!(!said.contains("anna"), "{said}");
        }
        let token = issuer.sign(&good);
        let (signed, _) = token.rsplit_once('.').expect("three parts");
        for token in [
            "",
            ".",
            "..",
            "eyJ.eyJ.",
            &token[1..],
            &format!("{signed}."),
            signed,
        ] {
            assert!(issuer.judge(token, None).is_err(), "{token}");
        }
        // A token for somebody else, where nobody is configured.
        issuer.config.audience = None;
        assert!(issuer.judge(&issuer.sign(&good), None).is_err());
    }

    /// Class A: the token does not choose how it is judged.
    #[test]
    fn algorithm_is_the_configured_one_whatever_the_token_says() {
        let issuer = Issuer::new(Algorithm::ES256);
        let claims = json!({ "sub": "anna", "exp": in_an_hour() });
        let TokenKeys::Key(file) = &issuer.config.keys else {
            panic!("one key");
        };
        let public = std::fs::read(file).expect("is there");
        let key = EncodingKey::from_secret(&public);
        let forged = encode(&Header::new(Algorithm::HS256), &claims, &key).expect("is signed");
        let said = issuer.judge(&forged, None).expect_err("is refused");
        assert_eq!(said, "the token is signed in a way that is not configured");
        let (_, rest) = forged.split_once('.').expect("three parts");
        let (claims, _) = rest.split_once('.').expect("three parts");
        // {"alg":"none"}
        let unsigned = format!("eyJhbGciOiJub25lIn0.{claims}.");
        assert!(issuer.judge(&unsigned, None).is_err());
        // And a public key is never taken for a secret.
        let config = TokenConfig {
            algorithms: vec![Algorithm::HS256],
            ..issuer.config.clone()
        };
        assert!(Tokens::read(&config, 1, &Outbound::default()).is_err());
    }

    #[test]
    fn key_of_a_set_is_chosen_by_its_name_and_files_that_are_wrong_are_told() {
        let mut issuer = Issuer::new(Algorithm::HS256);
        let file = issuer.temp.path().join("keys.json");
        issuer.config.keys = TokenKeys::Jwks(file.clone());
        let jwk = |kid: &str, secret: &str| {
            let secret = data_encoding::BASE64URL_NOPAD.encode(secret.as_bytes());
            json!({ "kty": "oct", "kid": kid, "k": secret })
        };
        let elliptic = json!({ "kty": "EC", "crv": "P-256", "kid": "c",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
        let write = |keys: Value| {
            std::fs::write(&file, json!({ "keys": keys }).to_string()).expect("is written");
        };
        write(json!([
            jwk("a", "another secret of somebody else's"),
            jwk("b", SECRET),
            elliptic
        ]));
        let claims = json!({ "sub": "anna", "exp": in_an_hour() });
        let sign = |kid: Option<&str>| {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = kid.map(str::to_owned);
            encode(&header, &claims, &issuer.key).expect("is signed")
        };
        assert!(issuer.judge(&sign(Some("b")), None).is_ok());
        for kid in [Some("a"), Some("c"), Some("z"), None] {
            assert!(issuer.judge(&sign(kid), None).is_err(), "{kid:?}");
        }
        // One that has no name of a key is good where there is one key only.
        write(json!([jwk("b", SECRET)]));
        assert!(issuer.judge(&sign(None), None).is_ok());
        let wrong = [
            json!([]),
            json!([elliptic]),
            json!([jwk("a", SECRET), jwk("a", SECRET)]),
            json!([jwk("a", SECRET), jwk("b", "short")]),
            json!([jwk("a", "")]),
        ];
        for keys in wrong {
            write(keys);
            assert!(Tokens::read(&issuer.config, 1, &Outbound::default()).is_err());
        }
        for text in ["", "{", "a secret that is in the wrong file", "[]"] {
            std::fs::write(&file, text).expect("is written");
            let said = Tokens::read(&issuer.config, 1, &Outbound::default())
                .expect_err("is refused")
                .to_string();
            assert!(
                said.contains("keys.json:1: ") && !said.contains("secret"),
                "{said}"
            );
        }
        issuer.config.keys = TokenKeys::Key(file.clone());
        std::fs::write(&file, "too short").expect("is written");
        assert!(Tokens::read(&issuer.config, 1, &Outbound::default()).is_err());
        std::fs::remove_file(&file).expect("is there");
        assert!(Tokens::read(&issuer.config, 1, &Outbound::default()).is_err());
    }

    #[test]
    fn password_that_is_no_token_is_left_to_others() {
        let issuer = Issuer::new(Algorithm::HS256);
        let [tokens, by_method] =
            Tokens::read(&issuer.config, 1, &Outbound::default()).expect("there is a key");
        let ask = |one: &Tokens, password: Option<&str>| {
            let password = password.map(|password| Secret::new(password.to_owned()));
            let attempt = Attempt {
                client_id: "a",
                user_name: None,
                password: password.as_ref(),
                data: None,
                peer: ([127, 0, 0, 1], 9).into(),
                version: proto::Version::V5,
                listener: "tcp",
                anonymous: None,
                is_for_others: false,
                certificate: None,
            };
            one.authenticate(&attempt, &mut Exchange::default())
        };
        for password in [None, Some(""), Some("secret"), Some("a.b.c"), Some("eyJ.b")] {
            assert!(ask(&tokens, password).is_none(), "{password:?}");
        }
        assert!(matches!(
            ask(&tokens, Some("eyJ.b.c")),
            Some(Decision::Wait(_))
        ));
        assert!(
            ask(&by_method, None).is_some(),
            "who names the method has to show one"
        );
    }
}
