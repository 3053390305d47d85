//! Any control page and any checkpoint beside sound segments: nothing that was appended is lost, nothing else is read, no
//! offset is used again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzzing::state_open(data));
