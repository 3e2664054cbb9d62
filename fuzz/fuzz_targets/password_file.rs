//! Bytes of libFuzzer into `bodies::password_file`.
#![no_main]

#[path = "../bodies/password_file.rs"]
mod password_file;

libfuzzer_sys::fuzz_target!(|data: &[u8]| password_file::run(data));
