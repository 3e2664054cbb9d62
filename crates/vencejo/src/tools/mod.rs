//! `vencejo pub`, `sub` and `rr`: mosquitto's flags, output and exit codes on our own client.
//!
//! Owns: what the tools share: failures, connecting, the `-d` log.
//! Does not own: the flags themselves (see [`args`]). Start reading at [`connect`].
//! Invariant: data goes to standard output, everything else to standard error.

pub(crate) mod args;
pub(crate) mod bench;
pub(crate) mod called;
pub(crate) mod explore;
pub(crate) mod format;
mod lines;
pub(crate) mod login;
pub(crate) mod options_file;
pub(crate) mod packet_log;
mod payload;
mod precedence;
pub(crate) mod probe;
pub(crate) mod profile;
mod profiles;
pub(crate) mod properties;
pub(crate) mod publish;
pub(crate) mod request;
pub(crate) mod retained;
pub(crate) mod spelled;
pub(crate) mod subscribe;
pub(crate) mod tls;
mod url;
mod watch;

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use client::{ConnectError, Connection, Events, Options, TlsError};
use proto::Version;
use proto::packet::{ConnAck, ReasonCode};

use explore::shown::escaped;

/// Why a tool ends, and with which exit code. 27 is mosquitto's code for a `-W` timeout.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code: 1,
        }
    }

    /// A mistake on the command line.
    pub(crate) fn usage(tool: &str, text: impl AsRef<str>) -> Self {
        Self::new(format!(
            "Error: {}\n\nUse '{} --help' to see usage.",
            text.as_ref(),
            called::shown(tool)
        ))
    }
}

/// Lines on standard error; where that is closed there is nobody to tell. A topic or a reason in them may be anybody's: it
/// does nothing to a terminal.
pub(crate) fn complain(lines: &str) {
    writeln!(std::io::stderr(), "{}", harmless(lines)).ok();
}

fn harmless(lines: &str) -> String {
    let lines: Vec<_> = lines.split('\n').map(escaped).collect();
    lines.join("\n")
}

/// Connects as `options` say; where the Server does not speak 5.0 and the version was not asked for, once
/// more as 3.1.1.
pub(crate) async fn connect(
    options: &Options,
    is_version_chosen: bool,
    quiet: bool,
) -> Result<(Connection, Events), Failure> {
    match Connection::connect(options.clone()).await {
        Err(ConnectError::Refused(connack))
            if connack.reason == ReasonCode::UnsupportedProtocolVersion && !is_version_chosen =>
        {
            if !quiet {
                complain(NO_5_0);
            }
            let older = options.clone().version(Version::V311);
            Connection::connect(older)
                .await
                .map_err(|error| failure_of(&error, options, Version::V311))
        }
        result => result.map_err(|error| failure_of(&error, options, options.protocol_version())),
    }
}

/// mosquitto's words first, then what it leaves out: where, and what to do.
fn failure_of(error: &ConnectError, options: &Options, version: Version) -> Failure {
    let (host, port) = options.address();
    match error {
        ConnectError::Unix(error) => {
            let path = options.unix_path().unwrap_or_else(|| Path::new(""));
            let path = path.display();
            let hint = match error.kind() {
                ErrorKind::ConnectionRefused => " Nothing listens there; is the server running?",
                ErrorKind::NotFound => " There is no such file; is the server running?",
                _ => "",
            };
            let words = os_text(error);
            Failure::new(format!("Error: {words} (unix:{path}).{hint}"))
        }
        ConnectError::Refused(connack) => refused(connack, version),
        ConnectError::Resolve(_) => {
            let hint = if host.contains(':') {
                " The port goes to -p."
            } else {
                ""
            };
            let words = "Unable to connect (Lookup error.).";
            Failure::new(format!("{words} There is no host \"{host}\".{hint}"))
        }
        ConnectError::Tcp(error) if error.kind() == ErrorKind::ConnectionRefused => {
            Failure::new(format!(
                "Error: Connection refused. Nothing listens at {host} port {port}; is the server running?"
            ))
        }
        ConnectError::Tcp(error) => {
            let words = os_text(error);
            Failure::new(format!("Error: {words} ({host} port {port})"))
        }
        ConnectError::Closed => Failure::new("Error: The connection was lost."),
        ConnectError::SpeaksTls => Failure::new(format!(
            "Error: {error} ({host} port {port}). Use --cafile, --tls-use-os-certs or mqtts://."
        )),
        ConnectError::Tls(error) => {
            let is_cut = matches!(error, TlsError::Handshake(error)
                if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset));
            let hint = if is_cut {
                "; does it speak TLS at that port?"
            } else {
                ""
            };
            let words = "Error: A TLS error occurred";
            Failure::new(format!("{words}: {error} ({host} port {port}){hint}"))
        }
        other => Failure::new(format!("Error: {other}.")),
    }
}

