//! Services that an emqx.conf asks by HTTP, and its JSON Web Tokens.
//!
//! Owns: [`http`], [`rights_by_http`], [`tokens`]. Does not own: the chain (see `people`), the order of rights (see `rights`). Start
//! reading at any. Invariant: a check that cannot be made any more lets nobody in.

use data_encoding::BASE64;

use super::Work;
use crate::import::hocon::{self, Key, units};
use crate::import::rows::Outcome;
use crate::import::target::{Table, Target, quoted};

/// A service that is asked who gets in.
pub(super) fn http(work: &mut Work, key: &Key) -> Result<&'static str, String> {
    if work.target.authentication.value("http").is_some() {
        return Err(
            "there is one service that is asked by HTTP, and another chain has it".to_owned(),
        );
    }
    let table = service(work, key)?;
    work.target.authentication.raw("http", table.inline());
    work.has_administrators = true;
    let why = "it is sent client_id, user_name, password and more in JSON, always: docs/users.md says what";
    work.settings.rest(&key.then("body"), Outcome::Changed, why);
    Ok("http")
}

/// A service that is asked what one may do.
pub(super) fn rights_by_http(work: &mut Work, key: &Key) -> Result<(), String> {
    let table = service(work, key)?;
    let mut alone = Target::default();
    alone.authorization.raw("http", table.inline());
    if let Some(fault) = alone.fault() {
        return Err(fault);
    }
    work.target.authorization.raw("http", table.inline());
    let why = "it is sent action, topic, client_id, user_name and more in JSON, always: docs/rights.md says what";
    work.settings.rest(&key.then("body"), Outcome::Changed, why);
    Ok(())
}

fn service(work: &mut Work, key: &Key) -> Result<Table, String> {
    let at = key.then("url");
    let url = work
        .settings
        .text(&at)
        .map(str::to_owned)
        .ok_or("url is not said")?;
    // What is asked stands in the body; nothing in the address changes.
    let plain = url.split('?').next().unwrap_or_default().to_owned();
    if plain.contains("${") {
        return Err("its address is the same for all questions here".to_owned());
    }
    if work.settings.truth(&key.then("oauth2.enable")) == Some(true) {
        return Err("oauth2 is not there".to_owned());
    }
    let mut table = Table::default();
    table.text("url", &plain);
    match plain == url {
        true => work.settings.kept(&at, "url"),
        false => work.settings.changed(
            &at,
            format!("url = {plain:?}: what is asked stands in the body"),
        ),
    }
    if plain.starts_with("http://") && !is_here(&plain) {
        table.raw("insecure", true);
        let why = "insecure = true: passwords travel in plain text, as before";
        work.settings.changed(&at, why);
    }
    let method = key.then("method");
    match work.settings.text(&method) {
        Some("post") => work.settings.kept(&method, "POST"),
        _ => work.settings.changed(&method, "POST, always"),
    }
    headers(work, key, &mut table);
    tls(work, key, &mut table)?;
    pool(work, key, &mut table, "request_timeout", 10_000);
    Ok(table)
}

fn headers(work: &mut Work, key: &Key, table: &mut Table) {
    let all = key.then("headers");
    let mut kept = Table::default();
    let mut pairs = Vec::new();
    for name in work.settings.names_below(&all) {
        let at = all.with(&name);
        let Some(value) = work.settings.text(&at).map(str::to_owned) else {
            continue;
        };
        let is_its_own = ["content-type", "accept", "content-length", "host"]
            .contains(&name.to_ascii_lowercase().as_str());
        if is_its_own {
            work.settings
                .ignored(&at, "questions and answers are JSON, always");
        } else if value.contains("${") {
            work.settings
                .ignored(&at, "headers are the same for all questions here");
        } else if let Some(secret) = value
            .strip_prefix("Bearer ")
            .filter(|_| name.eq_ignore_ascii_case("authorization"))
        {
            let file = format!(
                "emqx.{}.bearer",
                if key.holds("sources") {
                    "rights"
                } else {
                    "http"
                }
            );
            let file = work.file(&file, secret);
            kept.text("bearer_file", file);
            work.settings.kept(&at, "bearer_file");
        } else {
            pairs.push(format!("{} = {}", quoted(&name), quoted(&value)));
            work.settings.kept(&at, "headers");
            work.is_secret = true;
        }
    }
    if !pairs.is_empty() {
        table.raw("headers", format!("{{ {} }}", pairs.join(", ")));
    }
    table.extend(&kept);
}

