//! Keys of tokens that are fetched from where they are published, again and again.
//!
//! Owns: [`FetchedKeys`], and when they are fetched ([`Schedule`]). Does not own: what a key verifies (see `tokens`),
//! how a question travels (see `crate::outbound`). Start reading at [`FetchedKeys::start`].
//! Invariants: a key that is not published any more verifies nothing once that is known; while nothing can be fetched the
//! last keys count, but not for ever; without any, no token is good.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::tokens::SECRET_BYTES_MIN;
use super::{AuthenticationError, Verified};
use crate::config::FetchConfig;
use crate::outbound::{AskError, Figures, HttpClient, Lane, Outbound, Silence, caught};

/// The keys of one family, by their names.
pub(super) type KeySet = BTreeMap<String, DecodingKey>;

/// Keys that are fetched.
pub(crate) struct FetchedKeys {
    config: FetchConfig,
    family: AlgorithmFamily,
    client: HttpClient,
    figures: Arc<Figures>,
    silence: Arc<Silence>,
    state: Mutex<State>,
    /// There may be something to do.
    wake: Arc<Notify>,
    /// How often it was fetched, or tried.
    rounds: watch::Sender<u64>,
    /// Where logins wait for keys.
    lane: Arc<Lane<Verified>>,
    handle: Option<Handle>,
}

struct State {
    /// What was fetched last, and when.
    keys: Option<(Arc<KeySet>, Instant)>,
    schedule: Schedule,
}

/// When keys are fetched.
#[derive(Debug)]
struct Schedule {
    refresh: Duration,
    refresh_min: Duration,
    began_at: Option<Instant>,
    is_under_way: bool,
    /// In a row.
    failures: u32,
    /// Whether a key was asked for that is not there.
    is_wanted: bool,
}

impl std::fmt::Debug for FetchedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FetchedKeys").finish_non_exhaustive()
    }
}

impl FetchedKeys {
    /// Keys of `family` that are fetched as `config` says, from now until nobody needs them. Who has them fetched
    /// already goes on, so that a reload is not without keys. At most `waiting_max` logins wait for them.
    /// # Errors
    /// What it is asked with cannot be used.
    pub(super) fn start(
        config: &FetchConfig,
        family: AlgorithmFamily,
        waiting_max: usize,
        outbound: &Outbound,
    ) -> Result<Arc<Self>, AuthenticationError> {
        let running = outbound.key_sets();
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|one| one.strong_count() > 0);
        let is_same = |one: &Arc<Self>| one.config == *config && one.family == family;
        if let Some(same) = running.iter().filter_map(Weak::upgrade).find(is_same) {
            same.want();
            return Ok(same);
        }
        let client = HttpClient::new(&config.http, ANSWER_BYTES_MAX)?;
        let lane = Arc::new(Lane::new(waiting_max.max(1), 0));
        outbound.ends(&lane);
        let figures = outbound.figures("token-keys");
        let keys = Arc::new(Self {
            family,
            client,
            silence: outbound.silence(&figures, &config.http.url.to_string()),
            figures,
            state: Mutex::new(State {
                keys: None,
                schedule: Schedule::new(config.refresh, config.refresh_min),
            }),
            wake: Arc::new(Notify::new()),
            rounds: watch::Sender::new(0),
            lane,
            handle: outbound.handle(),
            config: config.clone(),
        });
        if let Some(handle) = &keys.handle {
            let wake = Arc::clone(&keys.wake);
            handle.spawn(run(Arc::downgrade(&keys), wake));
        }
        running.push(Arc::downgrade(&keys));
        Ok(keys)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys that count now; `None` if there are none.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        let state = self.lock();
        let (keys, fetched_at) = state.keys.as_ref()?;
        (fetched_at.elapsed() < self.config.stale_max).then(|| Arc::clone(keys))
    }

    /// A key is not there: has them fetched, unless that was lately. Whether it is worth waiting for.
    pub(super) fn want(&self) -> bool {
        let is_coming = self.lock().schedule.want(Instant::now());
        self.wake.notify_one();
        is_coming
    }

    /// Where to wait for them.
    pub(super) fn lane(&self) -> Arc<Lane<Verified>> {
        Arc::clone(&self.lane)
    }

    /// What `round` tells the end of.
    pub(super) fn rounds(&self) -> watch::Receiver<u64> {
        self.rounds.subscribe()
    }

    /// Begins to fetch them, if it is time; when it is, if not.
    fn begin_or_wait(&self) -> Option<Instant> {
        let now = Instant::now();
        let schedule = &mut self.lock().schedule;
        let next = schedule.next().filter(|at| now < *at);
        if next.is_none() {
            schedule.begin(now);
        }
        next
    }

    /// Waits for the end of a fetch, here and now.
    pub(super) fn wait(&self, mut rounds: watch::Receiver<u64>) {
        if let Some(handle) = &self.handle {
            handle.block_on(rounds.changed()).ok();
        }
    }

    /// Fetches them.
    async fn fetch(&self) {
        self.figures.asked.fetch_add(1, Ordering::Relaxed);
        let timeout = self.config.http.asks.timeout;
        let fetched = match tokio::time::timeout(timeout, self.client.get()).await {
            Ok(Ok(answer)) if answer.status == StatusCode::OK => {
                read(&answer.body, self.family).map_err(|problem| AskError(problem.to_owned()))
            }
            Ok(Ok(answer)) => Err(AskError(format!(
                "the answer has the status {}",
                answer.status
            ))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(AskError("no answer in time".to_owned())),
        };
        let mut state = self.lock();
        state.schedule.end(fetched.is_ok());
        self.silence.set(fetched.is_err());
        match fetched {
            Ok(keys) => {
                if keys.is_empty() {
                    tracing::error!("no key of tokens is published: no token is good");
                }
                state.keys = Some((Arc::new(keys), Instant::now()));
            }
            Err(error) => {
                self.figures.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "keys of tokens cannot be fetched: those that were fetched last count");
            }
        }
        drop(state);
        self.rounds.send_modify(|rounds| *rounds += 1);
    }
}

