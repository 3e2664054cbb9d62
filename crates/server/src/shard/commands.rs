//! What is asked of a shard from outside, and what a shard measures for the operator.
//!
//! Owns: [`Command`], the figures of `$SYS` that only the server can know. Does not own: what a
//! disconnected Client means (see `engine`). Start reading at [`Shard::take_commands`].
//! Invariant: a command is answered, or the shard has ended.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use engine::ConnectionKey;
use proto::packet::ReasonCode;
use store::Store;

#[cfg(feature = "quic")]
use super::Accepted;
use super::Shard;
use super::asking::Answered;
use crate::authentication::{Known, Verified};
use crate::persist::unix_millis;
use crate::reload::{ListenerPolicy, Policy};

/// One thing to do, asked from outside the shards.
#[derive(Debug)]
pub(crate) enum Command {
    /// End the connection of a Client whose home shard this is.
    Disconnect {
        /// Whose.
        client_id: String,
        /// Hears whether it was connected.
        answer: mpsc::Sender<bool>,
    },
    /// Say which Sessions have lost most messages.
    Losers {
        /// How many.
        count: usize,
        /// Hears it.
        answer: mpsc::Sender<Vec<(Arc<str>, engine::Lost)>>,
    },
    /// A user was added, changed or removed: what was proven before does not count any more.
    UserChanged {
        /// Which.
        user: Arc<str>,
        /// Hears that it is so.
        done: mpsc::Sender<()>,
    },
    /// What is known of users was read again.
    UsersRead {
        /// What was known.
        before: Known,
        /// What is known now.
        now: Known,
        /// Hears that it is so.
        done: mpsc::Sender<()>,
    },
    /// Go on with a connection that was parked.
    Verified {
        /// Which.
        key: ConnectionKey,
        /// What has come out.
        verified: Verified,
    },
    /// Go on with what a service has said.
    Answered(Answered),
    /// Serve a connection that came by another way than a listener of the shards.
    #[cfg(feature = "quic")]
    Accepted(Accepted),
    /// Go by another policy from now on.
    Reload {
        /// By which.
        policy: Arc<Policy>,
        /// Hears that it is so.
        done: mpsc::Sender<()>,
    },
    /// Take in new connections by this, with the rest of the policy as it is.
    Listeners {
        /// By what.
        listeners: Arc<[ListenerPolicy]>,
        /// Hears that it is so.
        done: mpsc::Sender<()>,
    },
}

impl<S: Store> Shard<S> {
    pub(super) fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Disconnect { client_id, answer } => {
                    let mut was_connected = false;
                    self.has_news = true;
                    self.guarded(|engine, now| {
                        let reason = ReasonCode::AdministrativeAction;
                        was_connected = engine.disconnect(&client_id, reason, now);
                    });
                    self.deliver();
                    // Who asked may not wait for the answer.
                    answer.send(was_connected).ok();
                }
                Command::Losers { count, answer } => {
                    answer.send(self.engine.losers(count)).ok();
                }
                Command::UserChanged { user, done } => {
                    self.on_user_changed(&user);
                    done.send(()).ok();
                }
                Command::UsersRead { before, now, done } => {
                    self.on_users_read(&before, &now);
                    done.send(()).ok();
                }
                #[cfg(feature = "quic")]
                Command::Accepted(accepted) => self.insert_accepted(accepted),
                Command::Answered(answered) => self.on_answered(answered),
                Command::Verified { key, verified } => self.on_verified(key, verified),
                Command::Reload { policy, done } => {
                    self.has_news = true;
                    self.guarded(|engine, _| engine.set_rules(Arc::clone(&policy.rules)));
                    let before = std::mem::replace(&mut self.policy, policy);
                    self.take_over_bounds(&before);
                    self.ask_all_again();
                    done.send(()).ok();
                }
                Command::Listeners { listeners, done } => {
                    let policy = Policy::clone(&self.policy);
                    self.policy = Arc::new(Policy {
                        listeners,
                        ..policy
                    });
                    done.send(()).ok();
                }
            }
        }
    }

    /// Tells the engine, now and then, what the calendar says, and what `$SYS` says of sockets and memory.
    pub(super) fn measure(&mut self) {
        let is_recent = |at| self.now.duration_since(at) < MEASURE_INTERVAL;
        if self.measured_at.is_some_and(is_recent) {
            return;
        }
        let is_first_time = self.measured_at.replace(self.now).is_none();
        self.engine.on_calendar(unix_millis(), self.now);
        self.engine.shrink();
        self.pool.trim();
        if self.connections.len() < self.connections.capacity() / SPARSE {
            self.connections.shrink_to_fit();
        }
        // The memory is that of all shards; one of them says it.
        let memory = if self.links.own().0 == 0 {
            resident_bytes()
        } else {
            (0, 0)
        };
        // At the first time not every shard has said what it holds.
        if memory.0 > 0 && !is_first_time {
            self.shared.governor.on_resident(memory.0);
        }
        self.engine.measure(self.connections.len() as u64, memory);
        if self.links.own().0 == 0 {
            let topics = self.sys_topics();
            self.engine.tell_sys(topics);
        }
    }

    /// What the store says of itself, and the alarms; with no store, alarms only.
    fn sys_topics(&self) -> Vec<(&'static str, String)> {
        let figures = self.shared.figures.as_ref();
        let mut topics = figures.map_or_else(
            || vec![("alarms", NO_ALARM.to_owned())],
            |figures| figures.topics(),
        );
        let (failures, bans) = self.shared.bans.counts(self.now);
        let (_, flapping) = self.shared.flapping.counts(self.now);
        topics.push(("limits/connects/flapping", flapping.to_string()));
        topics.extend(self.shared.turnstile.topics());
        topics.push(("logins/failed", failures.to_string()));
        topics.push(("logins/banned", bans.to_string()));
        topics.extend(self.shared.governor.topics());
        let (asked, silent) = self.shared.outbound.topics();
        topics.extend(asked);
        if let Some((_, alarms)) = topics.iter_mut().find(|(name, _)| *name == "alarms") {
            if alarms == NO_ALARM {
                alarms.clear();
            }
            self.shared.standing.append_to(alarms);
            for alarm in silent {
                if !alarms.is_empty() {
                    alarms.push('\n');
                }
                alarms.push_str(&alarm);
            }
            if alarms.is_empty() {
                alarms.push_str(NO_ALARM);
            }
        }
        topics
    }
}

/// Resident memory of the process and the most there ever was of it.
pub(crate) fn resident_bytes() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    memory_bytes(&status)
}

/// Resident memory and the most there ever was of it, from the text of `/proc/self/status`; zero where
/// the system does not say.
fn memory_bytes(status: &str) -> (u64, u64) {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        kibibytes.checked_mul(1024)
    };
    let current = bytes("VmRSS:").unwrap_or(0);
    (current, bytes("VmHWM:").unwrap_or(current))
}

/// What `alarms` says where there is none; an empty value would take the topic away.
const NO_ALARM: &str = "none";
/// Of the places for connections at least one in so many is in use, or those behind the last one go.
const SPARSE: usize = 8;
/// The system is not asked more often.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tvencejo\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n";
        assert_eq!(memory_bytes(status), (1 << 20, 2 << 20));
        assert_eq!(memory_bytes(""), (0, 0));
    }
}
