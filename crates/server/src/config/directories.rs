//! `[authentication.postgres]`, `.mysql`, `.redis`, `.ldap`: users that stand in other people's databases.
//!
//! Owns: their checked forms and defaults. Does not own: what is asked there (see
//! `crate::authentication`), their keys as written (see `raw`). Start reading at [`DirectoryServer`].
//! Invariant: nothing travels in the clear to another machine unless the file says so.

mod url;

use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use super::asking::{self, AskConfig, RawAsks};
use super::checked::Fault;
use super::raw::{RawDirectoryTls, RawLdap, RawRedis, RawSearch, RawSql};
use super::template::{Placeholder, Template};

pub use url::DirectoryUrl;

pub(super) use url::without_passwords;
use url::{SOCKET_PARAMETERS, is_path};

/// A server that knows users, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryServer {
    /// Where it is.
    pub url: DirectoryUrl,
    /// A file with the password that this Server logs in there with, in place of one in `url`. Default: none.
    pub password_file: Option<PathBuf>,
    /// Whether the way there is encrypted and its certificate verified. Default: yes, but on this machine.
    pub has_tls: bool,
    /// A file with certificates that may have signed that of the server. Default: those of the system; for
    /// PostgreSQL and MySQL those that browsers know, also beside this file.
    pub ca: Option<PathBuf>,
    /// How it is asked. Questions at once have connections of their own, but in Redis; default: 8.
    pub ask: AskConfig,
}

/// Users in a database that speaks SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlConfig {
    /// Which.
    pub server: DirectoryServer,
    /// What is asked: a statement that returns one row for a user that it knows.
    pub query: Template,
    /// What is asked for the rights of that user: a statement that returns a row for each. Default: they have
    /// none of their own, only what `[authorization]` says.
    pub rights_query: Option<Template>,
}

/// Users in Redis, each a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// Which.
    pub server: DirectoryServer,
    /// The key of a user. Default: `mqtt:user:${username}`.
    pub key: Template,
    /// The field with the stored password. Default: `password`.
    pub password_field: String,
    /// The field that is `1`, `true` or `yes` for administrators. Default: `administrator`.
    pub administrator_field: String,
    /// The field with groups, a comma between two. Default: `groups`.
    pub groups_field: String,
    /// The field with the user's rights, as in a token. Default: they have none of their own.
    pub rights_field: Option<String>,
    /// Fields that become attributes of the user, for rules to ask. Default: none.
    pub attributes: Vec<String>,
}

/// Users in an LDAP directory, which verifies their passwords itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapConfig {
    /// Which.
    pub server: DirectoryServer,
    /// How the entry of a user is found.
    pub user: LdapUser,
    /// The attribute of that entry which holds the User Name, letter by letter. Default: `uid`.
    pub user_attribute: String,
    /// As whom this Server searches, with the password of `password_file`. Default: without a name, and where
    /// entries are not searched for, as the user.
    pub bind_dn: Option<String>,
    /// Where the groups of a user are. Default: it has none.
    pub groups: Option<LdapSearch>,
    /// The attribute of a group that is its name. Default: `cn`.
    pub group_attribute: String,
    /// The group whose members are administrators. Default: none.
    pub administrators: Option<String>,
    /// Attributes of the entry that become attributes of the user, for rules to ask. Default: none.
    pub attributes: Vec<String>,
}

/// How the entry of a user is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LdapUser {
    /// Its name is made of the User Name.
    Named(Template),
    /// It is searched for.
    Searched(LdapSearch),
}

/// Entries below `base` that `filter` fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapSearch {
    /// Where.
    pub base: String,
    /// Which.
    pub filter: Template,
}

/// What all such servers have in common, as written.
struct RawServer {
    url: Spanned<String>,
    password_file: Option<Spanned<String>>,
    tls: Option<Spanned<RawDirectoryTls>>,
    ca: Option<Spanned<String>>,
    asks: RawAsks,
}

/// The keys of `$raw` that say how it is asked.
macro_rules! asks_of {
    ($raw:ident) => {
        RawAsks {
            timeout: $raw.timeout,
            at_once: $raw.at_once,
            on_error: $raw.on_error,
            cache: $raw.cache,
            breaker: $raw.breaker,
        }
    };
}