/// Whom to believe, for a service that is asked by HTTPS.
fn tls(work: &mut Work, key: &Key, table: &mut Table) -> Result<(), String> {
    let ssl = key.then("ssl");
    if !table
        .value("url")
        .is_some_and(|url| url.starts_with("\"https"))
    {
        work.settings
            .rest(&ssl, Outcome::Ignored, "its address is not https");
        return Ok(());
    }
    for (name, to) in [
        ("cacertfile", "ca"),
        ("certfile", "certificate"),
        ("keyfile", "key"),
    ] {
        let at = ssl.then(name);
        if let Some(written) = work
            .settings
            .text(&at)
            .map(str::to_owned)
            .filter(|text| !text.is_empty())
        {
            let path = work
                .path(&written)
                .map_err(|why| format!("{name}: {why}"))?;
            table.text(to, path.to_string_lossy());
            work.settings.kept(&at, to);
        }
    }
    let verify = ssl.then("verify");
    match work.settings.text(&verify) {
        Some("verify_peer") => work.settings.kept(&verify, "as always here"),
        _ => work.settings.changed(
            &verify,
            "its certificate is verified, always: ca says by whom it may be signed",
        ),
    }
    work.settings.rest(
        &ssl,
        Outcome::Ignored,
        "the TLS here has nothing to set like it",
    );
    Ok(())
}

/// How long an answer is waited for, and how many questions are under way.
pub(super) fn pool(work: &mut Work, key: &Key, table: &mut Table, timeout: &str, at_once_max: u64) {
    let at = key.then("pool_size");
    match work
        .settings
        .text(&at)
        .and_then(|text| text.parse::<u64>().ok())
    {
        Some(number) if (1..=at_once_max).contains(&number) => {
            table.raw("at_once", number);
            work.settings.kept(&at, "at_once");
        }
        _ => work.settings.changed(&at, "at_once: the default"),
    }
    let at = key.then(timeout);
    match work
        .settings
        .text(&at)
        .and_then(|text| units::duration_ms(text, 1))
    {
        Some(ms @ 10..=3_600_000) => {
            table.text("timeout", format!("{ms}ms"));
            work.settings.kept(&at, "timeout");
        }
        _ => work.settings.changed(&at, "timeout: the default"),
    }
}

/// Whether a URL is of this machine.
pub(crate) fn is_here(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// JSON Web Tokens.
pub(super) fn tokens(work: &mut Work, key: &Key) -> Result<&'static str, String> {
    if work.target.authentication.value("tokens").is_some() {
        return Err("there is one kind of tokens, and another chain has it".to_owned());
    }
    let from = key.then("from");
    if work.settings.text(&from) == Some("username") {
        return Err("a token is the Password, not the User Name".to_owned());
    }
    work.settings.kept(&from, "a token is the Password");
    let mut table = Table::default();
    claims(work, key, &mut table)?;
    match work.settings.truth(&key.then("use_jwks")) {
        Some(true) => key_set(work, key, &mut table)?,
        _ if work.settings.has(&key.then("public_key")) => public_key(work, key, &mut table)?,
        _ => secret(work, key, &mut table)?,
    }
    let at = key.then("acl_claim_name");
    let claim = work.settings.text(&at).unwrap_or("acl").to_owned();
    if !claim.is_empty() {
        table.text("rights_claim", claim);
    }
    work.settings.kept(&at, "rights_claim");
    let at = key.then("disconnect_after_expire");
    match work.settings.truth(&at) {
        Some(false) => work
            .settings
            .changed(&at, "a connection ends with its token, always"),
        _ => work.settings.kept(&at, "as always here"),
    }
    if work.settings.truth(&key.then("use_jwks")) == Some(false) {
        work.settings.kept(&key.then("use_jwks"), "key");
    }
    work.settings.kept(&key.then("algorithm"), "algorithms");
    work.target.authentication.raw("tokens", table.inline());
    work.settings.note(
        "tokens",
        Outcome::Changed,
        "a token needs exp, and says in one claim (user_claim) who its user is",
    );
    Ok("tokens")
}

/// What a token has to say.
fn claims(work: &mut Work, key: &Key, table: &mut Table) -> Result<(), String> {
    let all = key.then("verify_claims");
    for name in work.settings.names_below(&all) {
        let at = all.with(&name);
        let value = work.settings.text(&at).unwrap_or_default().to_owned();
        match (name.as_str(), value.as_str()) {
            (_, "${username}") => {
                table.text("user_claim", &name);
                work.settings.kept(&at, format!("user_claim = {name:?}"));
            }
            ("iss", value) if !value.contains("${") => {
                table.text("issuer", value);
                work.settings.kept(&at, "issuer");
            }
            ("aud", value) if !value.contains("${") => {
                table.text("audience", value);
                work.settings.kept(&at, "audience");
            }
            _ => {
                return Err(format!(
                    "what the claim {name:?} has to be is not asked here"
                ));
            }
        }
    }
    Ok(())
}

