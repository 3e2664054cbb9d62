//! The listeners of a mosquitto.conf.
//!
//! Owns: [`open`]: their addresses, transport, TLS. Does not own: who gets in there (see `people`). Start reading at
//! [`open`]. Invariant: a listener that cannot be as safe as it was is left out, and said to be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use super::lines::Line;
use super::translate::Work;
use crate::import::rows::Outcome;
use crate::import::target::Table;

/// A listener, as it was written.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// The line that begins it; `None` for the one that no line begins.
    line: Option<Line>,
    pub(super) options: Vec<Line>,
}

/// A listener that is there.
#[derive(Debug)]
pub(super) struct Opened {
    /// Its places in the target, and so the addresses it has.
    pub(super) places: Vec<usize>,
    /// Their names.
    pub(super) names: Vec<String>,
    pub(super) options: Vec<Line>,
    /// Whether what was there before has let in everybody, for it was for this machine only.
    pub(super) is_local_only: bool,
    /// Whether certificates of clients name users there.
    pub(super) names_users: bool,
}

impl Door {
    pub(super) const fn at(line: Line) -> Self {
        Self {
            line: Some(line),
            options: Vec::new(),
        }
    }

    fn says(&self, word: &str) -> Option<&Line> {
        self.options.iter().rev().find(|line| line.word == word)
    }

    /// Whether it says where it is, though no line begins it.
    fn is_placed(&self) -> bool {
        self.says("port").is_some() || self.says("bind_address").is_some()
    }

    fn is_true(&self, word: &str) -> bool {
        self.says(word).and_then(Line::truth) == Some(true)
    }
}

/// Those that mosquitto opens: the one that no line begins is there if something says so, or if there is no other.
pub(super) fn used(work: &mut Work, mut doors: Vec<Door>) -> Vec<Door> {
    let is_alone = doors.len() == 1;
    if !is_alone && doors.first().is_some_and(|first| !first.is_placed()) {
        for line in doors.remove(0).options {
            work.ignored(
                &line,
                "it is of the listener on port 1883 that no line opens",
            );
        }
    }
    doors
}

/// Makes listeners of `doors`.
pub(super) fn open(work: &mut Work, doors: &[Door]) -> Vec<Opened> {
    let mut opened = Vec::new();
    for door in doors {
        if let Some(why) = reason_to_leave_out(door) {
            let lines = door.line.iter().chain(&door.options);
            for line in lines {
                work.ignored(line, format!("the listener is left out: {why}"));
            }
            if door.line.is_none() {
                work.note(
                    "port",
                    Outcome::Ignored,
                    format!("the listener is left out: {why}"),
                );
            }
            continue;
        }
        opened.extend(open_one(work, door));
    }
    if opened.is_empty() {
        let mut listener = Table::default();
        listener.text("address", "127.0.0.1:1883");
        work.target.listeners.push(listener);
        let why = "no listener is left: there is one for this machine only";
        work.note("listener 1883 127.0.0.1", Outcome::Changed, why);
    }
    opened
}

/// Why a listener would not be what it was.
fn reason_to_leave_out(door: &Door) -> Option<&'static str> {
    let protocol = door.says("protocol").map(|line| line.value.as_str());
    let mount = door.says("mount_point").map(|line| line.value.as_str());
    let is_secured = door.says("certfile").is_some() && door.says("keyfile").is_some();
    match () {
        () if door.says("psk_hint").is_some() || door.says("psk_file").is_some() && !is_secured => {
            Some("TLS is there with certificates only, not with PSK")
        }
        () if protocol == Some("http_api") => Some("there is no page and no HTTP API yet"),
        () if door.says("bind_interface").is_some() => {
            Some("listen at the address of the interface, by name it is not known here")
        }
        () if mount.is_some_and(|mount| !mount.ends_with('/')) => {
            Some("a mount_point has to end with / here")
        }
        () if door.says("certfile").is_some() != door.says("keyfile").is_some() => {
            Some("a certificate needs its key")
        }
        () if door.is_true("require_certificate") && door.says("cafile").is_none() => {
            Some("require_certificate needs a cafile: a file with all certificates of the capath")
        }
        () if door.says("tls_engine").is_some() => Some("keys come from PEM files only"),
        () => None,
    }
}

