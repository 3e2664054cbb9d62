//! The configuration as it is written: words and numbers, not yet judged as a whole.
//!
//! Owns: every key of the file, and the forms of durations, sizes and addresses.
//! Does not own: defaults and what fits together (see `checked`). Start reading at [`RawConfig`].
//! Invariant: a key that is not listed here is an error.

mod directories;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use toml::Spanned;

use super::links::Link;

pub(super) use directories::{RawDirectoryTls, RawLdap, RawRedis, RawSearch, RawSql};

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) listeners: Option<Spanned<Vec<RawListener>>>,
    pub(super) shards: Option<Spanned<u16>>,
    pub(super) sys_interval: Option<RawDuration>,
    pub(super) response_topic_prefix: Option<Spanned<String>>,
    pub(super) shared_strategy: Option<RawSharedStrategy>,
    pub(super) limits: RawLimits,
    pub(super) authentication: RawAuthentication,
    pub(super) storage: RawStorage,
    pub(super) stop: RawStop,
    pub(super) authorization: Option<Spanned<RawAuthorization>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListener {
    pub(super) name: Option<Spanned<String>>,
    pub(super) address: Option<RawAddress>,
    pub(super) tls: Option<Spanned<RawTls>>,
    pub(super) transport: Option<Spanned<RawTransport>>,
    pub(super) anonymous: Option<RawAnonymous>,
    pub(super) authentication: Option<Spanned<Vec<Spanned<Link>>>>,
    pub(super) client_id_from_user: Option<bool>,
    pub(super) versions: Option<Spanned<Vec<RawVersion>>>,
    pub(super) connections_max: Option<Spanned<usize>>,
    pub(super) connect_rate_max: Option<Spanned<u32>>,
    pub(super) maximum_packet_size_bytes: Option<Spanned<RawSize>>,
    pub(super) publish_rate_max: Option<Spanned<u32>>,
    pub(super) publish_bytes_rate_max: Option<Spanned<RawSize>>,
    pub(super) subscribe_rate_max: Option<Spanned<u32>>,
    pub(super) receive_maximum: Option<Spanned<u16>>,
    pub(super) maximum_inflight_messages: Option<Spanned<u16>>,
    pub(super) topic_alias_maximum: Option<u16>,
    pub(super) topic_alias_maximum_out: Option<u16>,
    pub(super) server_keep_alive_max_seconds: Option<Spanned<RawDuration>>,
    pub(super) session_expiry_max_seconds: Option<Spanned<RawDuration>>,
    pub(super) session_expiry_3x_seconds: Option<Spanned<RawDuration>>,
    pub(super) client_id_length_max: Option<usize>,
    pub(super) queued_messages_max: Option<usize>,
    pub(super) queued_bytes_max: Option<RawSize>,
    pub(super) queued_bytes_memory_max: Option<RawSize>,
    pub(super) subscriptions_per_session_max: Option<usize>,
    pub(super) maximum_qos: Option<Spanned<u8>>,
    pub(super) retain_available: Option<bool>,
    pub(super) wildcard_subscription_available: Option<bool>,
    pub(super) subscription_identifiers_available: Option<bool>,
    pub(super) shared_subscription_available: Option<bool>,
    pub(super) proxy: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) owner: Option<Spanned<RawOwner>>,
    pub(super) group: Option<Spanned<RawOwner>>,
    pub(super) activation: Option<Spanned<String>>,
    pub(super) quic: Option<Spanned<RawQuic>>,
    pub(super) sniff: Option<Spanned<bool>>,
    pub(super) mount_point: Option<Spanned<String>>,
}

