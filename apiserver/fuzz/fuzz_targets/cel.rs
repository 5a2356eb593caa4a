#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| peapod_apiserver_fuzz::cel(input));