fn open_one(work: &mut Work, door: &Door) -> Option<Opened> {
    let is_local_only = door.line.is_none() && !door.is_placed();
    let addresses = match addresses_of(door, is_local_only) {
        Ok(addresses) => addresses,
        Err(why) => {
            for line in door.line.iter().chain(&door.options) {
                work.ignored(line, format!("the listener is left out: {why}"));
            }
            return None;
        }
    };
    let mut table = Table::default();
    let shown = addresses.join(" and ");
    match &door.line {
        Some(line) => work.kept(line, format!("listens at {shown}")),
        None if is_local_only => {
            let why =
                format!("as mosquitto 2 without a listener: at {shown}, for this machine only");
            work.note("(no listener)", Outcome::Kept, why);
        }
        None => {}
    }
    for line in &door.options {
        door_option(work, door, line, &mut table, &shown);
    }
    if let Some(tls) = tls_of(door) {
        table.raw("tls", tls.inline());
    }
    let names_users = names_users(work, door);
    let first = work.target.listeners.len();
    for address in &addresses {
        let mut of = Table::default();
        of.text("address", address);
        of.extend(&table);
        work.target.listeners.push(of);
    }
    Some(Opened {
        places: (first..work.target.listeners.len()).collect(),
        names: addresses,
        options: door.options.clone(),
        is_local_only,
        names_users,
    })
}

fn addresses_of(door: &Door, is_local_only: bool) -> Result<Vec<String>, String> {
    let (port, host) = match &door.line {
        Some(line) => {
            let (port, host) = line.value.split_once(' ').unwrap_or((&line.value, ""));
            (port.to_owned(), host.trim().to_owned())
        }
        None => {
            let value = |word| door.says(word).map(|line| line.value.clone());
            (
                value("port").unwrap_or_else(|| "1883".to_owned()),
                value("bind_address").unwrap_or_default(),
            )
        }
    };
    let port: u16 = port.parse().map_err(|_| format!("{port} is no port"))?;
    if port == 0 && host.starts_with('/') {
        return Ok(vec![format!("unix:{host}")]);
    }
    let family = door.says("socket_domain").map(|line| line.value.as_str());
    let addresses: Vec<IpAddr> = if is_local_only {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    } else if host.is_empty() {
        vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
    } else {
        let found = (host.as_str(), port).to_socket_addrs();
        let found = found.map_err(|error| format!("{host}: {error}"))?;
        found.map(|address| address.ip()).collect()
    };
    let is_named = !host.is_empty();
    let fits = |address: &IpAddr| match family {
        Some("ipv4") => address.is_ipv4(),
        Some("ipv6") => address.is_ipv6(),
        _ => is_named || address.is_ipv4() || has_ipv6(*address),
    };
    let mut addresses: Vec<String> = addresses
        .into_iter()
        .filter(fits)
        .map(|address| SocketAddr::new(address, port).to_string())
        .collect();
    addresses.dedup();
    match addresses.is_empty() {
        true => Err(format!("{host} has no address of that family")),
        false => Ok(addresses),
    }
}

/// Whether this machine has IPv6; a listener for it would keep the server from starting where it has not.
pub(crate) fn has_ipv6(address: IpAddr) -> bool {
    TcpListener::bind(SocketAddr::new(address, 0)).is_ok()
}

fn door_option(work: &mut Work, door: &Door, line: &Line, table: &mut Table, shown: &str) {
    let is_secured = door.says("certfile").is_some();
    let judges = door.is_true("require_certificate");
    match line.word.as_str() {
        "port" | "bind_address" | "socket_domain" => work.kept(line, format!("listens at {shown}")),
        "protocol" if line.value == "websockets" => {
            table.text("transport", "websocket");
            work.kept(
                line,
                "transport = \"websocket\", at the paths /mqtt, / and /ws",
            );
        }
        "protocol" => work.kept(line, "transport = \"stream\""),
        "mount_point" => {
            table.text("mount_point", &line.value);
            work.kept(line, "mount_point");
        }
        "max_connections" => match line.value.parse::<i64>() {
            Ok(number @ 1..) => {
                table.raw("connections_max", number);
                work.kept(line, "connections_max");
            }
            _ => work.kept(line, "no limit but that of all"),
        },
        "max_qos" | "max_topic_alias" | "max_topic_alias_broker" => own_limit(work, line, table),
        "accept_protocol_versions" => versions(work, line, table),
        "enable_proxy_protocol" => {
            table.texts("proxy", &["127.0.0.1", "::1"]);
            work.changed(
                line,
                "proxy: from this machine only, until the address of the proxy is written there",
            );
        }
        "certfile" | "keyfile" => work.kept_file(line, "tls"),
        "require_certificate" if judges => {
            work.kept(line, "tls.client_certificates = \"required\"");
        }
        "require_certificate" => work.kept(line, "certificates of clients are not asked for"),
        "cafile" if judges => work.kept_file(line, "tls.client_ca"),
        "crlfile" if judges => work.kept(line, "tls.crl"),
        "cafile" | "capath" | "crlfile" if is_secured => {
            work.ignored(
                line,
                "it judges certificates of clients, which are not asked for",
            );
        }
        "tls_version" => match line.value.as_str() {
            "tlsv1.2" => work.kept(line, "tls.min_version"),
            "tlsv1.3" => work.kept(line, "tls.min_version = \"1.3\""),
            _ => work.changed(line, "nothing below TLS 1.2 is spoken"),
        },
        "ciphers" | "ciphers_tls1.3" | "dhparamfile" | "tls_keyform" | "tls_engine_kpass_sha1" => {
            work.ignored(line, "the TLS here chooses its ciphers itself");
        }
        "use_username_as_clientid" if line.truth() == Some(true) => {
            table.raw("client_id_from_user", true);
            work.kept(line, "client_id_from_user");
        }
        "use_identity_as_username" | "use_subject_as_username" | "use_username_as_clientid" => {
            if line.truth() != Some(true) {
                work.kept(line, "as always here");
            }
        }
        word if super::people::is_about_people(word) => {}
        _ => work.ignored(line, "there is nothing like it here"),
    }
}

