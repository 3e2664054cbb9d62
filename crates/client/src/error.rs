//! What can go wrong for an application: while connecting, with one request, with a connection.
//!
//! Owns: [`ConnectError`], [`RequestError`], [`DisconnectCause`]. Does not own: Reason Codes.
//! Start reading at [`ConnectError`]. Invariant: each variant is a cause someone can act on.

use std::io;

use proto::connection::{ClientError, SendError};
use proto::packet::{ConnAck, Disconnect, Malformed};

use crate::authentication::AuthenticationError;
use crate::tls::TlsError;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host name has no address.
    #[error("the host has no address: {0}")]
    Resolve(io::Error),
    /// No address took the connection, or it failed before CONNACK; this is the last one's error.
    #[error("{0}")]
    Tcp(io::Error),
    /// The Unix socket did not take the connection.
    #[error("{0}")]
    Unix(io::Error),
    /// The connection cannot be secured.
    #[error("{0}")]
    Tls(TlsError),
    /// The Server wants TLS, and was asked in the clear.
    #[error("the server speaks TLS there")]
    SpeaksTls,
    /// Nobody answered in time.
    #[error("nobody answered in time")]
    Timeout,
    /// The Server closed the connection without a CONNACK.
    #[error("the server closed the connection without an answer")]
    Closed,
    /// CONNACK with a failure.
    #[error("the server refused the connection: {}", .0.reason)]
    Refused(Box<ConnAck>),
    /// The exchange of proofs has failed on our side: the Server may be a false one.
    #[error("{0}")]
    Authentication(AuthenticationError),
    /// The Server asks for an enhanced authentication exchange, and there is no
    /// [`crate::Options::authenticator`].
    #[error("the server asks for an authentication exchange")]
    AuthenticationExchange,
    /// The Server broke a rule.
    #[error("{0}")]
    Protocol(ClientError),
    /// CONNECT cannot be written.
    #[error("{0}")]
    Options(SendError),
}

/// Why one request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The connection ended before the answer came.
    #[error("the connection was lost")]
    ConnectionLost,
    /// The Server would refuse it, so it was not sent.
    #[error("{0}")]
    NotSent(SendError),
    /// The properties of the PUBLISH are not a section a PUBLISH may carry.
    #[error("{0}")]
    Properties(Malformed),
    /// There is no [`crate::Options::authenticator`], or its last exchange has not ended.
    #[error("there is nothing to prove it with")]
    NoAuthenticator,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum DisconnectCause {
    /// [`crate::Connection::disconnect`], or the last handle is gone.
    #[error("disconnected")]
    Requested,
    /// The Server's DISCONNECT.
    #[error("the server ended the connection: {}", .0.reason)]
    ByServer(Disconnect),
    /// The Server closed the socket.
    #[error("the server closed the connection")]
    Closed,
    /// The socket failed.
    #[error("{0}")]
    Io(io::Error),
    /// The exchange of proofs has failed on our side: the Server may be a false one.
    #[error("{0}")]
    Authentication(AuthenticationError),
    /// The Server broke a rule, or did not answer in time.
    #[error("{0}")]
    Protocol(ClientError),
}
