//! How the running proxy behaves: one file per behaviour, named for it. They are one binary, since linking is slow; they run in parallel,
//! each with processes and addresses of its own.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod message;
mod peer;
#[path = "../process/mod.rs"]
mod process;
mod stage;

mod compact_forms;
mod double_record_route;
mod forked_call_answered_twice;
mod identity_headers;
mod large_body_over_tcp;
mod many_vias_and_headers;
mod methods_outside_dialogs;
mod options_to_the_edge;
mod pass_through;
mod scanner_silence;
mod server_failover;
mod sips;
mod strict_route_peer;
mod transport_failure;
mod udp_to_tcp_by_size;
mod via_and_folding;