/// Limits that a listener has of its own, there and here.
fn own_limit(work: &mut Work, line: &Line, table: &mut Table) {
    let key = match line.word.as_str() {
        "max_qos" => "maximum_qos",
        "max_topic_alias" => "topic_alias_maximum",
        _ => "topic_alias_maximum_out",
    };
    let most = if key == "maximum_qos" { 2 } else { 65_535 };
    match line.value.parse::<u64>() {
        Ok(number) if number <= most => {
            table.raw(key, number);
            work.kept(line, key);
        }
        _ => work.ignored(line, "it is no number that fits"),
    }
}

fn versions(work: &mut Work, line: &Line, table: &mut Table) {
    let words = line.value.split([',', ' ']).filter(|word| !word.is_empty());
    let versions: Option<Vec<&str>> = words
        .map(|word| match word {
            "3" => Some("3.1"),
            "4" => Some("3.1.1"),
            "5" => Some("5.0"),
            _ => None,
        })
        .collect();
    match versions {
        Some(versions) if !versions.is_empty() => {
            table.texts("versions", &versions);
            work.kept(line, "versions");
        }
        _ => work.ignored(line, "wanted 3, 4 or 5"),
    }
}

fn tls_of(door: &Door) -> Option<Table> {
    let (certificate, key) = (door.says("certfile")?, door.says("keyfile")?);
    let mut tls = Table::default();
    tls.text("certificate", &certificate.value);
    tls.text("key", &key.value);
    if door.is_true("require_certificate")
        && let Some(ca) = door.says("cafile")
    {
        tls.text("client_ca", &ca.value);
        tls.text("client_certificates", "required");
        if let Some(crl) = door.says("crlfile") {
            tls.text("crl", &crl.value);
        }
    }
    if door
        .says("tls_version")
        .is_some_and(|line| line.value == "tlsv1.3")
    {
        tls.text("min_version", "1.3");
    }
    Some(tls)
}

/// Whether users are named by certificates at a listener.
fn names_users(work: &mut Work, door: &Door) -> bool {
    let judges = door.is_true("require_certificate");
    let mut names = false;
    for (word, user) in [
        ("use_identity_as_username", "common-name"),
        ("use_subject_as_username", "subject"),
    ] {
        let Some(line) = door.says(word).filter(|line| line.truth() == Some(true)) else {
            continue;
        };
        let known = work
            .target
            .authentication
            .value("certificate_user")
            .map(str::to_owned);
        let wanted = crate::import::target::quoted(user);
        match known {
            _ if !judges => work.ignored(
                line,
                "without require_certificate nobody shows a certificate",
            ),
            Some(known) if known != wanted => {
                work.changed(
                    line,
                    format!("certificate_user is {known} for all listeners"),
                );
                names = true;
            }
            _ => {
                work.target.authentication.text("certificate_user", user);
                work.kept(line, format!("certificate_user = {wanted}"));
                names = true;
            }
        }
    }
    names
}

/// Options of a listener; all others are of the broker.
pub(super) const OPTIONS: [&str; 33] = [
    "accept_protocol_versions",
    "bind_address",
    "bind_interface",
    "cafile",
    "capath",
    "certfile",
    "ciphers",
    "ciphers_tls1.3",
    "crlfile",
    "dhparamfile",
    "disable_client_cert_date_checks",
    "enable_proxy_protocol",
    "http_dir",
    "keyfile",
    "max_connections",
    "max_qos",
    "max_topic_alias",
    "max_topic_alias_broker",
    "mount_point",
    "port",
    "protocol",
    "proxy_protocol_v2_require_tls",
    "psk_hint",
    "require_certificate",
    "socket_domain",
    "tls_engine",
    "tls_engine_kpass_sha1",
    "tls_keyform",
    "tls_version",
    "use_identity_as_username",
    "use_subject_as_username",
    "use_username_as_clientid",
    "websockets_headers_size",
];
