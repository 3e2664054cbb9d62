//! The binary from outside: `vencejo` as processes, over real sockets, with the files of an operator.
//!
//! Owns: nothing but tests. Does not own: what is inside (see the tests of the other crates). Start reading at
//! [`program`], then any test. Invariant: every process and every folder ends with its test.

mod bench;
mod command_line;
mod configuration;
mod data_folder;
mod doors;
mod emqx;
mod explore;
#[cfg(target_os = "linux")]
mod given_back;
mod imported;
mod inspection;
mod json;
mod messages;
mod mistakes;
mod mosquitto;
mod nanomq;
mod open_files;
mod profiles;
mod program;
mod proofs;
#[cfg(feature = "quic")]
mod quic;
mod retained;
mod secrets;
mod tool_flags;
mod watched_files;
mod ways;
