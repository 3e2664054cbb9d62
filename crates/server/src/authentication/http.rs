//! A service that is asked by HTTP who a Client is.
//!
//! Owns: [`Http`]: what is asked, what an answer means. Does not own: how a question travels (see
//! `crate::outbound`). Start reading at [`Http::authenticate`]. Invariants: only an answer that says so in words that
//! are known lets somebody in; anything else is no answer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::StatusCode;
use proto::packet::ReasonCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::passwords::{is_user_name, wrong};
use super::{Attempt, AuthenticationError, Authenticator, Decision, Exchange, Identity};
use crate::authorization::{OwnRules, Rules};
use crate::config::HttpConfig;
use crate::outbound::{
    Answer, AskError, BackEnd, HttpAnswer, HttpClient, Kept, Outbound, without_answer,
};

/// Asks a service about Clients with a User Name, a Password or a certificate.
#[derive(Debug)]
pub(crate) struct Http {
    client: Arc<HttpClient>,
    machine: BackEnd<Verdict>,
}

/// What the service is asked.
#[derive(Serialize)]
struct Question<'a> {
    client_id: &'a str,
    user_name: Option<&'a str>,
    password: Option<&'a str>,
    /// One that is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    address: Option<String>,
    listener: &'a str,
    version: String,
    certificate: Option<Certificate<'a>>,
}

#[derive(Serialize)]
struct Certificate<'a> {
    common_name: Option<&'a str>,
    subject: &'a str,
}

/// What it answers with 200, in our words or in those of EMQX; what else it says is not looked at.
#[derive(Deserialize)]
struct Said {
    result: Word,
    user: Option<String>,
    #[serde(default, alias = "is_superuser")]
    administrator: bool,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default, alias = "client_attrs")]
    attributes: BTreeMap<String, String>,
    #[serde(alias = "acl")]
    rights: Option<Value>,
    /// In seconds since 1970.
    #[serde(alias = "expire_at")]
    expires: Option<f64>,
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Allow,
    Deny,
    Ignore,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Allow(Box<Identity>),
    /// With what the Client is told.
    Deny(ReasonCode, Option<String>),
    Ignore,
    /// The service has answered, and has not decided.
    Unclear,
}

impl Http {
    /// Asks as `config` says. At most `waiting_max` logins wait for their turn.
    /// # Errors
    /// A file that it names cannot be used.
    pub(crate) fn new(
        config: &HttpConfig,
        waiting_max: usize,
        outbound: &Outbound,
    ) -> Result<Self, AuthenticationError> {
        Ok(Self {
            client: Arc::new(HttpClient::new(config, ANSWER_BYTES_MAX)?),
            machine: BackEnd::new(
                "http-authentication",
                &config.url.to_string(),
                &config.asks,
                waiting_max,
                outbound,
            ),
        })
    }
}

impl Authenticator for Http {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Option<Decision> {
        let shows = attempt.user_name.is_some()
            || attempt.password.is_some()
            || attempt.certificate.is_some();
        if !shows || attempt.user_name.is_some_and(|name| !is_user_name(name)) {
            return None;
        }
        let body = Bytes::from(serde_json::to_vec(&Question::of(attempt)).ok()?);
        // It is kept until its turn comes, and many may wait.
        if body.len() > QUESTION_BYTES_MAX {
            return Some(Decision::Deny(
                ReasonCode::BadUserNameOrPassword,
                "what this Client shows is too long".to_owned(),
            ));
        }
        // All that is asked stands for itself.
        let key = self.machine.key(&[Some(&body)]);
        if let Some(known) = self.machine.known(key) {
            return known.decision();
        }
        let client = Arc::clone(&self.client);
        let user = attempt.user_name.map(Arc::from);
        let question = async move {
            let answer = client.post(body).await?;
            match Verdict::of(&answer, user, SystemTime::now()) {
                Ok(answer) => Ok(answer),
                Err(error) if answer.status.is_server_error() => Err(AskError(error.to_string())),
                Err(error) => {
                    // It is there for all others, who need not wait for a pause to be over.
                    tracing::warn!(%error, "a service has not decided on a login");
                    Ok(Answer {
                        value: Verdict::Unclear,
                        kept: Kept::Not,
                    })
                }
            }
        };
        let on_error = self.machine.on_error();
        let unanswered = exchange.unanswered();
        let decide = move |verdict: Verdict| match verdict {
            Verdict::Unclear => {
                unanswered.store(true, Ordering::Release);
                without_answer(on_error)
            }
            verdict => verdict.decision(),
        };
        Some(Decision::Wait(
            self.machine.ask(exchange, key, question, decide),
        ))
    }
}

