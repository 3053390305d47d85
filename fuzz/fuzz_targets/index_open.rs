//! Any bytes as the indexes of a sound segment: every lookup gives what a walk over all gives.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzzing::index_open(data));
