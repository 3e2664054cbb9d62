//! One machine that is asked.
//!
//! Owns: [`BackEnd`]: time-out, breaker and cache around a question. Does not own: the question, what its answer
//! means. Start reading at [`BackEnd::ask`]. Invariants: no answer is never a yes; what is asked holds no part
//! of the lane it waits in, so that what waits ends with the back end.

use std::fmt;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::{hmac, rand};
use proto::packet::ReasonCode;

use super::breaker::{Admitted, Breaker, Change};
use super::cache::{Cache, CacheKey, Half};
use super::lane::Lane;
use super::{Figures, Outbound, Silence};
use crate::authentication::{Decision, Exchange, Verified, Work};
use crate::config::{AskConfig, OnError};

/// One machine that is asked, and what it has answered lately with a `T`.
pub struct BackEnd<T> {
    lane: Arc<Lane<Verified>>,
    asker: Arc<Asker<T>>,
}

/// What it takes to ask, without the lane in which that waits.
pub(crate) struct Asker<T> {
    name: &'static str,
    config: AskConfig,
    /// `None` where the system has no randomness: then nothing is remembered.
    key: Option<hmac::Key>,
    breaker: Mutex<Breaker>,
    cache: Mutex<Cache<T>>,
    figures: Arc<Figures>,
    silence: Arc<Silence>,
}

/// What another machine has said.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// What.
    pub value: T,
    /// How long that is good.
    pub kept: Kept,
}

/// How long an answer is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// As long as a yes.
    AsYes,
    /// As a yes, but not for longer than this.
    AsYesFor(Duration),
    /// As long as a no.
    AsNo,
    /// Not at all.
    Not,
}

/// Why there is no answer, in words that hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AskError(pub String);

/// What stands for a question: a keyed digest, which holds no secret.
#[derive(Clone, Copy, Debug)]
pub struct QuestionKey(Option<CacheKey>);

impl<T> fmt::Debug for BackEnd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackEnd")
            .field("name", &self.asker.name)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Asker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<T: Clone + Send + 'static> BackEnd<T> {
    /// The one at the place `machine`, which is called `name` in `$SYS` and the log. At most `waiting_max` questions wait
    /// for their turn.
    #[must_use]
    pub fn new(
        name: &'static str,
        machine: &str,
        config: &AskConfig,
        waiting_max: usize,
        outbound: &Outbound,
    ) -> Self {
        let lane = Arc::new(Lane::new(config.at_once, waiting_max));
        outbound.ends(&lane);
        Self {
            lane,
            asker: Arc::new(Asker::new(name, machine, config, outbound)),
        }
    }

    /// What stands for a question about all of `parts`, secrets included. Every part counts, and which it is.
    #[must_use]
    pub fn key(&self, parts: &[Option<&[u8]>]) -> QuestionKey {
        self.asker.key(parts)
    }

    /// The answer that is known already. O(1): a shard may ask.
    #[must_use]
    pub fn known(&self, key: QuestionKey) -> Option<T> {
        self.asker
            .known(key, Instant::now())
            .map(|(value, _)| value)
    }

    /// What counts without an answer.
    #[must_use]
    pub fn on_error(&self) -> OnError {
        self.asker.config.on_error
    }

    /// Has `question` asked when its turn comes, unless its answer is known by then; `decide` says what the
    /// answer means, and may say that more work is to be done. Without an answer the configuration decides, and
    /// `exchange` remembers it.
    pub fn ask<F, D>(
        &self,
        exchange: &mut Exchange,
        key: QuestionKey,
        question: F,
        decide: D,
    ) -> Work
    where
        F: Future<Output = Result<Answer<T>, AskError>> + Send + 'static,
        D: FnOnce(T) -> Option<Decision> + Send + 'static,
    {
        let asker = Arc::clone(&self.asker);
        let unanswered = exchange.unanswered();
        Work::asking(Arc::clone(&self.lane), async move {
            match asker.answer(key, question).await {
                Some((value, _)) => decide(value),
                None => {
                    unanswered.store(true, Ordering::Release);
                    without_answer(asker.config.on_error)
                }
            }
        })
    }
}

/// What becomes of a login on which another machine has not decided.
pub(crate) fn without_answer(on_error: OnError) -> Option<Decision> {
    match on_error {
        OnError::Next => None,
        OnError::Deny => {
            let text = "who decides on this login does not answer";
            let reason = ReasonCode::ServerUnavailable;
            Some(Decision::Deny(reason, text.to_owned()))
        }
    }
}

