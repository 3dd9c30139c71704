#![no_main]

#[path = "../bodies.rs"]
mod bodies;
#[path = "../../crates/proxy/tests/bench/mod.rs"]
mod bench;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::message(data));