/// How a kind of server is reached.
struct Kind {
    /// The Cargo feature that knows it.
    feature: &'static str,
    is_built: bool,
    schemes: &'static [&'static str],
    /// Schemes that are TLS from the first byte.
    secure: &'static [&'static str],
    /// Whether the others can be made secure, too.
    can_upgrade: bool,
    parameters: &'static [&'static str],
    needs_host: bool,
}

const POSTGRES: Kind = Kind {
    feature: "postgres",
    is_built: cfg!(feature = "postgres"),
    schemes: &["postgres", "postgresql"],
    secure: &[],
    can_upgrade: true,
    parameters: &["host", "application_name", "options"],
    needs_host: true,
};
const MYSQL: Kind = Kind {
    feature: "mysql",
    is_built: cfg!(feature = "mysql"),
    schemes: &["mysql", "mariadb"],
    secure: &[],
    can_upgrade: true,
    parameters: &["socket", "charset", "collation"],
    needs_host: true,
};
const REDIS: Kind = Kind {
    feature: "redis",
    is_built: cfg!(feature = "redis"),
    schemes: &["redis", "rediss", "redis+unix"],
    secure: &["rediss"],
    can_upgrade: false,
    parameters: &["db", "protocol"],
    needs_host: false,
};
const LDAP: Kind = Kind {
    feature: "ldap",
    is_built: cfg!(feature = "ldap"),
    schemes: &["ldap", "ldaps", "ldapi"],
    secure: &["ldaps"],
    can_upgrade: true,
    parameters: &[],
    needs_host: true,
};

pub(super) fn check_postgres(raw: Spanned<RawSql>) -> Result<SqlConfig, Fault> {
    check_sql(raw, &POSTGRES)
}

pub(super) fn check_mysql(raw: Spanned<RawSql>) -> Result<SqlConfig, Fault> {
    check_sql(raw, &MYSQL)
}

fn check_sql(raw: Spanned<RawSql>, kind: &Kind) -> Result<SqlConfig, Fault> {
    kind.is_there(raw.span())?;
    let raw = raw.into_inner();
    let server = kind.check(RawServer {
        url: raw.url,
        password_file: raw.password_file,
        tls: raw.tls,
        ca: raw.ca,
        asks: asks_of!(raw),
    })?;
    let query = query("query", raw.query)?;
    let rights_query = raw
        .rights_query
        .map(|text| self::query("rights_query", text));
    Ok(SqlConfig {
        server,
        query,
        rights_query: rights_query.transpose()?,
    })
}

fn query(name: &str, text: Spanned<String>) -> Result<Template, Fault> {
    let span = text.span();
    let query = template(name, text, &SQL_PLACEHOLDERS)?;
    let wrong = |message: &str| Fault {
        span: Some(span.clone()),
        message: format!("{name}: {message}"),
    };
    if query.is_quoted() {
        return Err(wrong(
            "a placeholder stands without quotation marks, it is a parameter and not a part of the text",
        ));
    }
    if !query.has(Placeholder::UserName) {
        return Err(wrong("it must ask for ${username}"));
    }
    Ok(query)
}

pub(super) fn check_redis(raw: Spanned<RawRedis>) -> Result<RedisConfig, Fault> {
    REDIS.is_there(raw.span())?;
    let raw = raw.into_inner();
    let server = REDIS.check(RawServer {
        url: raw.url,
        password_file: raw.password_file,
        tls: raw.tls,
        ca: raw.ca,
        asks: asks_of!(raw),
    })?;
    let key = match raw.key {
        Some(key) => {
            let span = key.span();
            let key = template("key", key, &[Placeholder::UserName])?;
            if !key.has(Placeholder::UserName) {
                return Err(Fault {
                    span: Some(span),
                    message: "key must have ${username} in it".to_owned(),
                });
            }
            key
        }
        None => default_key(),
    };
    let field = |name: &str, value: Option<Spanned<String>>| match value {
        Some(value) => filled(name, value),
        None => Ok(name.trim_end_matches("_field").to_owned()),
    };
    Ok(RedisConfig {
        server,
        key,
        password_field: field("password_field", raw.password_field)?,
        administrator_field: field("administrator_field", raw.administrator_field)?,
        groups_field: field("groups_field", raw.groups_field)?,
        rights_field: raw
            .rights_field
            .map(|name| filled("rights_field", name))
            .transpose()?,
        attributes: all_filled("attributes", raw.attributes)?,
    })
}

