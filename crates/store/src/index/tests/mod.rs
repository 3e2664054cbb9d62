//! The index against a naive model.
//!
//! Owns: nothing but its parts. Start reading at `random`.

mod random;
