//! Any bytes as an event, and any headers as those of a dead letter: no panic, and what decodes encodes to the same
//! event.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzzing::typed_decode(data));
