//! `quic` of a listener: how QUIC keeps a connection alive.
//!
//! Owns: [`QuicConfig`], which values fit. Does not own: what is done with them (see `crate::quic`). Start reading at
//! [`QuicConfig`]. Invariant: a connection whose Client answers does not end for silence of its own.

use std::time::Duration;

use toml::Spanned;

use super::checked::Fault;
use super::raw::{RawDuration, RawQuic};

/// How QUIC keeps connections alive, whatever MQTT's Keep Alive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuicConfig {
    /// A Client from which nothing has come for so long is gone; a Client may ask for less. Default: 60 s.
    pub idle_timeout: Duration,
    /// How often a silent Client is asked for a sign of life; zero is never. Default: 15 s.
    pub keep_alive: Duration,
}

impl Default for QuicConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// Judges what was written.
pub(super) fn check(raw: Option<Spanned<RawQuic>>, is_quic: bool) -> Result<QuicConfig, Fault> {
    let default = QuicConfig::default();
    let Some(raw) = raw else {
        return Ok(default);
    };
    let fault = |span, message: &str| Fault {
        span: Some(span),
        message: message.to_owned(),
    };
    let span = raw.span();
    if !is_quic {
        return Err(fault(span, "quic is for a transport = \"quic\""));
    }
    let RawQuic {
        idle_timeout,
        keep_alive,
    } = raw.into_inner();
    let value = |raw: &Option<Spanned<RawDuration>>, default| {
        raw.as_ref().map_or(default, |raw| raw.get_ref().0)
    };
    let config = QuicConfig {
        idle_timeout: value(&idle_timeout, default.idle_timeout),
        keep_alive: value(&keep_alive, default.keep_alive),
    };
    let span_of = |raw: Option<Spanned<RawDuration>>| raw.map_or(span, |raw| raw.span());
    if !(IDLE_TIMEOUT_MIN..=IDLE_TIMEOUT_MAX).contains(&config.idle_timeout) {
        let message = "idle_timeout must be from 1s to 1d";
        return Err(fault(span_of(idle_timeout), message));
    }
    if !config.keep_alive.is_zero() && config.keep_alive < KEEP_ALIVE_MIN {
        let message = "keep_alive must be 0 (never) or 100ms at least";
        return Err(fault(span_of(keep_alive), message));
    }
    if config.keep_alive >= config.idle_timeout {
        let message = "keep_alive must be shorter than idle_timeout";
        return Err(fault(span_of(keep_alive.or(idle_timeout)), message));
    }
    Ok(config)
}

const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
const KEEP_ALIVE_MIN: Duration = Duration::from_millis(100);
