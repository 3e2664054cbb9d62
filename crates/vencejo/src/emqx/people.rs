//! Who gets in by an emqx.conf.
//!
//! Owns: chains of authenticators, anonymous clients, certificates and names. Does not own: what a link asks (see `services`,
//! `directories`, `bootstrap`). Start reading at [`let_in`]. Invariant: a chain of which something is missing lets in fewer, never
//! more.

use super::{Work, bootstrap, directories, services};
use crate::import::hocon::{Key, Value};
use crate::import::rows::Outcome;
use crate::import::target::Target;

/// Authenticators, by the names of our links.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// In their order.
    pub(super) links: Vec<&'static str>,
    /// Where each was said.
    pub(super) keys: Vec<Key>,
    /// Whether EMQX asked anybody.
    pub(super) is_asking: bool,
}

/// Says who gets in; returns the chain of all listeners.
pub(super) fn let_in(work: &mut Work) -> Chain {
    let chain = chain(work, &Key::of("authentication"));
    certificates(work, &chain);
    let anonymous = if chain.is_asking { "never" } else { "always" };
    work.target.authentication.text("anonymous", anonymous);
    match chain.is_asking {
        true => work.settings.note(
            "(authentication)",
            Outcome::Kept,
            "anonymous = \"never\", as EMQX has it where somebody is asked",
        ),
        false => work.settings.note(
            "(no authentication)",
            Outcome::Kept,
            "anonymous = \"always\": whoever can reach it gets in, as with EMQX; a User Name that nobody asks about is none for rules",
        ),
    }
    listeners(work, &chain);
    chain
}

/// A list of authenticators, or one alone.
fn chain(work: &mut Work, at: &Key) -> Chain {
    let mut made = Chain {
        is_asking: work.settings.is_unclear(at) || work.settings.is_hidden(at),
        ..Chain::default()
    };
    let elements = match work.settings.has(&at.then("mechanism")) {
        true => vec![at.clone()],
        false => work.settings.elements(at),
    };
    // What is not understood is not nothing.
    made.is_asking |= elements.is_empty() && work.settings.has(at) && !is_empty(work, at);
    for key in elements {
        let enable = key.then("enable");
        if work.settings.truth(&enable) == Some(false) {
            work.settings.all_ignored(&key, "it is not enabled");
            continue;
        }
        work.settings.kept(&enable, "is asked");
        made.is_asking = true;
        let files = work.files.len();
        match link(work, &key) {
            Ok(link) if made.links.contains(&link) => {
                let why = format!("there is one link {link:?} in a chain: this one is not asked");
                work.settings.all_ignored(&key, &why);
            }
            Ok(link) => {
                made.links.push(link);
                made.keys.push(key.clone());
                work.settings
                    .rest(&key, Outcome::Ignored, "it is asked without this");
            }
            Err(why) => {
                work.files.truncate(files);
                let why = format!("nobody gets in by it: {why}");
                work.settings.all_ignored(&key, &why);
            }
        }
    }
    made
}

fn is_empty(work: &Work, at: &Key) -> bool {
    match work.settings.value(at) {
        Some(Value::List(all)) => all.is_empty(),
        Some(Value::Nothing) => true,
        _ => false,
    }
}

/// What one authenticator becomes.
fn link(work: &mut Work, key: &Key) -> Result<&'static str, String> {
    if work.settings.is_unclear(key) {
        return Err("of what is said here something is not known".to_owned());
    }
    let precondition = key.then("precondition");
    if work
        .settings
        .text(&precondition)
        .is_some_and(|text| !text.is_empty())
    {
        return Err("a link is asked about everybody: conditions are not there".to_owned());
    }
    let text = |work: &Work, name: &str| {
        work.settings
            .text(&key.then(name))
            .unwrap_or_default()
            .to_owned()
    };
    let (mechanism, backend) = (text(work, "mechanism"), text(work, "backend"));
    let link = match (mechanism.as_str(), backend.as_str()) {
        ("password_based", "built_in_database") => bootstrap::take_over(work, key)?,
        ("password_based", "postgresql") => directories::postgres(work, key)?,
        ("password_based", "mysql") => directories::mysql(work, key)?,
        ("password_based", "redis") => directories::redis(work, key)?,
        ("password_based", "ldap") | ("ldap", _) => directories::ldap(work, key)?,
        ("password_based", "http") => services::http(work, key)?,
        ("jwt", _) => services::tokens(work, key)?,
        ("scram", "built_in_database") => {
            let why = "link \"scram\": its users are in EMQX's database, which is not read; vencejo user add NAME makes them anew";
            work.settings.rest(key, Outcome::Changed, why);
            "scram"
        }
        (mechanism, "") => return Err(format!("{mechanism:?} cannot be asked here")),
        (_, backend) => return Err(format!("{backend:?} cannot be asked here")),
    };
    let mut alone = Target::default();
    if let Some(table) = work.target.authentication.value(link) {
        alone.authentication.raw(link, table);
    }
    if let Some(fault) = alone.fault() {
        work.target.authentication.forget(link);
        return Err(fault);
    }
    for name in ["mechanism", "backend"] {
        work.settings.kept(
            &key.then(name),
            format!("link {link:?} of [authentication]"),
        );
    }
    Ok(link)
}

