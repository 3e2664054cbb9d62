//! The part of a queue whose messages are on a disk: only their numbers are here.
//!
//! Owns: which numbers are left to load, how many messages that is, which of them the peer may have seen.
//! Does not own: the messages, when they are loaded. Start reading at [`Spilled::take`].
//! Invariant: every number in here is above those of all messages of the queue that are in memory.

/// What is known of the messages that are not in memory. Not every number need have a message; what no
/// number says is how many bytes a single message has, so `bytes` is exact only while none is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spilled {
    /// No message here has a lower number.
    pub first_seq: u64,
    /// No message here has a higher number.
    pub last_seq: u64,
    /// How many there are.
    pub count: u64,
    /// Bytes of them, as the owner of the queue counts.
    pub bytes: u64,
    /// How many of the first were sent before, or may have been.
    pub sent_count: u64,
    /// No number up to this one is dropped: the peer may have seen it, and may be owed its PUBREL.
    kept_through: u64,
    /// What has this number or a lower one was sent for sure.
    sent_through: u64,
    /// These numbers were dropped last, although the disk may not know it yet.
    dropped: (u64, u64),
}

/// Whether a message was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    No,
    /// It was among those that may have been in flight when the process ended.
    Perhaps,
    Yes,
}

impl Spilled {
    /// A queue as it is found after a restart. Its first `sent_max` messages may have been sent.
    #[must_use]
    pub fn restored(
        (first_seq, last_seq): (u64, u64),
        count: u64,
        bytes: u64,
        sent_max: u64,
    ) -> Self {
        let sent_count = sent_max.min(count);
        // Numbers without a message may all be among the first.
        let missing = (last_seq.saturating_sub(first_seq) + 1).saturating_sub(count);
        let kept = sent_count.saturating_add(missing);
        Self {
            first_seq,
            last_seq,
            count,
            bytes,
            sent_count,
            kept_through: first_seq
                .saturating_add(kept)
                .saturating_sub(1)
                .min(last_seq),
            ..Self::default()
        }
    }

    /// Nothing yet; the next message that comes has the number `seq`.
    pub(super) fn beginning_at(seq: u64) -> Self {
        Self {
            first_seq: seq,
            ..Self::default()
        }
    }

    /// Whether no number is left.
    pub(super) const fn is_over(&self) -> bool {
        self.first_seq > self.last_seq
    }

    /// A new message, behind all others.
    pub(super) const fn push_back(&mut self, seq: u64, bytes: u64) {
        self.last_seq = seq;
        self.count += 1;
        self.bytes += bytes;
    }

    /// A message that was in memory, before all others; `is_sent` if it is in flight.
    pub(super) fn push_front(&mut self, seq: u64, bytes: u64, is_sent: bool) {
        self.first_seq = seq;
        self.last_seq = self.last_seq.max(seq);
        self.count += 1;
        self.bytes += bytes;
        if is_sent {
            self.sent_count += 1;
            self.keep_through(seq);
            self.sent_through = self.sent_through.max(seq);
        }
    }

    /// The peer may have seen what has this number or a lower one.
    pub(super) fn keep_through(&mut self, seq: u64) {
        self.kept_through = self.kept_through.max(seq);
    }

    /// The message with this number comes into memory. Returns what the peer may know of it, or `None` if it
    /// is not wanted: it is here already, or was dropped.
    pub(super) fn take(&mut self, seq: u64, bytes: u64) -> Option<Sent> {
        let is_dropped = (self.dropped.0..=self.dropped.1).contains(&seq);
        if !(self.first_seq..=self.last_seq).contains(&seq) || is_dropped {
            return None;
        }
        self.first_seq = seq + 1;
        self.forget_one(bytes);
        let sent = match self.sent_count {
            0 => Sent::No,
            _ if seq <= self.sent_through => Sent::Yes,
            _ => Sent::Perhaps,
        };
        self.sent_count = self.sent_count.saturating_sub(1);
        Some(sent)
    }

    /// Drops the oldest message the peer cannot have seen. Returns its number; there may be no message
    /// with it.
    pub(super) fn drop_oldest(&mut self) -> Option<u64> {
        let mut seq = self.first_seq.max(self.kept_through + 1);
        if (self.dropped.0..=self.dropped.1).contains(&seq) {
            seq = self.dropped.1 + 1;
        }
        if seq > self.last_seq {
            return None;
        }
        if seq == self.first_seq {
            self.first_seq += 1;
        } else if self.dropped.1 + 1 == seq {
            self.dropped.1 = seq;
        } else {
            self.dropped = (seq, seq);
        }
        self.forget_one(self.bytes / self.count.max(1));
        Some(seq)
    }

    /// No number up to this one has a message any more.
    pub(super) fn pass_over(&mut self, through_seq: u64) {
        self.first_seq = self.first_seq.max(through_seq.saturating_add(1));
    }

    const fn forget_one(&mut self, bytes: u64) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_dropped_by_its_number_but_not_what_the_peer_may_have_seen() {
        let mut spilled = Spilled::restored((10, 14), 5, 500, 2);
        assert_eq!(spilled.drop_oldest(), Some(12));
        assert_eq!(spilled.drop_oldest(), Some(13));
        assert_eq!((spilled.count, spilled.bytes), (3, 300));
        assert_eq!(spilled.take(10, 100), Some(Sent::Perhaps));
        assert_eq!(spilled.take(10, 100), None);
        assert_eq!(spilled.take(11, 100), Some(Sent::Perhaps));
        assert_eq!(spilled.take(12, 100), None);
        assert_eq!(spilled.take(14, 100), Some(Sent::No));
        assert!(spilled.is_over());
        assert_eq!(spilled.drop_oldest(), None);
    }

    #[test]
    fn a_number_without_a_message_does_not_shrink_what_is_kept() {
        // 10 and 14 to 16 have messages, the first two of them may have been sent.
        let mut spilled = Spilled::restored((10, 16), 4, 400, 2);
        assert_eq!(spilled.drop_oldest(), Some(15));
        assert_eq!(spilled.take(10, 100), Some(Sent::Perhaps));
        assert_eq!(spilled.take(14, 100), Some(Sent::Perhaps));
        assert_eq!(spilled.drop_oldest(), Some(16));
    }
}
