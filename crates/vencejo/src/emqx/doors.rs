//! The listeners of an emqx.conf.
//!
//! Owns: [`open`]: their addresses, transport, TLS, limits of their own. Does not own: who gets in there (see `people`). Start
//! reading at [`open`]. Invariant: a listener that cannot be as safe as it was is left out, and said to be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Work;
use crate::import::hocon::{Key, units};
use crate::import::rows::Outcome;
use crate::import::target::{Table, quoted};
use crate::mosquitto::has_ipv6;

/// A listener that is there.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) key: Key,
    /// Its places in the target.
    pub(super) places: Vec<usize>,
}

/// Makes listeners of all there are.
pub(super) fn open(work: &mut Work) {
    for (kind, port) in KINDS {
        let all = Key::of("listeners").with(kind);
        let mut names = work.settings.names_below(&all);
        let is_default_said = names.iter().any(|name| name == "default");
        if kind != "quic" && !is_default_said {
            // EMQX has one, whether it is said or not.
            if ["tcp", "ws"].contains(&kind) {
                names.insert(0, "default".to_owned());
            } else {
                work.settings.note(
                    format!("(no listeners.{kind}.default)"),
                    Outcome::Ignored,
                    format!("the listener that EMQX has on port {port} is left out: its certificate is an example that everybody has"),
                );
            }
        }
        for name in names {
            let key = all.with(&name);
            // As the log can show it.
            let id = format!("{kind}:{}", name.escape_debug());
            if let Err(why) = open_one(work, kind, port, &key, &id) {
                let why = format!("the listener is left out: {why}");
                work.settings.all_ignored(&key, &why);
                if !work.settings.has(&key) {
                    work.settings.note(format!("({id})"), Outcome::Ignored, why);
                }
            }
        }
    }
    if work.doors.is_empty() {
        let mut listener = Table::default();
        listener.text("address", "127.0.0.1:1883");
        work.target.listeners.push(listener);
        let why = "no listener is left: there is one for this machine only";
        work.settings.note("127.0.0.1:1883", Outcome::Changed, why);
    }
}

fn open_one(work: &mut Work, kind: &str, port: u16, key: &Key, id: &str) -> Result<(), String> {
    if kind == "quic" && !cfg!(feature = "quic") {
        return Err("this program was built without QUIC".to_owned());
    }
    let enabled = [key.then("enable"), key.then("enabled")];
    for enabled in &enabled {
        match work.settings.truth(enabled) {
            Some(false) => return Err("it is not enabled".to_owned()),
            Some(true) => work.settings.kept(enabled, "listens"),
            None => {}
        }
    }
    if work.settings.is_unclear(key) {
        return Err("of what is said here something is not known: a substitution, or a file that was not read".to_owned());
    }
    let mut table = Table::default();
    let tls = tls(work, kind, key)?;
    mount_point(work, key, &mut table)?;
    let bind = key.then("bind");
    let addresses = match work.settings.text(&bind) {
        Some(text) => addresses(text)?,
        None if work.settings.has(&bind) => return Err("bind is no address".to_owned()),
        None => vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)],
    };
    if let Some(taken) = addresses
        .iter()
        .find(|address| is_taken(work, kind, address))
    {
        return Err(format!("there is one at {taken} already"));
    }
    if kind.starts_with('w') {
        table.text("transport", "websocket");
        path(work, key);
    } else if kind == "quic" {
        table.text("transport", "quic");
        quic(work, key, &mut table);
    }
    if let Some(tls) = tls {
        table.raw("tls", tls.inline());
    }
    tell(work, &bind, &addresses, id);
    own_limits(work, key, &mut table);
    let first = work.target.listeners.len();
    let mut names = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let name = match number {
            0 => id.to_owned(),
            _ => format!("{id} {address}"),
        };
        let mut listener = Table::default();
        listener.text("name", &name);
        listener.text("address", address.to_string());
        listener.extend(&table);
        work.target.listeners.push(listener);
        names.push(name);
    }
    access_rules(work, key, &names);
    rest(work, key);
    let places = (first..work.target.listeners.len()).collect();
    work.doors.push(Door {
        key: key.clone(),
        places,
    });
    Ok(())
}

