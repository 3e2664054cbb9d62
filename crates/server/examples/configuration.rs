//! Prints the reference of all keys, for `cargo xtask configuration`.
//!
//! Owns: nothing. Does not own: the reference (see `config::reference`). Start reading at [`main`].
//! Invariant: what it prints is all of the reference.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(vencejo_server::config::reference().as_bytes())
}