/// The name or the number of a user or a group.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged, expecting = "a name or a number")]
pub(super) enum RawOwner {
    Number(u32),
    Name(String),
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
pub(super) enum RawVersion {
    #[serde(rename = "3.1")]
    V31,
    #[serde(rename = "3.1.1")]
    V311,
    #[serde(rename = "5.0")]
    V5,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawTransport {
    Stream,
    WebSocket,
    Quic,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawQuic {
    pub(super) idle_timeout: Option<Spanned<RawDuration>>,
    pub(super) keep_alive: Option<Spanned<RawDuration>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTls {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) certificates: Vec<RawCertificate>,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) client_certificates: Option<RawClientCertificates>,
    pub(super) crl: Option<PathBuf>,
    pub(super) min_version: Option<RawTlsVersion>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCertificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawClientCertificates {
    None,
    Optional,
    Required,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
pub(super) enum RawTlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAuthentication {
    pub(super) anonymous: Option<RawAnonymous>,
    pub(super) password_file: Option<Spanned<String>>,
    pub(super) password_file_rehash: Option<bool>,
    pub(super) certificate_user: Option<RawCertificateUser>,
    pub(super) password_cache: Option<RawDuration>,
    pub(super) failures_max: Option<u32>,
    pub(super) failures_per_address_max: Option<u32>,
    pub(super) failures_window: Option<Spanned<RawDuration>>,
    pub(super) ban: Option<Spanned<RawDuration>>,
    pub(super) tokens: Option<Spanned<RawTokens>>,
    pub(super) http: Option<Spanned<RawHttp>>,
    pub(super) postgres: Option<Spanned<RawSql>>,
    pub(super) mysql: Option<Spanned<RawSql>>,
    pub(super) redis: Option<Spanned<RawRedis>>,
    pub(super) ldap: Option<Spanned<RawLdap>>,
    pub(super) scram: Option<bool>,
    pub(super) client_ids: Vec<RawClientIds>,
    pub(super) test_method: bool,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttp {
    pub(super) url: Spanned<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) bearer_file: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    #[serde(default)]
    pub(super) insecure: bool,
    pub(super) timeout: Option<Spanned<RawDuration>>,
    pub(super) at_once: Option<Spanned<usize>>,
    pub(super) on_error: Option<RawOnError>,
    pub(super) cache: Option<RawAnswerCache>,
    pub(super) breaker: Option<RawBreaker>,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawOnError {
    Deny,
    Next,
}

/// How long answers are good.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAnswerCache {
    pub(super) allow: Option<Spanned<RawDuration>>,
    pub(super) deny: Option<Spanned<RawDuration>>,
    pub(super) entries: Option<Spanned<usize>>,
}

/// When another machine is left in peace, and for how long.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawBreaker {
    pub(super) failures: Option<u32>,
    pub(super) pause: Option<Spanned<RawDuration>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClientIds {
    pub(super) name: Option<Spanned<String>>,
    pub(super) patterns: Spanned<Vec<Spanned<String>>>,
    pub(super) users: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) groups: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) addresses: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) listeners: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) anonymous: Option<bool>,
    pub(super) administrator: Option<bool>,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawCertificateUser {
    CommonName,
    Subject,
    Dns,
    Email,
    Uri,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTokens {
    pub(super) key: Option<String>,
    pub(super) jwks: Option<Spanned<String>>,
    pub(super) ca: Option<PathBuf>,
    #[serde(default)]
    pub(super) insecure: bool,
    pub(super) timeout: Option<Spanned<RawDuration>>,
    pub(super) refresh: Option<Spanned<RawDuration>>,
    pub(super) refresh_min: Option<Spanned<RawDuration>>,
    pub(super) stale_max: Option<Spanned<RawDuration>>,
    pub(super) algorithms: Spanned<Vec<String>>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) user_claim: Option<String>,
    pub(super) groups_claim: Option<String>,
    #[serde(default)]
    pub(super) attributes: Vec<String>,
    pub(super) rights_claim: Option<Spanned<String>>,
    pub(super) leeway: Option<RawDuration>,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawAnonymous {
    Never,
    Loopback,
    Always,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawStorage {
    pub(super) data: Option<Spanned<String>>,
    pub(super) level: Option<RawLevel>,
    pub(super) levels: Vec<RawFilterLevel>,
    pub(super) recovery: Option<RawRecovery>,
    pub(super) segment_bytes: Option<Spanned<RawSize>>,
    pub(super) spares: Option<Spanned<usize>>,
    pub(super) disk_low_bytes: Option<RawSize>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFilterLevel {
    pub(super) filter: Spanned<String>,
    pub(super) level: RawLevel,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawLevel {
    Memory,
    Written,
    Synced,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawRecovery {
    SetAside,
    Strict,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawStop {
    pub(super) server_reference: Option<Spanned<String>>,
    pub(super) server_moved: Option<Spanned<bool>>,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawSharedStrategy {
    RoundRobin,
    LeastInFlight,
    Sticky,
    HashTopic,
    HashClientId,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawOverflowPolicy {
    Refuse,
    DropNewest,
    DropOldest,
    Disconnect,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAuthorization {
    pub(super) acl_file: Option<Spanned<String>>,
    pub(super) http: Option<Spanned<RawHttp>>,
    pub(super) rules: Vec<RawRule>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    pub(super) name: Option<Spanned<String>>,
    pub(super) effect: RawEffect,
    pub(super) actions: Option<Spanned<Vec<RawAction>>>,
    pub(super) topics: Spanned<Vec<Spanned<String>>>,
    pub(super) users: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) groups: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) client_ids: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) addresses: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) listeners: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) anonymous: Option<bool>,
    pub(super) administrator: Option<bool>,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) qos_max: Option<Spanned<u8>>,
    pub(super) retain: Option<bool>,
    #[serde(default)]
    pub(super) first: bool,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawEffect {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawAction {
    Publish,
    Subscribe,
    Receive,
}

/// `[limits]`: those of the server first, then those of the engine under its own names.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub(super) connections_max: Option<Spanned<usize>>,
    pub(super) connect_timeout: Option<Spanned<RawDuration>>,
    pub(super) congested_bytes: Option<Spanned<RawSize>>,
    pub(super) unsent_bytes_max: Option<Spanned<RawSize>>,
    pub(super) login_threads: Option<Spanned<usize>>,
    pub(super) logins_waiting_max: Option<Spanned<usize>>,
    pub(super) connections_per_address_max: Option<u32>,
    pub(super) connections_per_user_max: Option<u32>,
    pub(super) connect_rate_max: Option<Spanned<u32>>,
    pub(super) connect_rate_per_address_max: Option<Spanned<u32>>,
    pub(super) connect_rate_per_user_max: Option<Spanned<u32>>,
    pub(super) publish_rate_max: Option<Spanned<u32>>,
    pub(super) publish_bytes_rate_max: Option<Spanned<RawSize>>,
    pub(super) subscribe_rate_max: Option<Spanned<u32>>,
    pub(super) publish_rate_per_user_max: Option<Spanned<u32>>,
    pub(super) publish_bytes_rate_per_user_max: Option<Spanned<RawSize>>,
    pub(super) subscribe_rate_per_user_max: Option<Spanned<u32>>,
    pub(super) publish_rate_total_max: Option<Spanned<u32>>,
    pub(super) publish_bytes_rate_total_max: Option<Spanned<RawSize>>,
    pub(super) subscribe_rate_total_max: Option<Spanned<u32>>,
    pub(super) user_properties_max: Option<u32>,
    pub(super) properties_bytes_max: Option<RawSize>,
    pub(super) flapping_max: Option<u32>,
    pub(super) flapping_per_address_max: Option<u32>,
    pub(super) flapping_window: Option<Spanned<RawDuration>>,
    pub(super) flapping_ban: Option<Spanned<RawDuration>>,
    pub(super) memory_max_bytes: Option<Spanned<RawSize>>,
    pub(super) unauthenticated_bytes_max: Option<Spanned<RawSize>>,
    pub(super) unauthenticated_max: Option<Spanned<usize>>,

    pub(super) maximum_packet_size_bytes: Option<Spanned<RawSize>>,
    pub(super) receive_maximum: Option<Spanned<u16>>,
    pub(super) maximum_inflight_messages: Option<Spanned<u16>>,
    pub(super) topic_alias_maximum: Option<u16>,
    pub(super) topic_alias_maximum_out: Option<u16>,
    pub(super) topic_levels_max: Option<Spanned<usize>>,
    pub(super) topic_length_max: Option<Spanned<usize>>,
    pub(super) queued_messages_max: Option<usize>,
    pub(super) queued_bytes_max: Option<RawSize>,
    pub(super) queued_bytes_memory_max: Option<RawSize>,
    pub(super) queued_bytes_total_max: Option<RawSize>,
    pub(super) window_messages_max: Option<usize>,
    pub(super) window_bytes_max: Option<RawSize>,
    pub(super) overflow_policy: Option<RawOverflowPolicy>,
    pub(super) overflow_patience: Option<Spanned<RawDuration>>,
    pub(super) subscriptions_per_session_max: Option<usize>,
    pub(super) subscriptions_max: Option<usize>,
    pub(super) session_expiry_max_seconds: Option<Spanned<RawDuration>>,
    pub(super) session_expiry_3x_seconds: Option<Spanned<RawDuration>>,
    pub(super) retained_messages_max: Option<usize>,
    pub(super) retained_bytes_max: Option<RawSize>,
    pub(super) retained_age_max: Option<Spanned<RawDuration>>,
    pub(super) retained_replay_per_turn: Option<Spanned<usize>>,
    pub(super) sessions_max: Option<usize>,
    pub(super) sessions_per_user_max: Option<usize>,
    pub(super) subscriptions_per_user_max: Option<usize>,
    pub(super) client_id_length_max: Option<usize>,
    pub(super) maximum_qos: Option<Spanned<u8>>,
    pub(super) retain_available: Option<bool>,
    pub(super) wildcard_subscription_available: Option<bool>,
    pub(super) subscription_identifiers_available: Option<bool>,
    pub(super) shared_subscription_available: Option<bool>,
    pub(super) server_keep_alive_max_seconds: Option<Spanned<RawDuration>>,
}

/// `"127.0.0.1:1883"`, `"[::1]:1883"` or `"unix:/run/vencejo/mqtt.sock"`.
#[derive(Clone, Debug)]
pub(super) enum RawAddress {
    Network(SocketAddr),
    Unix(PathBuf),
}

/// The longest path of a Unix socket: its place in the system's structure, without the zero at its end.
const UNIX_PATH_BYTES_MAX: usize = 107;

impl<'de> Deserialize<'de> for RawAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Address;
        impl Visitor<'_> for Address {
            type Value = RawAddress;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an address and port like \"127.0.0.1:1883\" or \"[::1]:1883\", or a Unix socket like \
                     \"unix:/run/vencejo/mqtt.sock\" with a path of at most 107 bytes",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawAddress, E> {
                let invalid = || E::invalid_value(de::Unexpected::Str(text), &self);
                match text.strip_prefix("unix:") {
                    Some(path)
                        if (1..=UNIX_PATH_BYTES_MAX).contains(&path.len())
                            && !path.contains('\0') =>
                    {
                        Ok(RawAddress::Unix(path.into()))
                    }
                    Some(_) => Err(invalid()),
                    None => {
                        let address = text.parse().map(RawAddress::Network);
                        address.map_err(|_| invalid())
                    }
                }
            }
        }
        deserializer.deserialize_str(Address)
    }
}

/// `30` (seconds) or `"30s"`, `"500ms"`, `"5m"`, `"2h"`, `"7d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Span;
        impl Visitor<'_> for Span {
            type Value = RawDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "seconds, or a duration like \"500ms\", \"30s\", \"5m\", \"2h\", \"7d\"",
                )
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<RawDuration, E> {
                u64::try_from(seconds)
                    .map(|seconds| RawDuration(Duration::from_secs(seconds)))
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(seconds), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawDuration, E> {
                with_unit(text, &DURATION_UNITS)
                    .map(|milliseconds| RawDuration(Duration::from_millis(milliseconds)))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Span)
    }
}