/// What `mqtt` says about names.
fn certificates(work: &mut Work, chain: &Chain) {
    let at = Key::of("mqtt.peer_cert_as_username");
    match work.settings.text(&at) {
        Some("disabled") => work.settings.kept(&at, "a certificate is nobody's name"),
        Some(word @ ("cn" | "dn")) if !chain.is_asking => {
            let user = if word == "cn" { "common-name" } else { "subject" };
            work.target.authentication.text("certificate_user", user);
            work.settings.kept(&at, format!("certificate_user = {user:?}"));
        }
        Some("cn" | "dn") => work.settings.ignored(
            &at,
            "a certificate would let in without what the chain asks for beside it: certificate_user, if that is meant",
        ),
        Some(_) => work.settings.ignored(&at, "a name is the Common Name or the subject"),
        None => {}
    }
    let at = Key::of("mqtt.use_username_as_clientid");
    match work.settings.truth(&at) {
        Some(true) if chain.is_asking => {
            for listener in &mut work.target.listeners {
                listener.raw("client_id_from_user", true);
            }
            work.settings
                .kept(&at, "client_id_from_user, at every listener");
        }
        Some(true) => {
            work.settings.ignored(
                &at,
                "nobody proves a user: client_id_from_user would let nobody in",
            );
        }
        Some(false) => work.settings.kept(&at, "as always here"),
        None => {}
    }
}

/// Chains of listeners, and whom each asks.
fn listeners(work: &mut Work, all: &Chain) {
    let doors = std::mem::take(&mut work.doors);
    let mut own = Vec::new();
    for door in &doors {
        let at = door.key.then("authentication");
        let has_own = work.settings.has(&at) && !is_empty(work, &at);
        let chain = has_own.then(|| chain(work, &at));
        let enable = door.key.then("enable_authn");
        let word = work.settings.text(&enable).unwrap_or("true").to_owned();
        let asks = chain
            .as_ref()
            .map_or(all.is_asking, |chain| chain.is_asking);
        let anonymous = match word.as_str() {
            "false" => {
                let why = "anonymous = \"always\" at this listener: whoever gives a User Name has to prove it all the same";
                work.settings.changed(&enable, why);
                Some("always")
            }
            _ => {
                work.settings.kept(&enable, "[authentication] is asked");
                chain
                    .as_ref()
                    .map(|_| if asks { "never" } else { "always" })
            }
        };
        if let Some(anonymous) = anonymous {
            for place in &door.places {
                if let Some(listener) = work.target.listeners.get_mut(*place) {
                    listener.text("anonymous", anonymous);
                }
            }
        }
        own.push(chain);
    }
    let is_in_order = all
        .links
        .is_sorted_by_key(|link| ORDER.iter().position(|one| one == link));
    if own.iter().any(Option::is_some) || !is_in_order {
        for (door, chain) in doors.iter().zip(&own) {
            let chain = chain.as_ref().unwrap_or(all);
            if !chain.is_asking {
                continue;
            }
            // Where nothing of a chain is left, the users of the data folder are asked, of whom there are none.
            let links: &[&str] = if chain.links.is_empty() {
                &["passwords"]
            } else {
                &chain.links
            };
            for place in &door.places {
                if let Some(listener) = work.target.listeners.get_mut(*place) {
                    listener.texts("authentication", links);
                }
            }
        }
    }
    work.doors = doors;
}

/// In which our links are asked where a listener does not say otherwise.
const ORDER: [&str; 9] = [
    "certificate",
    "tokens",
    "scram",
    "passwords",
    "http",
    "postgres",
    "mysql",
    "redis",
    "ldap",
];
