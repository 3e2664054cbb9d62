//! The listeners of a nanomq.conf.
//!
//! Owns: [`open`]: their addresses, transport, TLS. Does not own: who gets in there (see `people`). Start reading at [`open`].
//! Invariant: a listener that cannot be as safe as it was is left out, and said to be.

use std::net::{SocketAddr, ToSocketAddrs};

use super::Work;
use crate::import::hocon::Key;
use crate::import::rows::Outcome;
use crate::import::target::{Table, quoted};

/// Makes listeners of all there are.
pub(super) fn open(work: &mut Work) {
    let listeners = Key::of("listeners");
    if !work.settings.has(&listeners) {
        let mut listener = Table::default();
        listener.text("name", "tcp");
        listener.text("address", "0.0.0.0:1883");
        work.target.listeners.push(listener);
        let why = "listens at 0.0.0.0:1883, as NanoMQ does";
        return work.settings.note("(no listeners)", Outcome::Kept, why);
    }
    for kind in ["tcp", "ssl", "ws", "wss"] {
        let all = listeners.with(kind);
        if !work.settings.has(&all) {
            continue;
        }
        // One of a kind, or several with names.
        let names = work.settings.names_below(&all);
        let is_one = names.is_empty()
            || names
                .iter()
                .any(|name| work.settings.value(&all.with(name)).is_some());
        let keys = match is_one {
            true => vec![(all.clone(), kind.to_owned())],
            false => names
                .iter()
                .map(|name| (all.with(name), format!("{kind}:{}", name.escape_debug())))
                .collect(),
        };
        for (key, id) in keys {
            if let Err(why) = open_one(work, kind, &key, &id) {
                work.settings
                    .all_ignored(&key, &format!("the listener is left out: {why}"));
            }
        }
    }
    if work.target.listeners.is_empty() {
        let mut listener = Table::default();
        listener.text("address", "127.0.0.1:1883");
        work.target.listeners.push(listener);
        let why = "no listener is left: there is one for this machine only";
        work.settings.note("127.0.0.1:1883", Outcome::Changed, why);
    }
}

fn open_one(work: &mut Work, kind: &str, key: &Key, id: &str) -> Result<(), String> {
    let enable = key.then("enable");
    match work.settings.truth(&enable) {
        Some(false) => return Err("it is not enabled".to_owned()),
        Some(true) => work.settings.kept(&enable, "listens"),
        None => {}
    }
    if work.settings.is_unclear(key) {
        return Err("of what is said here something is not known".to_owned());
    }
    let bind = key.then("bind");
    let written = work
        .settings
        .text(&bind)
        .map(str::to_owned)
        .ok_or("bind is not said")?;
    let (address, path) = address(&written)?;
    let is_taken =
        |listener: &Table| listener.value("address") == Some(&quoted(&address.to_string()));
    if address.port() != 0 && work.target.listeners.iter().any(is_taken) {
        return Err(format!("there is one at {address} already"));
    }
    let mut table = Table::default();
    table.text("name", id);
    table.text("address", address.to_string());
    if kind.starts_with('w') {
        table.text("transport", "websocket");
    }
    if ["ssl", "wss"].contains(&kind) {
        let tls = tls(work, kind, key)?;
        table.raw("tls", tls.inline());
    }
    let shown = format!("listens at {address}, called {id}");
    match path.as_str() {
        "" | "/" | "/mqtt" | "/ws" => work.settings.kept(&bind, shown),
        _ => work
            .settings
            .changed(&bind, format!("{shown}; the paths are /mqtt, / and /ws")),
    }
    work.target.listeners.push(table);
    Ok(())
}

/// `0.0.0.0:8083/mqtt`, or with a scheme before it.
fn address(written: &str) -> Result<(SocketAddr, String), String> {
    let rest = written.split_once("://").map_or(written, |(_, rest)| rest);
    let (place, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let place = place.replace('*', "0.0.0.0");
    let place = if place.starts_with(':') {
        format!("0.0.0.0{place}")
    } else {
        place
    };
    let found = place.parse().ok().or_else(|| {
        let mut all = place.to_socket_addrs().ok()?;
        all.next()
    });
    match found {
        Some(address) => Ok((address, path.to_owned())),
        None => Err(format!("{place:?} is no address with a port")),
    }
}

fn tls(work: &mut Work, kind: &str, key: &Key) -> Result<Table, String> {
    // A WebSocket takes what the other one with TLS has.
    let shared = Key::of("listeners.ssl");
    let of = |work: &Work, name: &str| {
        let own = key.then(name);
        let is_own = work.settings.has(&own) || kind != "wss";
        if is_own { own } else { shared.then(name) }
    };
    let is_unclear = |at: &Key| work.settings.is_unclear(at);
    let taken = TLS.map(|name| of(work, name));
    let takes = taken.iter().any(|at| at.is_below(&shared));
    if taken.iter().any(is_unclear) || takes && is_unclear(&shared.then("include")) {
        return Err("of what it takes from listeners.ssl something is not known".to_owned());
    }
    if work.settings.has(&of(work, "key_password")) {
        return Err("keys come from PEM files without a password".to_owned());
    }
    let mut tls = Table::default();
    for (name, to) in [("certfile", "certificate"), ("keyfile", "key")] {
        let at = of(work, name);
        let written = work.settings.text(&at).map(str::to_owned);
        let written = written.ok_or_else(|| format!("{name} is not said"))?;
        tls.text(to, work.path(&written));
        work.settings.kept(&at, format!("tls.{to}"));
    }
    let (verify, must, ca) = (
        of(work, "verify_peer"),
        of(work, "fail_if_no_peer_cert"),
        of(work, "cacertfile"),
    );
    if work.settings.truth(&verify) == Some(true) {
        let written = work.settings.text(&ca).map(str::to_owned);
        let written = written.ok_or("verify_peer needs a cacertfile")?;
        let word = match work.settings.truth(&must) {
            Some(true) => "required",
            _ => "optional",
        };
        tls.text("client_ca", work.path(&written));
        tls.text("client_certificates", word);
        work.settings.kept(&ca, "tls.client_ca");
        for at in [&verify, &must] {
            work.settings
                .kept(at, format!("tls.client_certificates = \"{word}\""));
        }
    } else {
        work.settings
            .kept(&verify, "certificates of clients are not asked for");
        for at in [&ca, &must] {
            work.settings.ignored(
                at,
                "it judges certificates of clients, which are not asked for",
            );
        }
    }
    Ok(tls)
}

/// What is said of TLS.
const TLS: [&str; 6] = [
    "certfile",
    "keyfile",
    "key_password",
    "cacertfile",
    "verify_peer",
    "fail_if_no_peer_cert",
];

impl Work {
    /// A path, from the folder of the nanomq.conf if it is not a whole one.
    fn path(&self, written: &str) -> String {
        let path = self.folder.join(written);
        let path = std::path::absolute(&path).unwrap_or(path);
        path.to_string_lossy().into_owned()
    }
}
