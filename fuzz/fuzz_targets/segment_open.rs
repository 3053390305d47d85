//! Any bytes as a segment: it opens; what is read was in it, what is whole before damage is read; a second open finds the
//! same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzzing::segment_open(data));
