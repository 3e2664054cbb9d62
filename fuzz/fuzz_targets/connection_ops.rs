//! Bytes of libFuzzer into `bodies::connection_ops`.
#![no_main]

#[path = "../bodies/connection_ops.rs"]
mod connection_ops;

libfuzzer_sys::fuzz_target!(|data: &[u8]| connection_ops::run(data));
