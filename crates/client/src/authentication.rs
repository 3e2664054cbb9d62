//! Proofs by AUTH: what an application can show, and one exchange while it goes on.
//!
//! Owns: [`Authenticator`], [`Exchange`], the two that come with this crate. Does not own: the rules of AUTH (see
//! `proto::connection`), SCRAM itself (see the crate `scram`). Start reading at [`Authenticator`].
//! Invariant: a connection that asked for an exchange is used only after its [`Exchange::finish`] has agreed.

use std::fmt;
use std::sync::Arc;

use proto::Secret;
use proto::packet::{Auth, ReasonCode};
use scram::ClientExchange;
use tokio::task::JoinHandle;

/// Who can prove to a Server, by one Authentication Method, who we are: in CONNECT and again while connected.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// The Authentication Method.
    fn method(&self) -> &str;

    /// Begins an exchange; returns it with the Authentication Data to begin with.
    /// # Errors
    /// It cannot begin; the text says why, and nothing secret.
    fn begin(&self) -> Result<(Box<dyn Exchange>, Option<Secret>), AuthenticationError>;
}

/// One exchange. What it returns as an error ends the connection.
pub trait Exchange: Send {
    /// Answers Authentication Data of the Server. Called on a thread that may block.
    /// # Errors
    /// The Server is none to go on with.
    fn step(&mut self, data: Option<&Secret>) -> Result<Option<Secret>, AuthenticationError>;

    /// The Server is content, and has shown this to end with.
    /// # Errors
    /// We are not: it has not shown what it had to.
    fn finish(self: Box<Self>, data: Option<&Secret>) -> Result<(), AuthenticationError>;
}

/// Why an exchange has failed on our side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuthenticationError(pub String);

impl AuthenticationError {
    fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// `SCRAM-SHA-256`: a user and its password, which is not sent. The Server has to prove that it knows the user.
pub struct ScramSha256 {
    user: String,
    password: Secret,
}

impl ScramSha256 {
    /// For this user with this password.
    pub fn new(user: impl Into<String>, password: Secret) -> Self {
        Self {
            user: user.into(),
            password,
        }
    }
}

impl fmt::Debug for ScramSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramSha256")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Authenticator for ScramSha256 {
    fn method(&self) -> &str {
        scram::METHOD
    }

    fn begin(&self) -> Result<(Box<dyn Exchange>, Option<Secret>), AuthenticationError> {
        let password = std::str::from_utf8(self.password.expose())
            .map_err(|_| AuthenticationError::new("SCRAM needs a password that is text"))?;
        let nonce = scram::nonce().map_err(AuthenticationError::new)?;
        let (exchange, said) = ClientExchange::begin(&self.user, password, &nonce);
        Ok((Box::new(Scram(exchange)), Some(Secret::new(said))))
    }
}

struct Scram(ClientExchange);

impl Exchange for Scram {
    fn step(&mut self, data: Option<&Secret>) -> Result<Option<Secret>, AuthenticationError> {
        let answer = self.0.on_server_first(bytes(data));
        let answer = answer.map_err(AuthenticationError::new)?;
        Ok(Some(Secret::new(answer)))
    }

    fn finish(self: Box<Self>, data: Option<&Secret>) -> Result<(), AuthenticationError> {
        let judged = self.0.on_server_final(bytes(data));
        judged.map_err(AuthenticationError::new)
    }
}

fn bytes(data: Option<&Secret>) -> &[u8] {
    data.map(Secret::expose).unwrap_or_default()
}

/// A token in one step, by the method `JWT` or another: a new one at each exchange.
#[derive(Clone)]
pub struct Token {
    method: String,
    next: Arc<dyn Fn() -> Secret + Send + Sync>,
}

impl Token {
    /// Shows what `next` returns, by the method `JWT`.
    pub fn new(next: impl Fn() -> Secret + Send + Sync + 'static) -> Self {
        Self {
            method: "JWT".to_owned(),
            next: Arc::new(next),
        }
    }

    /// The same by another Authentication Method.
    #[must_use]
    pub fn method(mut self, method: impl Into<String>) -> Self {
        self.method = method.into();
        self
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl Authenticator for Token {
    fn method(&self) -> &str {
        &self.method
    }

    fn begin(&self) -> Result<(Box<dyn Exchange>, Option<Secret>), AuthenticationError> {
        Ok((Box::new(OneStep), Some((self.next)())))
    }
}

struct OneStep;

impl Exchange for OneStep {
    fn step(&mut self, _: Option<&Secret>) -> Result<Option<Secret>, AuthenticationError> {
        Err(AuthenticationError::new(
            "the server asks for more than a token",
        ))
    }

    fn finish(self: Box<Self>, _: Option<&Secret>) -> Result<(), AuthenticationError> {
        Ok(())
    }
}

/// An exchange that goes on.
pub(crate) struct Proving {
    method: String,
    /// `None` while a step is computed.
    exchange: Option<Box<dyn Exchange>>,
    step: Option<JoinHandle<Step>>,
}

type Step = (
    Box<dyn Exchange>,
    Result<Option<Secret>, AuthenticationError>,
);

impl Proving {
    /// Begins one, and returns what to say first.
    pub(crate) fn begin(
        authenticator: &dyn Authenticator,
    ) -> Result<(Self, Option<Secret>), AuthenticationError> {
        let (exchange, data) = authenticator.begin()?;
        let proving = Self {
            method: authenticator.method().to_owned(),
            exchange: Some(exchange),
            step: None,
        };
        Ok((proving, data))
    }

    /// An AUTH that says this.
    pub(crate) fn auth(&self, reason: ReasonCode, data: Option<Secret>) -> Auth {
        Auth::new(reason, &self.method, data)
    }

    /// The Server asks to go on: [`Self::answer`] has the answer when it is computed.
    pub(crate) fn on_continue(&mut self, auth: &Auth) -> Result<(), AuthenticationError> {
        let exchange = self.exchange.take();
        let mut exchange = exchange.ok_or_else(|| AuthenticationError::new(OUT_OF_TURN))?;
        let data = auth.data.clone();
        // A hash of a password is slow on purpose.
        self.step = Some(tokio::task::spawn_blocking(move || {
            let answer = exchange.step(data.as_ref());
            (exchange, answer)
        }));
        Ok(())
    }

    /// Whether an answer is computed.
    pub(crate) const fn is_computing(&self) -> bool {
        self.step.is_some()
    }

    /// The answer, once it is computed. May be dropped and called again; pending while nothing is computed.
    pub(crate) async fn answer(&mut self) -> Result<Auth, AuthenticationError> {
        let Some(step) = &mut self.step else {
            return std::future::pending().await;
        };
        let done = step.await;
        self.step = None;
        let broken = |_| AuthenticationError::new("the exchange has failed on our side");
        let (exchange, answer) = done.map_err(broken)?;
        self.exchange = Some(exchange);
        Ok(self.auth(ReasonCode::ContinueAuthentication, answer?))
    }

    /// The Server is content.
    pub(crate) fn finish(self, data: Option<&Secret>) -> Result<(), AuthenticationError> {
        let exchange = self.exchange;
        let exchange = exchange.ok_or_else(|| AuthenticationError::new(OUT_OF_TURN))?;
        exchange.finish(data)
    }
}

impl fmt::Debug for Proving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proving")
    }
}

const OUT_OF_TURN: &str = "the server speaks out of turn";
