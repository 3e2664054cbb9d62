//! Connections that are there when limits change.
//!
//! Owns: what of other limits counts for whoever is connected. Does not own: the limits (see `crate::bounds`), those of the
//! engine (see `engine::Engine::set_limits`). Start reading at [`Shard::take_over_bounds`]. Invariant: a Client is not
//! disconnected because a limit became lower, and one that waited for the old one does not wait for longer.

use std::sync::Arc;

use engine::ConnectionKey;
use proto::connection::ServerLimits;
use store::Store;

use super::Shard;
use crate::reload::Policy;

impl<S: Store> Shard<S> {
    /// There is a new policy, and before there was this one. O(connections) if their limits have changed.
    pub(super) fn take_over_bounds(&mut self, before: &Policy) {
        let policy = Arc::clone(&self.policy);
        let of_listeners = |policy: &Policy| -> Vec<_> {
            let listeners = policy.listeners.iter();
            let limits = listeners.map(|of| (of.limits, Arc::clone(&of.server_limits)));
            limits.collect()
        };
        let is_same = policy.bounds == before.bounds;
        if is_same && of_listeners(&policy) == of_listeners(before) {
            return;
        }
        let limits = Arc::clone(&policy.bounds.engine);
        let by_listener = policy.bounds.by_listener.clone();
        self.guarded(|engine, now| engine.set_limits(limits, by_listener, now));
        let keys: Vec<ConnectionKey> = self.connections.iter().map(|(_, one)| one.key).collect();
        let mut kept = Kept::default();
        for key in keys {
            self.relimit(key, &mut kept);
            self.keep_unsent(key, before.bounds.unsent_bytes_max);
            self.tell_congestion(key);
        }
    }

    /// A connection that has more unsent than it may have now may have as much as `before`, until it has less.
    fn keep_unsent(&mut self, key: ConnectionKey, before: usize) {
        let max = self.policy.bounds.unsent_bytes_max;
        if let Some(connection) = self.connection_mut(key)
            && connection.unsent.own_len() > max
        {
            let seldom = connection.seldom();
            let kept = seldom.unsent_bytes_max.unwrap_or(0).max(before);
            seldom.unsent_bytes_max = Some(kept);
        }
    }

    fn relimit(&mut self, key: ConnectionKey, kept: &mut Kept) {
        let now = self.now;
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let listener = connection.listener;
        let user = connection.principal.as_ref();
        let user = user.and_then(|principal| principal.user.clone());
        if !connection.is_served() {
            return;
        }
        let pace = self.pace_of(key, user.as_ref());
        let limits = self.policy.listener(listener);
        let limits = limits.map(|of| Arc::clone(&of.server_limits));
        let shared = Arc::clone(&self.shared);
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        if let Some(limits) = limits {
            let told = kept.told(connection.protocol.limits(), &limits);
            connection.protocol.set_limits(told);
        }
        let (seat, origin) = (connection.seat.take(), connection.peer.origin());
        connection.seat = shared.turnstile.seat_again(seat, origin, user.as_ref());
        if pace.is_some() || connection.seldom.is_some() {
            let seldom = connection.seldom();
            let before = seldom.pace.take();
            seldom.pace = pace.map(|pace| pace.after(before, now));
        }
        if connection.flags.is_ahead {
            // By which limits it waited is not asked: it has a turn, and waits by the new ones then.
            connection.seldom().resumes_at = Some(now);
            self.arm(key);
        } else {
            connection.leave_seldom();
        }
    }
}

/// What Clients were told, each with what of other limits they are not told; many share one.
#[derive(Debug, Default)]
struct Kept(Vec<[Arc<ServerLimits>; 2]>);

impl Kept {
    fn told(&mut self, told: &Arc<ServerLimits>, now: &ServerLimits) -> Arc<ServerLimits> {
        let Self(known) = self;
        if let Some([_, both]) = known.iter().find(|[of, _]| Arc::ptr_eq(of, told)) {
            return Arc::clone(both);
        }
        let both = Arc::new(ServerLimits {
            user_properties_max: now.user_properties_max,
            properties_bytes_max: now.properties_bytes_max,
            ..**told
        });
        known.push([Arc::clone(told), Arc::clone(&both)]);
        both
    }
}
