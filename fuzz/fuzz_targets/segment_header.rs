//! Any bytes as the header of a segment: no panic, and what decodes encodes to the same bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzzing::segment_header(data));
