//! Queued QoS 2 messages that count only once their publisher's shard has said so.
//!
//! Owns: [`Origins`], during a recovery. Does not own: queues. Start reading at [`Origins::add`].
//! Invariant: what is committed is not kept, so that there are never more than were under way at once.

use std::collections::BTreeMap;

use super::Location;
use crate::{Origin, SessionId};

#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<Origin, Vec<Uncommitted>>);

/// One Enqueue record.
#[derive(Debug)]
struct Uncommitted {
    at: Location,
    targets: Box<[(SessionId, u64)]>,
}

impl Origins {
    pub(super) fn add(
        &mut self,
        origin: Origin,
        at: Location,
        targets: impl Iterator<Item = (SessionId, u64)>,
    ) {
        let targets = targets.collect();
        let of_origin = self.0.entry(origin).or_default();
        of_origin.push(Uncommitted { at, targets });
    }

    /// All messages of `session` up to `number` count.
    pub(super) fn commit(&mut self, session: SessionId, number: u64) {
        let origin = |number| Origin { session, number };
        while let Some((&first, _)) = self.0.range(origin(0)..=origin(number)).next() {
            self.0.remove(&first);
        }
    }

    /// The targets of all messages whose number is above the one `committed` returns for their publisher,
    /// if it returns one, with where the message is.
    pub(super) fn above(
        &self,
        committed: impl Fn(SessionId) -> Option<u64>,
    ) -> impl Iterator<Item = (Location, SessionId, u64)> {
        self.0
            .iter()
            .filter(move |(origin, _)| {
                committed(origin.session).is_some_and(|number| origin.number > number)
            })
            .flat_map(|(_, all)| all)
            .flat_map(|of| {
                of.targets
                    .iter()
                    .map(|&(session, seq)| (of.at, session, seq))
            })
    }
}
