//! Queued messages that only the store has, on their way back into memory.
//!
//! Owns: which Sessions want messages, what is asked of the store, what becomes of its answers.
//! Does not own: what goes to the disk (see `queue`), how it is read (see the server).
//! Start reading at [`Engine::want_load`]. Invariants: a Session waits for at most one answer; what a shard
//! waits for is bounded, however many Sessions come back at once; an answer is used only as far as it is
//! still wanted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use proto::Qos;
use proto::session::{OnLoaded, Queued};
use store::{Level, Load, Loaded, LoadedMessage, Record, Seq, SessionId};

use crate::Engine;
use crate::keys::{KeyedState, SessionKey};
use crate::output::Output;
use crate::sessions::Session;

/// Where a Session stands with what only the store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Loading {
    /// It wants nothing.
    #[default]
    Idle,
    /// It is in the list of those that want some.
    Wanted,
    /// The store has been asked.
    Asked,
    /// The store knows too little yet to be asked.
    Early,
}

/// What the engine wants from the store.
#[derive(Debug)]
pub(crate) struct Loads {
    /// Sessions that want messages, in turn.
    wanted: VecDeque<SessionKey>,
    /// What the store has not answered yet.
    asked: HashMap<SessionId, Asked, KeyedState>,
    /// Sessions that may ask once this batch is written.
    early: BTreeMap<SessionKey, Seq>,
    /// Bytes the answers may have.
    bytes: usize,
}

/// A question to the store.
#[derive(Clone, Copy, Debug)]
struct Asked {
    key: SessionKey,
    load: Load,
    /// The last number there was to ask for.
    through_seq: u64,
    /// With this batch, the store has all of that.
    batch: Seq,
    /// Whether it was written already.
    is_settled: bool,
    /// Set if the answer is of no use, and another question has to wait for this batch.
    stale_until: Option<Seq>,
}

