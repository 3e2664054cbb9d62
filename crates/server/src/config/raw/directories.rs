//! The tables of users that stand in other people's databases, as they are written.
//!
//! Owns: the keys of `[authentication.postgres]`, `.mysql`, `.redis` and `.ldap`. Does not own: what fits
//! together (see `config::directories`). Start reading at [`RawSql`]. Invariant: as with [`super::RawConfig`].

use toml::Spanned;

use super::{RawAnswerCache, RawBreaker, RawDuration, RawOnError};

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawSql {
    pub(in crate::config) url: Spanned<String>,
    pub(in crate::config) password_file: Option<Spanned<String>>,
    pub(in crate::config) query: Spanned<String>,
    pub(in crate::config) rights_query: Option<Spanned<String>>,
    pub(in crate::config) tls: Option<Spanned<RawDirectoryTls>>,
    pub(in crate::config) ca: Option<Spanned<String>>,
    pub(in crate::config) timeout: Option<Spanned<RawDuration>>,
    pub(in crate::config) at_once: Option<Spanned<usize>>,
    pub(in crate::config) on_error: Option<RawOnError>,
    pub(in crate::config) cache: Option<RawAnswerCache>,
    pub(in crate::config) breaker: Option<RawBreaker>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawRedis {
    pub(in crate::config) url: Spanned<String>,
    pub(in crate::config) password_file: Option<Spanned<String>>,
    pub(in crate::config) key: Option<Spanned<String>>,
    pub(in crate::config) password_field: Option<Spanned<String>>,
    pub(in crate::config) administrator_field: Option<Spanned<String>>,
    pub(in crate::config) groups_field: Option<Spanned<String>>,
    pub(in crate::config) rights_field: Option<Spanned<String>>,
    #[serde(default)]
    pub(in crate::config) attributes: Vec<Spanned<String>>,
    pub(in crate::config) tls: Option<Spanned<RawDirectoryTls>>,
    pub(in crate::config) ca: Option<Spanned<String>>,
    pub(in crate::config) timeout: Option<Spanned<RawDuration>>,
    pub(in crate::config) at_once: Option<Spanned<usize>>,
    pub(in crate::config) on_error: Option<RawOnError>,
    pub(in crate::config) cache: Option<RawAnswerCache>,
    pub(in crate::config) breaker: Option<RawBreaker>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawLdap {
    pub(in crate::config) url: Spanned<String>,
    pub(in crate::config) user_dn: Option<Spanned<String>>,
    pub(in crate::config) users: Option<RawSearch>,
    pub(in crate::config) user_attribute: Option<Spanned<String>>,
    pub(in crate::config) bind_dn: Option<Spanned<String>>,
    pub(in crate::config) password_file: Option<Spanned<String>>,
    pub(in crate::config) groups: Option<RawSearch>,
    pub(in crate::config) group_attribute: Option<Spanned<String>>,
    pub(in crate::config) administrators: Option<Spanned<String>>,
    #[serde(default)]
    pub(in crate::config) attributes: Vec<Spanned<String>>,
    pub(in crate::config) tls: Option<Spanned<RawDirectoryTls>>,
    pub(in crate::config) ca: Option<Spanned<String>>,
    pub(in crate::config) timeout: Option<Spanned<RawDuration>>,
    pub(in crate::config) at_once: Option<Spanned<usize>>,
    pub(in crate::config) on_error: Option<RawOnError>,
    pub(in crate::config) cache: Option<RawAnswerCache>,
    pub(in crate::config) breaker: Option<RawBreaker>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawSearch {
    pub(in crate::config) base: Spanned<String>,
    pub(in crate::config) filter: Spanned<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::config) enum RawDirectoryTls {
    Verify,
    Off,
}