impl<'a> Question<'a> {
    fn of(attempt: &Attempt<'a>) -> Self {
        let password = attempt.password.map(proto::Secret::expose);
        let text = password.map(std::str::from_utf8);
        Self {
            client_id: attempt.client_id,
            user_name: attempt.user_name,
            password: text.and_then(Result::ok),
            password_base64: match text {
                Some(Err(_)) => password.map(|bytes| BASE64.encode(bytes)),
                _ => None,
            },
            address: attempt
                .peer
                .ip()
                .map(|address| address.to_canonical().to_string()),
            listener: attempt.listener,
            version: attempt.version.to_string(),
            certificate: attempt.certificate.map(|certificate| Certificate {
                common_name: certificate.common_name.as_deref(),
                subject: &certificate.subject,
            }),
        }
    }
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Nonsense {
    #[error("the answer has the status {0}")]
    Status(StatusCode),
    #[error("the answer is not in the form that was agreed on")]
    Form,
    #[error("the answer lets in a user without a name that one can have")]
    Name,
    #[error("the answer has rights that are not understood")]
    Rights,
    #[error("the answer ends at a time that cannot be")]
    Time,
}

impl Verdict {
    /// What `answer` means for the user who has said this name.
    fn of(
        answer: &HttpAnswer,
        user: Option<Arc<str>>,
        now: SystemTime,
    ) -> Result<Answer<Self>, Nonsense> {
        let deny = |reason, text| Answer {
            value: Self::Deny(reason, text),
            kept: Kept::AsNo,
        };
        let said = match answer.status {
            StatusCode::OK => serde_json::from_slice(&answer.body).map_err(|_| Nonsense::Form)?,
            StatusCode::NO_CONTENT => Said::yes(),
            StatusCode::UNAUTHORIZED => return Ok(deny(ReasonCode::BadUserNameOrPassword, None)),
            StatusCode::FORBIDDEN => return Ok(deny(ReasonCode::NotAuthorized, None)),
            status => return Err(Nonsense::Status(status)),
        };
        match said.result {
            Word::Deny => {
                let text = said.reason.as_deref().map(tellable);
                Ok(deny(ReasonCode::BadUserNameOrPassword, text))
            }
            Word::Ignore => Ok(Answer {
                value: Self::Ignore,
                kept: Kept::AsNo,
            }),
            Word::Allow => {
                let expires_at = said.expires.map(time_of).transpose()?;
                let left = expires_at.map(|at| at.duration_since(now).unwrap_or_default());
                if left == Some(Duration::ZERO) {
                    let text = "what the Client has shown has expired".to_owned();
                    return Ok(deny(ReasonCode::NotAuthorized, Some(text)));
                }
                let identity = said.identity(user, expires_at)?;
                Ok(Answer {
                    value: Self::Allow(Box::new(identity)),
                    kept: left.map_or(Kept::AsYes, Kept::AsYesFor),
                })
            }
        }
    }

    fn decision(self) -> Option<Decision> {
        match self {
            Self::Allow(identity) => Some(Decision::Allow {
                identity: *identity,
                data: None,
            }),
            Self::Deny(reason, Some(text)) => Some(Decision::Deny(reason, text)),
            Self::Deny(ReasonCode::NotAuthorized, None) => Some(Decision::Deny(
                ReasonCode::NotAuthorized,
                "this Client is not let in".to_owned(),
            )),
            Self::Deny(..) => Some(wrong()),
            Self::Ignore | Self::Unclear => None,
        }
    }
}

impl Said {
    /// The answer without words.
    fn yes() -> Self {
        Self {
            result: Word::Allow,
            user: None,
            administrator: false,
            groups: Vec::new(),
            attributes: BTreeMap::new(),
            rights: None,
            expires: None,
            reason: None,
        }
    }

    fn identity(
        self,
        user: Option<Arc<str>>,
        expires_at: Option<SystemTime>,
    ) -> Result<Identity, Nonsense> {
        // Rights and Sessions are those of users: who has no name would share them with everybody without one.
        let user = self.user.map(Arc::from).or(user);
        let user = user.filter(|name| is_user_name(name));
        let user = Some(user.ok_or(Nonsense::Name)?);
        let attributes = self.attributes.into_iter();
        let attributes = attributes.map(|(name, value)| (name.into(), value.into()));
        Ok(Identity {
            user,
            groups: self.groups.into_iter().map(Arc::from).collect(),
            attributes: attributes.collect(),
            is_administrator: self.administrator,
            expires_at,
            own_rules: self.rights.as_ref().map(rules_of).transpose()?,
            ..Identity::anonymous()
        })
    }
}

fn rules_of(rights: &Value) -> Result<Arc<Rules>, Nonsense> {
    let rules = OwnRules::from_json("http", rights).map_err(|_| Nonsense::Rights)?;
    Ok(rules.into_rules())
}

fn time_of(seconds: f64) -> Result<SystemTime, Nonsense> {
    let since = Duration::try_from_secs_f64(seconds).map_err(|_| Nonsense::Time)?;
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .ok_or(Nonsense::Time)
}

/// What a Client may be told: one short line.
fn tellable(reason: &str) -> String {
    let plain = reason.chars().filter(|character| !character.is_control());
    plain.take(REASON_CHARACTERS_MAX).collect()
}

impl fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

/// More than any identity needs; an answer is kept.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// More than names and tokens need.
const QUESTION_BYTES_MAX: usize = 32 * 1024;
const REASON_CHARACTERS_MAX: usize = 200;