/// The system's words for an error, without the number the standard library adds.
fn os_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// mosquitto's words and exit code for a CONNACK that refuses.
fn refused(connack: &ConnAck, version: Version) -> Failure {
    let reason = connack.reason;
    if version == Version::V5 {
        let words = match reason {
            ReasonCode::ClientIdentifierNotValid => "Client identifier not valid",
            ReasonCode::BadUserNameOrPassword => "Bad username or password",
            other => other.text(),
        };
        let detail = connack
            .properties
            .reason_string
            .as_ref()
            .map_or_else(String::new, |text| format!(" ({text})"));
        let text = format!("Connection error: {words}{detail}");
        return Failure {
            text,
            code: reason.value(),
        };
    }
    let code = reason.connack_return_code().unwrap_or(1);
    let words = match code {
        1 => "unacceptable protocol version",
        2 => "identifier rejected",
        3 => "broker unavailable",
        4 => "bad user name or password",
        5 => "not authorised",
        _ => "unknown reason",
    };
    Failure {
        text: format!("Connection error: Connection Refused: {words}."),
        code,
    }
}

const NO_5_0: &str = "Note: the server does not speak MQTT 5.0; trying again as 3.1.1.";
/// How long `sub` and `pub -l` wait before they connect again.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_worded_and_numbered_as_by_mosquitto() {
        let cases = [
            (
                Version::V311,
                ReasonCode::NotAuthorized,
                "Connection error: Connection Refused: not authorised.",
                5,
            ),
            (
                Version::V311,
                ReasonCode::BadUserNameOrPassword,
                "Connection error: Connection Refused: bad user name or password.",
                4,
            ),
            (
                Version::V31,
                ReasonCode::ClientIdentifierNotValid,
                "Connection error: Connection Refused: identifier rejected.",
                2,
            ),
            (
                Version::V5,
                ReasonCode::NotAuthorized,
                "Connection error: Not authorized",
                135,
            ),
            (
                Version::V5,
                ReasonCode::BadUserNameOrPassword,
                "Connection error: Bad username or password",
                134,
            ),
        ];
        for (version, reason, text, code) in cases {
            let failure = refused(&ConnAck::refusal(reason), version);
            assert_eq!((failure.text.as_str(), failure.code), (text, code));
        }
    }

    #[test]
    fn what_is_said_of_a_topic_does_nothing_to_a_terminal() {
        let plain = "Error: \u{e4}/\u{3b2}: quota.\nmore";
        assert_eq!(harmless(plain), plain);
        let spelled = r"a\u{1b}[2Jb\u{7}\u{9b}c";
        assert_eq!(harmless("a\u{1b}[2Jb\u{7}\u{9b}c"), spelled);
    }

    #[test]
    fn a_system_error_has_no_number() {
        let error = std::io::Error::from_raw_os_error(111);
        assert_eq!(os_text(&error), "Connection refused");
    }
}
