//! Any bytes as the claims of a JSON Web Token that is signed with the key, and as the file of keys: who is let in, as whom
//! and until when.
//!
//! Owns: [`run`], a second opinion on claims. Does not own: tokens without a signature (see `token`). Start reading at
//! [`run`]. Invariant: whoever is let in is named by a claim and signed with a key of the set, and goes in time.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};
use vencejo_server::authentication::{Identity, Tokens};
use vencejo_server::config;
use vencejo_server::outbound::Outbound;

/// Behind a `c`, `data` is the claims of a token; behind anything else it is a JSON Web Key Set. Whether somebody was let in.
pub(crate) fn run(data: &[u8]) -> bool {
    match data.split_first() {
        Some((b'c', claims)) => judge_claims(claims),
        Some((_, keys)) => judge_keys(keys),
        None => false,
    }
}

fn judge_claims(data: &[u8]) -> bool {
    static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
        let more = "groups_claim = \"groups\"\nrights_claim = \"rights\"\nattributes = [\"site\"]\nleeway = \"1s\"";
        read("key", KEY, more).expect("there is a key")
    });
    let identity = TOKENS.identity_of(&signed(KEY, None, data));
    assert!(TOKENS.identity_of(&signed(OTHER_KEY, None, data)).is_err());
    if let Ok(identity) = &identity {
        let claims: Value = serde_json::from_slice(data).expect("let in by no claims");
        assert_is_of(identity, &claims);
    }
    // And a name that is one is let in, whatever it holds.
    let name = String::from_utf8_lossy(data);
    let claims = json!({ "sub": name, "exp": 4_000_000_000_u64 }).to_string();
    let is_name = !name.is_empty() && !name.chars().any(char::is_control);
    let token = signed(KEY, None, claims.as_bytes());
    let named = TOKENS.identity_of(&token);
    assert_eq!(named.is_ok(), is_name && token.len() <= 16 * 1024);
    identity.is_ok()
}

/// Everything about `identity` is what `claims` say.
fn assert_is_of(identity: &Identity, claims: &Value) {
    let user = claims["sub"].as_str().expect("let in without a name");
    assert_eq!(identity.user.as_deref(), Some(user));
    assert!(!user.is_empty() && !user.chars().any(char::is_control));
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("it is later");
    let ends = claims["exp"].as_f64().expect("let in without an end");
    // A second of leeway, and one that is rounded.
    assert!(ends + 2.0 >= now.as_secs_f64(), "let in after its end");
    let ends = Duration::from_secs_f64(ends) + Duration::from_secs(1);
    assert_eq!(
        identity.expires_at,
        SystemTime::UNIX_EPOCH.checked_add(ends)
    );
    let begins = claims["nbf"].as_f64().unwrap_or(0.0);
    assert!(begins <= now.as_secs_f64() + 2.0, "let in before its time");
    assert!(!claims["aud"].is_string(), "let in where it is not meant");
    let groups = match &claims["groups"] {
        Value::String(one) => BTreeSet::from([one.as_str()]),
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => BTreeSet::new(),
    };
    assert!(identity.groups.iter().map(AsRef::as_ref).eq(groups));
    let site = identity.attributes.get("site").map(AsRef::as_ref);
    assert_eq!(site, claims["site"].as_str());
    // Where it says nothing of rights, its user has none.
    assert!(identity.own_rules.is_some());
    let rights = &claims["rights"];
    let is_missing = claims.get("rights").is_none();
    assert!(is_missing || rights.is_array() || rights.is_object());
    assert!(!identity.is_administrator && !identity.is_listed);
}

fn judge_keys(data: &[u8]) -> bool {
    let is_let_in = is_let_in_by(data);
    let text = String::from_utf8_lossy(data);
    // A text in JSON may say it otherwise.
    let says_key = text.contains(&BASE64.encode(KEY.as_bytes())) || text.contains('\\');
    assert!(!is_let_in || says_key, "let in by a key that is not there");
    // With a good key beside what is there, which may be wrong enough to be refused.
    if let Ok(beside) = serde_json::from_slice::<Value>(data) {
        let good = json!({ "kty": "oct", "kid": "a", "k": BASE64.encode(KEY.as_bytes()) });
        let keys = json!({ "keys": [beside, good] }).to_string();
        let tokens = read("jwks", &keys, "");
        let is_good = |tokens: Tokens| tokens.identity_of(&signed(KEY, Some("a"), &good_claims()));
        assert!(tokens.is_none_or(|tokens| is_good(tokens).is_ok()));
    }
    is_let_in
}

/// Whether the key is in this set, by any name; those that anybody can guess let nobody in.
fn is_let_in_by(keys: &[u8]) -> bool {
    let Some(tokens) = std::str::from_utf8(keys)
        .ok()
        .and_then(|keys| read("jwks", keys, ""))
    else {
        return false;
    };
    let claims = good_claims();
    let is_good = |key: &str, name| tokens.identity_of(&signed(key, name, &claims)).is_ok();
    [None, Some("a"), Some("b"), Some("")]
        .iter()
        .fold(false, |is_let_in, name| {
            for guessed in ["", "a", OTHER_KEY] {
                assert!(!is_good(guessed, *name), "let in by {guessed:?}");
            }
            is_let_in | is_good(KEY, *name)
        })
}

fn good_claims() -> Vec<u8> {
    json!({ "sub": "ann", "exp": 4_000_000_000_u64 })
        .to_string()
        .into_bytes()
}

/// A token of these claims, with the name of a key in its header.
fn signed(key: &str, name: Option<&str>, claims: &[u8]) -> Vec<u8> {
    let mut header = json!({ "typ": "JWT", "alg": "HS256" });
    if let Some(name) = name {
        header["kid"] = name.into();
    }
    let header = BASE64.encode(header.to_string().as_bytes());
    let message = format!("{header}.{}", BASE64.encode(claims));
    let key = EncodingKey::from_secret(key.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.expect("is signed")).into_bytes()
}

/// What judges by the keys in a file of this text, if they are any.
fn read(kind: &str, text: &str, more: &str) -> Option<Tokens> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("vencejo-signed-token-{}-{number}", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, text).expect("a temporary file");
    let config =
        format!("[authentication.tokens]\n{kind} = {file:?}\nalgorithms = [\"HS256\"]\n{more}\n");
    let config = config::parse(&config, "tokens.toml".as_ref()).expect("is valid");
    let config = config.authentication.tokens.expect("is there");
    let tokens = Tokens::read(&config, 1, &Outbound::default());
    std::fs::remove_file(file).ok();
    tokens.ok().map(|[tokens, _]| tokens)
}

const KEY: &str = "a key that is long enough to be one";
/// It is never in a set.
const OTHER_KEY: &str = "another key, that is long enough too";
