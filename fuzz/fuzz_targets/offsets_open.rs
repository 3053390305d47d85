//! Any records, and any segment, of `__offsets`: it says what a plain fold says, and a new snapshot says the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidelog::fuzzing::offsets_open(data));
