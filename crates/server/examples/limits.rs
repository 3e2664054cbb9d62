//! Prints the page of all limits, for `cargo xtask limits`.
//!
//! Owns: nothing. Does not own: the page (see `config::limits_page`). Start reading at [`main`].
//! Invariant: what it prints is all of the page.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(vencejo_server::config::limits_page().as_bytes())
}
