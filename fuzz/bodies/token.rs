//! Any bytes as a JSON Web Token: nobody is let in who has not the key.
//!
//! Owns: [`run`]. Does not own: what judges a token (see `vencejo_server::authentication`).
//! Start reading at [`run`]. Invariant: the key is random, so that no input can hold a signature of it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use vencejo_server::authentication::Tokens;
use vencejo_server::config;
use vencejo_server::outbound::Outbound;

/// `data` is a token, and what follows the header of a good one.
pub(crate) fn run(data: &[u8]) {
    static TOKENS: LazyLock<Tokens> = LazyLock::new(tokens);
    assert!(TOKENS.identity_of(data).is_err());
    let headed = [&br"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9."[..], data].concat();
    assert!(TOKENS.identity_of(&headed).is_err());
}

fn tokens() -> Tokens {
    let file = std::env::temp_dir().join(format!("vencejo-token-{}", std::process::id()));
    let random: String = (0..4)
        .map(|_| format!("{:016x}", RandomState::new().hash_one(0_u8)))
        .collect();
    std::fs::write(&file, random).expect("a temporary file");
    let text = format!("[authentication.tokens]\nkey = {file:?}\nalgorithms = [\"HS256\"]\n");
    let config = config::parse(&text, "tokens.toml".as_ref()).expect("is valid");
    let config = config.authentication.tokens.expect("is there");
    let [tokens, _] = Tokens::read(&config, 1, &Outbound::default()).expect("there is a key");
    std::fs::remove_file(file).ok();
    tokens
}