/// Says where a listener is.
fn tell(work: &mut Work, bind: &Key, addresses: &[SocketAddr], id: &str) {
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let shown = format!("listens at {}, called {id}", shown.join(" and "));
    if work.settings.has(bind) {
        return work.settings.kept(bind, shown);
    }
    let why = format!("{shown}, as EMQX does");
    work.settings
        .note(format!("(no {bind})"), Outcome::Kept, why);
}

/// Whether another listener is there already, over the same of TCP and UDP.
fn is_taken(work: &Work, kind: &str, address: &SocketAddr) -> bool {
    let address = quoted(&address.to_string());
    let is_quic = |listener: &Table| listener.value("transport") == Some("\"quic\"");
    let mut all = work.target.listeners.iter();
    !address.ends_with(":0\"")
        && all.any(|listener| {
            listener.value("address") == Some(&address) && is_quic(listener) == (kind == "quic")
        })
}

/// `1883`, `0.0.0.0:1883`, `[::]:1883`, `::1:1883`. What listens on all of IPv6 listens on all of IPv4, too.
fn addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("0.0.0.0", text));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let port: u16 = port
        .trim()
        .parse()
        .map_err(|_| format!("{port:?} is no port"))?;
    let address: IpAddr = host
        .trim()
        .parse()
        .map_err(|_| format!("{host:?} is no address"))?;
    let one = SocketAddr::new(address, port);
    if address.is_ipv6() && address.is_unspecified() {
        let mut both = vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)];
        both.extend(has_ipv6(address).then_some(one));
        return Ok(both);
    }
    Ok(vec![one])
}

fn tls(work: &mut Work, kind: &str, key: &Key) -> Result<Option<Table>, String> {
    if !["ssl", "wss", "quic"].contains(&kind) {
        return Ok(None);
    }
    let inner = key.then("ssl_options");
    // QUIC has had them beside the rest.
    let options = if work.settings.has(&inner) || kind != "quic" {
        inner
    } else {
        key.clone()
    };
    let mut tls = Table::default();
    for (name, to) in [("certfile", "certificate"), ("keyfile", "key")] {
        let at = options.then(name);
        let Some(written) = work.settings.text(&at).map(str::to_owned) else {
            return Err(format!(
                "{name} is not said, and EMQX's own is an example that everybody has"
            ));
        };
        let path = work
            .path(&written)
            .map_err(|why| format!("{name}: {why}"))?;
        tls.text(to, path.to_string_lossy());
        work.settings.kept(&at, format!("tls.{to}"));
    }
    if work
        .settings
        .text(&options.then("password"))
        .is_some_and(|text| !text.is_empty())
    {
        return Err("keys come from PEM files without a password".to_owned());
    }
    client_certificates(work, &options, &mut tls)?;
    versions(work, &options, &mut tls);
    work.settings.rest(
        &options.then("ciphers"),
        Outcome::Ignored,
        "the TLS here chooses its ciphers itself",
    );
    if options != *key {
        work.settings.rest(
            &options,
            Outcome::Ignored,
            "the TLS here has nothing to set like it",
        );
    }
    Ok(Some(tls))
}

/// Whether certificates of clients are asked for, and who judges them.
fn client_certificates(work: &mut Work, options: &Key, tls: &mut Table) -> Result<(), String> {
    let verify = options.then("verify");
    let verifies = work.settings.text(&verify) == Some("verify_peer");
    let ca = options.then("cacertfile");
    if verifies {
        for name in ["enable_crl_check", "partial_chain"] {
            let at = options.then(name);
            if work.settings.text(&at).is_some_and(|text| text != "false") {
                return Err(format!(
                    "{name} is not there: a file with what is revoked is tls.crl"
                ));
            }
        }
        let Some(written) = work.settings.text(&ca).map(str::to_owned) else {
            return Err("verify_peer needs a cacertfile".to_owned());
        };
        let path = work
            .path(&written)
            .map_err(|why| format!("cacertfile: {why}"))?;
        tls.text("client_ca", path.to_string_lossy());
        let must = options.then("fail_if_no_peer_cert");
        let word = match work.settings.truth(&must) {
            Some(true) => "required",
            _ => "optional",
        };
        tls.text("client_certificates", word);
        work.settings
            .kept(&must, format!("tls.client_certificates = \"{word}\""));
        work.settings
            .kept(&verify, format!("tls.client_certificates = \"{word}\""));
        work.settings.kept(&ca, "tls.client_ca");
    } else {
        work.settings
            .kept(&verify, "certificates of clients are not asked for");
        let why = "it judges certificates of clients, which are not asked for";
        work.settings.ignored(&ca, why);
        work.settings
            .ignored(&options.then("fail_if_no_peer_cert"), why);
    }
    Ok(())
}

