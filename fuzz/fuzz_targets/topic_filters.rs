//! Bytes of libFuzzer into `bodies::topic_filters`.
#![no_main]

#[path = "../bodies/topic_filters.rs"]
mod topic_filters;

libfuzzer_sys::fuzz_target!(|data: &[u8]| topic_filters::run(data));
