//! Any sequence of a log's operations, with faults and crashes, beside a plain model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzzing::operations(data));
