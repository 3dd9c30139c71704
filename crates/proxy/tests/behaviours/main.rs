//! How the running proxy behaves: one file per behaviour, named for it. They are one binary, since linking is slow; they run in parallel,
//! each with processes and addresses of its own.

#![allow(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod message;
mod peer;
#[path = "../process/mod.rs"]
mod process;
mod stage;
mod watching;

mod ack_lost;
mod ack_with_wrong_branch;
mod best_response;
mod bye_before_ack;
mod capture_file;
mod challenges_merged;
mod compact_forms;
mod double_record_route;
mod early_dialog_update;
mod failover;
mod forked_call_answered_twice;
mod identity_headers;
mod large_body_over_tcp;
mod late_final_after_timer_c;
mod loop_detected;
mod many_vias_and_headers;
mod max_breadth;
mod methods_in_dialog;
mod methods_outside_dialogs;
mod ok_and_cancel_cross;
mod ok_retransmitted;
mod options_to_the_edge;
mod pass_through;
mod provisionals_from_two_branches;
mod reinvite_glare;
mod rfc_2543_caller;
mod scanner_silence;
mod server_failover;
mod sips;
mod spiral;
mod stateless_cancel;
mod strict_route_peer;
mod transport_failure;
mod truncated;
mod udp_to_tcp_by_size;
mod via_and_folding;
mod watch_filters;
mod watch_hides_secrets;
mod watch_limits;
mod watch_overflow;
mod watched_call;