fn default_key() -> Template {
    let key = Template::parse("mqtt:user:${username}", &[Placeholder::UserName]);
    key.expect("invariant: the default is a template")
}

pub(super) fn check_ldap(raw: Spanned<RawLdap>) -> Result<LdapConfig, Fault> {
    let table = raw.span();
    LDAP.is_there(table.clone())?;
    let raw = raw.into_inner();
    let bind_password = raw.password_file.as_ref().map(Spanned::span);
    let server = LDAP.check(RawServer {
        url: raw.url,
        password_file: raw.password_file,
        tls: raw.tls,
        ca: raw.ca,
        asks: asks_of!(raw),
    })?;
    let wrong = |span: Option<Range<usize>>, message: &str| Fault {
        span: Some(span.unwrap_or_else(|| table.clone())),
        message: message.to_owned(),
    };
    if raw.bind_dn.is_some() != bind_password.is_some() {
        let span = raw.bind_dn.as_ref().map(Spanned::span).or(bind_password);
        return Err(wrong(span, "bind_dn and password_file belong together"));
    }
    let user = match (raw.user_dn, raw.users) {
        (Some(name), None) => {
            let span = name.span();
            let name = template("user_dn", name, &[Placeholder::UserName])?;
            if !name.has(Placeholder::UserName) {
                return Err(wrong(Some(span), "user_dn must have ${username} in it"));
            }
            LdapUser::Named(name)
        }
        (None, Some(search)) => {
            LdapUser::Searched(search_of("users", search, Placeholder::UserName)?)
        }
        _ => {
            let message =
                "ldap needs user_dn or users: how the entry of a user is found, one of the two";
            return Err(wrong(None, message));
        }
    };
    let groups = raw
        .groups
        .map(|groups| search_of("groups", groups, Placeholder::Dn));
    let or = |name: &str, value: Option<Spanned<String>>, default: &str| match value {
        Some(value) => filled(name, value),
        None => Ok(default.to_owned()),
    };
    let administrators_span = raw.administrators.as_ref().map(Spanned::span);
    let administrators = raw
        .administrators
        .map(|group| filled("administrators", group));
    let config = LdapConfig {
        server,
        user,
        user_attribute: or("user_attribute", raw.user_attribute, "uid")?,
        bind_dn: raw
            .bind_dn
            .map(|name| filled("bind_dn", name))
            .transpose()?,
        groups: groups.transpose()?,
        group_attribute: or("group_attribute", raw.group_attribute, "cn")?,
        administrators: administrators.transpose()?,
        attributes: all_filled("attributes", raw.attributes)?,
    };
    if config.administrators.is_some() && config.groups.is_none() {
        return Err(wrong(
            administrators_span,
            "administrators is a group, and needs groups",
        ));
    }
    Ok(config)
}

fn search_of(name: &str, raw: RawSearch, key: Placeholder) -> Result<LdapSearch, Fault> {
    let span = raw.filter.span();
    let allowed: &[Placeholder] = match key {
        Placeholder::Dn => &[Placeholder::Dn, Placeholder::UserName],
        _ => &[Placeholder::UserName],
    };
    let filter = template("filter", raw.filter, allowed)?;
    if !allowed.iter().any(|one| filter.has(*one)) {
        return Err(Fault {
            span: Some(span),
            message: format!("{name}: filter must have {} in it", key.word()),
        });
    }
    Ok(LdapSearch {
        base: filled("base", raw.base)?,
        filter,
    })
}