fn versions(work: &mut Work, options: &Key, tls: &mut Table) {
    let versions = options.then("versions");
    if work.settings.has(&versions) {
        let all = work.settings.texts(&versions);
        match all.iter().all(|one| one == "tlsv1.3") && !all.is_empty() {
            true => {
                tls.text("min_version", "1.3");
                work.settings.kept(&versions, "tls.min_version = \"1.3\"");
            }
            false
                if all
                    .iter()
                    .all(|one| ["tlsv1.3", "tlsv1.2"].contains(&one.as_str())) =>
            {
                work.settings.kept(&versions, "tls.min_version = \"1.2\"");
            }
            false => work
                .settings
                .changed(&versions, "nothing below TLS 1.2 is spoken"),
        }
    }
}

fn mount_point(work: &mut Work, key: &Key, table: &mut Table) -> Result<(), String> {
    let at = key.then("mountpoint");
    let Some(mount) = work.settings.text(&at).map(str::to_owned) else {
        return Ok(());
    };
    if mount.is_empty() {
        work.settings.kept(&at, "topics are those that clients say");
        return Ok(());
    }
    if mount.contains("${")
        || mount.contains('%')
        || mount.contains(['+', '#'])
        || !mount.ends_with('/')
    {
        return Err("a mount point is the same for all clients here, and ends with /".to_owned());
    }
    table.text("mount_point", &mount);
    work.settings.kept(&at, "mount_point");
    Ok(())
}

fn path(work: &mut Work, key: &Key) {
    let at = key.then("websocket.mqtt_path");
    match work.settings.text(&at) {
        Some("/mqtt" | "/" | "/ws") => work.settings.kept(&at, "as always here, with / and /ws"),
        Some(_) => work.settings.changed(&at, "the paths are /mqtt, / and /ws"),
        None => {}
    }
    let at = key.then("websocket.check_origin_enable");
    if work.settings.truth(&at) == Some(true) {
        let why = "no Origin is refused: a page of another server has to show who it is, and anonymous = \"loopback\" does not count for it";
        work.settings.changed(&at, why);
    }
    let why = "the WebSocket here has nothing to set like it";
    work.settings
        .rest(&key.then("websocket"), Outcome::Ignored, why);
}

fn quic(work: &mut Work, key: &Key, table: &mut Table) {
    let mut quic = Table::default();
    for (name, to, least) in [
        ("idle_timeout", "idle_timeout", 1),
        ("keep_alive_interval", "keep_alive", 0),
    ] {
        let at = key.then(name);
        let seconds = work
            .settings
            .text(&at)
            .and_then(|text| units::duration_seconds(text, 1));
        match seconds {
            Some(seconds) if (least..=86_400).contains(&seconds) => {
                quic.text(to, format!("{seconds}s"));
                work.settings.kept(&at, format!("quic.{to}"));
            }
            _ => work
                .settings
                .changed(&at, format!("quic.{to}: the default")),
        }
    }
    if !quic.is_empty() {
        table.raw("quic", quic.inline());
    }
}

fn own_limits(work: &mut Work, key: &Key, table: &mut Table) {
    let at = key.then("max_connections");
    match work.settings.text(&at) {
        Some("infinity") => work.settings.kept(&at, "no limit but that of all"),
        Some(text) => match text.parse::<u64>() {
            Ok(number @ 1..=100_000_000) => {
                table.raw("connections_max", number);
                work.settings.kept(&at, "connections_max");
            }
            _ => work.settings.ignored(&at, "it is no number that fits"),
        },
        None => {}
    }
    for (name, to) in [
        ("max_conn_rate", "connect_rate_max"),
        ("messages_rate", "publish_rate_max"),
        ("bytes_rate", "publish_bytes_rate_max"),
    ] {
        let at = key.then(name);
        match work.settings.text(&at) {
            Some("infinity") => work.settings.kept(&at, "no limit"),
            Some(text) => match units::rate(text) {
                Some(number @ 1..=1_000_000_000) => {
                    table.raw(to, number);
                    let of = if to == "connect_rate_max" {
                        ""
                    } else {
                        ", of one connection"
                    };
                    work.settings
                        .kept(&at, format!("{to} = {number} a second{of}"));
                }
                _ => work.settings.ignored(&at, "it is no rate that fits"),
            },
            None => {}
        }
    }
    let at = key.then("proxy_protocol");
    match work.settings.truth(&at) {
        Some(true) => {
            table.texts("proxy", &["127.0.0.1", "::1"]);
            let why =
                "proxy: from this machine only, until the address of the proxy is written there";
            work.settings.changed(&at, why);
        }
        Some(false) => work.settings.kept(&at, "as always here"),
        None => {}
    }
}

