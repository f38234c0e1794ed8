//! See `manifests` in ../bodies/manifests.rs.
#![no_main]

#[path = "../bodies/manifests.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::manifests(data));
