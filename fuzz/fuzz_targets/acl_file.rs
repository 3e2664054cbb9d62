//! Bytes of libFuzzer into `bodies::acl_file`.
#![no_main]

#[path = "../bodies/acl_file.rs"]
mod acl_file;

libfuzzer_sys::fuzz_target!(|data: &[u8]| acl_file::run(data));
