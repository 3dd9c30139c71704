#![no_main]

#[path = "../bodies.rs"]
mod bodies;
#[path = "../../crates/proxy/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::engine(data));