fn key_set(work: &mut Work, key: &Key, table: &mut Table) -> Result<(), String> {
    let at = key.then("endpoint");
    let url = work
        .settings
        .text(&at)
        .map(str::to_owned)
        .ok_or("endpoint is not said")?;
    table.text("jwks", &url);
    if url.starts_with("http://") && !is_here(&url) {
        table.raw("insecure", true);
        work.settings.changed(&at, "jwks, with insecure = true: who is on the way can put keys of its own there, as before");
    } else {
        work.settings.kept(&at, "jwks");
    }
    table.texts("algorithms", &["RS256", "RS384", "RS512"]);
    work.settings.changed(
        &key.then("use_jwks"),
        "jwks; algorithms are those of RSA: where keys are of another kind, write ES256, ES384",
    );
    let at = key.then("refresh_interval");
    match work
        .settings
        .text(&at)
        .and_then(|text| units::duration_seconds(text, 1000))
    {
        Some(seconds @ 1..=2_592_000) => {
            table.text("refresh", format!("{seconds}s"));
            work.settings.kept(&at, "refresh");
        }
        _ => work.settings.changed(&at, "refresh: the default"),
    }
    let at = key.then("ssl.cacertfile");
    if let Some(written) = work
        .settings
        .text(&at)
        .map(str::to_owned)
        .filter(|text| !text.is_empty())
    {
        let path = work.path(&written)?;
        table.text("ca", path.to_string_lossy());
        work.settings.kept(&at, "ca");
    }
    work.settings.rest(
        &key.then("ssl"),
        Outcome::Ignored,
        "its certificate is verified, always",
    );
    Ok(())
}

fn public_key(work: &mut Work, key: &Key, table: &mut Table) -> Result<(), String> {
    let at = key.then("public_key");
    let written = work.settings.text(&at).unwrap_or_default().to_owned();
    let (pem, path) = if written.contains("-----BEGIN") {
        let path = work.file("emqx.public.pem", format!("{}\n", written.trim()));
        (written, path)
    } else {
        let path = work.path(&written)?;
        let pem = hocon::text_of(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        (pem, path.to_string_lossy().into_owned())
    };
    let algorithms =
        algorithms_of(&pem).ok_or("its public key is neither of RSA nor of P-256 or P-384")?;
    table.text("key", path);
    table.texts("algorithms", algorithms);
    work.settings.kept(
        &at,
        format!("key, algorithms = [{}]", algorithms.join(", ")),
    );
    Ok(())
}

/// By the kind of a public key, which its first bytes name.
fn algorithms_of(pem: &str) -> Option<&'static [&'static str]> {
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::trim)
        .collect();
    let der = BASE64.decode(body.as_bytes()).ok()?;
    let holds = |id: &[u8]| der.windows(id.len()).take(64).any(|part| part == id);
    match () {
        () if holds(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]) => Some(&["ES256"]),
        () if holds(&[0x2b, 0x81, 0x04, 0x00, 0x22]) => Some(&["ES384"]),
        () if holds(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01])
            || pem.contains("BEGIN RSA PUBLIC KEY") =>
        {
            Some(&["RS256", "RS384", "RS512"])
        }
        () => None,
    }
}

fn secret(work: &mut Work, key: &Key, table: &mut Table) -> Result<(), String> {
    let at = key.then("secret");
    let written = work
        .settings
        .text(&at)
        .map(str::to_owned)
        .ok_or("neither secret nor public_key is said")?;
    let secret = match work.settings.truth(&key.then("secret_base64_encoded")) {
        Some(true) => {
            let bytes = BASE64
                .decode(written.as_bytes())
                .map_err(|_| "its secret is no Base64")?;
            String::from_utf8(bytes)
                .map_err(|_| "its secret is no text: put it into a file, and name that as key")?
        }
        _ => written,
    };
    // The end of a line would be a part of it.
    if secret.len() < SECRET_BYTES_MIN || secret.trim() != secret {
        return Err(format!(
            "a secret has {SECRET_BYTES_MIN} bytes at least here, and no spaces around it"
        ));
    }
    let file = work.file("emqx.token.secret", secret);
    table.text("key", file);
    table.texts("algorithms", &["HS256", "HS384", "HS512"]);
    work.settings.kept(&at, "key");
    work.settings
        .kept(&key.then("secret_base64_encoded"), "key");
    Ok(())
}

const SECRET_BYTES_MIN: usize = 32;