impl Drop for FetchedKeys {
    fn drop(&mut self) {
        // So that what fetches sees it.
        self.wake.notify_one();
    }
}

/// Fetches them when it is time, until nobody needs them.
async fn run(keys: Weak<FetchedKeys>, wake: Arc<Notify>) {
    loop {
        let next = match keys.upgrade() {
            None => return,
            Some(keys) => {
                let next = keys.begin_or_wait();
                if next.is_none() && caught(keys.fetch()).await.is_none() {
                    keys.lock().schedule.end(false);
                }
                next
            }
        };
        let Some(next) = next else { continue };
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = wake.notified() => {}
        }
    }
}

/// The keys of `family` in a key set.
pub(super) fn read(text: &[u8], family: AlgorithmFamily) -> Result<KeySet, &'static str> {
    let set: JwkSet = serde_json::from_slice(text).map_err(|_| "no JSON Web Key Set")?;
    keys_of(&set, family)
}

/// The keys of `family` in `set`, which holds keys for other uses, too.
pub(super) fn keys_of(set: &JwkSet, family: AlgorithmFamily) -> Result<KeySet, &'static str> {
    let mut keys = KeySet::new();
    for jwk in &set.keys {
        let key = DecodingKey::from_jwk(jwk).ok();
        let Some(key) = key.filter(|key| key.family() == family) else {
            continue;
        };
        // It is written in base64, which takes more.
        if let AlgorithmParameters::OctetKey(secret) = &jwk.algorithm
            && secret.value.len() * 3 / 4 < SECRET_BYTES_MIN
        {
            return Err("a secret is shorter than 32 bytes");
        }
        let kid = jwk.common.key_id.clone().unwrap_or_default();
        if keys.insert(kid, key).is_some() {
            return Err("two keys have the same kid");
        }
    }
    Ok(keys)
}

impl Schedule {
    const fn new(refresh: Duration, refresh_min: Duration) -> Self {
        Self {
            refresh,
            refresh_min,
            began_at: None,
            is_under_way: false,
            failures: 0,
            is_wanted: false,
        }
    }

    /// When the next one begins; `None` is now. Asked by who fetches, one at a time.
    fn next(&self) -> Option<Instant> {
        let began_at = self.began_at?;
        let pause = if self.is_wanted {
            self.refresh_min
        } else if self.failures > 0 {
            // Longer each time, but no longer than while all is well.
            let doubled = 2_u32.saturating_pow(self.failures.min(16) - 1);
            self.refresh_min.saturating_mul(doubled).min(self.refresh)
        } else {
            self.refresh
        };
        Some(began_at + pause)
    }

    /// Somebody needs a key that is not there. Whether one that begins now, or has begun, may bring it.
    fn want(&mut self, now: Instant) -> bool {
        if self.is_under_way {
            return true;
        }
        let is_lately = self.began_at.is_some_and(|at| now < at + self.refresh_min);
        self.is_wanted |= !is_lately;
        !is_lately
    }

    fn begin(&mut self, now: Instant) {
        self.began_at = Some(now);
        self.is_under_way = true;
        self.is_wanted = false;
    }

    const fn end(&mut self, is_good: bool) {
        self.is_under_way = false;
        self.failures = if is_good {
            0
        } else {
            self.failures.saturating_add(1)
        };
    }
}

/// Of an answer no more is read.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn keys_are_fetched_at_once_then_now_and_then_and_for_an_unknown_key_not_too_often() {
        let now = Instant::now();
        let mut schedule = Schedule::new(600 * SECOND, 10 * SECOND);
        assert_eq!(schedule.next(), None, "at once");
        assert!(schedule.want(now), "the first one is worth waiting for");
        schedule.begin(now);
        assert!(schedule.want(now), "it is under way");
        schedule.end(true);
        assert_eq!(schedule.next(), Some(now + 600 * SECOND));
        assert!(!schedule.want(now + 9 * SECOND));
        assert_eq!(schedule.next(), Some(now + 600 * SECOND));
        assert!(schedule.want(now + 10 * SECOND));
        assert_eq!(schedule.next(), Some(now + 10 * SECOND));
        schedule.begin(now + 11 * SECOND);
        schedule.end(true);
        assert!(!schedule.want(now + 20 * SECOND));
        assert!(schedule.want(now + 21 * SECOND));
    }

    #[test]
    fn keys_that_cannot_be_fetched_are_tried_for_again_ever_more_rarely() {
        let now = Instant::now();
        let mut schedule = Schedule::new(60 * SECOND, 10 * SECOND);
        for pause in [10, 20, 40, 60, 60] {
            schedule.begin(now);
            schedule.end(false);
            assert_eq!(schedule.next(), Some(now + pause * SECOND));
        }
        for _ in 0..100 {
            schedule.end(false);
        }
        assert_eq!(schedule.next(), Some(now + 60 * SECOND));
        schedule.end(true);
        assert_eq!(schedule.next(), Some(now + 60 * SECOND));
    }
}
