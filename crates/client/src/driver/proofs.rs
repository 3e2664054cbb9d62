//! Proofs by AUTH, as the driver of a connection sees them: before CONNACK, and again afterwards.
//!
//! Owns: when an exchange begins and ends. Does not own: what is said in it (see `authentication`). Start reading at
//! [`Driver::prove`]. Invariant: a Server that has not shown what it had to is left.

use proto::Version;
use proto::connection::ClientError;
use proto::packet::{Auth, ConnAck, Connect, Disconnect, PacketType, ReasonCode};

use super::{Answer, Driver, write_out};
use crate::authentication::{AuthenticationError, Authenticator, Proving};
use crate::{ConnectError, DisconnectCause, Options, RequestError, now};

impl Driver {
    /// Answers an AUTH before CONNACK.
    pub(super) async fn prove(&mut self, auth: &Auth) -> Result<(), ConnectError> {
        let proving = self.proving.as_mut();
        let proving = proving.ok_or(ConnectError::AuthenticationExchange)?;
        if auth.reason != ReasonCode::ContinueAuthentication {
            let error = ClientError::UnexpectedPacket(PacketType::Auth);
            return Err(self.refuse_server(error).await);
        }
        let begun = proving.on_continue(auth);
        let answer = match begun {
            Ok(()) => proving.answer().await,
            Err(error) => Err(error),
        };
        let answer = answer.map_err(ConnectError::Authentication)?;
        let sent = self.connection.send_auth(&answer, now(), &mut self.out);
        sent.map_err(ConnectError::Options)?;
        self.log_sent(0);
        let written = write_out(&mut self.writer, &self.out).await;
        self.out.clear();
        written.map_err(ConnectError::Tcp)
    }

    /// A Server that has not shown what it had to is not taken for the one we want, whatever it says.
    pub(super) async fn check_connack(&mut self, connack: &ConnAck) -> Result<(), ConnectError> {
        let Some(proving) = self.proving.take() else {
            return Ok(());
        };
        let data = connack.properties.authentication_data.as_ref();
        let Err(error) = proving.finish(data) else {
            return Ok(());
        };
        self.out.clear();
        self.leave_false_server();
        write_out(&mut self.writer, &self.out).await.ok();
        Err(ConnectError::Authentication(error))
    }

    /// [MQTT-4.13.2-1] seen from here: DISCONNECT, and nothing of what waits.
    fn leave_false_server(&mut self) {
        let disconnect = Disconnect::new(ReasonCode::UnspecifiedError);
        let sent = self
            .connection
            .disconnect(&disconnect, now(), &mut self.out);
        // Best effort: the connection is given up either way.
        sent.ok();
    }

    /// An AUTH while connected: the next step of an exchange that we have begun, or its end.
    pub(super) fn on_auth(&mut self, auth: &Auth) -> Result<(), DisconnectCause> {
        let Some(mut proving) = self.proving.take() else {
            return Err(self.on_error(ClientError::UnexpectedPacket(PacketType::Auth)));
        };
        let result = if auth.reason == ReasonCode::Success {
            proving.finish(auth.data.as_ref())
        } else {
            let begun = proving.on_continue(auth);
            self.proving = Some(proving);
            return begun.map_err(|error| self.on_false_server(error));
        };
        result.map_err(|error| self.on_false_server(error))?;
        if let Some(done) = self.proven.take() {
            done.send(Ok(())).ok();
        }
        Ok(())
    }

    fn on_false_server(&mut self, error: AuthenticationError) -> DisconnectCause {
        let start = self.out.len();
        self.leave_false_server();
        self.log_sent(start);
        DisconnectCause::Authentication(error)
    }

    pub(super) fn go_on_proving(
        &mut self,
        answer: Result<Auth, AuthenticationError>,
    ) -> Result<(), DisconnectCause> {
        let auth = answer.map_err(|error| self.on_false_server(error))?;
        self.send_auth(&auth);
        Ok(())
    }

    fn send_auth(&mut self, auth: &Auth) {
        let start = self.out.len();
        // It is of the method of CONNECT; one that is too large for the Server is one that it does not get.
        let sent = self.connection.send_auth(auth, now(), &mut self.out);
        if let Err(error) = sent
            && let Some(done) = self.proven.take()
        {
            self.proving = None;
            done.send(Err(RequestError::NotSent(error))).ok();
        }
        self.log_sent(start);
    }

    /// [MQTT-4.12.1-1] Begins to prove again who we are.
    pub(super) fn reauthenticate(&mut self, done: Answer<()>) {
        let authenticator = self.authenticator.clone();
        let Some(authenticator) = authenticator.filter(|_| self.proving.is_none()) else {
            done.send(Err(RequestError::NoAuthenticator)).ok();
            return;
        };
        match Proving::begin(&*authenticator) {
            Ok((proving, data)) => {
                let auth = proving.auth(ReasonCode::ReAuthenticate, data);
                self.proving = Some(proving);
                self.proven = Some(done);
                self.send_auth(&auth);
            }
            Err(_) => {
                done.send(Err(RequestError::NoAuthenticator)).ok();
            }
        }
    }
}

/// The CONNECT that `options` ask for, and the exchange that it begins.
pub(super) fn connect_of(
    options: &Options,
) -> Result<(Connect, Option<Proving>), AuthenticationError> {
    let mut connect = options.connect.clone();
    let proving = begin_proving(options.authenticator.as_deref(), &mut connect)?;
    Ok((connect, proving))
}

/// The exchange that `connect` begins, if there is someone who can.
pub(crate) fn begin_proving(
    authenticator: Option<&dyn Authenticator>,
    connect: &mut Connect,
) -> Result<Option<Proving>, AuthenticationError> {
    let Some(authenticator) = authenticator else {
        return Ok(None);
    };
    if connect.version != Version::V5 {
        let text = "proofs by AUTH need MQTT 5.0".to_owned();
        return Err(AuthenticationError(text));
    }
    let (proving, data) = Proving::begin(authenticator)?;
    connect.properties.authentication_method = Some(authenticator.method().to_owned());
    connect.properties.authentication_data = data;
    Ok(Some(proving))
}

pub(crate) async fn answer_of(proving: &mut Option<Proving>) -> Result<Auth, AuthenticationError> {
    match proving {
        Some(proving) => proving.answer().await,
        None => std::future::pending().await,
    }
}