/// `deny 10.0.0.0/8`, `allow all`: who may connect from where. Here that is judged at CONNECT.
fn access_rules(work: &mut Work, key: &Key, names: &[String]) {
    let at = key.then("access_rules");
    let rules = work.settings.texts(&at);
    if rules.is_empty() || rules == ["allow all"] {
        return work.settings.kept(&at, "from everywhere");
    }
    let mut made = Vec::new();
    for rule in &rules {
        let (word, from) = rule.split_once(' ').unwrap_or((rule, ""));
        let from = from.trim();
        let is_network = from == "all" || is_network(from);
        let mut table = Table::default();
        table.text("name", format!("access_rules: {rule}"));
        table.texts("listeners", names);
        match word {
            "allow" if is_network => table.texts("patterns", &["*"]),
            // What is not understood lets nobody in. Nobody has this attribute, so nobody has such an identifier.
            _ => table.texts("patterns", &["${attribute.of-this-listener}"]),
        }
        if is_network && from != "all" {
            table.texts("addresses", &[from]);
        }
        made.push(table);
    }
    let why = "[[authentication.client_ids]]: who may not is refused at CONNECT, and identifiers hold no /, + or #";
    work.settings.changed(&at, why);
    work.target.client_ids.extend(made);
}

fn is_network(text: &str) -> bool {
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= most)
}

/// What is left to say of a listener.
fn rest(work: &mut Work, key: &Key) {
    let zone = key.then("zone");
    match work.settings.text(&zone) {
        Some("default") => work
            .settings
            .kept(&zone, "limits are those of all listeners"),
        _ => work.settings.changed(
            &zone,
            "limits are those of all listeners: what the zone says is not taken over",
        ),
    }
    let nodelay = key.then("tcp_options.nodelay");
    match work.settings.truth(&nodelay) {
        Some(true) => work.settings.kept(&nodelay, "as always here"),
        Some(false) => work
            .settings
            .changed(&nodelay, "small packets are sent at once, always"),
        None => {}
    }
    for (name, why) in [
        ("tcp_options", "the server sets its sockets itself"),
        ("acceptors", "each shard accepts for itself"),
        (
            "proxy_protocol_timeout",
            "it has the time of CONNECT: limits.connect_timeout",
        ),
        ("max_conn_burst", "rates have no burst of their own"),
        ("messages_burst", "rates have no burst of their own"),
        ("bytes_burst", "rates have no burst of their own"),
        ("tcp_backend", "the server sets its sockets itself"),
        ("parse_unit", "packets are read as they come"),
    ] {
        work.settings.rest(&key.then(name), Outcome::Ignored, why);
    }
}

/// Kinds of listeners, and the port of each that EMQX has by itself.
const KINDS: [(&str, u16); 5] = [
    ("tcp", 1883),
    ("ssl", 8883),
    ("ws", 8083),
    ("wss", 8084),
    ("quic", 14567),
];

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_forms() {
        let read = |text: &str| {
            let all = addresses(text).unwrap_or_default();
            all.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        for (text, expected) in [
            ("1883", "0.0.0.0:1883"),
            (":1883", "0.0.0.0:1883"),
            ("127.0.0.1:1883", "127.0.0.1:1883"),
            ("[::1]:1883", "[::1]:1883"),
            ("::1:1883", "[::1]:1883"),
            ("localhost:1883", ""),
            ("0.0.0.0:70000", ""),
            ("", ""),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        assert!(read("[::]:1883").starts_with("0.0.0.0:1883"));
    }
}
