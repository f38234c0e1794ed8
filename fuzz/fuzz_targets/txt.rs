//! See `txt` in ../bodies/txt.rs.
#![no_main]

#[path = "../bodies/txt.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::txt(data));
