#![no_main]

#[path = "../../crates/proxy/tests/bench/mod.rs"]
mod bench;
#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bodies::engine(data);
});