impl<T: Clone> Asker<T> {
    pub(crate) fn new(
        name: &'static str,
        machine: &str,
        config: &AskConfig,
        outbound: &Outbound,
    ) -> Self {
        let mut secret = [0; 32];
        let key = rand::fill(&mut secret)
            .ok()
            .map(|()| hmac::Key::new(hmac::HMAC_SHA256, &secret));
        let figures = outbound.figures(name);
        let silence = outbound.silence(&figures, machine);
        let mut breaker = Breaker::new(config.failures_max, config.pause);
        // What did not answer before a reload has to answer first; where that is not looked at, nobody would notice.
        if config.failures_max == 0 {
            silence.set(false);
        } else if silence.is_silent() {
            breaker = breaker.opened(Instant::now());
        }
        Self {
            name,
            config: config.clone(),
            key,
            breaker: Mutex::new(breaker),
            cache: Mutex::new(Cache::new(config.cache_entries)),
            silence,
            figures,
        }
    }

    /// What stands for a question about all of `parts`, secrets included. Every part counts, and which it is.
    pub(crate) fn key(&self, parts: &[Option<&[u8]>]) -> QuestionKey {
        let Some(key) = &self.key else {
            return QuestionKey(None);
        };
        let mut context = hmac::Context::with_key(key);
        for part in parts {
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            context.update(&length.to_be_bytes());
            context.update(part.unwrap_or_default());
        }
        QuestionKey(context.sign().as_ref().try_into().ok())
    }

    fn known(&self, key: QuestionKey, now: Instant) -> Option<(T, Instant)> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cache.find(&key.0?, now)?;
        drop(cache);
        self.figures.cached.fetch_add(1, Ordering::Relaxed);
        Some(known)
    }

    /// What was known, or what `question` comes to, and until when that is good; `None` without an answer.
    pub(crate) async fn answer<F>(&self, key: QuestionKey, question: F) -> Option<(T, Instant)>
    where
        F: Future<Output = Result<Answer<T>, AskError>>,
    {
        // Others may have asked the same while this waited.
        if let Some(known) = self.known(key, Instant::now()) {
            return Some(known);
        }
        let attempt = self.begin()?;
        let asked = tokio::time::timeout(self.config.timeout, question).await;
        let asked = asked.unwrap_or_else(|_| Err(AskError("no answer in time".to_owned())));
        match asked {
            Ok(answer) => {
                attempt.answered();
                let until = self.keep(key, &answer, Instant::now());
                Some((answer.value, until))
            }
            Err(error) => {
                attempt.failed(&error);
                None
            }
        }
    }

    /// Whether something is asked now.
    fn begin(&self) -> Option<Attempt<'_, T>> {
        let admitted = self.breaker().admit(Instant::now());
        if admitted == Admitted::Spare {
            self.figures.spared.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.figures.asked.fetch_add(1, Ordering::Relaxed);
        Some(Attempt {
            asker: self,
            admitted,
            is_over: false,
        })
    }

    fn keep(&self, key: QuestionKey, answer: &Answer<T>, now: Instant) -> Instant {
        let (half, good_for) = match answer.kept {
            Kept::AsYes => (Half::Yes, self.config.cache_allow),
            Kept::AsYesFor(most) => (Half::Yes, self.config.cache_allow.min(most)),
            Kept::AsNo => (Half::No, self.config.cache_deny),
            Kept::Not => (Half::No, Duration::ZERO),
        };
        let until = now.checked_add(good_for).unwrap_or(now);
        if let Some(key) = key.0 {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if now < until {
                cache.keep(key, answer.value.clone(), half, until);
            } else {
                cache.forget(&key);
            }
        }
        until
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that is out. Dropped without an end it was given up.
struct Attempt<'a, T: Clone> {
    asker: &'a Asker<T>,
    admitted: Admitted,
    is_over: bool,
}

impl<T: Clone> Attempt<'_, T> {
    fn answered(mut self) {
        self.is_over = true;
        if self.asker.breaker().on_answer() == Some(Change::Closed) {
            self.asker.silence.set(false);
            tracing::info!(reason = self.asker.name, "another machine answers again");
        }
    }

    fn failed(mut self, error: &AskError) {
        self.is_over = true;
        let Asker { name, figures, .. } = self.asker;
        figures.failed.fetch_add(1, Ordering::Relaxed);
        let changed = self
            .asker
            .breaker()
            .on_failure(self.admitted, Instant::now());
        match changed {
            Some(Change::Opened) => {
                self.asker.silence.set(true);
                tracing::error!(reason = name, %error, "another machine does not answer: it is not asked for a while");
            }
            Some(Change::Failing) => {
                tracing::warn!(reason = name, %error, "another machine has not answered");
            }
            Some(Change::Closed) | None => {
                tracing::debug!(reason = name, %error, "another machine has not answered");
            }
        }
    }
}

