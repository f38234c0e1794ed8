//! See `connect_answer` in ../bodies/wire.rs.
#![no_main]

#[path = "../bodies/wire.rs"]
#[allow(dead_code, reason = "each target runs one body")]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::connect_answer(data));