impl Kind {
    /// What a table says to a program that cannot do it is no table to serve by.
    fn is_there(&self, span: Range<usize>) -> Result<(), Fault> {
        if self.is_built {
            return Ok(());
        }
        let feature = self.feature;
        Err(Fault {
            span: Some(span),
            message: format!(
                "this vencejo was built without {feature}: build it with `--features {feature}`"
            ),
        })
    }

    fn check(&self, raw: RawServer) -> Result<DirectoryServer, Fault> {
        let span = raw.url.span();
        let fault = |message: String| Fault {
            span: Some(span.clone()),
            message,
        };
        let url = DirectoryUrl {
            text: raw.url.into_inner(),
        };
        if !self.schemes.contains(&url.scheme()) {
            let first = self.schemes.first().copied().unwrap_or_default();
            return Err(fault(format!("url must begin with {first}://")));
        }
        self.check_parameters(&url).map_err(fault)?;
        if url.has_password() && raw.password_file.is_some() {
            return Err(fault(
                "url has a password, and so has password_file: one of the two".to_owned(),
            ));
        }
        let has_tls = self.has_tls(&url, raw.tls, &span)?;
        let ca = raw.ca.map(|file| (file.span(), filled("ca", file)));
        let ca = match ca {
            Some((span, _)) if !has_tls => {
                return Err(Fault {
                    span: Some(span),
                    message: "ca counts for nothing without TLS".to_owned(),
                });
            }
            Some((_, file)) => Some(file?.into()),
            None => None,
        };
        let password_file = raw.password_file.map(|file| filled("password_file", file));
        Ok(DirectoryServer {
            url,
            password_file: password_file.transpose()?.map(PathBuf::from),
            has_tls,
            ca,
            ask: check_asks(raw.asks)?,
        })
    }

    /// A host in one place only: whether the way there is encrypted depends on it.
    fn check_parameters(&self, url: &DirectoryUrl) -> Result<(), String> {
        for (name, value) in url.parameters() {
            if !self.parameters.contains(&name) {
                return Err(format!(
                    "url: {name:?} has a key of its own, or no meaning here"
                ));
            }
            if SOCKET_PARAMETERS.contains(&name) && !is_path(value) {
                return Err(format!("url: {name:?} is for a socket: a path"));
            }
        }
        // Where none is named, libraries ask the environment.
        let names_host = !url.host().is_empty() || url.names_socket();
        if self.needs_host && !names_host {
            return Err("url names neither a host nor a socket".to_owned());
        }
        Ok(())
    }

    fn has_tls(
        &self,
        url: &DirectoryUrl,
        tls: Option<Spanned<RawDirectoryTls>>,
        span: &Range<usize>,
    ) -> Result<bool, Fault> {
        let fault = |span: Range<usize>, message: &str| Fault {
            span: Some(span),
            message: message.to_owned(),
        };
        let is_secure = self.secure.contains(&url.scheme());
        let wanted = match tls {
            Some(tls) if *tls.get_ref() == RawDirectoryTls::Off && is_secure => {
                return Err(fault(tls.span(), "url says TLS, and tls says off"));
            }
            Some(tls) => *tls.get_ref() == RawDirectoryTls::Verify,
            None => is_secure || !url.is_of_this_machine(),
        };
        if wanted && !is_secure && !self.can_upgrade {
            let message = "url is not encrypted: begin it with rediss://, or say tls = \"off\"";
            return Err(fault(span.clone(), message));
        }
        Ok(wanted)
    }
}

fn check_asks(raw: RawAsks) -> Result<AskConfig, Fault> {
    let is_said = raw.at_once.is_some();
    let mut ask = asking::check(raw)?;
    if !is_said {
        ask.at_once = AT_ONCE;
    }
    Ok(ask)
}

fn template(name: &str, text: Spanned<String>, allowed: &[Placeholder]) -> Result<Template, Fault> {
    let span = text.span();
    Template::parse(text.get_ref(), allowed).map_err(|problem| Fault {
        span: Some(span),
        message: format!("{name}: {problem}"),
    })
}

fn filled(name: &str, value: Spanned<String>) -> Result<String, Fault> {
    if !value.get_ref().is_empty() {
        return Ok(value.into_inner());
    }
    Err(Fault {
        span: Some(value.span()),
        message: format!("{name} must say something, or be left out"),
    })
}