impl<T: Clone> Drop for Attempt<'_, T> {
    fn drop(&mut self) {
        if !self.is_over {
            self.asker
                .breaker()
                .on_given_up(self.admitted, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back_end(outbound: &Outbound) -> BackEnd<bool> {
        back_end_at("machine", outbound)
    }

    fn back_end_at(machine: &str, outbound: &Outbound) -> BackEnd<bool> {
        let config = AskConfig {
            failures_max: 2,
            pause: Duration::ZERO,
            ..AskConfig::default()
        };
        BackEnd::new("test", machine, &config, 8, outbound)
    }

    async fn ask(machine: &BackEnd<bool>, key: QuestionKey, says: Option<bool>) -> Option<bool> {
        let question = async move {
            let value = says.ok_or_else(|| AskError("nothing".to_owned()))?;
            let kept = if value { Kept::AsYes } else { Kept::AsNo };
            Ok(Answer { value, kept })
        };
        machine
            .asker
            .answer(key, question)
            .await
            .map(|(value, _)| value)
    }

    /// A reload makes another back end of the same machine, before the old one is let go.
    #[tokio::test]
    async fn machine_that_is_silent_stays_an_alarm_over_a_reload_until_it_answers() {
        let outbound = Outbound::default();
        let alarms = || outbound.topics().1;
        let silent = back_end(&outbound);
        for _ in 0..2 {
            assert_eq!(ask(&silent, silent.key(&[]), None).await, None);
        }
        let elsewhere = back_end_at("another machine", &outbound);
        let again = back_end(&outbound);
        drop(silent);
        assert_eq!(alarms(), ["test does not answer"]);
        // One question tries; that nobody waits for it any more says nothing.
        let attempt = again.asker.begin().expect("it tries");
        assert_eq!(ask(&again, again.key(&[]), Some(true)).await, None);
        drop(attempt);
        assert_eq!(alarms(), ["test does not answer"]);
        assert_eq!(ask(&again, again.key(&[]), Some(true)).await, Some(true));
        assert_eq!(alarms(), [""; 0]);
        for _ in 0..2 {
            let key = elsewhere.key(&[]);
            assert_eq!(ask(&elsewhere, key, None).await, None);
        }
        assert_eq!(alarms(), ["test does not answer"]);
        let answering = back_end(&outbound);
        drop(elsewhere);
        assert_eq!(alarms(), [""; 0]);
        assert!(answering.asker.begin().is_some());
    }

    #[test]
    fn every_part_of_a_question_and_its_absence_makes_another_question() {
        let machine = back_end(&Outbound::default());
        let parts: [&[Option<&[u8]>]; 6] = [
            &[Some(b"ab"), Some(b"c")],
            &[Some(b"a"), Some(b"bc")],
            &[Some(b"abc"), Some(b"")],
            &[Some(b"abc"), None],
            &[None, Some(b"abc")],
            &[Some(b"abc")],
        ];
        let keys = parts.map(|parts| machine.key(parts).0.expect("there is randomness"));
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(machine.key(parts[0]).0, Some(keys[0]));
        let other = back_end(&Outbound::default());
        assert_ne!(other.key(parts[0]).0, Some(keys[0]), "each has its own key");
    }

    #[tokio::test]
    async fn what_becomes_of_questions_is_counted_and_a_silent_machine_is_an_alarm() {
        let outbound = Outbound::default();
        let machine = back_end(&outbound);
        let keys = back_end(&outbound);
        let key = |user: &[u8]| keys.key(&[Some(user)]);
        assert_eq!(ask(&machine, key(b"anna"), Some(true)).await, Some(true));
        assert_eq!(ask(&machine, key(b"anna"), None).await, Some(true));
        assert_eq!(machine.known(key(b"anna")), Some(true));
        let alarms = || outbound.topics().1;
        for _ in 0..2 {
            assert_eq!(alarms(), [""; 0]);
            assert_eq!(ask(&machine, key(b"otto"), None).await, None);
        }
        assert_eq!(alarms(), ["test does not answer"]);
        // What is known is known still.
        assert_eq!(ask(&machine, key(b"anna"), None).await, Some(true));
        let attempt = machine.asker.begin().expect("it tries");
        assert_eq!(ask(&machine, key(b"otto"), Some(true)).await, None);
        drop(attempt);
        assert_eq!(ask(&machine, key(b"otto"), Some(false)).await, Some(false));
        assert_eq!(alarms(), [""; 0]);
        let expected = [
            ("outbound/asked", "5"),
            ("outbound/failed", "2"),
            ("outbound/cached", "3"),
            ("outbound/spared", "1"),
        ];
        let topics = outbound.topics().0;
        let counted: Vec<_> = topics
            .iter()
            .map(|(name, count)| (*name, count.as_str()))
            .collect();
        assert_eq!(counted, expected);
        // One that nobody asks any more is no alarm.
        for _ in 0..2 {
            assert_eq!(ask(&machine, key(b"emil"), None).await, None);
        }
        assert_eq!(alarms(), ["test does not answer"]);
        drop(machine);
        assert_eq!(alarms(), [""; 0]);
        // Another one of that name goes on counting.
        let again = back_end(&outbound);
        assert_eq!(ask(&again, again.key(&[]), Some(true)).await, Some(true));
        assert_eq!(outbound.topics().0[0].1, "8");
    }
}
