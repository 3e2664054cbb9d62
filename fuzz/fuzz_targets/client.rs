//! Bytes of libFuzzer into `bodies::client`.
#![no_main]

#[path = "../bodies/client.rs"]
mod client;

libfuzzer_sys::fuzz_target!(|data: &[u8]| client::run(data));
