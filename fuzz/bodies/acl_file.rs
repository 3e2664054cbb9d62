//! An ACL file, names and a topic, against the naive reading of mosquitto's rules.
//!
//! Owns: [`run`]. Does not own: what reads the file (see `vencejo_server::authorization`).
//! Start reading at [`run`]. Invariant: any bytes are a file or an error that names one of its lines.

use std::collections::BTreeMap;

use vencejo_proto::Qos;
use vencejo_proto::topic;
use vencejo_server::authorization::{Principal, Request, Rules, Subject, parse_acl};

/// `data` is the topic, the user (none if empty), the Client Identifier, each ended by a zero, and the file.
pub(crate) fn run(data: &[u8]) {
    let mut parts = data.splitn(4, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (name, user, client_id, file) = (next(), next(), next(), next());
    let (name, user) = (String::from_utf8_lossy(name), String::from_utf8_lossy(user));
    let client_id = String::from_utf8_lossy(client_id);
    let rules = match parse_acl(file, "acl") {
        Ok(rules) => Rules::new(rules),
        Err(error) => {
            let lines = file.split(|byte| *byte == b'\n').count();
            assert!((1..=lines).contains(&error.line()), "{error}");
            return;
        }
    };
    if topic::check_name(&name).is_err() {
        return;
    }
    let user = (!user.is_empty()).then_some(&*user);
    let principal = Principal {
        user: user.map(Into::into),
        ..Principal::default()
    };
    let subject = Subject {
        principal: &principal,
        client_id: &client_id,
    };
    let applying = rules.applying(subject);
    let requests = [
        (Request::Receive { topic: &name }, "read"),
        (
            Request::Publish {
                topic: &name,
                qos: Qos::AtMostOnce,
                retain: false,
            },
            "write",
        ),
    ];
    let text = String::from_utf8_lossy(file);
    let is_strange = |name: &str| name.is_empty() || name.contains(['/', '+', '#']);
    for (request, access) in requests {
        let is_allowed = rules.decide(&applying, subject, request).is_allowed;
        let by_mosquitto = naive(&text, user, &client_id, &name, access);
        assert!(
            !is_allowed || by_mosquitto,
            "{access} {name:?} for {user:?} {client_id:?}"
        );
        // Where a name may take no place, less is allowed.
        if !user.is_some_and(is_strange) && !is_strange(&client_id) {
            assert_eq!(
                is_allowed, by_mosquitto,
                "{access} {name:?} for {user:?} {client_id:?}"
            );
        }
    }
}

/// What mosquitto does, line by line, with the names written into the patterns as text.
fn naive(file: &str, user: Option<&str>, client_id: &str, name: &str, access: &str) -> bool {
    let mut section = None;
    // The lines of this Client, then the patterns: whether each denies, its access and its filter.
    let mut lines: BTreeMap<bool, Vec<(String, String)>> = BTreeMap::new();
    for line in file.split('\n') {
        let line = line.trim_end_matches(|end: char| end.is_ascii_whitespace());
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim_start_matches(' ');
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim_start_matches(' ');
        match word {
            "user" => section = Some(rest),
            "topic" if section == user => {
                lines.entry(false).or_default().push(split(rest));
            }
            "pattern" if rest.contains("%u") && user.is_none() => {}
            "pattern" => {
                let (access, filter) = split(rest);
                let filter = fill(&filter, user.unwrap_or_default(), client_id);
                lines.entry(true).or_default().push((access, filter));
            }
            _ => {}
        }
    }
    let is_dangerous = |name: &str| name.contains(['+', '#']);
    for (is_pattern, mut lines) in lines {
        if is_pattern && (user.is_some_and(is_dangerous) || is_dangerous(client_id)) {
            return false;
        }
        lines.sort_by_key(|(access, _)| access != "deny");
        for (of, filter) in lines {
            if topic::matches(&filter, name) && (of == "deny" || of.contains(access)) {
                return of != "deny";
            }
        }
    }
    false
}

fn split(rest: &str) -> (String, String) {
    let (access, topic) = rest.split_once(' ').unwrap_or(("readwrite", rest));
    (access.to_owned(), topic.trim_start_matches(' ').to_owned())
}

/// `pattern` with the names in their places, from the left.
fn fill(pattern: &str, user: &str, client_id: &str) -> String {
    let mut filled = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        filled.push_str(&rest[..at]);
        let (name, after) = match rest.as_bytes().get(at + 1) {
            Some(b'u') => (user, 2),
            Some(b'c') => (client_id, 2),
            _ => ("%", 1),
        };
        filled.push_str(name);
        rest = &rest[at + after..];
    }
    filled + rest
}
