//! Bytes of libFuzzer into `bodies::session_ops`.
#![no_main]

#[path = "../bodies/session_ops.rs"]
mod session_ops;

libfuzzer_sys::fuzz_target!(|data: &[u8]| session_ops::run(data));
