//! Whether somebody still waits for an answer.
//!
//! Owns: [`Ticket`], which who waits holds, and [`Stub`], which who works for it looks at. Does not own: the
//! answer. Start reading at [`Ticket`]. Invariant: a stub never keeps who waits alive.

use tokio::sync::watch;

/// Held by who waits, and dropped with it.
#[derive(Debug)]
pub(crate) struct Ticket(watch::Sender<()>);

/// Tells who works whether anybody waits.
#[derive(Clone, Debug)]
pub(crate) struct Stub(watch::Receiver<()>);

impl Ticket {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(crate) fn stub(&self) -> Stub {
        Stub(self.0.subscribe())
    }
}

impl Stub {
    /// Whether nobody waits any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Returns when nobody waits any more.
    pub(crate) async fn gone(&mut self) {
        // Nothing is ever sent.
        while self.0.changed().await.is_ok() {}
    }
}
