//! How another machine is asked, whatever it is asked.
//!
//! Owns: [`AskConfig`] and its defaults. Does not own: where it is and what it is asked (see what names it).
//! Start reading at [`AskConfig`]. Invariant: every value is in its range.

use std::time::Duration;

/// How another machine is asked: how patiently, how often, and what counts while it does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskConfig {
    /// For so long an answer is waited for. Default: 5 s.
    pub timeout: Duration,
    /// So many questions are under way at once; others wait in turn. Default: 64.
    pub at_once: usize,
    /// What counts without an answer. Default: deny.
    pub on_error: OnError,
    /// For so long a yes is good. Default: 1 minute; 0 asks at each login.
    pub cache_allow: Duration,
    /// For so long a no is good. Default: 5 s; 0 asks again at once.
    pub cache_deny: Duration,
    /// So many answers are kept of each kind. Default: 10,000.
    pub cache_entries: usize,
    /// After so many questions in a row without an answer nothing is asked for a while. Default: 5; 0 goes
    /// on asking.
    pub failures_max: u32,
    /// How long that while is; then one question tries whether there are answers again. Default: 5 s.
    pub pause: Duration,
}

/// What counts where another machine has not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Nobody is let in: 0x88 (Server unavailable), or 3 in 3.x.
    #[default]
    Deny,
    /// The next authenticator is asked, as if this one knew nothing.
    Next,
}

impl Default for AskConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            at_once: 64,
            on_error: OnError::Deny,
            cache_allow: Duration::from_secs(60),
            cache_deny: Duration::from_secs(5),
            cache_entries: 10_000,
            failures_max: 5,
            pause: Duration::from_secs(5),
        }
    }
}
