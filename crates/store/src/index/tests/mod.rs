//! The index against naive models.
//!
//! Owns: nothing but its parts. Start reading at `random`: any records in any order, against maps of
//! everything; then `cleaned`: a log that is cleaned and restarted, against what it should still say.

mod cleaned;
mod random;
mod single;
