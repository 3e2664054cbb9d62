//! What can go wrong for an application: while connecting, with one request, with a connection.
//!
//! Owns: [`Error`] of a Client; [`ConnectError`], [`RequestError`], [`DisconnectCause`] of one connection.
//! Does not own: Reason Codes. Start reading at [`Error`]. Invariant: each variant is a cause someone can act on.

use std::io;
use std::sync::Arc;

use proto::PacketIdentifier;
use proto::connection::{ClientError, SendError};
use proto::packet::{ConnAck, Disconnect, EncodeError, Malformed, ReasonCode, ReasonProperties};

use crate::authentication::AuthenticationError;
use crate::tls::TlsError;
use crate::url::UrlError;

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
    /// The Server does not take MQTT over WebSocket there.
    #[error("{0}")]
    WebSocket(String),
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

/// What can go wrong for a [`crate::Client`], by who has to act.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The program asked for something that cannot be: it has to ask for something else.
    #[error("{0}")]
    Caller(Mistake),
    /// The Server said no, or broke a rule: whoever runs it has to act.
    #[error("{0}")]
    Server(Refusal),
    /// The network or the machine at its other end: trying again may help.
    #[error("{0}")]
    Network(Outage),
}

/// What the program itself has to change.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Mistake {
    /// It is not well-formed, or more than the Server announced that it takes.
    #[error("{0}")]
    Request(SendError),
    /// The properties are not a section that a PUBLISH may carry.
    #[error("{0}")]
    Properties(Malformed),
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
    /// A URL says nothing that can be connected to.
    #[error("{0}")]
    Url(UrlError),
    /// The folder of the [`crate::Outbox`] cannot be used; nothing is taken that it cannot keep.
    #[error("the outbox cannot be used: {0}")]
    Outbox(Arc<io::Error>),
    /// More waits than [`crate::Queue`] allows, and its policy is to refuse.
    #[error("the queue is full")]
    QueueFull,
    /// More waited than [`crate::Queue`] allows, and its policy is to drop the newest.
    #[error("dropped, since the queue was full")]
    Dropped,
    /// Larger than the whole queue may be.
    #[error("a message of {bytes} bytes is larger than the queue")]
    LargerThanQueue {
        /// Topic Name, payload and properties.
        bytes: usize,
    },
    /// The version spoken has no such thing.
    #[error("MQTT 3 has no {0}")]
    NotInThisVersion(&'static str),
    /// What is to be answered does not say where to.
    #[error("the message has no response topic")]
    NoResponseTopic,
    /// There is no [`crate::Options::authenticator`], or its last exchange has not ended.
    #[error("there is nothing to prove it with")]
    NoAuthenticator,
    /// [`crate::Client::disconnect`] was called, or the last handle is gone.
    #[error("the client has ended")]
    Ended,
}

/// What the Server refused or did wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// CONNACK with a failure.
    #[error("the server refused the connection: {}", .0.reason)]
    Connect(Box<ConnAck>),
    /// The acknowledgement of a PUBLISH with a failure.
    #[error("the server refused the message: {reason}")]
    Publish {
        /// Of the PUBLISH.
        packet_id: PacketIdentifier,
        /// Of PUBACK, PUBREC or PUBCOMP.
        reason: ReasonCode,
        /// Reason String and User Properties.
        properties: Option<Box<ReasonProperties>>,
    },
    /// A Topic Filter was refused.
    #[error("the server refused to subscribe to {filter}: {reason}")]
    Subscribe {
        /// Which.
        filter: String,
        /// Of SUBACK.
        reason: ReasonCode,
    },
    /// SUBACK did not answer each filter.
    #[error("the server did not answer each filter")]
    Answers,
    /// It ended the connection, and there will be no other: another client has taken the Session over.
    #[error("the server ended the connection: {}", .0.reason)]
    Disconnect(Disconnect),
    /// It broke a rule.
    #[error("{0}")]
    Rule(ClientError),
    /// It has not proven that it is the Server we want.
    #[error("{0}")]
    Proof(AuthenticationError),
    /// It asks for a proof, and there is no [`crate::Options::authenticator`].
    #[error("the server asks for an authentication exchange")]
    ProofWanted,
    /// It has lost the Session while a QoS 2 message was on its way: whether it has it nobody knows. See
    /// [`crate::Uncertain`].
    #[error("the server has lost the session; whether it has the message is not known")]
    SessionLost,
}

/// What is between us and the Server.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Outage {
    /// There is no connection.
    #[error("{0}")]
    Connect(Arc<ConnectError>),
    /// The connection broke, and there will be no other.
    #[error("{0}")]
    Lost(Arc<DisconnectCause>),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// It needs a connection, and there is none at the moment.
    #[error("there is no connection at the moment")]
    Offline,
}

impl From<UrlError> for Error {
    fn from(error: UrlError) -> Self {
        Self::Caller(Mistake::Url(error))
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Self::Caller(Mistake::Request(error.into()))
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused(connack) => Self::Server(Refusal::Connect(connack)),
            ConnectError::Authentication(error) => Self::Server(Refusal::Proof(error)),
            ConnectError::AuthenticationExchange => Self::Server(Refusal::ProofWanted),
            ConnectError::Protocol(error) => Self::Server(Refusal::Rule(error)),
            ConnectError::Options(error) => Self::Caller(Mistake::Request(error)),
            error => Self::Network(Outage::Connect(Arc::new(error))),
        }
    }
}

impl From<DisconnectCause> for Error {
    fn from(cause: DisconnectCause) -> Self {
        match cause {
            DisconnectCause::Requested => Self::Caller(Mistake::Ended),
            DisconnectCause::ByServer(disconnect) => Self::Server(Refusal::Disconnect(disconnect)),
            DisconnectCause::Authentication(error) => Self::Server(Refusal::Proof(error)),
            DisconnectCause::Protocol(ClientError::PingTimeout | ClientError::ConnAckTimeout) => {
                Self::Network(Outage::Timeout)
            }
            DisconnectCause::Protocol(error) => Self::Server(Refusal::Rule(error)),
            cause => Self::Network(Outage::Lost(Arc::new(cause))),
        }
    }
}
