//! How another machine is asked, whatever it is asked.
//!
//! Owns: [`AskConfig`] and its defaults. Does not own: where it is and what it is asked (see what names it).
//! Start reading at [`AskConfig`]. Invariant: every value is in its range.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use super::checked::{Fault, within};
use super::raw::{RawAnswerCache, RawBreaker, RawDuration, RawOnError};

/// How another machine is asked: how patiently, how often, and what counts while it does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskConfig {
    /// For so long an answer is waited for. Default: 5 s.
    pub timeout: Duration,
    /// So many questions are under way at once; others wait in turn. Default: 64.
    pub at_once: usize,
    /// What counts without an answer. Default: deny.
    pub on_error: OnError,
    /// For so long a yes is good. Default: 1 minute; 0 asks at each login.
    pub cache_allow: Duration,
    /// For so long a no is good. Default: 5 s; 0 asks again at once.
    pub cache_deny: Duration,
    /// So many answers are kept of each kind. Default: 10,000.
    pub cache_entries: usize,
    /// After so many questions in a row without an answer nothing is asked for a while. Default: 5; 0 goes
    /// on asking.
    pub failures_max: u32,
    /// How long that while is; then one question tries whether there are answers again. Default: 5 s.
    pub pause: Duration,
}

/// What counts where another machine has not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Nobody is let in: 0x88 (Server unavailable), or 3 in 3.x.
    #[default]
    Deny,
    /// The next authenticator is asked, as if this one knew nothing.
    Next,
}

impl Default for AskConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            at_once: 64,
            on_error: OnError::Deny,
            cache_allow: Duration::from_secs(60),
            cache_deny: Duration::from_secs(5),
            cache_entries: 10_000,
            failures_max: 5,
            pause: Duration::from_secs(5),
        }
    }
}

/// What every table that names another machine may say of how it is asked.
#[derive(Debug, Default)]
pub(super) struct RawAsks {
    pub(super) timeout: Option<Spanned<RawDuration>>,
    pub(super) at_once: Option<Spanned<usize>>,
    pub(super) on_error: Option<RawOnError>,
    pub(super) cache: Option<RawAnswerCache>,
    pub(super) breaker: Option<RawBreaker>,
}

pub(super) fn check(raw: RawAsks) -> Result<AskConfig, Fault> {
    let mut asks = AskConfig::default();
    if let Some(timeout) = &raw.timeout {
        asks.timeout = between("timeout", timeout, TIMEOUT_MIN..=TIMEOUT_MAX)?;
    }
    if let Some(at_once) = &raw.at_once {
        asks.at_once = within("at_once", at_once, 1..=AT_ONCE_MAX)?;
    }
    if let Some(on_error) = raw.on_error {
        asks.on_error = match on_error {
            RawOnError::Deny => OnError::Deny,
            RawOnError::Next => OnError::Next,
        };
    }
    if let Some(cache) = raw.cache {
        if let Some(allow) = &cache.allow {
            asks.cache_allow = between("allow", allow, Duration::ZERO..=CACHE_MAX)?;
        }
        if let Some(deny) = &cache.deny {
            asks.cache_deny = between("deny", deny, Duration::ZERO..=CACHE_MAX)?;
        }
        if let Some(entries) = &cache.entries {
            asks.cache_entries = within("entries", entries, 0..=CACHE_ENTRIES_MAX)?;
        }
    }
    if let Some(breaker) = raw.breaker {
        asks.failures_max = breaker.failures.unwrap_or(asks.failures_max);
        if let Some(pause) = &breaker.pause {
            asks.pause = between("pause", pause, TIMEOUT_MIN..=CACHE_MAX)?;
        }
    }
    Ok(asks)
}

/// The value, if it lies within `range`.
pub(super) fn between(
    name: &str,
    value: &Spanned<RawDuration>,
    range: RangeInclusive<Duration>,
) -> Result<Duration, Fault> {
    let RawDuration(duration) = *value.get_ref();
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (range.start(), range.end());
    Err(Fault {
        span: Some(value.span()),
        message: format!("{name} must be from {least:?} to {most:?}"),
    })
}

const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// A login waits for 1 h at most.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const AT_ONCE_MAX: usize = 10_000;
const CACHE_MAX: Duration = Duration::from_secs(24 * 3600);
const CACHE_ENTRIES_MAX: usize = 10_000_000;
