//! `authentication` of a listener: which links of the chain are asked there, and in which order.
//!
//! Owns: [`Link`], which of them can be named. Does not own: what a link does (see `crate::authentication`). Start
//! reading at [`Link`]. Invariant: a list is not empty, names nothing twice and nothing that `[authentication]` does not
//! have.

use toml::Spanned;

use super::checked::{AuthenticationConfig, Fault};

/// One link of the chain that is asked who a Client is, by its name in the file. In this order they are asked where a
/// listener does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// The Authentication Method `VENCEJO-TEST`.
    #[serde(rename = "test_method")]
    TestMethod,
    /// Certificates of Clients: `certificate_user`.
    Certificate,
    /// JSON Web Tokens, as Password or by the Authentication Method `JWT`.
    Tokens,
    /// The Authentication Method `SCRAM-SHA-256`.
    Scram,
    /// Passwords of the data folder's users and of `password_file`.
    Passwords,
    /// A service that is asked by HTTP.
    Http,
    /// Users in PostgreSQL.
    Postgres,
    /// Users in MySQL or MariaDB.
    MySql,
    /// Users in Redis.
    Redis,
    /// Users in an LDAP directory.
    Ldap,
}

impl Link {
    /// Its name in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TestMethod => "test_method",
            Self::Certificate => "certificate",
            Self::Tokens => "tokens",
            Self::Scram => "scram",
            Self::Passwords => "passwords",
            Self::Http => "http",
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Redis => "redis",
            Self::Ldap => "ldap",
        }
    }

    /// The key of `[authentication]` that brings it; `None` if there is nothing to be said.
    const fn missing_in(self, config: &AuthenticationConfig) -> Option<&'static str> {
        let (is_there, key) = match self {
            Self::TestMethod => (config.test_method, "test_method = true"),
            Self::Certificate => (config.certificate_user.is_some(), "certificate_user"),
            Self::Tokens => (config.tokens.is_some(), "tokens"),
            Self::Scram => (config.scram, "scram = true"),
            // The data folder may have users at any time.
            Self::Passwords => (true, ""),
            Self::Http => (config.http.is_some(), "http"),
            Self::Postgres => (config.postgres.is_some(), "postgres"),
            Self::MySql => (config.mysql.is_some(), "mysql"),
            Self::Redis => (config.redis.is_some(), "redis"),
            Self::Ldap => (config.ldap.is_some(), "ldap"),
        };
        if is_there { None } else { Some(key) }
    }

    /// All that `config` has, in the order in which they are asked where nothing else is said.
    pub fn all_of(config: &AuthenticationConfig) -> impl Iterator<Item = Self> {
        let all = [
            Self::TestMethod,
            Self::Certificate,
            Self::Tokens,
            Self::Scram,
            Self::Passwords,
            Self::Http,
            Self::Postgres,
            Self::MySql,
            Self::Redis,
            Self::Ldap,
        ];
        all.into_iter()
            .filter(|link| link.missing_in(config).is_none())
    }
}

/// Judges what was written beside what `[authentication]` has.
pub(super) fn check(
    raw: Spanned<Vec<Spanned<Link>>>,
    config: &AuthenticationConfig,
) -> Result<Vec<Link>, Fault> {
    if raw.get_ref().is_empty() {
        return Err(Fault {
            span: Some(raw.span()),
            message: "authentication must name one link at least; left out, all are asked"
                .to_owned(),
        });
    }
    let mut links = Vec::new();
    for named in raw.into_inner() {
        let link = *named.get_ref();
        let fault = |message| Fault {
            span: Some(named.span()),
            message,
        };
        if links.contains(&link) {
            return Err(fault(format!("{:?} is named twice", link.name())));
        }
        if let Some(key) = link.missing_in(config) {
            return Err(fault(format!(
                "{:?} cannot be asked: [authentication] has no {key}",
                link.name()
            )));
        }
        links.push(link);
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    use serde::de::value::Error;

    use super::*;
    use crate::config::parse;

    #[test]
    fn default_order_is_that_of_the_type_and_every_name_is_read() {
        let text = include_str!("every_key.toml");
        let config = parse(text, "every_key.toml".as_ref()).expect("is valid");
        let mut wanted = config.authentication;
        wanted.scram = true;
        let all: Vec<_> = Link::all_of(&wanted).collect();
        assert!(all.is_sorted());
        for link in all {
            let name = IntoDeserializer::<Error>::into_deserializer(link.name());
            assert_eq!(Link::deserialize(name), Ok(link));
        }
    }

    #[test]
    fn wrong_list_is_pointed_at() {
        let cases = [
            ("[]", "3:18: authentication must name one link at least"),
            ("[\"token\"]", "did you mean `tokens`?"),
            (
                "[\"passwords\", \"tokens\"]",
                "3:32: \"tokens\" cannot be asked: [authentication] has no tokens",
            ),
            (
                "[\"certificate\"]",
                "3:19: \"certificate\" cannot be asked: [authentication] has no certificate_user",
            ),
            (
                "[\"passwords\", \"passwords\"]",
                "3:32: \"passwords\" is named twice",
            ),
            ("\"passwords\"", "expected a list"),
        ];
        for (list, expected) in cases {
            let text =
                format!("[[listeners]]\naddress = \"127.0.0.1:1\"\nauthentication = {list}\n");
            let said = parse(&text, "t.toml".as_ref()).expect_err("is refused");
            let said = said.to_string();
            assert!(said.contains(expected), "{list}: {said}");
        }
    }
}
