#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| copr_keygen::fuzzing::run("gen_key", data));