/// `65536` (bytes) or `"64KiB"`, `"1MiB"`, `"2GiB"`, `"10B"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawSize(pub(super) usize);

impl<'de> Deserialize<'de> for RawSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = RawSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes, or a size like \"64KiB\", \"1MiB\", \"2GiB\"")
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<RawSize, E> {
                usize::try_from(bytes)
                    .map(RawSize)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawSize, E> {
                with_unit(text, &SIZE_UNITS)
                    .and_then(|bytes| usize::try_from(bytes).ok())
                    .map(RawSize)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Size)
    }
}

/// The bytes that a size means, as [`RawSize`] reads it.
pub(super) fn bytes_of(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| with_unit(text, &SIZE_UNITS))
}

/// The milliseconds that a duration means, as [`RawDuration`] reads it.
pub(super) fn milliseconds_of(text: &str) -> Option<u64> {
    let seconds: Option<u64> = text.parse().ok();
    seconds.map_or_else(
        || with_unit(text, &DURATION_UNITS),
        |seconds| seconds.checked_mul(1000),
    )
}

/// A whole number and a unit of `units`, multiplied.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Units of a duration, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
/// Units of a size, in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_with_a_unit_is_read_and_a_bare_or_strange_one_is_not() {
        assert_eq!(with_unit("64KiB", &SIZE_UNITS), Some(65536));
        assert_eq!(with_unit("2 MiB", &SIZE_UNITS), Some(2 << 20));
        assert_eq!(with_unit("90s", &DURATION_UNITS), Some(90_000));
        for text in [
            "",
            "64",
            "64KB",
            "-1s",
            "1.5s",
            "s",
            "99999999999999999999s",
        ] {
            assert_eq!(with_unit(text, &DURATION_UNITS), None, "{text}");
        }
    }
}
