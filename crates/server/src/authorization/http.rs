//! A service that is asked by HTTP what a Client may do, where no rule says anything.
//!
//! Owns: [`HttpRights`]: what is asked, what an answer means. Does not own: when it is asked, and who waits for it (see
//! `shard::asking`), how a question travels (see `crate::outbound`). Start reading at [`HttpRights::ask`].
//! Invariant: only an answer that says so in words that are known allows anything; no answer is a no.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use engine::{Answer, Principal, Question};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::config::HttpConfig;
use crate::outbound::{
    Answer as Said, AskError, Asker, HttpAnswer, HttpClient, HttpError, Kept, Lane, Outbound,
};

/// Asks a service about what no rule decides.
#[derive(Debug)]
pub(crate) struct HttpRights {
    client: Arc<HttpClient>,
    asker: Arc<Asker<bool>>,
    lane: Arc<Lane<Vec<Answer>>>,
}

/// What the service is asked.
#[derive(Serialize)]
struct Body<'a> {
    action: &'static str,
    topic: &'a str,
    qos: Option<u8>,
    retain: Option<bool>,
    client_id: &'a str,
    user_name: Option<&'a str>,
    groups: Vec<&'a str>,
    attributes: BTreeMap<&'a str, &'a str>,
    address: Option<String>,
    listener: Option<&'a str>,
}

/// What it answers with 200; what else it says is not looked at.
#[derive(Deserialize)]
struct Word {
    result: Result,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Result {
    Allow,
    Deny,
    Ignore,
}

impl HttpRights {
    /// What the log calls it.
    pub(crate) const NAME: &'static str = "the service that is asked by HTTP";

    /// Asks as `config` says. At most `waiting_max` Clients wait for their turn.
    /// # Errors
    /// A file that it names cannot be used.
    pub(crate) fn new(
        config: &HttpConfig,
        waiting_max: usize,
        outbound: &Outbound,
    ) -> std::result::Result<Self, HttpError> {
        let lane = Arc::new(Lane::new(config.asks.at_once, waiting_max));
        outbound.ends(&lane);
        Ok(Self {
            client: Arc::new(HttpClient::new(config, ANSWER_BYTES_MAX)?),
            asker: Arc::new(Asker::new(
                "http-authorization",
                &config.url.to_string(),
                &config.asks,
                outbound,
            )),
            lane,
        })
    }

    /// Where its questions wait.
    pub(crate) fn lane(&self) -> Arc<Lane<Vec<Answer>>> {
        Arc::clone(&self.lane)
    }

    /// Asks all of `questions` about a Client, one after the other.
    pub(crate) fn ask(
        &self,
        questions: Vec<Question>,
        principal: Arc<Principal>,
        client_id: Arc<str>,
    ) -> impl Future<Output = Vec<Answer>> + Send + 'static {
        let (client, asker) = (Arc::clone(&self.client), Arc::clone(&self.asker));
        async move {
            let mut answers = Vec::with_capacity(questions.len());
            for question in questions {
                let body = body(&question, &principal, &client_id);
                let key = asker.key(&[Some(&body)]);
                let said = asker.answer(key, async {
                    let answer = client.post(body).await?;
                    verdict(&answer)
                });
                answers.push(match said.await {
                    Some((is_allowed, until)) => Answer {
                        question,
                        is_allowed,
                        until,
                    },
                    None => no_answer(question),
                });
            }
            answers
        }
    }
}

/// What counts without an answer, and is asked again at the next occasion.
pub(crate) fn no_answer(question: Question) -> Answer {
    Answer {
        question,
        is_allowed: false,
        until: Instant::now(),
    }
}

fn body(question: &Question, principal: &Principal, client_id: &str) -> Bytes {
    let (action, topic, qos, retain) = match question {
        Question::Publish { topic, qos, retain } => {
            ("publish", topic, Some(qos.level()), Some(*retain))
        }
        Question::Subscribe { filter } => ("subscribe", filter, None, None),
    };
    let attributes = principal.attributes.iter();
    let address = principal.address.map(|address| address.to_canonical());
    let body = Body {
        action,
        topic,
        qos,
        retain,
        client_id,
        user_name: principal.user.as_deref(),
        groups: principal.groups.iter().map(|group| &**group).collect(),
        attributes: attributes
            .map(|(name, value)| (&**name, &**value))
            .collect(),
        address: address.map(|address| address.to_string()),
        listener: principal.listener.as_deref(),
    };
    // Text and numbers: there is nothing in it that JSON cannot say.
    serde_json::to_vec(&body).unwrap_or_default().into()
}

fn verdict(answer: &HttpAnswer) -> std::result::Result<Said<bool>, AskError> {
    let is_allowed = match answer.status {
        StatusCode::OK => match serde_json::from_slice::<Word>(&answer.body) {
            Ok(word) => word.result == Result::Allow,
            Err(_) => {
                let text = "the answer is not in the form that was agreed on";
                return Err(AskError(text.to_owned()));
            }
        },
        StatusCode::NO_CONTENT => true,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => false,
        status => return Err(AskError(format!("the answer has the status {status}"))),
    };
    Ok(Said {
        value: is_allowed,
        kept: if is_allowed { Kept::AsYes } else { Kept::AsNo },
    })
}

const ANSWER_BYTES_MAX: usize = 16 * 1024;
