//! Any bytes as a frame: no panic, and what decodes is what the encoder writes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzzing::frame_decode(data));
