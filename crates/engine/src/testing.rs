//! Tools of the tests: a start of time.

use std::time::Instant;

#[allow(
    clippy::disallowed_methods,
    reason = "tests need one instant to begin from"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}
