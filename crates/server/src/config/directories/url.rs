//! Where a server of users is, and what of it may be shown.
//!
//! Owns: [`DirectoryUrl`], [`without_passwords`]. Does not own: which of them fit (see `super`). Start reading at
//! [`DirectoryUrl`]. Invariant: no password prints.

use std::fmt;
use std::net::IpAddr;

/// Where a server is, perhaps with a password, which does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct DirectoryUrl {
    pub(super) text: String,
}

impl DirectoryUrl {
    /// As it was written, password and all.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    pub(super) fn scheme(&self) -> &str {
        self.text.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    /// User, password, host and port.
    fn authority(&self) -> &str {
        let rest = self.text.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?', '#']).next().unwrap_or_default()
    }

    /// Empty for a socket of this machine.
    pub(super) fn host(&self) -> &str {
        let authority = self.authority();
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        match host.strip_prefix('[') {
            Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        }
    }

    pub(super) fn is_of_this_machine(&self) -> bool {
        let host = self.host();
        let address = host.parse::<IpAddr>();
        host.is_empty()
            || host.eq_ignore_ascii_case("localhost")
            || is_path(host)
            || address.is_ok_and(|address| address.to_canonical().is_loopback())
    }

    pub(super) fn has_password(&self) -> bool {
        let user = self
            .authority()
            .rsplit_once('@')
            .map_or("", |(user, _)| user);
        user.contains(':')
    }

    /// What is said behind `?`: names and values.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        let query = self.text.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// Whether a socket of this machine is meant, by one of these parameters.
    pub(super) fn names_socket(&self) -> bool {
        let mut all = self.parameters();
        all.any(|(name, value)| SOCKET_PARAMETERS.contains(&name) && is_path(value))
    }
}

impl fmt::Debug for DirectoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_passwords(&self.text))
    }
}

/// `text` in which the passwords of URLs are stars, as many as they had characters.
pub(in crate::config) fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, from) = rest.split_at(at + 3);
        shown.push_str(before);
        let is_end = |one: char| one.is_whitespace() || matches!(one, '"' | '\'' | '`');
        let url = from.split(is_end).next().unwrap_or_default();
        // Whoever writes a password into a URL may not have escaped what is in it.
        let hidden = url.rfind('@').and_then(|at| {
            let user = url.get(..at)?;
            Some((user.find(':')? + 1)..at)
        });
        match hidden {
            Some(range) => {
                shown.push_str(url.get(..range.start).unwrap_or_default());
                let count = url
                    .get(range.clone())
                    .map_or(0, |text| text.chars().count());
                shown.extend(std::iter::repeat_n('*', count));
                shown.push_str(url.get(range.end..).unwrap_or_default());
            }
            None => shown.push_str(url),
        }
        rest = from.get(url.len()..).unwrap_or_default();
    }
    shown.push_str(rest);
    shown
}

/// Whether this is a path, perhaps as URLs have it.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') || text.to_ascii_lowercase().starts_with("%2f")
}

/// Parameters that name a socket of this machine.
pub(super) const SOCKET_PARAMETERS: [&str; 2] = ["host", "socket"];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn error(table: &str) -> String {
        let text = format!("[authentication]\n{table}");
        let refused = parse(&text, Path::new("vencejo.toml")).expect_err(table);
        refused.to_string()
    }

    fn url(text: &str) -> DirectoryUrl {
        DirectoryUrl {
            text: text.to_owned(),
        }
    }

    #[test]
    fn host_of_a_url_is_found_whatever_stands_around_it() {
        let cases = [
            ("postgres://127.0.0.1/db", "127.0.0.1", true),
            ("postgres://u:p@[::1]:5432/db", "::1", true),
            (
                "postgres://u:p%40@db.example:1/db?host=x",
                "db.example",
                false,
            ),
            ("mysql://localhost", "localhost", true),
            ("mysql://LOCALHOST.example", "LOCALHOST.example", false),
            ("ldapi://%2Fvar%2Frun%2Fldapi", "%2Fvar%2Frun%2Fldapi", true),
            ("redis+unix:///run/redis.sock", "", true),
            ("redis://u:@p@10.0.0.1:6379", "10.0.0.1", false),
        ];
        for (text, host, is_here) in cases {
            assert_eq!(url(text).host(), host, "{text}");
            assert_eq!(url(text).is_of_this_machine(), is_here, "{text}");
        }
    }

    /// P13: what a file says of a password is shown nowhere, whatever else is wrong with its line.
    #[test]
    fn passwords_of_urls_are_never_shown() {
        let cases = [
            ("x = \"a://u:secret@h/d\"", "x = \"a://u:******@h/d\""),
            ("a://u:se/c@r:t@h b://v:x@i", "a://u:********@h b://v:*@i"),
            ("a://u@h, a://h:1/x", "a://u@h, a://h:1/x"),
            ("'a://:geheimnüs@h'", "'a://:*********@h'"),
        ];
        for (text, shown) in cases {
            assert_eq!(without_passwords(text), shown);
        }
        for rest in [
            "quer = \"x\"",
            "query = 3",
            "query = \"x\"",
            "timeout = \"1y\"",
        ] {
            let told = error(&format!(
                "postgres = {{ url = \"postgres://u:opensesame@h/d\", {rest} }}"
            ));
            assert!(!told.contains("opensesame"), "{told}");
        }
        let printed = format!("{:?}", url("postgres://u:opensesame@h/d"));
        assert_eq!(printed, "postgres://u:**********@h/d");
    }
}
