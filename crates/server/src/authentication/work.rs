//! What it takes to decide on a Client, where that takes long.
//!
//! Owns: [`Work`], and what a connection that waits is told. Does not own: who does it (see `super::verifiers`
//! for what computes, `crate::outbound` for what asks another machine). Start reading at [`Work`].
//! Invariant: none of it is done on a shard.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::Decision;
use crate::outbound::{Lane, Question};

/// What is done off the shards; `None` asks the next authenticator.
pub struct Work(pub(crate) Kind);

/// The two ways to take long.
pub(crate) enum Kind {
    /// It computes, on a thread of the verifiers.
    Computing(Computation),
    /// It waits for another machine, and holds no thread meanwhile.
    Asking(Arc<Lane<Verified>>, Question<Option<Decision>>),
}

pub(crate) type Computation = Box<dyn FnOnce() -> Option<Decision> + Send>;

impl Work {
    /// Decides by `work`, which may compute long.
    pub fn new(work: impl FnOnce() -> Option<Decision> + Send + 'static) -> Self {
        Self(Kind::Computing(Box::new(work)))
    }

    /// Decides by what another machine says, when it is its turn in `lane`.
    pub(crate) fn asking(
        lane: Arc<Lane<Verified>>,
        question: impl Future<Output = Option<Decision>> + Send + 'static,
    ) -> Self {
        Self(Kind::Asking(lane, Box::pin(question)))
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

/// What a connection that waits is told.
#[derive(Debug)]
pub(crate) enum Verified {
    /// It was verified; `None` asks the next authenticator.
    Done(Option<Decision>),
    /// Too many wait.
    Busy,
    /// It is not wanted any more: others have failed too often.
    Banned,
    /// The verification has failed on it, which says nothing of the Client.
    Failed,
}