fn all_filled(name: &str, values: Vec<Spanned<String>>) -> Result<Vec<String>, Fault> {
    values
        .into_iter()
        .map(|value| filled(name, value))
        .collect()
}

const SQL_PLACEHOLDERS: [Placeholder; 3] = [
    Placeholder::UserName,
    Placeholder::ClientId,
    Placeholder::Address,
];
/// Where each question has a connection of its own.
const AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    #[cfg_attr(
        not(any(feature = "postgres", feature = "ldap")),
        expect(dead_code, reason = "only tables that can be served by are read here")
    )]
    fn error(table: &str) -> String {
        let text = format!("[authentication]\n{table}");
        let refused = parse(&text, Path::new("vencejo.toml")).expect_err(table);
        refused.to_string()
    }

    #[test]
    fn table_that_a_program_cannot_do_names_the_missing_feature() {
        let kind = Kind {
            is_built: false,
            ..POSTGRES
        };
        let fault = kind.is_there(3..7).expect_err("is not there");
        assert_eq!(fault.span, Some(3..7));
        let expected =
            "this vencejo was built without postgres: build it with `--features postgres`";
        assert_eq!(fault.message, expected);
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn wrong_values_of_sql_are_pointed_at() {
        let cases = [
            ("url = \"mysql://h/d\"", "url must begin with postgres://"),
            (
                "url = \"postgres://h/d?sslmode=disable\"",
                "2:20: url: \"sslmode\" has a key of its own",
            ),
            (
                "url = \"postgres://localhost/d?host=db.example\"",
                "url: \"host\" is for a socket",
            ),
            (
                "url = \"postgres:///d\"",
                "url names neither a host nor a socket",
            ),
            (
                "url = \"postgres://u:p@h/d\", password_file = \"f\"",
                "one of the two",
            ),
            (
                "url = \"postgres://u@h/d\", password_file = \"\"",
                "password_file must say something",
            ),
            (
                "url = \"postgres://127.0.0.1/d\", ca = \"f\"",
                "ca counts for nothing without TLS",
            ),
            (
                "url = \"postgres://h/d\", tls = \"of\"",
                "did you mean `off`?",
            ),
            (
                "url = \"postgres://h/d\", timeout = \"0s\"",
                "timeout must be from 10ms to",
            ),
            (
                "url = \"postgres://h/d\", at_once = 0",
                "at_once must be from 1",
            ),
            (
                "url = \"postgres://h/d\", on_error = \"allow\"",
                "unknown word `allow`",
            ),
            (
                "url = \"postgres://h/d\", rights_query = \"SELECT 1\"",
                "rights_query: it must ask for ${username}",
            ),
        ];
        for (keys, expected) in cases {
            let told = error(&format!(
                "postgres = {{ {keys}, query = \"SELECT ${{username}}\" }}"
            ));
            assert!(told.contains(expected), "{keys}: {told}");
        }
        for (query, expected) in [
            ("SELECT 1", "query: it must ask for ${username}"),
            (
                "SELECT '${username}'",
                "query: a placeholder stands without quotation marks",
            ),
            ("SELECT ${user}", "unknown placeholder `${user}`"),
        ] {
            let told = error(&format!(
                "postgres = {{ url = \"postgres://h/d\", query = \"{query}\" }}"
            ));
            assert!(told.contains(expected), "{query}: {told}");
        }
    }

    /// P13: nothing travels in the clear to another machine unless the file says so.
    #[cfg(all(feature = "postgres", feature = "redis", feature = "ldap"))]
    #[test]
    fn way_to_another_machine_is_encrypted_unless_the_file_says_otherwise() {
        let config = |table: &str| {
            let text = format!("[authentication]\n{table}");
            parse(&text, Path::new("vencejo.toml"))
                .expect(table)
                .authentication
        };
        let postgres = |keys: &str| {
            let table = format!("postgres = {{ {keys}, query = \"SELECT ${{username}}\" }}");
            let asked = config(&table).postgres;
            asked.is_some_and(|asked| asked.server.has_tls)
        };
        assert!(postgres("url = \"postgres://db.example/d\""));
        assert!(postgres(
            "url = \"postgres://127.0.0.1/d\", tls = \"verify\", ca = \"f\""
        ));
        assert!(!postgres("url = \"postgres://127.0.0.1/d\""));
        assert!(!postgres("url = \"postgres:///d?host=/run/postgresql\""));
        assert!(!postgres(
            "url = \"postgres://db.example/d\", tls = \"off\""
        ));
        let ldap = |keys: &str| {
            let table = format!("ldap = {{ {keys}, user_dn = \"uid=${{username}}\" }}");
            let asked = config(&table).ldap;
            asked.is_some_and(|asked| asked.server.has_tls)
        };
        assert!(ldap("url = \"ldap://ldap.example\"") && ldap("url = \"ldaps://127.0.0.1\""));
        assert!(!ldap("url = \"ldap://localhost\"") && !ldap("url = \"ldapi://%2Frun%2Fldapi\""));
        let said = error("redis = { url = \"redis://10.0.0.1\" }");
        assert!(said.contains("url is not encrypted"), "{said}");
        let said = error("redis = { url = \"rediss://10.0.0.1\", tls = \"off\" }");
        assert!(said.contains("url says TLS, and tls says off"), "{said}");
        config("redis = { url = \"redis://10.0.0.1\", tls = \"off\" }");
    }

    #[cfg(feature = "ldap")]
    #[test]
    fn wrong_values_of_ldap_are_pointed_at() {
        let cases = [
            ("", "ldap needs user_dn or users"),
            (
                "user_dn = \"uid=anna\"",
                "user_dn must have ${username} in it",
            ),
            (
                "user_dn = \"uid=${username}\", bind_dn = \"cn=x\"",
                "belong together",
            ),
            (
                "user_dn = \"uid=${username}\", password_file = \"f\"",
                "belong together",
            ),
            (
                "users = { base = \"o=x\", filter = \"(uid=*)\" }",
                "users: filter must have ${username} in it",
            ),
            (
                "users = { base = \"\", filter = \"(uid=${username})\" }",
                "base must say something",
            ),
            (
                "user_dn = \"${username}\", administrators = \"a\"",
                "needs groups",
            ),
            (
                "user_dn = \"${username}\", groups = { base = \"o=x\", filter = \"(cn=*)\" }",
                "groups: filter must have ${dn} in it",
            ),
        ];
        for (keys, expected) in cases {
            let comma = if keys.is_empty() { "" } else { ", " };
            let told = error(&format!(
                "ldap = {{ url = \"ldap://localhost\"{comma}{keys} }}"
            ));
            assert!(told.contains(expected), "{keys}: {told}");
        }
    }

    #[cfg(all(
        feature = "postgres",
        feature = "mysql",
        feature = "redis",
        feature = "ldap"
    ))]
    #[test]
    fn every_key_of_every_directory_can_be_set() {
        let text = include_str!("every_directory.toml");
        let config = parse(text, Path::new("every_directory.toml")).expect("is valid");
        let authentication = config.authentication;
        let least = "[authentication]\n\
                     postgres = { url = \"postgres://localhost/d\", query = \"${username}\" }\n\
                     mysql = { url = \"mysql://localhost/d\", query = \"${username}\" }\n\
                     redis = { url = \"redis://localhost\" }\n\
                     ldap = { url = \"ldap://localhost\", user_dn = \"${username}\" }\n";
        let default = parse(least, Path::new("least.toml")).expect("is valid");
        let changed = format!("{authentication:?}");
        let default = format!("{:?}", default.authentication);
        let words = |text: &str| {
            let text = text.split_once("postgres: ").expect("is there").1;
            let text = text.split_once("bans: ").expect("is there").0;
            text.split(", ").map(str::to_owned).collect::<Vec<_>>()
        };
        for (changed, default) in words(&changed).iter().zip(words(&default)) {
            assert_ne!(
                *changed, default,
                "a key of every_directory.toml changes nothing"
            );
        }
    }
}
