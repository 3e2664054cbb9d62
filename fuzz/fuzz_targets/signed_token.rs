//! Bytes of libFuzzer into `bodies::signed_token`.
#![no_main]

#[path = "../bodies/signed_token.rs"]
mod signed_token;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    signed_token::run(data);
});
