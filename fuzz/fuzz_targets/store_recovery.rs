//! Bytes of libFuzzer into `bodies::store_recovery`.
#![no_main]

#[path = "../bodies/store_recovery.rs"]
mod store_recovery;

libfuzzer_sys::fuzz_target!(|data: &[u8]| store_recovery::run(data));