impl Loads {
    pub(crate) fn new(hasher: KeyedState) -> Self {
        Self {
            wanted: VecDeque::new(),
            asked: HashMap::with_hasher(hasher),
            early: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl Session {
    /// Whether messages should come into memory: some are only on disk, and the Client can take more.
    fn wants_load(&self, (messages_max, bytes_max): (usize, usize)) -> bool {
        let is_open = self.link.as_ref().is_some_and(|link| !link.is_congested);
        if self.outbound.spilled().is_none() || !is_open {
            return false;
        }
        let (messages, bytes) = self.outbound.window();
        messages == 0 || messages <= messages_max / 2 && bytes <= bytes_max / 2
    }
}

impl Engine {
    /// The Session may be able to take more: if only the store has it, the store is asked in its turn.
    pub(crate) fn want_load(&mut self, key: SessionKey) {
        let window_max = self.window_max();
        if let Some(session) = self.sessions.get_mut(key)
            && session.loading == Loading::Idle
            && session.wants_load(window_max)
        {
            session.loading = Loading::Wanted;
            self.loads.wanted.push_back(key);
        }
    }

    /// Messages of this Session have left memory, and others were finished in between: the store must know
    /// that before it is asked, or it would bring back what the Client has acknowledged.
    pub(crate) fn hold_loads(&mut self, key: SessionKey) {
        let batch = self.next_batch();
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.loading == Loading::Asked {
            if let Some(asked) = self.loads.asked.get_mut(&session.id) {
                asked.stale_until = Some(batch);
            }
        } else {
            session.loading = Loading::Early;
            self.loads.early.insert(key, batch);
        }
    }

    /// Whoever waited for what is written now may ask.
    pub(crate) fn retry_loads(&mut self) {
        if self.loads.early.is_empty() {
            return;
        }
        let written = self.written;
        let due = self.loads.early.extract_if(.., |_, seq| *seq <= written);
        let due: Vec<_> = due.map(|(key, _)| key).collect();
        for key in due {
            // The key may stand for another Session by now.
            if let Some(session) = self.sessions.get_mut(key)
                && session.loading == Loading::Early
            {
                session.loading = Loading::Idle;
                self.want_load(key);
            }
        }
    }

    /// Asks for what is wanted, as far as there is memory for the answers. Called when the batch of this
    /// turn is out, so that the store can have what was spilled in it.
    pub(crate) fn run_loads(&mut self) {
        let window_max = self.window_max();
        while let Some(key) = self.loads.wanted.pop_front() {
            // The key may stand for another Session by now.
            let session = self.sessions.get_mut(key);
            let Some(session) = session.filter(|one| one.loading == Loading::Wanted) else {
                continue;
            };
            session.loading = Loading::Idle;
            if !session.wants_load(window_max) {
                continue;
            }
            let has_some = session.queued_bytes > 0;
            match self.load_size(key) {
                Some(size) => self.ask(key, size),
                // It asks again when the Client has acknowledged some of what it has.
                None if has_some => {}
                None => {
                    self.put_back(key);
                    return;
                }
            }
        }
    }

    fn put_back(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.loading = Loading::Wanted;
            self.loads.wanted.push_front(key);
        }
    }

    /// How many messages and bytes may be asked for now for this Session.
    fn load_size(&self, key: SessionKey) -> Option<(usize, usize)> {
        let session = self.sessions.get(key)?;
        let (messages, bytes) = session.outbound.window();
        let (messages_max, bytes_max) = self.window_max();
        let messages_max = messages_max.saturating_sub(messages).max(1);
        let bytes_max = bytes_max.saturating_sub(bytes).max(1);
        let after = self.loads.bytes.saturating_add(bytes_max);
        let is_free = after <= LOADING_BYTES_MAX && self.has_memory(session, after);
        if is_free && self.may_hold(session, bytes_max) {
            return Some((messages_max, bytes_max));
        }
        // However little memory is left, one Session after the other goes on, by one message.
        (session.queued_bytes == 0 && self.loads.asked.is_empty()).then_some((1, 1))
    }

    fn ask(&mut self, key: SessionKey, (messages_max, bytes_max): (usize, usize)) {
        let batch = self.wait_at(Level::Written).written;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(spilled) = session.outbound.spilled() else {
            return;
        };
        let load = Load {
            session: session.id,
            from_seq: spilled.first_seq,
            messages_max,
            bytes_max,
        };
        let asked = Asked {
            key,
            load,
            through_seq: spilled.last_seq,
            batch,
            is_settled: self.written >= batch,
            stale_until: None,
        };
        session.loading = Loading::Asked;
        self.loads.bytes += bytes_max;
        self.loads.asked.insert(load.session, asked);
        self.outputs.push_back(Output::Load(load));
    }

    /// The store's answer to an [`Output::Load`].
    pub fn on_loaded(&mut self, loaded: Loaded, now: Instant) {
        self.end_run();
        let Some(asked) = self.loads.asked.remove(&loaded.session) else {
            return;
        };
        self.loads.bytes -= asked.load.bytes_max;
        let key = asked.key;
        // The Session may have ended meanwhile, and the key stand for another one.
        let session = self.sessions.get_mut(key);
        let Some(session) = session.filter(|session| session.id == loaded.session) else {
            return;
        };
        session.loading = Loading::Idle;
        if let Some(batch) = asked.stale_until {
            self.load_after(key, batch);
        } else if session.link.is_some() && session.outbound.spilled().is_some() {
            if loaded.messages.is_empty() {
                self.on_nothing_loaded(&asked);
            }
            for message in loaded.messages {
                self.take_loaded(key, message, now);
            }
        }
        self.pump(key, now);
    }

    fn load_after(&mut self, key: SessionKey, batch: Seq) {
        if self.written < batch
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.loading = Loading::Early;
            self.loads.early.insert(key, batch);
        }
    }

    /// Either there is no such message, or the store does not have it yet.
    fn on_nothing_loaded(&mut self, asked: &Asked) {
        if asked.is_settled {
            self.change_spilled(asked.key, |queue| queue.pass_over(asked.through_seq));
        } else {
            self.load_after(asked.key, asked.batch);
        }
    }

    fn take_loaded(&mut self, key: SessionKey, loaded: LoadedMessage, now: Instant) {
        let target = loaded.target;
        let message = self.message_from(&loaded.message, now);
        let Some((message, qos)) = message.zip(Qos::from_level(target.qos)) else {
            // Not a message that this Server wrote: nobody can be sent it.
            self.counters.publishes_dropped += 1;
            self.change_spilled(key, |queue| queue.pass_over(target.seq));
            self.record_dequeued(target.session, target.seq);
            return;
        };
        let (charge, is_expired) = (Session::charge(&message), message.is_expired(now));
        let queued = Queued {
            message: Arc::new(message),
            subscription_identifiers: target.subscription_identifiers,
            seq: target.seq,
            qos,
            retain: target.retain,
            is_stored: true,
        };
        let taken = self.change_spilled(key, |queue| {
            queue.push_loaded(queued, charge as u64, is_expired)
        });
        let (session, seq) = (target.session, target.seq);
        match taken.unwrap_or(OnLoaded::Unwanted) {
            OnLoaded::Unwanted => {}
            OnLoaded::Queued => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.queued_bytes += charge;
                    self.counters.queued_bytes += charge as u64;
                    self.counters.queued_messages += 1;
                }
            }
            OnLoaded::Expired => {
                self.counters.messages_expired += 1;
                self.record_dequeued(session, seq);
            }
            OnLoaded::Released => {
                self.counters.messages_expired += 1;
                self.record(Record::Release { session, seq });
            }
        }
    }
}

/// A shard asks for no more bytes than this at once.
const LOADING_BYTES_MAX: usize = 16 * 1024 * 1024;
