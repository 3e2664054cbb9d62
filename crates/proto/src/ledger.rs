//! How many bytes the Application Messages of a thread take.
//!
//! Owns: [`Counted`], [`live_message_bytes`]. Does not own: what is done about it (see the server's governor).
//! Start reading at [`live_message_bytes`]. Invariant: nothing in this crate looks at the sum, so nothing it does
//! depends on it; a message that ends on another thread is taken off there, so only the sum over all threads says
//! something.

use std::cell::Cell;

/// What the messages made on this thread take, less what those take that have ended on it: shared ones once, however
/// many hold them. May be below zero; added up over all threads that make or end messages it is what there is.
#[must_use]
pub fn live_message_bytes() -> i64 {
    LIVE.with(Cell::get)
}

/// The bytes of one message, counted as long as it is there.
#[derive(Debug)]
pub(crate) struct Counted(u32);

impl Counted {
    pub(crate) fn new(bytes: usize) -> Self {
        // A packet has fewer bytes than that.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        add(i64::from(bytes));
        Self(bytes)
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        add(i64::from(self.0));
        Self(self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        add(-i64::from(self.0));
    }
}

fn add(bytes: i64) {
    LIVE.with(|live| live.set(live.get().wrapping_add(bytes)));
}

thread_local! {
    // No destructor and no lazy start: a message costs two additions in its life, and no thread waits for another.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "what threads do to the sum is what is tested"
)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::{Message, Qos};

    #[test]
    fn message_counts_once_from_its_beginning_to_its_end_on_any_thread() {
        let before = live_message_bytes();
        let payload = vec![0; 10_000].into();
        let message = Message::new("a", payload, Qos::AtMostOnce, false, Instant::now());
        let message = Arc::new(message);
        let held = (live_message_bytes() - before, Arc::clone(&message));
        assert!((10_000..10_300).contains(&held.0), "{}", held.0);
        let other = Message::clone(&message);
        assert_eq!(live_message_bytes() - before, 2 * held.0);
        drop((message, other));
        assert_eq!(live_message_bytes() - before, held.0);
        let elsewhere = std::thread::spawn(move || {
            drop(held.1);
            live_message_bytes()
        });
        let elsewhere = elsewhere.join().expect("no panic");
        assert_eq!(live_message_bytes() - before + elsewhere, 0);
    }
}
